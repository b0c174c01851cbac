"""Clean months on the workers of a Dask cluster, which read them from the source themselves."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa

import steps
import storage
import taxi as taxi_package
from steps.common.month_cleaning import MonthCount, clean_batches
from steps.common.months import find_month
from storage import UserError
from storage.cluster.connection import connected
from storage.data import months
from storage.data.months import MonthFile
from taxi import TripError, schema

# a worker with another version of these might read or simulate other rows
CLEANING_PACKAGES = ("pyarrow", "numpy")
CLEANING_HINT = "leave out scheduler to clean the months here."
COMPRESSION = "lz4"  # takes a tenth of the time of cleaning; zstd takes as long as cleaning


class RemoteMonth(NamedTuple):
    """A month that a worker has cleaned."""

    file: MonthFile  # as the worker found it; its path means nothing on this machine
    counted: MonthCount
    content: bytes  # the trips, an Arrow stream of schema.TRIPS

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its trips in the batches in which they were cleaned."""
        with pa.ipc.open_stream(self.content) as stream:
            yield from stream


class MonthCleaner(NamedTuple):
    """Hands months to workers."""

    # takes a month and its identity; calling what it returns starts to fetch the cleaned trips
    submit: Callable[[str, str], Callable[[], "Future[RemoteMonth | None]"]]
    n_ahead: int  # months being cleaned, or waiting on workers, while one is written here


@contextmanager
def open_cleaner(scheduler: str, source: str, taxi: str) -> Iterator[MonthCleaner]:
    """Connect to the workers.

    Args:
        scheduler: address of a Dask scheduler.
        source: of the months, as typed: the value of an env: variable is not sent to workers.
        taxi: key of schema.TAXIS.
    Raises:
        StorageError: the scheduler does not answer, or its workers cannot be used.
    """
    code = (steps, storage, taxi_package)
    on = connected(scheduler, code=code, packages=CLEANING_PACKAGES, on_gpus=False)
    with on as cluster, cluster.loss_as_error(lambda: CLEANING_HINT):
        submit = partial(cluster.submit_kept, clean_on_worker, source, taxi)
        yield MonthCleaner(submit, 2 * cluster.n_workers)


def clean_on_worker(source: str, taxi: str, month: str, identity: str) -> RemoteMonth | None:
    """Find and clean a month on a worker.

    Args:
        source: of the months, the same as on the machine that asks.
        taxi: key of schema.TAXIS.
        month: YYYY-MM.
        identity: of the file that the month must come from.
    Returns:
        The month; None if this worker cannot reach it, finds another file, cannot use it or has
        no room for it, or if no trips are left: the machine that asked then cleans it itself,
        and reports what is wrong.
    """
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=COMPRESSION)
    try:
        if not months.locate(source, taxi=taxi, month=month).server_answers:
            return None  # or it would retry a download for minutes
        with (
            TemporaryDirectory() as folder,
            pa.ipc.new_stream(sink, schema.TRIPS, options=options) as stream,
        ):
            file = find_month(source, taxi, month, Path(folder))
            if file.identity != identity:
                return None
            counted = clean_batches(file, taxi, stream.write_batch)
    except (UserError, TripError, OSError):  # OSError: no room for files on this worker, too
        return None
    return RemoteMonth(file, counted, sink.getvalue().to_pybytes()) if counted.n_kept else None
