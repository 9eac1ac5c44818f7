"""Engine: everything between a RunSpec and the ranks, the same for every backend."""
