"""Run the whole pipeline: preprocess, baseline, hpo, register, under one parent run.

python -m steps.main --source=simulated --max_evals=10
"""

from collections.abc import Iterable, Mapping, Sequence

import mlflow

from steps.common import charts, page
from steps.common.parameters import ALL_STEPS, MainParameters
from steps.common.pipeline import Pipeline
from steps.common.results import (
    IMPROVEMENT_METRICS,
    RMSES,
    TEST_SCORES,
    TRAINING_STEPS,
    Candidate,
    Dataset,
    RegisterResult,
    TrainingResult,
    rmse_name,
    write_best,
)
from steps.common.step import step_run
from steps.common.validate import check_given_runs, check_one_taxi, check_pipeline
from steps.main import report, rerun
from steps.main.headline import PipelineOutcome, headline
from steps.main.plan import plan
from steps.main.score_table import HEADERS, cells, distinct_columns, print_outcome
from storage.data import splits
from storage.repro import reuse
from storage.repro.reuse import ReuseDecision
from storage.tracking import pages, runs, store, tags
from storage.tracking.registry import Registry
from taxi import distances
from taxi.distances import (
    DISTANCE_KINDS,
    METERED,
    MISSING,
    PLANNED_10,
    PLANNED_20,
    distance_kind_of,
)
from taxi.schema import select_taxi


def main(argv: Sequence[str] | None = None) -> None:
    """Chain the steps, pass run ids on, repeat their headline numbers, write the summary."""
    with step_run(MainParameters, __doc__, argv) as params:
        check_pipeline(params)
        pipeline = Pipeline(params)
        check_given_runs(pipeline.given, params.judge_by)
        if will_register(pipeline) and (not params.plan or store.exists()):  # a plan creates none
            check_one_taxi(params.model_name, pipeline.params.taxi)
            pipeline.before_work = Registry(params.model_name).check_writable
        if params.plan:
            return page.report_plan(plan(pipeline, params))
        preprocess = pipeline.preprocess()
        log_headline("preprocess", preprocess.metrics)
        trained = [train(pipeline, step) for step in TRAINING_STEPS if step in pipeline.steps]
        registered = None
        # without test months there is nothing to judge a champion by
        if "register" in pipeline.steps and preprocess.dataset.has_test:
            registered = pipeline.register()
            log_headline("register", registered.metrics)
        taxi = preprocess.dataset.taxi
        distance = distances.distance_kind_of(taxi, distances.select_distance_kind(params.judge_by))
        candidates = ranked([one for step in trained for one in step.candidates], distance)
        command = log_summary(pipeline)
        missing_option = ADD_TEST_MONTHS if "register" in pipeline.steps else ADD_ALL_STEPS
        outcome = PipelineOutcome(
            preprocess.dataset, candidates, registered, distance, command, missing_option
        )
        if candidates:
            write_outcome(pipeline, outcome)
        else:
            write_trips_page(pipeline, command)
        reuse.tag_key(pipeline.pipeline_key())


def will_register(pipeline: Pipeline) -> bool:
    """Whether a version will be registered; without test months there is nothing to judge it by."""
    params = MainParameters.of(pipeline.params)
    wants = "register" in pipeline.steps and not params.test_only
    return wants and bool(params.test_months.strip())


def write_outcome(pipeline: Pipeline, outcome: PipelineOutcome) -> None:
    """Report what won: on the pipeline's run, in its report and on the terminal.

    Args:
        pipeline: all of its wanted steps are done.
        outcome: its result.
    """
    dataset, best, run = outcome.dataset, outcome.candidates[0], runs.active()
    # so that pipelines appear in a table of runs sorted by rmse or test_rmse
    write_best(best.model, headline_scores(best, outcome.registered))
    concluded = [*conclusion(outcome), *list_odd_months(pipeline.preprocess().odd_months)]
    how = rerun.lines(run, used_parameters(pipeline), outcome.rerun)
    first, table, again = headline(outcome), summary(outcome), [RERUN_LABEL, "", *how]
    place = report.log_report(
        pipeline, outcome, headline=first, conclusion=concluded, leaderboard=table, rerun=how
    )
    # MLflow shows these lines without unfolding; links work only in the first two
    stands = f"{first[1]} · {charts.link_report(run)}"
    unfolded = "  \n".join([first[0], stands, *first[2:]])
    parts = [table, concluded, link_reused_runs(pipeline.decisions), again]
    note = "\n".join(line for part in parts for line in part)
    title = page.title(dataset, best.scores[rmse_name(outcome.distance)])
    runs.write_page(f"{unfolded}\n\n{note}", title)
    if runs.is_user_facing(run):  # not below a sweep or backtest, whose own output it would bury
        served = describe_serving(outcome.registered)
        print_outcome(dataset, outcome.candidates, [*concluded, *served, *again])
        print(f"report: {place}")


