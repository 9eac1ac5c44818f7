"""Node: a machine or pod that holds ranks; `dask worker --preload cnai.engine.node` makes a Dask worker one.

Nothing is imported here: a node begins to load torch before anything else.
"""

from __future__ import annotations

from typing import Any


def dask_setup(worker: Any) -> None:
    """Make a Dask worker a node."""
    from cnai.engine.node import node

    node.dask_setup(worker)
