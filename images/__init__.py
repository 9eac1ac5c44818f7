"""Builds the images that people start (`python -m images`); each image's Dockerfile lists its contents."""
