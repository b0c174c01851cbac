"""What MLflow shows of scored months: which bytes went in, where they stand in time, the page."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from steps.common import page
from steps.common.inputs import load_city
from steps.common.parameters import MainParameters, ScoreParameters
from steps.common.results import SEEN, SIMULATED, read_preprocess
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
from taxi.drift import PSI, RMSE, DriftMeasure, Reference
from taxi.maps import draw_moved
from taxi.scoring import Tally
from taxi.words import measured_words, percent
from taxi.worst import join_worst

LINKED = {  # on the page -> artifact
    "How far the months have drifted": tags.DRIFT_PICTURE,
    "as a table": tags.DRIFT_TABLE,
    "where trips have shifted": tags.DRIFT_MAP,
    "RMSE by day": tags.DAYS_TABLE,
    page.WORST: tags.WORST_TABLE,
}


def log_read(scored: Sequence[ScoredMonth], taxi: str) -> None:
    """Log which bytes went in."""
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


def estimate_scores(tally: Tally) -> dict[str, float]:
    """Return what was said of a month's RMSE without its drop-offs, and how good that was."""
    if not tally.estimated:
        return {}
    ends = zip(("", "_low", "_high"), tally.estimated, strict=True)
    scores: dict[str, float] = {tags.RMSE_ESTIMATED.of(end): value for end, value in ends}
    error = tally.estimate_error
    return scores | ({} if error is None else {tags.ESTIMATE_ERROR: error})


def say_estimate(tally: Tally) -> str:
    """Write the same for people."""
    if not tally.estimated:
        return "not estimated"
    error = tally.estimate_error
    how_good = "" if error is None else f", {say_off(error)}"
    whose = " for the model alone" if how_good and tally.n_live else ""
    return f"estimated {tally.estimated}{how_good}{whose}"


def say_off(error: float) -> str:
    """Write by which share an estimate was off, and to which side where it was to any."""
    if (percents := percent(abs(error))) == percent(0):
        return f"{percents} off"
    return f"{percents} too {'high' if error > 0 else 'low'}"


def say_within(tally: Tally) -> str:
    """Write how many trips took no longer than each quantile; empty where nobody asked or knows."""
    shares = tally.shares_within.items()
    return ", ".join(f"{percent(share)} within {name}" for name, share in shares)


def say_coverage(tally: Tally) -> str:
    """Write how many trips were within their 80 % intervals; empty where that is not known."""
    return "" if tally.coverage is None else percent(tally.coverage)


def say_days(month: str, tally: Tally) -> str:
    """Write how many days of a month there are trips of; empty where of all.

    Half a month is no fault, and its weekdays lie far off by that alone.
    """
    start, end = month_bounds(month)
    n_days = (end - start).days
    return f"trips of {len(tally.dates)} of {n_days} days" if len(tally.dates) < n_days else ""


def log_worst_of(scored: Sequence[ScoredMonth]) -> None:
    """Log which trips the predictions are furthest off on, where any drop-off is known."""
    worst = join_worst(month.tally.worst for month in scored)
    if worst:
        artifacts.log_table([trip._asdict() for trip in worst], tags.WORST_TABLE)


def say_drift(measures: Mapping[str, Sequence[DriftMeasure]] | None) -> str:
    """Write what has moved in which months; None is a model that does not tell what it knew."""
    if measures is None:
        return "drift unknown"
    moved = {month: say_moved(of_month) for month, of_month in measures.items()}
    told = [f"**drift in {month}**: {what}" for month, what in moved.items() if what]
    return "; ".join(told) or "no drift"


def say_moved(measures: Sequence[DriftMeasure]) -> str:
    """Write what has moved in a month, and whether its errors did; empty where nothing has."""
    moved = [m for m in measures if m.drifted]
    told = [f"{m.measure} of {measured_words(m.of)} {m.value:.3f} > {m.threshold:g}" for m in moved]
    rise = find_rise(measures)
    if moved and rise is not None and rise not in moved:
        told.append(f"RMSE is {beside(rise.value)}that on the months it was judged by")
    return "; ".join(told)


