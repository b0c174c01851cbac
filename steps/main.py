"""Run the whole pipeline: preprocess, baseline, hpo, register, under one parent run.

python -m steps.main --source=simulated --max_evals=10
"""

import argparse
import shlex
from collections.abc import Sequence

import mlflow
from mlflow.entities import Run

from steps import entry_parser, step_run
from steps._given import base_run_id, refuse_typos
from storage import checkout, models, runs

TEST_SCORES = ("test_rmse", "test_mae", "test_r2")
# the steps in order, and the numbers of each that its parent shows too
HOISTED = {
    "preprocess": ("n_trips_train", "n_trips_valid", "n_trips_test"),
    "baseline": ("rmse", "mae", "r2"),
    "hpo": ("rmse", "mae", "r2", "best_rmse"),
    "register": (
        *(*TEST_SCORES, "champion_test_rmse"),
        *("improvement", "improvement_low", "improvement_high"),
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("main", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Chain the steps, hand run ids forward, hoist the headline numbers, write the summary."""
    with step_run(build_parser(), argv) as args:
        refuse_typos(args)
        models.check_name(args.model_name)
        parameters = vars(args) | {"preprocess_run_id": base_run_id(args)}
        done: dict[str, Run] = {}
        for step in HOISTED:
            if step == "register" and "sha256.test" not in done["preprocess"].data.tags:
                break  # without test months there is nothing to judge a champion by
            run_id = runs.upstream(step, parameters.get(f"{step}_run_id", ""), parameters)
            parameters = parameters | {f"{step}_run_id": run_id}
            done[step] = runs.finished(run_id, step)
            hoist(step, done[step])
        hoist_best(done)
        note = summary(done, args)
        mlflow.set_tag("mlflow.note.content", note)
        print(note)


def hoist(step: str, run: Run) -> None:
    """Copy a step's headline numbers to the pipeline's run: hpo.rmse and so on."""
    found = {name: run.data.metrics[name] for name in HOISTED[step] if name in run.data.metrics}
    mlflow.log_metrics({f"{step}.{name}": value for name, value in found.items()})


def hoist_best(done: dict[str, Run]) -> None:
    """Give the pipeline's run the scores of its best model under the names that models' runs have.

    So a table of runs sorted by rmse or test_rmse keeps its pipelines.
    """
    best = min((done["baseline"], done["hpo"]), key=lambda run: run.data.metrics["rmse"])
    scores = {name: best.data.metrics[name] for name in HOISTED["baseline"]}
    if "register" in done:
        scores |= {name: done["register"].data.metrics[name] for name in TEST_SCORES}
    mlflow.log_metrics(scores)
    mlflow.set_tag("model", best.data.tags["model"])


def summary(done: dict[str, Run], args: argparse.Namespace) -> str:
    """Write the page of the pipeline's run: what won, the leaderboard, what to do next."""
    tags = done["preprocess"].data.tags
    lines = [
        f"Trained on {tags['months.train']}, chosen on {tags['months.valid']}.",
        "",
        *leaderboard(done),
        "",
        *verdict(done, args),
        "",
        "Run it again:",
        "",
        f"    {checkout.run_command('main', vars(args))}",
    ]
    return "\n".join(lines)


def leaderboard(done: dict[str, Run]) -> list[str]:
    """Lay every candidate out as a markdown table, best first."""
    found = [*runs.children(done["baseline"].info.run_id), *runs.children(done["hpo"].info.run_id)]
    candidates = [run for run in found if run.data.tags.get("candidate") == "true"]
    candidates.sort(key=lambda run: run.data.metrics["rmse"])
    rows = [
        f"| {run.data.tags['model']} | {run.data.tags['features']} "
        + "".join(f"| {run.data.metrics[name]:.3f} " for name in ("rmse", "mae", "r2"))
        + "|"
        for run in candidates
    ]
    return [
        "| model | features | valid RMSE, min | MAE, min | R2 |",
        "|---|---|---|---|---|",
        *rows,
    ]


def verdict(done: dict[str, Run], args: argparse.Namespace) -> list[str]:
    """Say what was registered and how to use it, or why nothing was."""
    if "register" not in done:
        return ["Nothing was registered: register needs test months (-P test_months=YYYY-MM)."]
    run = done["register"]
    tags = run.data.tags
    name, model, champion = tags["model_name"], tags["model"], tags["champion_version"]
    months, rmse = done["preprocess"].data.tags["months.test"], run.data.metrics["test_rmse"]
    lines = [f"**{model}** is `{name}` version {tags['version']}: RMSE {rmse:.3f} min on {months}."]
    if champion == tags["version"]:
        lines += ["", f"It is the champion: {tags['reasons']}."]
    else:
        there = f"version {champion} stays" if champion else "there is none"
        lines += ["", f"It is not the champion, {there}: {tags['reasons']}."]
    if champion:
        uri = shlex.quote(f"models:/{name}@champion")
        lines += ["", "Serve the champion:", ""]
        lines += [f"    mlflow models serve -m {uri} --env-manager uv"]
    return lines


if __name__ == "__main__":
    main()
