"""One month, scored from its file to a file: what runs here, or on a worker of a cluster."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pyarrow.parquet as pq
from mlflow import MlflowClient

from steps.common.months import find_month
from storage.data.files import read_batches, read_schema, whole_file
from storage.tracking import models, tags
from storage.uris import without_credentials
from taxi import TripError, schema, scoring
from taxi.scoring import MAY_MISS, Tally

COMPRESSION = "zstd"


class ScoringJob(NamedTuple):
    """What is to be done with every month."""

    taxi: str
    source: str
    model_uri: str  # of one version
    output: str  # folder; empty for the run's artifacts
    run_id: str
    tracking_uri: str


class ScoredMonth(NamedTuple):
    """A month that is done."""

    month: str
    uri: str  # of its trips
    sha256: str
    tally: Tally


def score_month(job: ScoringJob, month: str, load: Callable[[], Any]) -> ScoredMonth:
    """Find a month, predict every row of it, and write the rows with their predictions.

    Raises:
        TripError: its columns or values cannot be used, or no row can be judged.
        StorageError: it cannot be found, read or written, or the model refuses it.
    """
    mlflow.set_tracking_uri(job.tracking_uri)
    with TemporaryDirectory() as folder:
        file = find_month(job.source, job.taxi, month, Path(folder))
        path = output_path(job.output or folder, job.taxi, month)
        try:
            tally = write(job, month, file.path, path, load())
        except TripError as error:
            raise TripError(f"{file.uri}: {error}") from error
        if not job.output:
            MlflowClient().log_artifact(job.run_id, str(path), tags.PREDICTIONS)
    return ScoredMonth(month, file.uri, file.sha256, tally)


def output_path(folder: str, taxi: str, month: str) -> Path:
    """Name the file that a month's predictions go to."""
    return Path(folder, f"{taxi}_predictions_{month}.parquet")


def write(job: ScoringJob, month: str, source: Path, path: Path, model: Any) -> Tally:
    """Stream a month's rows through the model into a file, which is whole or not there."""
    found = schema.match_columns(read_schema(source), job.taxi, may_miss=MAY_MISS)
    tally, writer = Tally(), None
    with whole_file(path) as unfinished:
        try:
            for batch in read_batches(source, list(found)):
                prepared = scoring.prepare_batch(batch, taxi=job.taxi, month=month)
                predicted = np.full(batch.num_rows, np.nan)
                if prepared.judgeable.any():
                    frame = scoring.request_frame(prepared, job.taxi)
                    answers = models.predict_typed(model, frame, job.model_uri)
                    predicted[prepared.judgeable] = answers
                tally.add(prepared, predicted)
                rows = scoring.prediction_batch(
                    prepared, predicted, taxi=job.taxi, model=without_credentials(job.model_uri)
                )
                writer = writer or pq.ParquetWriter(
                    unfinished, rows.schema, compression=COMPRESSION
                )
                writer.write_batch(rows)
        finally:
            if writer:
                writer.close()
        require_predictions(tally)
    return tally


def require_predictions(tally: Tally) -> None:
    """Stop at a month that nobody can say anything of."""
    if not tally.n_predicted:
        raise TripError(
            f"none of its {tally.n_rows:,} rows has a pickup time and both zones. "
            f"Check the file, or leave the month out."
        )
