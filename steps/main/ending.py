"""What a pipeline says last in the terminal: its models as a table, what won, how to go on."""

from collections.abc import Iterable, Mapping, Sequence

from steps.common.results import RMSES, Candidate
from storage import terminal
from taxi.distances import METERED, MISSING, PLANNED_10, PLANNED_20

# score on valid -> its column, the most telling first: a narrow terminal shows no more than fit
HEADS: Mapping[str, str] = {
    RMSES[METERED]: "RMSE",
    RMSES[PLANNED_10]: "±10 %",
    RMSES[PLANNED_20]: "±20 %",
    RMSES[MISSING]: "none",
    "mae": "MAE",
    "r2": "R2",
}
DIGITS = 3


def print_ending(
    months: Mapping[str, Sequence[str]], candidates: Sequence[Candidate], page: Iterable[str]
) -> None:
    """Print the models of a pipeline, and lines of its page.

    Args:
        months: split -> the months of its trips.
        candidates: the models, best first.
        page: what follows the table.
    """
    train, valid = (",".join(months[split]) for split in ("train", "valid"))
    print(f"\nTrained on {train}, chosen on {valid}. Errors there in minutes, with the metered")
    print("distance, with one planned to ±10 % or ±20 %, and with none:\n")
    rows = [[one.model, one.features, *cells(one.scores)] for one in candidates]
    terminal.print_table(["model", "features", *HEADS.values()], rows, n_texts=2, strong=0)
    print()
    terminal.print_page(page)


def cells(scores: Mapping[str, float]) -> list[str]:
    """Write the scores of a model as short as they fit; an older run, which was given, lacks some.

    Where a single trip has thrown a model out, its errors need no decimals and its R2 no number.
    """
    return [score_cell(name, scores[name]) if name in scores else "" for name in HEADS]


def score_cell(name: str, value: float) -> str:
    """Write a score of one model."""
    if name == "r2" and value < -99:
        return "< -99"
    return f"{value:,.0f}" if value >= 100 else f"{round(value, DIGITS) + 0.0:.{DIGITS}f}"
