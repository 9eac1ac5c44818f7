"""Training: what a rank offers to user code: resumable steps, sharded batches, checkpoints, metrics."""
