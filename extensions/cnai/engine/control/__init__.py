"""Control: takes runs through their generations, in the Dask scheduler's process; and the client of that process."""
