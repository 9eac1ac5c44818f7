"""What the Zero to JupyterHub chart makes of values, as far as ours need it: so that they run without the chart.

Own code after the chart's documented behavior of release 4.4; the names of objects, labels, ports, mounts and
environment variables are those that the chart gives them.
"""

from z2jh.defaults import DEFAULTS, merged
from z2jh.manifests import manifests, new_secrets

__all__ = ["DEFAULTS", "manifests", "merged", "new_secrets"]
