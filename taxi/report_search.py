"""The charts of a report on how the search went, and on feature importance."""

from collections.abc import Mapping, Sequence

from .evaluation import describe_feature
from .page import Chart, paragraph
from .words import format_count

CsvRows = Sequence[Mapping[str, str]]  # of a CSV artifact: column -> text

N_CURVES = 12  # learning curves; more could not be told apart
N_FEATURES = 15
TRIAL, RMSE_VALID = "trial", "RMSE on valid, min"


def search_parts(
    trials: CsvRows,
    curves: CsvRows,
    search_gain: Mapping[str, float],
    *,
    is_split_by_distance: bool,
) -> list[str | Chart]:
    """Show the trials, and how the best of them learned.

    Args:
        trials: rows of trials.csv.
        curves: rows of learning_curves.csv; empty for a run by an older version.
        search_gain: `gain` over the first point and `noise` of a seed, minutes; empty if unknown.
        is_split_by_distance: trips without a distance have boosters of their own, not scored in
            the trials.
    """
    scored = sorted((row for row in trials if row["rmse"]), key=lambda row: float(row["rmse"]))
    finished = [row for row in scored if row["state"] == "finished"] or scored
    if not finished:
        return []
    best = finished[0]
    count = {state: sum(row["state"] == state for row in trials) for state in STATES}
    n_each = ", ".join(f"{n} {state}" for state, n in count.items() if n)
    summary = f"{format_count(len(trials), 'trial')}: {n_each}."
    if search_gain:
        summary += (
            f" The best one is {search_gain['gain']:.3f} min better than the first point tried; "
            f"another seed changes that by {search_gain['noise']:.3f} min."
        )
    if is_split_by_distance:
        summary += (
            " Trips without a distance have boosters of their own: trials are scored on the "
            "others, but the model is scored on all trips."
        )
    charts = [trials_chart(scored, best), *curve_chart(finished, curves)]
    return [paragraph(summary), '<div class="charts">', *charts, "</div>"]


STATES = ("finished", "pruned", "failed")


def trials_chart(scored: CsvRows, best: Mapping[str, str]) -> Chart:
    """Draw the RMSE of the trials in their order, grouped by how they ended."""
    shown = sorted(scored, key=lambda row: int(row["trial"]))
    best_label = f"best, trial {best['trial']}"
    points = [name for name in shown[0] if name not in NOT_PARAMETERS]
    return Chart(
        "points",
        f"Trial {best['trial']} is best, with {float(best['rmse']):.3f} min.",
        {
            TRIAL: [int(row["trial"]) for row in shown],
            RMSE_VALID: [round(float(row["rmse"]), 4) for row in shown],
            "it": [best_label if row is best else row["state"] for row in shown],
            **{name: [row[name] for row in shown] for name in points},
        },
        series="it",
        best=best_label,
    )


NOT_PARAMETERS = (
    *("trial", "state", "rmse", "best_round", "n_rounds", "train_seconds", "failure", "run_id"),
)


def curve_chart(finished: CsvRows, curves: CsvRows) -> list[Chart]:
    """Draw the learning curves of the best trials, best first; no chart without curves."""
    best_trials = [row["trial"] for row in finished[:N_CURVES]]
    shown = [row for trial in best_trials for row in curves if row["trial"] == trial]
    if not shown:
        return []
    return [
        Chart(
            "lines",
            f"Trial {best_trials[0]} is best after {_from_1(finished[0]['best_round'])} rounds.",
            {
                "round": [_from_1(row["round"]) for row in shown],
                RMSE_VALID: [round(float(row["rmse"]), 4) for row in shown],
                TRIAL: [row["trial"] for row in shown],
            },
            series=TRIAL,
            best=best_trials[0],
        )
    ]


def _from_1(index: str) -> int:
    """Count a round from 1, for people; tables count from 0."""
    return int(index) + 1


def importance_parts(importance: CsvRows) -> list[str | Chart]:
    """Show which features the model uses, and by how many minutes each moves a prediction.

    Args:
        importance: rows of importance.csv, most important first.
    """
    if not importance:
        return []
    shown = importance[:N_FEATURES]
    minutes = [float(row["shap"]) for row in shown]
    first = [
        f"{describe_feature(row['feature'])} ({float(row['shap']):.1f} min)" for row in shown[:3]
    ]
    summary = (
        "How far each feature moves a prediction up or down, on average over trips (mean absolute "
        "SHAP value). Most: " + "; ".join(first) + "."
    )
    chart = Chart(
        "rows",
        f"Features by how much they move the prediction; "
        f"{format_count(len(importance), 'feature')} in total.",
        {
            "feature": [describe_feature(row["feature"]) for row in shown],
            "mean move, min": [round(m, 3) for m in minutes],
            "column": [row["feature"] for row in shown],
        },
    )
    return [paragraph(summary), chart]
