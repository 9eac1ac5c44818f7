"""Training: what user code has in a rank: resumable steps, sharded batches, checkpoints, metrics."""
