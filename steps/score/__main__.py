"""Score months of trips with a registered model, and see whether the world has moved since.

python -m steps.score --source=simulated --months=2021-04

Exit code 3 where a month has drifted and fail_on_drift=true: its run is FINISHED all the same.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

import steps
import storage
import taxi as taxi_package
from steps.common.parameters import ScoreParameters
from steps.common.pipeline import score_key
from steps.common.served import load_served
from steps.common.step import step_run
from steps.score.estimate import tell_calendar, tell_unknown
from steps.score.feed import FeedSettings, LiveFeed, check_feed, open_feed, save_feed
from steps.score.month import NoTripError, ScoredMonth, ScoringJob, output_path, score_month
from steps.score.record import (
    estimate_scores,
    find_furthest,
    log_moved,
    log_read,
    log_worst_of,
    say_coverage,
    say_days,
    say_estimate,
    say_moved,
    say_retraining,
    say_seen,
    say_within,
    seen_months,
    write_scored,
)
from storage import StorageError, UserError
from storage.cluster.connection import connected
from storage.cluster.tasks import once_per_worker
from storage.data.months import parse_months, step_of, time_of
from storage.data.sources import NoMonthError
from storage.repro import reuse
from storage.tracking import artifacts, model_references, models, names, runs, tags
from storage.uris import without_credentials
from taxi import drift, live, schema
from taxi.drift import DriftMeasure, DriftThresholds, Reference
from taxi.live import LiveState
from taxi.question import read_question

DRIFTED = 3  # exit code
JUST_BEGUN = "it has just begun, and no trip of it is there yet; the live level stays as it is"
SCORE_AGAIN = "score again, with overwrite=true where output has some of the months already."
ESTIMATES = (*map(tags.RMSE_ESTIMATED.of, ("", "_low", "_high")), tags.ESTIMATE_ERROR)
SHOWN_SCORES = ("rmse", "mae", "bias", tags.RMSE_BASE, *ESTIMATES, tags.COVERAGE)
# a worker with another version of these might answer otherwise, or not read the same rows
SCORING_PACKAGES = ("mlflow", "xgboost", "numpy", "pandas", "pyarrow", "scikit-learn", "skops")


def main(argv: Sequence[str] | None = None) -> None:
    """Score month after month, log what they came to, and compare them with the fitted trips."""
    measures: dict[str, list[DriftMeasure]] | None = None
    with step_run(ScoreParameters, __doc__, argv) as params:
        taxi, fail_on_drift = params.taxi, params.fail_on_drift
        schema.raw_columns(taxi)
        names.check_model_uri(params.model_uri)
        settings = FeedSettings(params.live, params.feed_delay)
        check_feed(settings, state_uri=params.live_state, scheduler=params.scheduler)
        levels = read_levels(params.quantiles, live=params.live)
        months = months_to_score(params.months)
        if params.output:
            make_room(params.output, taxi, months, overwrite=params.overwrite)
        model = model_references.resolve(params.model_uri)
        served = load_served(model.uri, taxi)
        check_quantiles(served, model.uri, taxi, levels)
        reference = read_reference(served, model.uri, must=fail_on_drift)
        run_id, store = runs.active().info.run_id, mlflow.get_tracking_uri()
        job = ScoringJob(taxi, params.source, model.uri, params.output, run_id, store, levels)
        tell_unknown(served, model.uri)
        tell_calendar(served, months)
        sha256 = models.digest(served, model.uri)
        feed = None
        if settings.mode != "off":
            months = sorted(months)
            new = new_feed_state(served, taxi, sha256)
            feed = open_feed(settings, state_uri=params.live_state, new=new, months=months)
        scored = score_and_tell(job, months, params.scheduler, feed)
        mlflow.set_tags({tags.TAXI: taxi, tags.SCORED_BY: without_credentials(model.uri)})
        mlflow.set_tag(tags.LIVE, str(settings))
        if not scored:
            runs.write_page(f"**{', '.join(months)}: {JUST_BEGUN}**")
            return
        log_months(scored, taxi)
        about = model_references.reference_tags(model, sha256)
        if reference:
            limits = DriftThresholds(
                params.max_psi, params.max_unseen, params.max_rmse_rise, params.max_coverage_gap
            )
            rmse_before = float(about.get(tags.RMSE_TEST, reference.rmse))
            measures = watch(scored, reference, rmse_before, limits)
            log_moved(scored, reference, about.get(tags.MODEL_URI, model.uri))
        if seen := seen_months(scored, about):
            print(say_seen(seen))
        remedy = say_retraining(params, model.name, scored, measures or {}, about)
        write_scored(scored, model.uri, taxi, measures, about, remedy)
        tag_result(params, model.uri, scored)
        if feed and params.live_state:
            save_feed(feed, scored[-1].month, params.live_state)
    if fail_on_drift and measures and has_drifted(measures):
        sys.exit(DRIFTED)


def read_levels(text: str, *, live: str) -> tuple[float, ...]:
    """Read levels of quantiles, written 0.1,0.5,0.9.

    Raises:
        UserError: they are no numbers, or there is a live level, which errors were not measured at.
        TripError: one is not above 0 and below 1, or there are too many.
    """
    try:
        levels = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"quantiles {text!r} holds what is no number. Pass -P quantiles=0.1,0.5,0.9, for one."
        ) from error
    if levels and live != "off":
        raise UserError("quantiles are those of the model alone. Pass live=off, or leave them out.")
    return read_question({"quantiles": levels}).quantiles


def check_quantiles(model: Any, uri: str, taxi: str, levels: Sequence[float]) -> None:
    """Ask a model about no trip at all, before any month is fetched; nothing without levels.

    Raises:
        StorageError: it knows no quantiles.
    """
    if levels:
        nothing = pd.DataFrame(columns=list(schema.input_names(taxi).values()))
        models.predict_columns(model, nothing, uri, {"quantiles": list(levels)})


def months_to_score(text: str) -> list[str]:
    """Read the months to score.

    Raises:
        UserError: there are none.
    """
    months = parse_months(text)
    if not months:
        raise UserError("months is empty. Pass -P months=YYYY-MM.")
    return months


def make_room(output: str, taxi: str, months: Sequence[str], *, overwrite: bool) -> None:
    """Make the folder for the predictions.

    Raises:
        UserError: it is an address, or a month's predictions are there already.
        StorageError: it cannot be made.
    """
    if "://" in output:
        raise UserError(
            f"output {without_credentials(output)!r} is an address. Pass the path of a folder, or "
            "leave it out for the artifacts of the run, which lie where the store keeps them."
        )
    paths = [output_path(output, taxi, month) for month in months]
    try:
        there = [str(path) for path in paths if path.exists()]
        if there and not overwrite:
            raise UserError(
                f"{there[0]} exists. Pass -P overwrite=true to replace it, or another output."
            )
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {output}: {error.strerror}. Pass another output."
        ) from error


def read_reference(model: Any, uri: str, *, must: bool) -> Reference | None:
    """Read what the model's months looked like; None, and a line, where an older one stores it not.

    Raises:
        UserError: it does not, and drift was to end this with an error.
    """
    content = models.profile(model)
    if content:
        return Reference.restore(json.loads(content))
    model_uri = without_credentials(uri)
    line = f"Model {model_uri} stores no training profile, so drift cannot be seen. Train it again"
    if must:
        raise UserError(f"{line}, or leave out fail_on_drift.")
    print(f"{line}.")
    mlflow.set_tag(tags.DRIFT, "unknown")
    return None


def new_feed_state(served: Any, taxi: str, sha256: str) -> LiveState:
    """Make the state that a feed begins with for this model, on the map that the model holds."""
    encoder = getattr(models.unwrapped(served), "encoder", None)
    position = getattr(getattr(encoder, "tables", None), "position", None)
    return live.new_state(taxi, sha256, np.datetime64(0, "m"), position)


def score_and_tell(
    job: ScoringJob, months: Sequence[str], scheduler: str, feed: LiveFeed | None
) -> list[ScoredMonth]:
    """Score the months, and print what each came to and where the files went."""
    scored = []
    for month in score(job, months, scheduler, feed):
        print(month_line(month))
        scored.append(month)
    if job.output:
        print(f"predictions in {Path(job.output).resolve()}")
    return scored


def score(
    job: ScoringJob, months: Sequence[str], scheduler: str, feed: LiveFeed | None
) -> Iterator[ScoredMonth]:
    """Score the months, here one after the other or on the workers of a cluster."""
    if not scheduler:
        load = partial(load_served, job.model_uri, job.taxi)
        for month in months:
            try:
                yield score_month(job, month, load, feed)
            except (NoMonthError, NoTripError):
                if feed is None or not feed.waits_for(month):
                    raise
                print(f"{month}: {JUST_BEGUN}")
        return
    code = (steps, storage, taxi_package)
    with connected(scheduler, code=code, packages=SCORING_PACKAGES, on_gpus=False) as cluster:
        futures = [cluster.submit(score_on_worker, tuple(job), month) for month in months]
        for future in futures:
            with cluster.gone_as(lambda: SCORE_AGAIN):
                scored = future.result()
            yield scored


def score_on_worker(fields: tuple[Any, ...], month: str) -> ScoredMonth:
    """Score a month on a worker, which loads the model once."""
    job = ScoringJob(*fields)

    def load() -> Any:
        return once_per_worker(job.model_uri, lambda: models.load(job.model_uri))

    return score_month(job, month, load)


def month_line(scored: ScoredMonth) -> str:
    """Write in one line what a month came to."""
    tally = scored.tally
    scores = tally.total.scores()
    unknown = f"no drop-off known, rmse {say_estimate(tally)}"
    errors = f"rmse {scores['rmse']:.4f} min on {tally.total.n:,}" if scores else unknown
    if scores and tally.n_live:
        errors += f" ({tally.base.scores()['rmse']:.4f} without the live level)"
    if covered := say_coverage(tally):
        whose = " of the model alone" if scored.with_feed else ""
        errors += f"; the 80 % interval{whose} holds {covered}"
    if scored.with_feed:
        errors += (
            f"; {tally.n_live:,} of {tally.n_predicted:,} trips, those after the state's clock and "
            "before the month's end, had a level"
        )
    if scores:
        errors += f"; without drop-offs {say_estimate(tally)}"
    if days := say_days(scored.month, tally):
        errors += f"; {days}"
    if within := say_within(tally):
        errors += f"; {within}"
    if tally.unreadable:
        errors += f"; rows with what nobody can read are not counted: {tally.unreadable}"
    return f"{scored.month}: predicted {tally.n_predicted:,} of {tally.n_rows:,} trips, {errors}"


def log_months(scored: Sequence[ScoredMonth], taxi: str) -> None:
    """Log the months' numbers, the days' errors and which bytes went in."""
    mlflow.set_tag(tags.SCORED_MONTHS, ",".join(month.month for month in scored))
    rows: list[dict[str, Any]] = []
    log_read(scored, taxi)
    for month in scored:
        name, tally = month.month, month.tally
        numbers: dict[str, int] = {tags.N_ROWS: tally.n_rows, tags.N_PREDICTED: tally.n_predicted}
        numbers[tags.N_ELIGIBLE] = tally.total.n
        scores = tally.total.scores()
        if month.with_feed:
            numbers[tags.N_LIVE] = tally.n_live
        if tally.base.n:
            scores[tags.RMSE_BASE] = tally.base.scores()["rmse"]
        if tally.coverage is not None:
            scores[tags.COVERAGE] = tally.coverage
        within = {tags.SHARE_WITHIN.of(q): share for q, share in tally.shares_within.items()}
        scores |= estimate_scores(tally) | within
        mlflow.log_metrics(numbers | scores, step=step_of(name), timestamp=time_of(name))
        asked = map(tags.SHARE_WITHIN.of, tally.within)
        shown = {score: scores.get(score, "") for score in (*SHOWN_SCORES, *asked)}
        rows.append({"month": name, **numbers, **shown})
    artifacts.log_table(rows, tags.MONTHS_TABLE)
    days = [day for month in scored for day in month.tally.daily()]
    if days:
        artifacts.log_table(days, tags.DAYS_TABLE)
    log_worst_of(scored)


def tag_result(params: ScoreParameters, model_uri: str, scored: Sequence[ScoredMonth]) -> None:
    """Tag the run with its key, unless files elsewhere are a part of what it came to."""
    if not params.output and params.live == "off":
        contents = {month.month: month.identity for month in scored}
        reuse.tag_key(score_key(params, model_uri, contents))


def watch(
    scored: Sequence[ScoredMonth],
    reference: Reference,
    rmse_before: float,
    thresholds: DriftThresholds,
) -> dict[str, list[DriftMeasure]]:
    """Compare each month with the trips that the model was fitted to, and log it.

    Args:
        scored: the months.
        reference: what the model stores of its own.
        rmse_before: on the months that the model was judged by, minutes.
        thresholds: from where on a month has drifted.
    Returns:
        month -> its measures.
    """
    measures = {
        month.month: drift.measure_drift(
            reference,
            month.tally.profile,
            month.tally.predictions,
            errors=month.tally.errors,
            rmse_before=rmse_before,
            thresholds=thresholds,
        )
        for month in scored
    }
    for month, measured in measures.items():
        report_drift(month, measured)
    rows = [{"month": m, **one._asdict()} for m, measured in measures.items() for one in measured]
    artifacts.log_table(rows, tags.DRIFT_TABLE)
    months = {one.month: (one.tally.profile, one.tally.predictions) for one in scored}
    artifacts.log_figure(drift.draw_drift(reference, months, measures), tags.DRIFT_PICTURE)
    mlflow.set_tag(tags.DRIFT, str(has_drifted(measures)).lower())
    return measures


def has_drifted(measures: Mapping[str, Sequence[DriftMeasure]]) -> bool:
    """Whether any month has."""
    return any(one.drifted for measured in measures.values() for one in measured)


def report_drift(month: str, measures: Sequence[DriftMeasure]) -> None:
    """Print what has moved in a month, and log how far."""
    largest = find_furthest(measures).value
    mlflow.log_metric(tags.PSI, largest, step=step_of(month), timestamp=time_of(month))
    moved = say_moved(measures)
    print(f"{month}: {f'drift: {moved}' if moved else 'no drift'}")


if __name__ == "__main__":
    main()
