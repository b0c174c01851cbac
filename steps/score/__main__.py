"""Score months of trips with a registered model, and see whether the world has moved since.

python -m steps.score --source=simulated --months=2021-04

Exit code 3 where a month has drifted and fail_on_drift=true: its run is FINISHED all the same.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow

import steps
import storage
import taxi as taxi_package
from steps.common.parameters import ScoreParameters
from steps.common.pipeline import score_key
from steps.common.served import load_served
from steps.common.step import step_run
from steps.score.feed import LiveFeed, save_feed
from steps.score.month import NoTripError, ScoredMonth, ScoringJob, score_month
from steps.score.preparation import Scorer, open_live, open_model, read_request, scoring_job
from steps.score.record import (
    describe_coverage,
    describe_days,
    describe_estimate,
    describe_learned_months,
    describe_month_drift,
    describe_retraining,
    describe_shares_within,
    estimate_scores,
    find_largest_psi,
    find_learned_months,
    log_drift_map,
    log_month_inputs,
    log_worst_trips,
    write_scoring_page,
)
from storage.cluster.connection import connected
from storage.cluster.tasks import once_per_worker
from storage.data.months import month_start_ms, month_step
from storage.data.sources import NoMonthError
from storage.repro import reuse
from storage.tracking import artifacts, model_references, models, runs, tags
from storage.uris import without_credentials
from taxi import drift
from taxi.drift import DriftMeasure, DriftReference, DriftThresholds

EXIT_DRIFTED = 3  # exit code
MONTH_JUST_BEGUN = "it has just begun and has no trips yet; the live level is left unchanged"
SCORING_HINT = "score again, with overwrite=true where output already has some of the months."
ESTIMATES = (*map(tags.RMSE_ESTIMATED.of, ("", "_low", "_high")), tags.ESTIMATE_ERROR)
SHOWN_SCORES = ("rmse", "mae", "bias", tags.RMSE_BASE, *ESTIMATES, tags.COVERAGE)
# a worker with another version of these might predict differently, or read other rows
SCORING_PACKAGES = ("mlflow", "xgboost", "numpy", "pandas", "pyarrow", "scikit-learn", "skops")


def main(argv: Sequence[str] | None = None) -> None:
    """Score month by month, log the results, and compare the months with the fitted trips."""
    with step_run(ScoreParameters, __doc__, argv) as params:
        request = read_request(params)
        model = open_model(params, request)
        feed, job = open_live(params, request, model), scoring_job(params, request, model)
        scored = score_and_print(job, request.months, params.scheduler, feed)
        mlflow.set_tags({tags.TAXI: params.taxi, tags.SCORED_BY: without_credentials(model.uri)})
        mlflow.set_tag(tags.LIVE, str(request.settings))
        if not scored:
            runs.write_page(f"**{', '.join(request.months)}: {MONTH_JUST_BEGUN}**")
            return
        drifted = write_results(params, model, scored)
        if feed and params.live_state:
            save_feed(feed, scored[-1].month, params.live_state)
    if params.fail_on_drift and drifted:
        sys.exit(EXIT_DRIFTED)


def write_results(params: ScoreParameters, model: Scorer, scored: Sequence[ScoredMonth]) -> bool:
    """Log the months' results and write the run's page; return whether any month has drifted."""
    log_months(scored, params.taxi)
    model_tags = model_references.reference_tags(model.reference, model.sha256)
    measures: dict[str, list[DriftMeasure]] | None = None
    if model.profile:
        limits = DriftThresholds(
            params.max_psi, params.max_unseen, params.max_rmse_rise, params.max_coverage_gap
        )
        rmse_before = float(model_tags.get(tags.RMSE_TEST, model.profile.rmse))
        measures = measure_drift_by_month(scored, model.profile, rmse_before, limits)
        log_drift_map(scored, model.profile, model_tags.get(tags.MODEL_URI, model.uri))
    if learned := find_learned_months(scored, model_tags):
        print(describe_learned_months(learned))
    remedy = describe_retraining(params, model.reference.name, scored, measures or {}, model_tags)
    write_scoring_page(scored, model.uri, params.taxi, measures, model_tags, remedy)
    tag_result(params, model.uri, scored)
    return has_drifted(measures or {})


def score_and_print(
    job: ScoringJob, months: Sequence[str], scheduler: str, feed: LiveFeed | None
) -> list[ScoredMonth]:
    """Score the months, and print the result of each and where the files are."""
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
    """Score the months, one after the other here, or on the workers of a cluster."""
    if not scheduler:
        load = partial(load_served, job.model_uri, job.taxi)
        for month in months:
            try:
                yield score_month(job, month, load, feed)
            except (NoMonthError, NoTripError):
                if feed is None or not feed.waits_for(month):
                    raise
                print(f"{month}: {MONTH_JUST_BEGUN}")
        return
    code = (steps, storage, taxi_package)
    with connected(scheduler, code=code, packages=SCORING_PACKAGES, on_gpus=False) as cluster:
        futures = [cluster.submit(score_on_worker, tuple(job), month) for month in months]
        for future in futures:
            with cluster.loss_as_error(lambda: SCORING_HINT):
                scored = future.result()
            yield scored


def score_on_worker(fields: tuple[Any, ...], month: str) -> ScoredMonth:
    """Score a month on a worker, which loads the model only once."""
    job = ScoringJob(*fields)

    def load() -> Any:
        return once_per_worker(job.model_uri, lambda: models.load(job.model_uri))

    return score_month(job, month, load)


def month_line(scored: ScoredMonth) -> str:
    """Write a month's result in one line."""
    tally = scored.tally
    scores = tally.total.scores()
    unknown = f"no drop-off known, rmse {describe_estimate(tally)}"
    errors = f"rmse {scores['rmse']:.4f} min on {tally.total.n:,}" if scores else unknown
    if scores and tally.n_live:
        errors += f" ({tally.base.scores()['rmse']:.4f} without the live level)"
    if covered := describe_coverage(tally):
        whose = " of the model alone" if scored.with_feed else ""
        errors += f"; the 80 % interval{whose} covers {covered}"
    if scored.with_feed:
        errors += (
            f"; {tally.n_live:,} of {tally.n_predicted:,} trips, those after the state's clock and "
            "before the month's end, had a level"
        )
    if scores:
        errors += f"; without drop-offs {describe_estimate(tally)}"
    if days := describe_days(scored.month, tally):
        errors += f"; {days}"
    if within := describe_shares_within(tally):
        errors += f"; {within}"
    if tally.unreadable:
        errors += f"; rows with unreadable values are not counted: {tally.unreadable}"
    return f"{scored.month}: predicted {tally.n_predicted:,} of {tally.n_rows:,} trips, {errors}"


