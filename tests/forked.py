"""A module for processes that tests fork: it runs the Python code that it is given."""

import sys


def main() -> None:
    """Run the code."""
    exec(sys.argv[1])
