"""Which months go where, and how one is found."""

import argparse
from functools import partial
from pathlib import Path

from storage import StorageError, months
from storage.months import MonthFile
from taxi import simulation


def split_months(train: str, valid: str, test: str) -> dict[str, list[str]]:
    """Say which months go where: split -> months; no entry for a test set that is not wanted.

    Raises:
        StorageError: a month is none, train or valid are empty, or two splits share a month.
    """
    splits = {"train": months.parse_months(train), "valid": months.parse_months(valid)}
    for split, names in splits.items():
        if not names:
            raise StorageError(f"{split}_months is empty. Pass -P {split}_months=YYYY-MM.")
    if test == "next":
        splits["test"] = [months.next_month(max(splits["valid"]))]
    elif test.strip():
        splits["test"] = months.parse_months(test)
    taken: dict[str, str] = {}
    for split, names in splits.items():
        for month in names:
            if month in taken:
                raise StorageError(
                    f"Month {month} is in {taken[month]}_months and in {split}_months. "
                    f"Pass each month once: a model must not be judged on what it was fitted to."
                )
            taken[month] = split
    return splits


def find(args: argparse.Namespace, month: str, work_dir: Path) -> MonthFile:
    """Bring one month's file to this machine."""
    simulate = partial(simulation.month_batches, taxi=args.taxi)
    return months.find(
        args.source, taxi=args.taxi, month=month, work_dir=work_dir, simulate=simulate
    )
