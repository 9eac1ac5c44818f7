"""Node: a machine or pod that holds ranks; `dask worker --preload cnai.engine.node` turns a Dask worker into a node.

This module imports nothing: a node starts to load torch before everything else.
"""

from __future__ import annotations

from typing import Any


def dask_setup(worker: Any) -> None:
    """Turn a Dask worker into a node."""
    from cnai.engine.node import node

    node.dask_setup(worker)
