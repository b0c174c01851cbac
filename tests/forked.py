"""What a process that is forked in a test does: the Python that it is given."""

import sys


def main() -> None:
    """Do it."""
    exec(sys.argv[1])
