"""Engine: what happens between a RunSpec and the ranks, the same for every backend."""
