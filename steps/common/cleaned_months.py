"""Reuse months that an earlier run of preprocess has cleaned.

Folds of a backtest share most of their months, and so do pipelines with a moving window.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Run

from steps.common.inputs import check_sha256, split_file
from steps.common.results import Dataset, read_dataset
from storage import StorageError
from storage.data.months import MonthFile
from storage.repro import reuse, step_key
from storage.tracking import artifacts, runs, tags
from taxi.words import drop_reasons_among


class CleanedMonth(NamedTuple):
    """A month as an earlier run cleaned it."""

    run_id: str
    split: str  # the split whose file holds it
    file: MonthFile  # the raw file that it was read from; its path is no longer known
    n_raw: int
    dropped: dict[str, int]  # reason -> rows
    row_groups: list[int]  # indices of its row groups in the split's file

    def tables(self) -> Iterator[pa.Table]:
        """Yield its trips in the batches in which they were cleaned."""
        name = split_file(self.split)
        with artifacts.open_file(self.run_id, name) as path, pq.ParquetFile(path) as file:
            for group in self.row_groups:
                yield file.read_row_group(group).combine_chunks()


def month_key(taxi: str, month: str, identity: str) -> str:
    """Return one sha256 of everything that the cleaning of a month depends on."""
    return step_key.make("preprocess", {"taxi": taxi}, {month: identity}).sha256


def find_cleaned(taxi: str, month: str, identity: str) -> CleanedMonth | None:
    """Find a cleaned month in the finished runs of this experiment; None if there is none.

    The runs whose split holds the fewest months are tried first: less has to be fetched.
    """
    key = month_key(taxi, month, identity)
    found = reuse.find_tagged(tags.CLEANED.of(month), key, runs.experiment_id())
    for run in sorted(found, key=lambda run: len(_months_of_split(read_dataset(run), month))):
        try:
            if cleaned := _read_cleaned(run, month):
                return cleaned
        except StorageError:  # lost or altered: try another run, or clean it again
            continue
    return None


def _months_of_split(dataset: Dataset, month: str) -> list[str]:
    return next(names for names in dataset.months.values() if month in names)


def _read_cleaned(run: Run, month: str) -> CleanedMonth | None:
    run_id, dataset = run.info.run_id, read_dataset(run)
    rows = {row["month"]: row for row in artifacts.read_table(run_id, tags.MONTHS_TABLE)}
    row, names = rows[month], _months_of_split(dataset, month)
    split, name = row["split"], split_file(row["split"])
    with artifacts.open_file(run_id, name) as path:
        check_sha256(path, dataset.sha256[split], run_id, name)
        metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    row_groups = find_row_groups(month, {name: int(rows[name]["n_kept"]) for name in names}, sizes)
    if row_groups is None:
        return None
    dropped = {reason: int(row[reason]) for reason in drop_reasons_among(row)}
    file = MonthFile(month, row["uri"], Path(), row["sha256"], int(row["n_bytes"]))
    return CleanedMonth(run_id, split, file, int(row["n_raw"]), dropped, row_groups)


def find_row_groups(
    month: str, n_kept: Mapping[str, int], sizes: Sequence[int]
) -> list[int] | None:
    """Find the row groups of a month; None if its first and last ones are ambiguous.

    Args:
        month: one of the split's months.
        n_kept: month -> number of its trips, in the order of the split's file.
        sizes: number of rows of each row group; each was one batch when cleaned.
    """
    if list(n_kept) == [month]:
        return list(range(len(sizes)))
    if 0 in sizes:
        return None  # an empty row group may belong to this month or to the one before
    start = sum(n_kept[one] for one in takewhile(lambda one: one != month, n_kept))
    ends = accumulate(sizes)
    return [group for group, end in enumerate(ends) if start < end <= start + n_kept[month]]
