"""What happens: a module or package per entry point, run as `python -m steps.<name>`."""

import sys

from storage import environment

if sys.argv[:1] == ["-m"]:  # Python looks for the step to run, and has imported no library yet
    environment.prepare()