def log_months(scored: Sequence[ScoredMonth], taxi: str) -> None:
    """Log the months' numbers, the errors by day, and the months' files as inputs."""
    mlflow.set_tag(tags.SCORED_MONTHS, ",".join(month.month for month in scored))
    rows: list[dict[str, Any]] = []
    log_month_inputs(scored, taxi)
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
        mlflow.log_metrics(numbers | scores, step=month_step(name), timestamp=month_start_ms(name))
        shares = map(tags.SHARE_WITHIN.of, tally.within)
        shown = {score: scores.get(score, "") for score in (*SHOWN_SCORES, *shares)}
        rows.append({"month": name, **numbers, **shown})
    artifacts.log_table(rows, tags.MONTHS_TABLE)
    days = [day for month in scored for day in month.tally.daily()]
    if days:
        artifacts.log_table(days, tags.DAYS_TABLE)
    log_worst_trips(scored)


def tag_result(params: ScoreParameters, model_uri: str, scored: Sequence[ScoredMonth]) -> None:
    """Tag the run with its key, unless files outside the store are part of its result."""
    if not params.output and params.live == "off":
        contents = {month.month: month.identity for month in scored}
        reuse.tag_key(score_key(params, model_uri, contents))


def measure_drift_by_month(
    scored: Sequence[ScoredMonth],
    reference: DriftReference,
    rmse_before: float,
    thresholds: DriftThresholds,
) -> dict[str, list[DriftMeasure]]:
    """Measure and log the drift of each month from the trips that the model was fitted to.

    Args:
        scored: the months.
        reference: the profile that the model stores.
        rmse_before: RMSE on the months that the model was judged on, minutes.
        thresholds: above which a month has drifted.
    Returns:
        Month -> its measures.
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
    """Whether any month has drifted."""
    return any(one.drifted for measured in measures.values() for one in measured)


def report_drift(month: str, measures: Sequence[DriftMeasure]) -> None:
    """Print what has drifted in a month, and log its largest PSI."""
    largest = find_largest_psi(measures).value
    mlflow.log_metric(tags.PSI, largest, step=month_step(month), timestamp=month_start_ms(month))
    drifted = describe_month_drift(measures)
    print(f"{month}: {f'drift: {drifted}' if drifted else 'no drift'}")


if __name__ == "__main__":
    main()
