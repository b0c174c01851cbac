"""Tools that developers and users run besides the pipeline."""
