"""Control: beside the Dask scheduler, what takes runs through their generations; and a process's line to it."""
