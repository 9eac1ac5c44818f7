"""Bench on a cluster: compares our hub with plain KubeSpawner and our engine with a bare KubeCluster, on one image."""
