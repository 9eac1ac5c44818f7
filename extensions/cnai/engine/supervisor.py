"""The name of the scheduler's preload: `dask scheduler --preload cnai.engine.supervisor`."""

from __future__ import annotations

from cnai.engine.control.supervisor import dask_setup, dask_teardown

__all__ = ["dask_setup", "dask_teardown"]
