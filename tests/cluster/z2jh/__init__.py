"""The manifests of the Zero to JupyterHub chart for our values, so that tests can install them without the chart.

This is our own code, written after the documented behavior of release 4.4; objects, labels, ports, mounts and
environment variables have the names that the chart gives them.
"""

from z2jh.defaults import DEFAULTS, merged
from z2jh.manifests import manifests, new_secrets

__all__ = ["DEFAULTS", "manifests", "merged", "new_secrets"]
