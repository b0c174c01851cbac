"""The clean trips of a preprocess run, as the steps after it read them."""

from collections.abc import Mapping

import mlflow
import pyarrow.parquet as pq

from steps.common.results import PreprocessResult, write_dataset
from storage import StorageError
from storage.data.digest import sha256_of
from storage.tracking import artifacts, runs, tags
from taxi import schema
from taxi.schema import Trips


def split_file(split: str) -> str:
    """Name the artifact that holds a split's trips."""
    return f"{tags.SPLITS}/{split}.parquet"


def load_trips(preprocess: PreprocessResult, split: str) -> Trips:
    """Read train, valid or test trips.

    Raises:
        StorageError: they are gone, or not what the run wrote.
    """
    with artifacts.open_file(preprocess.run_id, split_file(split)) as path:
        if sha256_of(path) != preprocess.dataset.sha256[split]:
            raise StorageError(
                f"{split_file(split)} of run {preprocess.run_id} is not what that run wrote. "
                f"Run preprocess again."
            )
        return schema.to_trips(pq.read_table(path))


def log_inputs(preprocess: PreprocessResult, contexts: Mapping[str, str]) -> None:
    """Record on the active run which trips it reads: split -> context."""
    write_dataset(preprocess.dataset)
    mlflow.set_tag(tags.RUN_IDS["preprocess"], preprocess.run_id)
    for split, context in contexts.items():
        runs.log_dataset(
            name=split,
            uri=f"runs:/{preprocess.run_id}/{split_file(split)}",
            sha256=preprocess.dataset.sha256[split],
            context=context,
        )
