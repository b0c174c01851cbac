"""What MLflow shows of scored months: their files, their errors and drift, and the run's page."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from steps.common import page
from steps.common.inputs import load_city
from steps.common.parameters import MainParameters, ScoreParameters
from steps.common.results import LEARNING_SPLITS, SIMULATED, read_preprocess
from steps.score.month import ScoredMonth
from storage import UserError
from storage.checkout import run_command
from storage.data.months import SIMULATED_URI
from storage.tracking import artifacts, datasets, runs, tags
from storage.tracking.datasets import HashedDataset
from storage.tracking.model_references import logged_tags
from storage.uris import without_credentials
from taxi import schema
from taxi.city import City
from taxi.cleaning import month_bounds
from taxi.drift import PSI, RMSE, DriftMeasure, DriftReference
from taxi.maps import draw_pickup_shift
from taxi.scoring import MonthTally
from taxi.words import drift_subject, percent
from taxi.worst import join_worst

PAGE_LINKS = {  # text of a link on the page -> artifact
    "How far the months have drifted": tags.DRIFT_PICTURE,
    "as a table": tags.DRIFT_TABLE,
    "where trips have shifted": tags.DRIFT_MAP,
    "RMSE by day": tags.DAYS_TABLE,
    page.WORST: tags.WORST_TABLE,
}


def log_month_inputs(scored: Sequence[ScoredMonth], taxi: str) -> None:
    """Log the months' files as inputs."""
    columns = pa.schema([(column.name, column.type) for column in schema.raw_columns(taxi)])
    months = [
        HashedDataset(
            name=f"score {month.month}",
            uri=month.uri,
            sha256=month.sha256,
            columns=columns,
            n_rows=month.tally.n_rows,
        )
        for month in scored
    ]
    datasets.log_datasets([(month, "score") for month in months])


def estimate_scores(tally: MonthTally) -> dict[str, float]:
    """Return as metrics a month's RMSE estimated without drop-offs, and its error if known."""
    if not tally.estimated:
        return {}
    ends = zip(("", "_low", "_high"), tally.estimated, strict=True)
    scores: dict[str, float] = {tags.RMSE_ESTIMATED.of(end): value for end, value in ends}
    error = tally.estimate_error
    return scores | ({} if error is None else {tags.ESTIMATE_ERROR: error})


def describe_estimate(tally: MonthTally) -> str:
    """Write a month's estimated RMSE, and how far off it was if known, in words."""
    if not tally.estimated:
        return "not estimated"
    error = tally.estimate_error
    error_text = "" if error is None else f", {describe_estimate_error(error)}"
    whose = " for the model alone" if error_text and tally.n_live else ""
    return f"estimated {tally.estimated}{error_text}{whose}"


def describe_estimate_error(error: float) -> str:
    """Write by what share an estimate was off, and whether it was too high or too low."""
    if (percents := percent(abs(error))) == percent(0):
        return f"{percents} off"
    return f"{percents} too {'high' if error > 0 else 'low'}"


def describe_shares_within(tally: MonthTally) -> str:
    """Write the share of trips that took no longer than each quantile; empty if not known."""
    shares = tally.shares_within.items()
    return ", ".join(f"{percent(share)} within {name}" for name, share in shares)


def describe_coverage(tally: MonthTally) -> str:
    """Write the share of trips within their 80 % intervals; empty if not known."""
    return "" if tally.coverage is None else percent(tally.coverage)


def describe_days(month: str, tally: MonthTally) -> str:
    """Write on how many days of a month there are trips; empty if on all.

    An incomplete month is no fault, but by itself makes the weekdays drift far.
    """
    start, end = month_bounds(month)
    n_days = (end - start).days
    return f"trips of {len(tally.dates)} of {n_days} days" if len(tally.dates) < n_days else ""


def log_worst_trips(scored: Sequence[ScoredMonth]) -> None:
    """Log the worst predicted trips, if any drop-off is known."""
    worst = join_worst(month.tally.worst for month in scored)
    if worst:
        artifacts.log_table([trip._asdict() for trip in worst], tags.WORST_TABLE)


def describe_drift(measures: Mapping[str, Sequence[DriftMeasure]] | None) -> str:
    """Write what has drifted in which months; `measures` is None if the model has no profile."""
    if measures is None:
        return "drift unknown"
    drifted = {month: describe_month_drift(of_month) for month, of_month in measures.items()}
    phrases = [f"**drift in {month}**: {what}" for month, what in drifted.items() if what]
    return "; ".join(phrases) or "no drift"


