"""Clean one month batch by batch, and count what is kept and dropped."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from steps.common.months import read_month
from storage.data.months import MonthFile
from taxi import TripError
from taxi.cleaning import UNREADABLE, Cleaned, clean, first_unreadable
from taxi.profile import Profile


class MonthCount(NamedTuple):
    """What cleaning a month kept and dropped."""

    n_raw: int
    dropped: dict[str, int]  # reason -> rows
    profile: Profile  # of the trips that were kept
    unreadable: str  # an example of an unreadable value; empty if there is none

    @property
    def n_kept(self) -> int:
        """How many trips were kept."""
        return self.profile.n_trips


def clean_batches(file: MonthFile, taxi: str, write: Callable[[pa.RecordBatch], Any]) -> MonthCount:
    """Clean a month, and write its trips.

    Args:
        file: of the month.
        taxi: key of schema.TAXIS.
        write: takes batches with the columns of schema.TRIPS, in the order of the file.
    Raises:
        TripError: its columns or values cannot be used.
    """
    dropped: dict[str, int] = {}
    profile, n_raw, unreadable = Profile(), 0, ""
    for cleaned, example in clean_file(file, taxi=taxi):
        write(cleaned.trips)
        profile.add(cleaned.trips)
        dropped = {why: dropped.get(why, 0) + n for why, n in cleaned.dropped.items()}
        n_raw += cleaned.trips.num_rows + sum(cleaned.dropped.values())
        unreadable = unreadable or example
    return MonthCount(n_raw, dropped, profile, unreadable)


def clean_file(file: MonthFile, *, taxi: str) -> Iterator[tuple[Cleaned, str]]:
    """Yield a month's cleaned batches, each with an example of an unreadable value, or "".

    Raises:
        TripError: its columns or values cannot be used.
        StorageError: it cannot be read, or was changed in the meantime.
    """

    def parse_batch(batch: pa.RecordBatch) -> tuple[Cleaned, str]:
        cleaned = clean(batch, taxi=taxi, month=file.month)
        return cleaned, first_unreadable(batch, taxi) if cleaned.dropped[UNREADABLE] else ""

    try:
        yield from read_month(file.path, taxi, parse_batch)
    except TripError as error:
        raise TripError(f"{file.uri}: {error}") from error
    file.check_unchanged()
