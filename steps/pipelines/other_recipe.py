"""The recipe that a backtest is compared with: that of another backtest, or of a parameter file."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlflow

from steps.common import page
from steps.common.command_line import check_parameter_file
from steps.common.parameter_file import ParameterFile, read_parameter_file
from steps.common.parameters import BacktestParameters
from steps.pipelines.folds import Fold
from storage import UserError
from storage.tracking import artifacts, runs, tags
from taxi import backtest
from taxi.backtest import MonthErrors

FILE_ENDINGS = (".yaml", ".yml")
# parameters that are not part of a recipe: which trips are judged, and how a backtest runs
NOT_IN_RECIPE = frozenset(
    {
        *("taxi", "source", "months", "horizon", "judge_by", "against"),
        *("scheduler", "parallelism", "folds_at_once", "reuse"),
    }
)


class OtherRecipe(NamedTuple):
    """What a backtest is compared with."""

    name: str  # in words
    rows: list[MonthErrors]  # of the backtest that judged it; [] if this one is to do so
    recipe: BacktestParameters | None = None  # the recipe to judge; None if it was judged
    file: ParameterFile | None = None  # that the recipe comes from


def find_other_recipe(params: BacktestParameters) -> OtherRecipe | None:
    """Find what a backtest is to be compared with; None if nothing.

    Raises:
        UserError: there is no such finished backtest, or the file cannot be used.
    """
    if not params.against:
        return None
    if params.against.endswith(FILE_ENDINGS):
        file = read_parameter_file(params.against)
        check_parameter_file(file, with_lists=False)
        return OtherRecipe(f"that of {params.against}", [], read_other_recipe(params, file), file)
    run = runs.finished(params.against, "backtest", parameter="against")
    table = artifacts.read_table(run.info.run_id, tags.BACKTEST_TABLE)
    rows = [MonthErrors.read(row) for row in table]
    return OtherRecipe(f"that of run {params.against[:8]}…", rows)


def read_other_recipe(params: BacktestParameters, file: ParameterFile) -> BacktestParameters:
    """Return these parameters with a file's recipe in place of theirs.

    Raises:
        UserError: the file holds no parameter of a recipe.
    """
    names = type(params).model_fields.keys() - NOT_IN_RECIPE
    changes = {name: entry.texts[0] for name, entry in file.of(dict.fromkeys(names)).items()}
    if not changes:
        raise UserError(
            f"{params.against} has no parameter of a recipe, such as window or half_life. "
            "Add what differs."
        )
    texts: dict[str, Any] = {**params.launch_texts(), **changes, "horizon": "0", "against": ""}
    return BacktestParameters(**texts).with_file(file)


def check_shared_months(folds: Sequence[Fold], other: OtherRecipe | None) -> None:
    """Check that the backtest to compare with judged at least one of these months.

    Raises:
        UserError: the other one judged none of the months of these folds.
    """
    if not other or other.recipe:
        return
    judged_months = backtest.fresh_errors(other.rows)
    if not any(fold.month in judged_months for fold in folds):
        raise UserError(
            f"against: {other.name} judged {page.format_months(sorted(judged_months))}, none of "
            "which is among months. Pass a backtest of the same months."
        )


def rerun_lines(params: BacktestParameters, other: OtherRecipe | None) -> list[str]:
    """Say how to run the backtest again, and how a teammate gets the other recipe's file."""
    lines = [page.as_code(page.rerun_command(params))]
    if other and other.file and not other.file.committed:
        lines += ["", *page.describe_uncommitted_file(tags.AGAINST_FILE)]
    return lines


def compare_with(
    rows: Sequence[MonthErrors], other: OtherRecipe, others: Sequence[MonthErrors]
) -> str:
    """Say which of two recipes is better, and log by how much.

    Args:
        rows: of this backtest.
        other: what it is compared with.
        others: its errors.
    """
    if other.file:
        mlflow.log_text(other.file.text, tags.AGAINST_FILE)
    found = backtest.compare_recipes(rows, others)
    if not found:
        return (
            f"Not compared with {other.name}: it was judged on different trips of the same months."
        )
    mlflow.log_metrics({tags.AGAINST.of(end): v for end, v in found.minutes._asdict().items()})
    return backtest.describe_difference(found, other.name)