def describe_month_drift(measures: Sequence[DriftMeasure]) -> str:
    """Write what has drifted in a month, and how its RMSE compares; empty if nothing has."""
    drifted = [m for m in measures if m.drifted]
    phrases = [
        f"{m.measure} of {drift_subject(m.of)} {m.value:.3f} > {m.threshold:g}" for m in drifted
    ]
    rise = find_rmse_rise(measures)
    if drifted and rise is not None and rise not in drifted:
        phrases.append(
            f"RMSE is {format_difference(rise.value)}that on the months it was judged by"
        )
    return "; ".join(phrases)


def format_difference(share: float) -> str:
    """Write by what share a value lies above or below another; empty if they are equal."""
    percents = percent(abs(share))
    return "" if percents == percent(0) else f"{percents} {'above' if share > 0 else 'below'} "


def find_rmse_rise(measures: Sequence[DriftMeasure]) -> DriftMeasure | None:
    """Find the measure of a month's rise in RMSE; None if no drop-off is known."""
    return next((m for m in measures if m.of == RMSE), None)


def find_largest_psi(measures: Sequence[DriftMeasure]) -> DriftMeasure:
    """Find the measure with the largest PSI."""
    return max((m for m in measures if m.measure == PSI), key=lambda m: m.value)


def drift_cells(measures: Sequence[DriftMeasure]) -> list[str]:
    """Return the cells of the page's table on the rise of RMSE and the largest PSI."""
    rise, furthest = find_rmse_rise(measures), find_largest_psi(measures)
    risen = percent(rise.value, sign="+") if rise else ""
    return [risen, f"{drift_subject(furthest.of)} {furthest.value:.3f}"]


def find_learned_months(scored: Sequence[ScoredMonth], model: Mapping[str, str]) -> list[str]:
    """List the scored months that a model was fitted to or chosen on, according to its tags."""
    return [one.month for one in scored if one.month in learned_months(one, model)]


def learned_months(scored: ScoredMonth, model: Mapping[str, str]) -> set[str]:
    """Return the months that a model was fitted to or chosen on, if real or simulated as `scored`.

    A real month and a simulated month of the same name hold different trips.
    """
    is_simulated = model.get(tags.DATA) == SIMULATED
    if scored.uri.startswith(SIMULATED_URI) != is_simulated:
        return set()
    return {
        m for split in LEARNING_SPLITS for m in model.get(tags.MONTHS.of(split), "").split(",") if m
    }


def describe_learned_months(months: Sequence[str]) -> str:
    """Write that errors on months which the model has seen flatter it."""
    return (
        f"{', '.join(months)}: the model was fitted to or chosen on these trips, so its "
        "errors are smaller here than on new ones"
    )


def scored_row(
    month: ScoredMonth, measures: Sequence[DriftMeasure] | None, *, is_live: bool
) -> list[str]:
    """Return a month's row of the page's table; with a live level, also the RMSE without it."""
    tally = month.tally
    found = [one.scores() for one in ((tally.total, tally.base) if is_live else (tally.total,))]
    rmses = [f"{scores['rmse']:.3f}" if scores else "" for scores in found]
    drift = drift_cells(measures) if measures else []
    within = [describe_shares_within(tally)] if tally.within else []
    counts = [describe_coverage(tally), f"{tally.n_predicted:,}", f"{tally.n_rows:,}"]
    return [month.month, *rmses, *drift, *within, describe_estimate(tally), *counts]


def describe_errors(
    scored: Sequence[ScoredMonth], errors: Sequence[str], without: Sequence[str]
) -> str:
    """Write the RMSE of months; with a live level, also without it, and how many trips had one.

    Args:
        scored: the months.
        errors: RMSE of the months whose drop-offs are known, as text.
        without: the same without the live level; empty if there was none.
    """
    if not errors:
        estimates = ", ".join(describe_estimate(month.tally) for month in scored)
        return f"no drop-off known, RMSE {estimates}"
    text = f"RMSE {', '.join(errors)} min"
    if not without:
        return text
    n_live = sum(month.tally.n_live for month in scored)
    n_trips = sum(month.tally.n_predicted for month in scored)
    some = f", which {n_live:,} trips had" if n_live < n_trips else ""
    return f"{text} with the live level{some}, {', '.join(without)} without"