def write_trips_page(pipeline: Pipeline, command: str) -> None:
    """Write the page of a pipeline that was not asked for a model."""
    preprocess = pipeline.preprocess()
    again = [RERUN_LABEL, "", *rerun.lines(runs.active(), used_parameters(pipeline), command)]
    lines = [*list_odd_months(preprocess.odd_months), *link_reused_runs(pipeline.decisions), *again]
    counts = ((split, tags.N_TRIPS.of(split)) for split in preprocess.dataset.sha256)
    trips = ", ".join(f"{split} {preprocess.metrics[name]:,.0f}" for split, name in counts)
    verdict = f"**No model was made.** Trips kept: {trips}. Next: the same with `{ADD_ALL_STEPS}`"
    page.write_verdict(verdict, "\n".join(lines), dataset=preprocess.dataset)
    if runs.is_user_facing(runs.active()):
        print("\n".join(again))


def used_parameters(pipeline: Pipeline) -> MainParameters:
    """Return the parameters that the pipeline used in the end."""
    return MainParameters.of(pipeline.params)


def train(pipeline: Pipeline, step: str) -> TrainingResult:
    """Get the result of a training step, and repeat its headline numbers."""
    result = pipeline.training(step)
    log_headline(step, result.metrics)
    return result


def ranked(candidates: Sequence[Candidate], distance: str) -> list[Candidate]:
    """Sort the candidates as register does: by validation RMSE with this kind of distance."""
    return sorted(candidates, key=lambda candidate: candidate.scores[rmse_name(distance)])


def headline_scores(best: Candidate, registered: RegisterResult | None) -> dict[str, float]:
    """Combine the best candidate's validation scores with the tested model's scores on test."""
    tested = {name: registered.metrics[name] for name in TEST_SCORES} if registered else {}
    return best.scores | tested


def log_headline(step: str, metrics: Mapping[str, float]) -> None:
    """Repeat a step's headline numbers on the pipeline's run, as hpo.rmse and so on."""
    mlflow.log_metrics({f"{step}.{name}": value for name, value in metrics.items()})


def log_summary(pipeline: Pipeline) -> str:
    """Tag the pipeline's run with its trips and the runs of its steps.

    Returns:
        The command that repeats the pipeline, which is tagged too.
    """
    reused = [step for step, decision in pipeline.decisions.items() if decision.run]
    command = rerun.command(runs.active(), used_parameters(pipeline), runs.experiment_name())
    mlflow.set_tags(
        {
            **{tags.RUN_IDS[step]: run.info.run_id for step, run in pipeline.done.items()},
            tags.REUSED: ",".join(reused) or "none",
            tags.RERUN: command,
            **pipeline.preprocess().dataset.tags(),
        }
    )
    return command


def summary(outcome: PipelineOutcome) -> list[str]:
    """Write the leaderboard."""
    months = {split: ",".join(names) for split, names in outcome.dataset.months.items()}
    return [
        f"Trained on {months['train']}, chosen on {months['valid']}. Errors there, minutes:",
        "",
        *leaderboard(outcome.candidates, outcome.dataset.taxi),
        "",
    ]


def list_odd_months(lines: Sequence[str]) -> list[str]:
    """List what is implausible about the months; [] if nothing is."""
    return ["Check these months:", "", *(f"- {line}" for line in lines), ""] if lines else []


RERUN_LABEL = "Run it again:"
# what to add so that register runs
ADD_TEST_MONTHS, ADD_ALL_STEPS = "-P test_months=next", f"-P steps={ALL_STEPS}"
WHY_NOT_REGISTERED = {
    ADD_TEST_MONTHS: "register needs test months",
    ADD_ALL_STEPS: "steps leaves register out",
}


