"""The numbers in README, each measured side by side in one run: `make bench`.

One measurement: `python -m bench cleaning`. Real months come from TAXI_DATA.
"""

import os
from pathlib import Path
from typing import NamedTuple

DATA = Path(os.environ.get("TAXI_DATA", Path(__file__).parent.parent / "../shared/data")).resolve()


class Result(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    must: str
