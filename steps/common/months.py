"""Fetch or simulate a month and the city's zones, and read a month."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from storage.data import files, months
from storage.data.months import MonthFile, SideFile
from storage.data.parts import part_files
from taxi import TripError, city, simulation
from taxi.city import ZONE_FILES, City
from taxi.cleaning import AmbiguousError
from taxi.matching import match_columns

T = TypeVar("T")


def find_month(source: str, taxi: str, month: str, work_dir: Path) -> MonthFile:
    """Fetch one month's file to this machine, or simulate it."""
    simulate = partial(simulation.month_batches, taxi=taxi)
    return months.find(source, taxi=taxi, month=month, work_dir=work_dir, simulate=simulate)


def read_month(
    path: Path,
    taxi: str,
    parse_batch: Callable[[pa.RecordBatch], T],
    *,
    optional_roles: frozenset[str] = frozenset(),
) -> Iterator[T]:
    """Read a month's raw rows batch by batch, in the order of its file or of its parts.

    Args:
        path: of the file, or of the folder of parts.
        taxi: key of schema.TAXIS.
        parse_batch: turns a batch into what is yielded.
        optional_roles: roles of columns that the file may lack.
    Raises:
        TripError: columns or values cannot be used; names the part and the line.
        StorageError: a file cannot be read.
    """
    for part in (every := part_files(path)):
        where, n_before = f"{part.name}: " if every[1:] else "", 0
        try:
            columns = match_columns(files.read_schema(part), taxi, optional_roles=optional_roles)
            for batch in files.read_batches(part, list(columns)):
                yield parse_batch(batch)
                n_before += len(batch)
        except AmbiguousError as error:
            line = files.locate_row(part, n_before + error.row)
            raise TripError(f"{where}{line}: {error}") from error
        except TripError as error:
            raise TripError(f"{where}{error}") from error


def find_zone_files(source: str) -> dict[str, SideFile]:
    """Fetch the zones' table and shapes: name -> file, for those that exist."""
    return months.find_side_files(source, ZONE_FILES)


def find_city(source: str, files: dict[str, SideFile]) -> City | None:
    """Read the city's zones, or simulate them; None if a file is missing.

    Args:
        source: of the months.
        files: as returned by find_zone_files.
    Raises:
        TripError: a file exists but cannot be used.
    """
    seed = months.simulated_seed(source)
    if seed is not None:
        return simulation.simulated_zones(seed)
    if len(files) < len(ZONE_FILES):
        return None
    return city.parse_city(*(files[name].path.read_bytes() for name in ZONE_FILES))