def conclusion(outcome: PipelineOutcome) -> list[str]:
    """Say what became of the best model, and what to do next."""
    dataset, missing_option = outcome.dataset, outcome.missing_option
    if outcome.registered:
        lines = verdict(outcome.registered, ",".join(dataset.months["test"]), dataset.taxi)
    else:
        lines = [
            f"Nothing was registered: {WHY_NOT_REGISTERED[missing_option]} ({missing_option})."
        ]
    return [*lines, "", *suggest_more_months(dataset)]


def suggest_more_months(dataset: Dataset) -> list[str]:
    """Suggest more months to train on; [] if months are simulated or there are none to add."""
    train, valid = dataset.months["train"], dataset.months["valid"]
    earlier = splits.a_year_earlier(train, valid, dataset.months.get("test", []))
    if dataset.is_simulated or not earlier or earlier[0] < select_taxi(dataset.taxi).first_month:
        return []
    line = (
        f"The same months a year earlier, with less weight (half_life), usually help: "
        f"`-P train_months={','.join([*earlier, *train])}`."
    )
    return [line, ""]


def leaderboard(candidates: Iterable[Candidate], taxi: str) -> list[str]:
    """Format the candidates as a markdown table, in the given order."""
    columns = distinct_columns(COLUMNS if distance_kind_of(taxi) == METERED else HEADERS, taxi)
    rows = [[one.model, one.features, *cells(one.scores, columns)] for one in candidates]
    return page.to_table(["model", "features", *columns.values()], rows).split("\n")


# validation score -> its column heading
COLUMNS: dict[str, str] = {
    RMSES[METERED]: "RMSE, metered distance",
    RMSES[PLANNED_10]: "±10 %",
    RMSES[PLANNED_20]: "±20 %",
    RMSES[MISSING]: "no distance",
    "mae": "MAE, metered",
    "r2": "R2, metered",
}


def verdict(registered: RegisterResult, months: str, taxi: str) -> list[str]:
    """Say what was registered, and whether it is the champion."""
    name, version, champion = (
        registered.model_name,
        registered.version,
        registered.champion_version,
    )
    rmses = ", ".join(
        f"{registered.metrics[tags.TEST.of(RMSES[kind])]:.3f} min with {words}"
        for kind, words in DISTANCE_KINDS.items()
        if kind == distance_kind_of(taxi, kind)
    )
    if not version:
        text = f"**{registered.model}** is not registered ({registered.reasons})."
        return [f"{text} RMSE on {months}: {rmses}."]
    lines = [f"**{registered.model}** is `{name}` version {version}. RMSE on {months}: {rmses}."]
    if champion == version:
        lines += ["", f"It is the champion: {explain_promotion(registered)}."]
    else:
        standing = f"version {champion} stays champion" if champion else "no champion yet"
        lines += ["", f"It is refused; {standing}: {registered.reasons}."]
    return lines


def describe_serving(registered: RegisterResult | None) -> list[str]:
    """Say how to serve the champion; [] if there is none."""
    if not registered or not registered.champion_version:
        return []
    return [*page.serving_text(registered.model_name).split("\n"), ""]


def explain_promotion(registered: RegisterResult) -> str:
    """Say by how much it beat the champion before; without one, the gate's reasons."""
    if not {*IMPROVEMENT_METRICS} <= registered.metrics.keys():
        return registered.reasons
    improvement, low, high = (registered.metrics[name] for name in IMPROVEMENT_METRICS)
    return (
        f"its RMSE is {improvement:.3f} min below the previous champion's on the same trips "
        f"(95 % interval {low:.3f} to {high:.3f}), and it passes every other check of the gate"
    )


def link_reused_runs(decisions: Mapping[str, ReuseDecision]) -> list[str]:
    """Link the runs that this pipeline reused."""
    found = [
        f"- {step}: reused "
        f"[{reuse.short_id(run)}]({pages.run_link(run.info.experiment_id, run.info.run_id)}) "
        f"({decision.reason})"
        for step, decision in decisions.items()
        if (run := decision.run)
    ]
    return [*found, ""] if found else []


if __name__ == "__main__":
    main()
