"""Build the images that people start: `python -m images`; what each holds is in its Dockerfile."""
