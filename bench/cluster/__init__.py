"""Bench on a cluster: our hub beside plain KubeSpawner, our engine beside a bare KubeCluster, with the same image."""
