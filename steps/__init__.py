"""What happens: a module or package per entry point, run as `python -m steps.<name>`."""
