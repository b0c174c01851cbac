"""Read the clean trips and the city of a preprocess run, for the steps after it."""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from steps.common.results import LEARNING_SPLITS, PreprocessResult, write_dataset
from storage.data.digest import sha256_of
from storage.tracking import artifacts, datasets, tags
from storage.tracking.artifacts import LostError
from storage.tracking.datasets import HashedDataset
from taxi import schema
from taxi.city import City
from taxi.schema import Trips


def split_file(split: str) -> str:
    """Return the artifact path of a split's trips."""
    return f"{tags.SPLITS}/{split}.parquet"


def load_trips(preprocess: PreprocessResult, *splits: str) -> Trips:
    """Read the trips of one or more splits, concatenated in the given order.

    Raises:
        StorageError: a file is gone, or not what the run wrote.
    """
    with ExitStack() as stack:
        files = []
        for name in map(split_file, splits):
            path = stack.enter_context(artifacts.open_file(preprocess.run_id, name))
            check_sha256(path, preprocess.dataset.sha256[Path(name).stem], preprocess.run_id, name)
            files.append(stack.enter_context(pq.ParquetFile(path)))
        n_trips = sum(file.metadata.num_rows for file in files)
        batches = (file.iter_batches(columns=schema.TRIPS.names) for file in files)
        return schema.read_trips(chain.from_iterable(batches), n_trips)


def load_city(preprocess: PreprocessResult) -> City | None:
    """Read the city's zones; None if the map is learned from the trips alone.

    Raises:
        StorageError: it is gone, or not what the run wrote.
    """
    if not preprocess.dataset.city:
        return None
    with artifacts.open_file(preprocess.run_id, tags.CITY_FILE) as path:
        check_sha256(path, preprocess.dataset.city, preprocess.run_id, tags.CITY_FILE)
        return City.from_json(path.read_text(encoding="utf-8"))


class LearningTrips(NamedTuple):
    """What models are fitted to and chosen on."""

    train: Trips
    valid: Trips
    city: City | None  # None if its map is learned from the trips alone
    scored_on: HashedDataset  # the validation trips as a data set, to which the scores belong


def open_learning(preprocess: PreprocessResult) -> LearningTrips:
    """Read the train and validation trips and the city, and log them as the active run's inputs.

    Raises:
        StorageError: a file is gone, or not what the run wrote.
    """
    train, valid = (load_trips(preprocess, split) for split in LEARNING_SPLITS)
    described = log_inputs(preprocess, {"train": "training", "valid": "validation"})
    return LearningTrips(train, valid, load_city(preprocess), described["valid"])


def check_sha256(path: Path, sha256: str, run_id: str, name: str) -> None:
    """Check that an artifact is what its run wrote.

    Raises:
        LostError: its sha256 is another.
    """
    if sha256_of(path) != sha256:
        raise LostError(f"{name} of run {run_id} is not what that run wrote. Run preprocess again.")


def log_inputs(
    preprocess: PreprocessResult, contexts: Mapping[str, str]
) -> dict[str, HashedDataset]:
    """Log the trips that the active run reads as its inputs.

    Args:
        preprocess: the run that made the trips.
        contexts: split -> what it is used for, such as `training`.
    Returns:
        Split -> the data set, such as `green 2021-02 valid`.
    """
    write_dataset(preprocess.dataset, {tags.RUN_IDS["preprocess"]: preprocess.run_id})
    folder = datasets.artifact_source(preprocess.run_id, tags.SPLITS)
    found = {split: describe_trips(preprocess, split, folder) for split in contexts}
    datasets.log_datasets([(found[split], context) for split, context in contexts.items()])
    return found


def describe_trips(preprocess: PreprocessResult, split: str, folder: str) -> HashedDataset:
    """Describe a split's trips as a data set; `folder` is the URI of all splits' files."""
    dataset = preprocess.dataset
    n_rows = preprocess.metrics.get(tags.N_TRIPS.of(split))
    return HashedDataset(
        name=f"{dataset.taxi} {','.join(dataset.months[split])} {split}",
        uri=f"{folder}/{split}.parquet",
        sha256=dataset.sha256[split],
        columns=schema.TRIPS,
        n_rows=None if n_rows is None else int(n_rows),
    )
