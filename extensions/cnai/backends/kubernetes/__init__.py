"""Kubernetes: an engine is a DaskCluster in the person's own namespace; its scheduler and nodes are pods."""