def describe_retraining(
    params: ScoreParameters,
    model_name: str,
    scored: Sequence[ScoredMonth],
    measures: Mapping[str, Sequence[DriftMeasure]],
    model: Mapping[str, str],
) -> list[str]:
    """Write the command that trains on the two months before the last drifted one and tests on it.

    Args:
        params: of the step.
        model_name: registered model; empty if the model is not registered.
        scored: the months.
        measures: month -> its drift from the fitted trips.
        model: its tags, as far as they are known.
    Returns:
        Lines; [] if no month with known drop-offs has drifted, the model is not registered, or it
        was already fitted to months as late as those.
    """
    drifted = {
        one.month: learned_months(one, model)
        for one in scored
        if one.tally.total.n and describe_month_drift(measures.get(one.month, ()))
    }
    if not (model_name and drifted):
        return []
    month = max(drifted)
    train, valid = (str(np.datetime64(month, "M") - back) for back in (2, 1))
    if valid <= max(drifted[month], default=""):
        return []
    retraining = MainParameters(
        taxi=params.taxi,
        source=params.source,
        train_months=train,
        valid_months=valid,
        test_months=month,
        model_name=model_name,
    )
    texts = retraining.rerun_texts()
    values = {name: texts[name] for name in texts if name in retraining.model_fields_set}
    command = run_command(retraining.entry_point, values, experiment=runs.experiment_name())
    text = f"To train a model on the months before {month} and have the gate judge it on {month}:"
    return [text, page.as_code(command)]


def write_scoring_page(
    scored: Sequence[ScoredMonth],
    uri: str,
    taxi: str,
    measures: Mapping[str, Sequence[DriftMeasure]] | None,
    model: Mapping[str, str],
    remedy: Sequence[str],
) -> None:
    """Write the run's page.

    Args:
        scored: the months.
        uri: of the model.
        taxi: key of schema.TAXIS.
        measures: month -> its drift from the fitted trips; None if not known.
        model: its tags, as far as they are known.
        remedy: what to do if a month has drifted.
    """
    n_trips = sum(month.tally.n_predicted for month in scored)
    is_live = any(month.tally.n_live for month in scored)
    known_drift = measures or {}
    rows = [scored_row(one, known_drift.get(one.month), is_live=is_live) for one in scored]
    months = page.format_months([month.month for month in scored])
    errors = [row[1] for row in rows if row[1]]
    known = describe_errors(scored, errors, [row[2] for row in rows if row[2]] if is_live else [])
    rmse_test = model.get(tags.RMSE_TEST)
    tested = f" ({float(rmse_test):.3f} on the test months)" if rmse_test else ""
    verdict = (
        f"**{known}** on {months}{tested}, {n_trips:,} trips predicted; {describe_drift(measures)}"
    )
    subject = f"{taxi} {months}{f' · {float(errors[-1]):.2f} min' if errors else ''}"
    live = ["without the live level"] if is_live else []
    drift = ["rise of RMSE", "largest PSI"] if known_drift else []
    within = ["quantiles"] if any(month.tally.within for month in scored) else []
    counts = ["80 % interval covers", "predicted", "rows"]
    headers = ["month", "RMSE, min", *live, *drift, *within, "without drop-offs", *counts]
    if days := [f"{m.month}: {d}" for m in scored if (d := describe_days(m.month, m.tally))]:
        verdict += f"; **{', '.join(days)}**"
    if learned := find_learned_months(scored, model):
        verdict += f"; **{describe_learned_months(learned)}**"
    parts = [verdict, f"By {without_credentials(uri)}.", page.to_table(headers, rows), *remedy]
    run_id = runs.active_info().run_id
    links = {text: name for text, name in PAGE_LINKS.items() if artifacts.has_file(run_id, name)}
    parts.append(" · ".join(page.link(text, name) for text, name in links.items()))
    runs.write_page("\n\n".join(parts), subject)


def log_drift_map(scored: Sequence[ScoredMonth], reference: DriftReference, model_uri: str) -> None:
    """Log a map of where more trips begin than among the fitted trips, if the city is known."""
    if city := city_of_model(model_uri):
        now = sum(month.tally.profile.counts["pickup_zone"] for month in scored)
        figure = draw_pickup_shift(city, reference.train.counts["pickup_zone"], np.asarray(now))
        artifacts.log_figure(figure, tags.DRIFT_MAP)


def city_of_model(model_uri: str) -> City | None:
    """Read the city of a model's preprocess run; None if this store does not have it."""
    tag_values = logged_tags(model_uri) if model_uri.startswith("models:/m-") else {}
    try:
        run = runs.finished(tag_values.get(tags.RUN_IDS["preprocess"], ""), "preprocess")
        return load_city(read_preprocess(run))
    except UserError:
        return None
