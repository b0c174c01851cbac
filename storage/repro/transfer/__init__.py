"""A pipeline with all that belongs to it, from one store into another as one file."""
