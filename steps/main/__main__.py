"""Run the whole pipeline: preprocess, baseline, hpo, register, under one parent run.

python -m steps.main --source=simulated --max_evals=10
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence

import mlflow

from steps.common.parameters import MainParameters
from steps.common.pipeline import Pipeline
from steps.common.results import (
    SCORES,
    TEST_SCORES,
    Candidate,
    Dataset,
    RegisterResult,
    write_best,
)
from steps.common.step import step_run
from steps.common.validate import check_pipeline
from steps.main import rerun
from steps.main.plan import plan
from storage.repro import reuse
from storage.repro.reuse import ReuseDecision
from storage.tracking import runs, tags


def main(argv: Sequence[str] | None = None) -> None:
    """Chain the steps, hand run ids forward, repeat the headline numbers, write the summary."""
    with step_run(MainParameters, __doc__, argv) as params:
        check_pipeline(params)
        pipeline = Pipeline(params)
        if params.plan:
            print("\n".join(plan(pipeline, params)))
            return
        preprocess = pipeline.preprocess()
        log_headline("preprocess", preprocess.metrics)
        baseline = pipeline.baseline()
        log_headline("baseline", baseline.metrics)
        hpo = pipeline.hpo()
        log_headline("hpo", hpo.metrics)
        registered = None
        if preprocess.dataset.has_test:  # else there is nothing to judge a champion by
            registered = pipeline.register()
            log_headline("register", registered.metrics)
        best = min((baseline, hpo), key=lambda result: result.metrics["rmse"])
        tested = {name: registered.metrics[name] for name in TEST_SCORES} if registered else {}
        # so a table of runs sorted by rmse or test_rmse keeps its pipelines
        write_best(best.model, {name: best.metrics[name] for name in SCORES} | tested)
        run, used = runs.active(), MainParameters.of(pipeline.params)
        note = "\n".join(
            [
                *summary(preprocess.dataset, [*baseline.candidates, *hpo.candidates], registered),
                *links(pipeline.decisions),
                *rerun.lines(run, used),
            ]
        )
        log_summary(pipeline, note, rerun.command(run, used))
        print(note)


def log_headline(step: str, metrics: Mapping[str, float]) -> None:
    """Repeat a step's headline numbers on the pipeline's run: hpo.rmse and so on."""
    mlflow.log_metrics({f"{step}.{name}": value for name, value in metrics.items()})


def log_summary(pipeline: Pipeline, note: str, command: str) -> None:
    """Tag the pipeline's run with its page, the runs of its steps, and how to repeat it."""
    reused = [step for step, decision in pipeline.decisions.items() if decision.run]
    mlflow.set_tags(
        {
            **{tags.RUN_IDS[step]: run.info.run_id for step, run in pipeline.done.items()},
            tags.REUSED: ",".join(reused),
            tags.RERUN: command,
            tags.NOTE: note,
        }
    )


def summary(
    dataset: Dataset, candidates: Iterable[Candidate], registered: RegisterResult | None
) -> list[str]:
    """Write what won, the leaderboard, and what to do next."""
    months = {split: ",".join(names) for split, names in dataset.months.items()}
    return [
        f"Trained on {months['train']}, chosen on {months['valid']}.",
        "",
        *leaderboard(candidates),
        "",
        *(verdict(registered, months["test"]) if registered else [NOT_REGISTERED]),
        "",
    ]


NOT_REGISTERED = "Nothing was registered: register needs test months (-P test_months=YYYY-MM)."


def leaderboard(candidates: Iterable[Candidate]) -> list[str]:
    """Lay every candidate out as a markdown table, best first."""
    rows = [
        f"| {one.model} | {one.features} "
        + "".join(f"| {one.scores[name]:.3f} " for name in SCORES)
        + "|"
        for one in sorted(candidates, key=lambda candidate: candidate.scores["rmse"])
    ]
    return [
        "| model | features | valid RMSE, min | MAE, min | R2 |",
        "|---|---|---|---|---|",
        *rows,
    ]


def verdict(registered: RegisterResult, months: str) -> list[str]:
    """Write what was registered and how to use it."""
    name, version, champion = (
        registered.model_name,
        registered.version,
        registered.champion_version,
    )
    rmse = f"RMSE {registered.metrics['test_rmse']:.3f} min on {months}"
    lines = [f"**{registered.model}** is `{name}` version {version}: {rmse}."]
    if champion == version:
        lines += ["", f"It is the champion: {registered.reasons}."]
    else:
        there = f"version {champion} stays" if champion else "there is none"
        lines += ["", f"It is not the champion, {there}: {registered.reasons}."]
    if champion:
        uri = shlex.quote(f"models:/{name}@champion")
        lines += ["", "Serve the champion:", ""]
        lines += [f"    mlflow models serve -m {uri} --env-manager uv"]
    return lines


def links(decisions: Mapping[str, ReuseDecision]) -> list[str]:
    """Link the runs that this pipeline did not make itself."""
    found = [
        f"- {step}: reused "
        f"[{reuse.short(run)}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}) "
        f"({decision.reason})"
        for step, decision in decisions.items()
        if (run := decision.run)
    ]
    return [*found, ""] if found else []


if __name__ == "__main__":
    main()
