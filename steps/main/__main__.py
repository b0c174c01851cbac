"""Run the whole pipeline: preprocess, baseline, hpo, register, under one parent run.

python -m steps.main --source=simulated --max_evals=10
"""

import argparse
import shlex
from collections.abc import Sequence

import mlflow
from mlflow.entities import Run

from steps.common.pipeline import Pipeline
from steps.common.step import entry_parser, step_run
from steps.common.validate import refuse_typos
from steps.main import rerun
from steps.main.plan import plan
from storage.repro import reuse
from storage.tracking import models, runs

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
    """Pipeline the steps, hand run ids forward, hoist the headline numbers, write the summary."""
    with step_run(build_parser(), argv) as args:
        refuse_typos(args)
        models.check_name(args.model_name)
        if args.plan:
            print("\n".join(plan(args)))
            return
        chain = Pipeline(args)
        for step in HOISTED:
            if step == "register" and "sha256.test" not in chain.done["preprocess"].data.tags:
                break  # without test months there is nothing to judge a champion by
            hoist(step, chain.get_or_run(step))
        hoist_best(chain.done)
        print(log_summary(chain, args))


def log_summary(chain: Pipeline, args: argparse.Namespace) -> str:
    """Write the run's page and tags: the runs of its steps, and how to repeat it."""
    run = runs.active()
    note = summary(chain, run, args)
    steps = {f"{step}_run_id": done.info.run_id for step, done in chain.done.items()}
    reused = ",".join(step for step, decision in chain.decisions.items() if decision.run)
    mlflow.set_tags(
        {
            **steps,
            "reused": reused,
            "rerun": rerun.command(run, args),
            "mlflow.note.content": note,
        }
    )
    return note


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


def summary(chain: Pipeline, run: Run, args: argparse.Namespace) -> str:
    """Write the page of the pipeline's run: what won, the leaderboard, what to do next."""
    done, tags = chain.done, chain.done["preprocess"].data.tags
    lines = [
        f"Trained on {tags['months.train']}, chosen on {tags['months.valid']}.",
        "",
        *leaderboard(done),
        "",
        *verdict(done, args),
        "",
        *reused(chain),
        *rerun.lines(run, args),
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


def reused(chain: Pipeline) -> list[str]:
    """Link the runs that this pipeline did not make itself."""
    links = [
        f"- {step}: {decision.why.partition(' ')[0]} "
        f"[{reuse.short(run)}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}) "
        f"{decision.why.partition('… ')[2]}"
        for step, decision in chain.decisions.items()
        if (run := decision.run)
    ]
    return [*links, ""] if links else []


if __name__ == "__main__":
    main()
