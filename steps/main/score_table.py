"""The end of a pipeline's terminal output: its models as a table, what won, what to do next."""

from collections.abc import Iterable, Mapping, Sequence

from steps.common.results import RMSES, Candidate, Dataset
from storage import terminal
from taxi.distances import METERED, MISSING, PLANNED_10, PLANNED_20, distance_kind_of

# validation score -> its column heading, most informative first: a narrow terminal cuts the rest
HEADERS: Mapping[str, str] = {
    RMSES[METERED]: "RMSE",
    RMSES[PLANNED_10]: "±10 %",
    RMSES[PLANNED_20]: "±20 %",
    RMSES[MISSING]: "none",
    "mae": "MAE",
    "r2": "R2",
}
DIGITS = 3


def distinct_columns(columns: Mapping[str, str], taxi: str) -> dict[str, str]:
    """Keep only one RMSE column, score -> heading, if trips of this taxi never have a distance."""
    one = distance_kind_of(taxi) == MISSING
    others = {name for name in RMSES.values() if name != RMSES[METERED]} if one else set()
    return {name: header for name, header in columns.items() if name not in others}


def print_outcome(dataset: Dataset, candidates: Sequence[Candidate], page: Iterable[str]) -> None:
    """Print the models of a pipeline as a table, and lines of its page.

    Args:
        dataset: its trips.
        candidates: the models, best first.
        page: lines to print after the table.
    """
    train, valid = (",".join(dataset.months[split]) for split in ("train", "valid"))
    headers = distinct_columns(HEADERS, dataset.taxi)
    if len(headers) < len(HEADERS):
        print(f"\nTrained on {train}, chosen on {valid}. Errors there in minutes:\n")
    else:
        print(f"\nTrained on {train}, chosen on {valid}. Errors there in minutes, with the metered")
        print("distance, with one planned to ±10 % or ±20 %, and with none:\n")
    rows = [[one.model, one.features, *cells(one.scores, headers)] for one in candidates]
    terminal.print_table(["model", "features", *headers.values()], rows, n_texts=2, strong=0)
    print()
    terminal.print_page(page)


def cells(scores: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """Format the scores of a model briefly; "" for one that a given run of an older version lacks.

    Where a single trip has spoiled a model, its errors need no decimals and its R2 no number.
    """
    return [score_cell(name, scores[name]) if name in scores else "" for name in names]


def score_cell(name: str, value: float) -> str:
    """Format one score of a model."""
    if name == "r2" and value < -99:
        return "< -99"
    return f"{value:,.0f}" if value >= 100 else f"{round(value, DIGITS) + 0.0:.{DIGITS}f}"
