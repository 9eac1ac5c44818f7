"""Kubernetes: an engine is a DaskCluster in the person's own namespace, its nodes are pods."""
