"""cnai_hub: JupyterHub behind the catalog of cnai, on one machine or a cluster.

`configure(c)` is everything that a `jupyterhub_config.py` needs.
"""

from __future__ import annotations

from cnai_hub.local.configuration import configure

__all__ = ["configure"]