def beside(share: float) -> str:
    """Write by which share something lies above or below another; nothing where by none."""
    percents = percent(abs(share))
    return "" if percents == percent(0) else f"{percents} {'above' if share > 0 else 'below'} "


def find_rise(measures: Sequence[DriftMeasure]) -> DriftMeasure | None:
    """Find how far a month's RMSE is above that of before; None where no drop-off is known."""
    return next((m for m in measures if m.of == RMSE), None)


def find_furthest(measures: Sequence[DriftMeasure]) -> DriftMeasure:
    """Find what has moved furthest of all that has a PSI."""
    return max((m for m in measures if m.measure == PSI), key=lambda m: m.value)


def drift_cells(measures: Sequence[DriftMeasure]) -> list[str]:
    """Lay drift out for the page beside what errors did."""
    rise, furthest = find_rise(measures), find_furthest(measures)
    risen = percent(rise.value, sign="+") if rise else ""
    return [risen, f"{measured_words(furthest.of)} {furthest.value:.3f}"]


def seen_months(scored: Sequence[ScoredMonth], model: Mapping[str, str]) -> list[str]:
    """List the scored months that a model was fitted to or chosen by, as its tags say."""
    return [one.month for one in scored if one.month in known_months(one, model)]


def known_months(scored: ScoredMonth, model: Mapping[str, str]) -> set[str]:
    """Name the months of a scored one's kind that a model was fitted to or chosen by.

    A real month and a simulated one of the same name hold other trips.
    """
    is_simulated = model.get(tags.DATA) == SIMULATED
    if scored.uri.startswith(SIMULATED_URI) != is_simulated:
        return set()
    return {m for split in SEEN for m in model.get(tags.MONTHS.of(split), "").split(",") if m}


def say_seen(months: Sequence[str]) -> str:
    """Write that errors on such months flatter the model."""
    return (
        f"{', '.join(months)}: the model was fitted to or chosen on these trips, so its "
        "errors are smaller here than on new ones"
    )


def scored_row(
    month: ScoredMonth, measures: Sequence[DriftMeasure] | None, *, is_live: bool
) -> list[str]:
    """Lay a month out for the page: with a live level, the RMSE without it stands beside."""
    tally = month.tally
    found = [one.scores() for one in ((tally.total, tally.base) if is_live else (tally.total,))]
    rmses = [f"{scores['rmse']:.3f}" if scores else "" for scores in found]
    drift = drift_cells(measures) if measures else []
    within = [say_within(tally)] if tally.within else []
    counts = [say_coverage(tally), f"{tally.n_predicted:,}", f"{tally.n_rows:,}"]
    return [month.month, *rmses, *drift, *within, say_estimate(tally), *counts]


def say_errors(scored: Sequence[ScoredMonth], errors: Sequence[str], without: Sequence[str]) -> str:
    """Write the RMSE of months, and with a live level that without it and how many trips had one.

    Args:
        scored: the months.
        errors: RMSE of those whose drop-offs are known, in words.
        without: the same of the model alone; empty where there was no live level.
    """
    if not errors:
        estimates = ", ".join(say_estimate(month.tally) for month in scored)
        return f"no drop-off known, RMSE {estimates}"
    said = f"RMSE {', '.join(errors)} min"
    if not without:
        return said
    n_live = sum(month.tally.n_live for month in scored)
    n_trips = sum(month.tally.n_predicted for month in scored)
    some = f", which {n_live:,} trips had" if n_live < n_trips else ""
    return f"{said} with the live level{some}, {', '.join(without)} without"


