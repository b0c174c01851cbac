"""The entry point main: the whole pipeline, its plan and its rerun command."""
