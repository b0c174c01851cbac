"""Score months of trips with a registered model, and see whether the world has moved since.

python -m steps.score --source=simulated --months=2021-04

Exit code 3 where a month has drifted and fail_on_drift=true: its run is FINISHED all the same.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow

import steps
import storage
import taxi
from steps.common.served import load_served
from steps.common.step import entry_parser, step_run
from steps.score.month import Scored, ScoringJob, output_path, score_month
from storage import StorageError
from storage.cluster import connected, once_per_worker
from storage.data.months import parse_months
from storage.tracking import models, runs
from taxi import drift, schema
from taxi.drift import DriftThresholds, Measure, Reference

DRIFTED = 3  # exit code
SCORES = ("rmse", "mae", "bias")
# a worker with another version of these might answer otherwise, or not read the same rows
SAME_EVERYWHERE = ("mlflow", "xgboost", "numpy", "pandas", "pyarrow", "scikit-learn", "skops")


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("score", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Score month after month, log what they came to, and compare them with the training months."""
    with step_run(build_parser(), argv) as args:
        months = check_before_scoring(args)
        uri = models.pin(args.model_uri)
        reference = read_reference(load_served(uri, args.taxi), uri, args)
        tracking_uri = mlflow.get_tracking_uri()
        run_id = runs.active().info.run_id
        job = ScoringJob(args.taxi, args.source, uri, args.output, run_id, tracking_uri)
        done = []
        for scored in score(job, months, args.scheduler):
            print(report(scored))
            done.append(scored)
        log(done, uri, args)
        has_drifted = reference is not None and watch(done, uri, reference, args)
    if has_drifted and args.fail_on_drift:
        sys.exit(DRIFTED)


def check_before_scoring(args: argparse.Namespace) -> list[str]:
    """Look at everything typed before anything is loaded; gives the months.

    Raises:
        StorageError: there are no months, or their output exists already or cannot be made.
    """
    schema.raw_columns(args.taxi)
    months = parse_months(args.months)
    if not months:
        raise StorageError("months is empty. Pass -P months=YYYY-MM.")
    if not args.output:
        return months
    paths = [output_path(args.output, args.taxi, month) for month in months]
    there = [str(path) for path in paths if path.exists()]
    if there and not args.overwrite:
        raise StorageError(
            f"{there[0]} exists. Pass -P overwrite=true to replace it, or another output."
        )
    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {args.output}: {error.strerror}. Pass another output."
        ) from error
    return months


def read_reference(model: Any, uri: str, args: argparse.Namespace) -> Reference | None:
    """Read what the model's months looked like; says so where an older model does not tell.

    Raises:
        StorageError: it does not, and drift was to end this with an error.
    """
    content = models.profile(model)
    if content:
        return Reference.restore(json.loads(content))
    line = f"Model {uri} stores no training profile, so drift cannot be seen. Train it again"
    if args.fail_on_drift:
        raise StorageError(f"{line}, or leave out fail_on_drift.")
    print(f"{line}.")
    mlflow.set_tag("drift", "unknown")
    return None


def score(job: ScoringJob, months: Sequence[str], scheduler: str) -> Iterator[Scored]:
    """Score the months, here one after the other or on the workers of a cluster."""
    if not scheduler:
        load = partial(load_served, job.model_uri, job.taxi)
        yield from (score_month(job, month, load) for month in months)
        return
    code = (steps, storage, taxi)
    with connected(scheduler, code=code, packages=SAME_EVERYWHERE, on_gpus=False) as cluster:
        handle = cluster.scatter(tuple(job))
        futures = [cluster.submit(score_on_worker, handle, month) for month in months]
        for future in futures:
            yield future.result()


def score_on_worker(fields: tuple[str, ...], month: str) -> Scored:
    """Score a month on a worker, which loads the model once."""
    job = ScoringJob(*fields)

    def load() -> Any:
        return once_per_worker(job.model_uri, lambda: models.load(job.model_uri))

    return score_month(job, month, load)


def report(scored: Scored) -> str:
    """Say in one line what a month came to."""
    tally = scored.tally
    scores = tally.total.scores()
    errors = (
        f"rmse {scores['rmse']:.4f} min on {tally.total.n:,}" if scores else "no drop-off known"
    )
    return f"{scored.month}: predicted {tally.n_predicted:,} of {tally.n_rows:,} trips, {errors}"


def log(done: Sequence[Scored], uri: str, args: argparse.Namespace) -> None:
    """Write the months' numbers, the days' errors and which bytes went in to the run."""
    months = ",".join(scored.month for scored in done)
    mlflow.set_tags({"taxi": args.taxi, "scored_by": uri, "months": months})
    rows: list[dict[str, Any]] = []
    for scored in done:
        tally = scored.tally
        runs.log_dataset(
            name=f"score {scored.month}", uri=scored.uri, sha256=scored.sha256, context="score"
        )
        numbers = {"n_rows": tally.n_rows, "n_predicted": tally.n_predicted}
        numbers["n_eligible"] = tally.total.n
        scores = tally.total.scores()
        mlflow.log_metrics(numbers | scores, step=step_of(scored.month))
        shown = {name: scores.get(name, "") for name in SCORES}
        rows.append({"month": scored.month, **numbers, **shown})
    runs.log_table(rows, "months.csv")
    days = [day for scored in done for day in scored.tally.daily()]
    if days:
        runs.log_table(days, "by_day.csv")


def step_of(month: str) -> int:
    """Give a month's place among a metric's values: 202303."""
    return int(month.replace("-", ""))


def watch(done: Sequence[Scored], uri: str, reference: Reference, args: argparse.Namespace) -> bool:
    """Compare each month with the training months; log it, and say whether any has drifted."""
    tags = models.version_tags(uri)
    rmse_before = float(tags.get("rmse_test", reference.rmse))
    thresholds = DriftThresholds(args.max_psi, args.max_unseen, args.max_rmse_rise)
    measures: dict[str, list[Measure]] = {}
    for scored in done:
        tally = scored.tally
        measures[scored.month] = drift.measure_drift(
            reference,
            tally.profile,
            tally.predictions,
            rmse=tally.total.scores().get("rmse"),
            rmse_before=rmse_before,
            thresholds=thresholds,
        )
    moved = [say_drift(month, found) for month, found in measures.items()]
    rows = [{"month": m, **one._asdict()} for m, found in measures.items() for one in found]
    runs.log_table(rows, "drift.csv")
    months = {scored.month: (scored.tally.profile, scored.tally.predictions) for scored in done}
    mlflow.log_figure(drift.draw_drift(reference, months, measures), "drift.png")
    mlflow.set_tag("drift", str(any(moved)).lower())
    return any(moved)


def say_drift(month: str, found: Sequence[Measure]) -> bool:
    """Print what has moved in a month and log how far; tells whether anything has."""
    largest = max(m.value for m in found if m.measure == "PSI")
    mlflow.log_metric("psi", largest, step=step_of(month))
    moved = [m for m in found if m.drifted]
    said = "; ".join(f"{m.measure} of {m.of} {m.value:.3f} > {m.threshold:g}" for m in moved)
    print(f"{month}: {f'drift: {said}' if moved else 'no drift'}")
    return bool(moved)


if __name__ == "__main__":
    main()
