"""Score one month, from its file to a file, on this machine or on a worker of a cluster."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow import MlflowClient

from steps.common.months import find_month, read_month
from steps.common.served import gives_intervals
from steps.score.estimate import LossCounter
from steps.score.feed import LiveFeed, row_times
from storage.data.files import atomic_file, discard_unfinished
from storage.data.months import MonthFile, identity_of
from storage.tracking import models, tags
from storage.uris import without_credentials
from taxi import TripError, scoring
from taxi.coverage import HIGH, LOW
from taxi.request_params import MAX_QUANTILES, quantile_column
from taxi.scoring import OPTIONAL_ROLES, MonthTally, PreparedRows

COMPRESSION = "zstd"


class NoTripError(TripError):
    """A month's file exists, but holds no trip of that month."""


class ScoringJob(NamedTuple):
    """How every month is to be scored."""

    taxi: str
    source: str
    model_uri: str  # of one version
    output: str  # folder; empty = the run's artifacts
    run_id: str
    tracking_uri: str
    quantiles: tuple[float, ...] = ()  # levels, each an additional column


class ScoredMonth(NamedTuple):
    """A month that has been scored."""

    month: str
    uri: str  # of its trips
    sha256: str
    tally: MonthTally
    with_feed: bool  # whether a feed was followed

    @property
    def identity(self) -> str:
        """What identifies the month's content."""
        return identity_of(self.uri, self.sha256)


def score_month(
    job: ScoringJob, month: str, load: Callable[[], Any], feed: LiveFeed | None = None
) -> ScoredMonth:
    """Find a month, predict all of its rows, and write the rows with their predictions.

    Raises:
        TripError: its columns or values cannot be used, or no row can be predicted or counts.
        StorageError: it cannot be found, read or written, or the model refuses it.
    """
    mlflow.set_tracking_uri(job.tracking_uri)
    with TemporaryDirectory() as folder:
        file = find_month(job.source, job.taxi, month, Path(folder))
        path = output_path(job.output or folder, job.taxi, month)
        try:
            tally = write_predictions(job, month, file, path, load(), feed)
        except TripError as error:
            raise type(error)(f"{file.uri}: {error}") from error
        discard_unfinished(path)  # left by a worker that was killed while it scored this month
        if not job.output:
            MlflowClient().log_artifact(job.run_id, str(path), tags.PREDICTIONS)
    return ScoredMonth(month, file.uri, file.sha256, tally, feed is not None)


def output_path(folder: str, taxi: str, month: str) -> Path:
    """Return the path of a month's predictions."""
    return Path(folder, f"{taxi}_predictions_{month}.parquet")


def write_predictions(
    job: ScoringJob,
    month: str,
    file: MonthFile,
    path: Path,
    model: Any,
    feed: LiveFeed | None = None,
) -> MonthTally:
    """Stream a month's rows through the model into a file, which is complete or does not exist."""
    tally, losses, writer = MonthTally(), LossCounter(model), None
    with atomic_file(path) as unfinished:
        try:
            for rows in predict_month(job, month, file.path, model, feed):
                tally.add(rows.prepared, rows.base, rows.live)
                tally.add_quantiles(rows.prepared, rows.quantiles)
                if rows.covered is not None:
                    tally.add_covered(rows.prepared, rows.covered)
                tally.n_live += rows.n_live
                losses.add(rows.prepared, rows.base, job.taxi)
                batch = scoring.prediction_batch(
                    rows.prepared,
                    rows.base if rows.live is None else rows.live,
                    taxi=job.taxi,
                    model=without_credentials(job.model_uri),
                    base=None if rows.live is None else rows.base,
                    quantiles=rows.quantiles,
                )
                writer = writer or pq.ParquetWriter(
                    unfinished, batch.schema, compression=COMPRESSION
                )
                writer.write_batch(batch)
        finally:
            if writer:
                writer.close()
        file.check_unchanged()
        require_trips(tally, month)
    tally.estimated = losses.estimate()
    return tally


class PredictedRows(NamedTuple):
    """A batch of n rows with their predictions."""

    prepared: PreparedRows
    base: np.ndarray  # [n] minutes without a live level, NaN where a row cannot be predicted
    live: np.ndarray | None  # [n] minutes at the feed's level; None without a feed
    n_live: int = 0  # number of rows that have a level
    quantiles: Mapping[str, np.ndarray] = MappingProxyType({})  # column -> [n] minutes
    covered: np.ndarray | None = None  # see `BatchPrediction`


