"""How a month is brought here, or made up."""

from functools import partial
from pathlib import Path

from storage.data import months
from storage.data.months import MonthFile
from taxi import simulation


def find_month(source: str, taxi: str, month: str, work_dir: Path) -> MonthFile:
    """Bring one month's file to this machine, or make it up."""
    simulate = partial(simulation.month_batches, taxi=taxi)
    return months.find(source, taxi=taxi, month=month, work_dir=work_dir, simulate=simulate)
