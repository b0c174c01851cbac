"""How many raw trips months have, as far as is known without reading or fetching them."""

from collections.abc import Iterable

import pyarrow as pa

from storage.data.parquet_files import open_parquet
from storage.data.parts import part_files
from storage.data.sources import SIMULATED_URI, MonthLocation


def count_raw(locations: Iterable[MonthLocation]) -> int | None:
    """Count the raw trips of months; None if the number of one is not known."""
    counts = [count_month(location) for location in locations]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def count_month(location: MonthLocation) -> int | None:
    """Count a month's raw trips by the footers of its files, or its URI; None if not known."""
    if location.uri.startswith(SIMULATED_URI):
        return int(location.uri.split(":")[1])
    if location.path is None:
        return None
    try:
        files = part_files(location.path)
        if any(file.suffix != ".parquet" for file in files):
            return None
        return sum(open_parquet(file).metadata.num_rows for file in files)
    except (pa.ArrowException, OSError):  # preprocess will say what is wrong
        return None