class BatchPrediction(NamedTuple):
    """A model's answers for n rows, NaN where a row cannot be predicted."""

    minutes: np.ndarray  # [n]
    quantiles: Mapping[str, np.ndarray]  # column -> [n] minutes, for each level asked for
    covered: np.ndarray | None  # bool [n]: known to be within its 80 % interval; None if not asked


def predict_month(
    job: ScoringJob, month: str, source: Path, model: Any, feed: LiveFeed | None
) -> Iterator[PredictedRows]:
    """Predict a month's rows batch by batch, in the file's order.

    A feed needs them in order of time: then the file is read twice, and only what is needed of all
    rows at once is kept in between.
    """
    if feed is None:
        for prepared in prepare_month(job, month, source):
            minutes, quantiles, covered = predict_batch(job, prepared, model)
            yield PredictedRows(prepared, minutes, None, quantiles=quantiles, covered=covered)
        return
    times, within = [], []
    for prepared in prepare_month(job, month, source):
        minutes, _, covered = predict_batch(job, prepared, model)
        times.append(row_times(prepared, minutes))
        within.append(covered)
    factor = feed.follow(month, times) if times else np.empty(0)
    start = 0
    again = prepare_month(job, month, source)
    for prepared, kept, covered in zip(again, times, within, strict=True):
        base = kept.trips.predicted
        level = factor[start : start + len(base)]
        start += len(base)
        has_level = np.isfinite(level)
        followed = base * np.where(has_level, level, 1.0)
        yield PredictedRows(prepared, base, followed, int(has_level.sum()), covered=covered)


def prepare_month(job: ScoringJob, month: str, source: Path) -> Iterator[PreparedRows]:
    """Read a month's rows batch by batch."""
    prepare = partial(scoring.prepare_batch, taxi=job.taxi, month=month)
    return read_month(source, job.taxi, prepare, optional_roles=OPTIONAL_ROLES)


def predict_batch(job: ScoringJob, prepared: PreparedRows, model: Any) -> BatchPrediction:
    """Ask the model about a batch of n rows, and for their 80 % intervals if it gives them."""
    frame = scoring.request_frame(prepared, job.taxi)
    levels = requested_levels(job, model)
    if levels:
        answers = models.predict_columns(model, frame, job.model_uri, {"quantiles": levels})
    elif len(frame):
        minutes = models.predict_typed(model, frame, job.model_uri)
        answers = pd.DataFrame({"prediction": minutes})
    else:
        answers = pd.DataFrame({"prediction": []})
    columns: dict[str, np.ndarray] = {}
    for name, values in answers.items():
        columns[str(name)] = np.full(len(prepared.predictable), np.nan)
        columns[str(name)][prepared.predictable] = values
    low, high = (columns.get(quantile_column(level)) for level in (LOW, HIGH))
    covered = None
    if low is not None and high is not None:
        covered = (prepared.minutes >= low) & (prepared.minutes <= high)
    minutes = columns.pop("prediction")
    for level in set(levels) - set(job.quantiles):
        columns.pop(quantile_column(level))
    return BatchPrediction(minutes, columns, covered)


def requested_levels(job: ScoringJob, model: Any) -> list[float]:
    """List the levels of the quantiles asked for, and those of the 80 % interval if possible."""
    with_interval = list(dict.fromkeys((*job.quantiles, LOW, HIGH)))
    fits = len(with_interval) <= MAX_QUANTILES and gives_intervals(model)
    return with_interval if fits else list(job.quantiles)


def require_trips(tally: MonthTally, month: str) -> None:
    """Check that a month has rows to predict, and trips of that month.

    Raises:
        NoTripError: it has not.
    """
    if not tally.n_predicted:
        raise NoTripError(
            f"none of its {tally.n_rows:,} rows has a pickup time and both zones. "
            f"Check the file, or leave the month out."
        )
    if not tally.profile.n_trips:  # there would be nothing to measure drift and errors on
        raise NoTripError(
            f"none of its {tally.n_rows:,} rows is a trip of {month} that counts, by the rules of "
            "docs/trips.md. Check that the file holds that month, and its times."
        )
