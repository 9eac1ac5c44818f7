"""cnai_hub: JupyterHub behind the catalog of cnai, on one machine or a cluster.

A `jupyterhub_config.py` only needs to call `configure(c)`.
"""

from __future__ import annotations

from cnai_hub.local.configuration import configure

__all__ = ["configure"]