def say_retraining(
    params: ScoreParameters,
    model_name: str,
    scored: Sequence[ScoredMonth],
    measures: Mapping[str, Sequence[DriftMeasure]],
    model: Mapping[str, str],
) -> list[str]:
    """Write how to train on the months before the last one that has drifted, and test on it.

    Args:
        params: of the step.
        model_name: registered model; where it is empty, a drop-off is still to come, or the model
            knows as late months already, there is nothing to say.
        scored: the months.
        measures: month -> how far it lies from the fitted trips.
        model: its tags, as far as they are known.
    """
    drifted = {
        one.month: known_months(one, model)
        for one in scored
        if one.tally.total.n and say_moved(measures.get(one.month, ()))
    }
    if not (model_name and drifted):
        return []
    month = max(drifted)
    train, valid = (str(np.datetime64(month, "M") - back) for back in (2, 1))
    if valid <= max(drifted[month], default=""):
        return []
    asked = MainParameters(
        taxi=params.taxi,
        source=params.source,
        train_months=train,
        valid_months=valid,
        test_months=month,
        model_name=model_name,
    )
    texts = asked.rerun_texts()
    values = {name: texts[name] for name in texts if name in asked.model_fields_set}
    command = run_command(asked.entry_point, values, experiment=runs.experiment_name())
    said = f"To train a model on the months before {month} and have the gate judge it on {month}:"
    return [said, page.as_code(command)]


def write_scored(
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
        measures: month -> how far it lies from the fitted trips; None where that is not known.
        model: its tags, as far as they are known.
        remedy: what to do where a month has drifted.
    """
    n_trips = sum(month.tally.n_predicted for month in scored)
    is_live = any(month.tally.n_live for month in scored)
    known_drift = measures or {}
    rows = [scored_row(one, known_drift.get(one.month), is_live=is_live) for one in scored]
    months = page.span([month.month for month in scored])
    errors = [row[1] for row in rows if row[1]]
    known = say_errors(scored, errors, [row[2] for row in rows if row[2]] if is_live else [])
    rmse_test = model.get(tags.RMSE_TEST)
    tested = f" ({float(rmse_test):.3f} on the test months)" if rmse_test else ""
    verdict = f"**{known}** on {months}{tested}, {n_trips:,} trips predicted; {say_drift(measures)}"
    about = f"{taxi} {months}{f' · {float(errors[-1]):.2f} min' if errors else ''}"
    live = ["without the live level"] if is_live else []
    drift = ["rise of RMSE", "largest PSI"] if known_drift else []
    within = ["quantiles"] if any(month.tally.within for month in scored) else []
    told = ["without drop-offs", "80 % interval covers"]
    heads = ["month", "RMSE, min", *live, *drift, *within, *told, "predicted", "rows"]
    if days := [f"{m.month}: {d}" for m in scored if (d := say_days(m.month, m.tally))]:
        verdict += f"; **{', '.join(days)}**"
    if seen := seen_months(scored, model):
        verdict += f"; **{say_seen(seen)}**"
    parts = [verdict, f"By {without_credentials(uri)}.", page.to_table(heads, rows), *remedy]
    run_id = runs.active_info().run_id
    there = {text: name for text, name in LINKED.items() if artifacts.has_file(run_id, name)}
    parts.append(" · ".join(page.link(text, name) for text, name in there.items()))
    runs.write_page("\n\n".join(parts), about)


def log_moved(scored: Sequence[ScoredMonth], reference: Reference, model_uri: str) -> None:
    """Draw where more trips begin than of the fitted trips, where the model's city is at hand."""
    if city := city_of_model(model_uri):
        now = sum(month.tally.profile.counts["pickup_zone"] for month in scored)
        figure = draw_moved(city, reference.train.counts["pickup_zone"], np.asarray(now))
        artifacts.log_figure(figure, tags.DRIFT_MAP)


def city_of_model(model_uri: str) -> City | None:
    """Read what a model's run of preprocess knew of the city; None where this store has it not."""
    marks = logged_tags(model_uri) if model_uri.startswith("models:/m-") else {}
    try:
        run = runs.finished(marks.get(tags.RUN_IDS["preprocess"], ""), "preprocess")
        return load_city(read_preprocess(run))
    except UserError:
        return None
