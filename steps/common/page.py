"""The page of a run in MLflow; the verdict comes first, because the UI folds the rest.

The name and the page of a run change no result.
"""

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

import mlflow

from steps.common.declaration import Parameters
from steps.common.results import Dataset
from storage.checkout import run_command
from storage.data.months import next_month
from storage.tracking import pages, runs, tags
from taxi.distances import DISTANCE_KINDS, distance_kind_of
from taxi.words import delimiter_row

WORST = "The worst predicted trips"


def write_verdict(
    verdict: str, *rest: str, dataset: Dataset | None = None, rmse: float | None = None
) -> None:
    """Write the page of the active run, and name the run after its trips and its error.

    Args:
        verdict: one line.
        rest: more paragraphs, in markdown.
        dataset: the trips that the run read or made; if None, the run keeps its name.
        rmse: the run's best, minutes.
    """
    runs.write_page("\n\n".join([verdict, *filter(None, rest)]), title(dataset, rmse))


def report_plan(lines: Sequence[str]) -> None:
    """Print a plan, and write it on the run's page if `mlflow run` has created a run."""
    text = "\n".join([*lines, "Nothing was started."])
    print(text)
    if mlflow.active_run():
        runs.write_page(f"**A plan**: what would run, and why\n\n```\n{text}\n```")


def title(dataset: Dataset | None, rmse: float | None) -> str:
    """Write a run's name from its trips and its error: green 2021-01 > 02 · 5.39 min."""
    if dataset is None:
        return ""
    train, valid = (format_months(dataset.months[split]) for split in ("train", "valid"))
    if valid[:5] == train[-7:-2]:  # of the same year
        valid = valid[5:]
    trips = f"{dataset.taxi} {train} > {valid}"
    return trips if rmse is None else f"{trips} · {rmse:.2f} min"


def format_months(months: Sequence[str]) -> str:
    """Write consecutive months as a range, 2021-01..2021-03, and others as a list."""
    follow = all(next_month(month) == after for month, after in pairwise(months))
    return ",".join(months) if len(months) == 1 or not follow else f"{months[0]}..{months[-1]}"


def link(text: str, artifact: str) -> str:
    """Link an artifact of the active run."""
    run = runs.active_info()
    return f"[{text}]({pages.artifact_link(run.experiment_id, run.run_id, artifact)})"


def link_worst() -> str:
    """Link the table of the active run's worst predicted trips."""
    return link(WORST, tags.WORST_TABLE)


def rerun_command(params: Parameters, *, experiment: str = "") -> str:
    """Write the command that runs a step with these parameters.

    Args:
        params: of the step.
        experiment: its name; empty = the active run's, which is looked up in the store.
    """
    experiment = experiment or runs.experiment_name()
    return run_command(params.entry_point, params.rerun_texts(), experiment=experiment)


def describe_uncommitted_file(artifact: str) -> list[str]:
    """Say how a teammate gets an uncommitted parameter file that a rerun command names."""
    command = f"mlflow artifacts download -r {runs.active_info().run_id} -a {artifact} -d ."
    return [
        f"The file is in no commit. It is the artifact {artifact}, which a teammate fetches and "
        "names by its whole path:",
        "",
        as_code(command),
    ]


def as_code(text: str) -> str:
    """Indent a command as a markdown code block."""
    return f"    {text}"


def serve_command(name: str) -> str:
    """Write the command that serves the champion of a registered model."""
    uri = shlex.quote(f"models:/{name}@champion")
    return f"mlflow models serve -m {uri} --env-manager uv --port 5001"


def serving_text(name: str) -> str:
    """Say how to serve the champion of a registered model."""
    return f"Serve the champion:\n\n{as_code(serve_command(name))}"


def to_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as a markdown table."""
    texts = [[str(cell) for cell in row] for row in rows]
    lines = [headers, delimiter_row([*zip(*texts, strict=True)] or [()] * len(headers)), *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def trial_page(number: int, *, rmse: float, best_round: int, n_rounds: int, pruned: bool) -> str:
    """Write the page of a trial; best_round counts from 0."""
    ended = ", where it was pruned because better trials were ahead by then" if pruned else ""
    return (
        f"**RMSE {rmse:.3f} min** on valid: trial {number} at round {best_round + 1} of "
        f"{n_rounds}{ended}"
    )


def scores_line(model: str, scores: Mapping[str, float], dataset: Dataset) -> str:
    """Write one line on how a model does on the validation months of a data set."""
    return (
        f"**RMSE {scores['rmse']:.3f} min** on {format_months(dataset.months['valid'])} (valid) "
        f"with {DISTANCE_KINDS[distance_kind_of(dataset.taxi)]}: "
        f"{model}, MAE {scores['mae']:.3f} min, R2 {scores['r2']:.3f}"
    )
