"""Which months are in which split, and what identifies each before it is read."""

from typing import NamedTuple

from storage import UserError
from storage.data import months

NAMES = ("train", "valid", "test")


class SplitMonth(NamedTuple):
    """A month of a split; `identity` is its sha256, or the URI of its simulation."""

    split: str
    month: str
    identity: str


def split_months(train: str, valid: str, test: str) -> dict[str, list[str]]:
    """Parse the months of each split: split -> months; without test if that is empty.

    Raises:
        UserError: a month is malformed, train or valid is empty, or two splits share a month.
    """
    splits = {"train": months.parse_months(train), "valid": months.parse_months(valid)}
    for split, names in splits.items():
        if not names:
            raise UserError(f"{split}_months is empty. Pass -P {split}_months=YYYY-MM.")
    if test == "next":
        splits["test"] = [months.next_month(max(splits["valid"]))]
    elif test.strip():
        splits["test"] = months.parse_months(test)
    taken: dict[str, str] = {}
    for split, names in splits.items():
        for month in names:
            if month in taken:
                raise UserError(
                    f"Month {month} is in {taken[month]}_months and in {split}_months. "
                    f"Pass each month once: a model must not be judged on what it was fitted to."
                )
            taken[month] = split
    return splits


def a_year_earlier(train: list[str], valid: list[str], test: list[str]) -> list[str]:
    """List the months a year before those of train and valid; none if any is in a split."""
    earlier = {f"{int(month[:4]) - 1:04}{month[4:]}" for month in (*train, *valid)}
    return [] if earlier & {*train, *valid, *test} else sorted(earlier)


def inputs(contents: list[SplitMonth]) -> dict[str, str]:
    """Return months as inputs of a step's key, in which their order within a split counts."""
    months_of: dict[str, list[str]] = {}
    for split, month, _ in contents:
        months_of.setdefault(split, []).append(month)
    identities = {f"{split} {month}": identity for split, month, identity in contents}
    return identities | {split: ",".join(names) for split, names in months_of.items()}
