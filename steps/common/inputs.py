"""How a month is found, or made up."""

import argparse
from functools import partial
from pathlib import Path

from storage.data import months
from storage.data.months import MonthFile
from taxi import simulation


def find(args: argparse.Namespace, month: str, work_dir: Path) -> MonthFile:
    """Bring one month's file to this machine."""
    simulate = partial(simulation.month_batches, taxi=args.taxi)
    return months.find(
        args.source, taxi=args.taxi, month=month, work_dir=work_dir, simulate=simulate
    )
