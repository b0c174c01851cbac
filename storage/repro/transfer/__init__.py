"""Transfer of a pipeline, with all that belongs to it, from store to store as one file."""
