"""An existing Dask cluster as an executor: nothing is installed or kept on its workers."""
