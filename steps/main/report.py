"""The report of a pipeline: facts gathered from the runs of its steps, on one offline page."""

import json
import re
from collections.abc import Sequence
from itertools import groupby

import mlflow
from mlflow.entities import Run

from steps.common import charts
from steps.common.inputs import load_city
from steps.common.pipeline import UPSTREAM, Pipeline
from steps.common.results import RMSES, Dataset, PreprocessResult, RegisterResult
from steps.main.headline import PipelineOutcome
from storage import StorageError
from storage.tracking import artifacts, model_references, runs, tags
from taxi import report, schema
from taxi.breakdown import Breakdown
from taxi.city import City
from taxi.distances import DISTANCE_KINDS, METERED, distance_kind_of
from taxi.evaluation import GroupErrors
from taxi.report import ErrorFacts, ReportFacts, StepFacts

# steps with the same upstream steps, as one stage each
STAGES = [tuple(steps) for _, steps in groupby(UPSTREAM, UPSTREAM.__getitem__)]
N_SCORED = 5  # latest runs of score whose drift is shown
COMPARED = {  # row of the comparison of two champions -> tag of a version
    "model": tags.MODEL,
    "trained on": tags.MONTHS.of("train"),
    "chosen on": tags.MONTHS.of("valid"),
    "tested on": tags.MONTHS.of("test"),
    "data": tags.DATA,
    "commit": tags.VERSION_COMMIT,
    "RMSE when it was tested, {distance}, min": tags.RMSE_TEST,
}


def log_report(
    pipeline: Pipeline,
    outcome: PipelineOutcome,
    *,
    headline: Sequence[str],
    conclusion: Sequence[str],
    leaderboard: Sequence[str],
    rerun: Sequence[str],
) -> str:
    """Write the report of a pipeline and log it to the active run; return where it is.

    Args:
        pipeline: all of its wanted steps are done.
        outcome: its result.
        headline, conclusion, leaderboard, rerun: parts of the run's page, as markdown lines.
    """
    preprocess, registered, read = pipeline.preprocess(), outcome.registered, ArtifactReader()
    known = registered if registered and registered.version else None  # only if in the registry
    hpo = pipeline.training("hpo") if "hpo" in pipeline.done else None
    facts = ReportFacts(
        title=report_title(preprocess.dataset),
        about=charts.describe_run(runs.active()),
        headline=headline,
        outcome=conclusion,
        steps=step_facts(pipeline),
        files=read.rows(preprocess.run_id, tags.MONTHS_TABLE, required=True),
        leaderboard=leaderboard,
        trials=read.rows(hpo.run_id, tags.TRIALS_TABLE, required=True) if hpo else [],
        curves=read.rows(hpo.run_id, tags.CURVES_TABLE) if hpo else [],
        search_gain=read_search_gain(pipeline.done["hpo"]) if hpo else {},
        is_split_by_distance=any(
            read.has_boosters_without_distance(one.run_id)
            for one in (hpo.candidates if hpo else [])
        ),
        errors=error_facts(read, outcome),
        city=read.city(preprocess),
        coverage=read.rows(registered.run_id, tags.COVERAGE_TABLE) if registered else [],
        importance=[
            row
            for one in (hpo.candidates if hpo else [])
            for row in read.rows(one.run_id, tags.IMPORTANCE_TABLE)
        ],
        champion=compare_champions(known, read) if known else {},
        gate=read.rows(registered.run_id, tags.GATE_TABLE) if registered else [],
        drift=drift_rows(known.model_name, read) if known else [],
        rerun=rerun,
        missing=read.missing,
    )
    scripts = charts.read_scripts()
    if not scripts:
        read.missing.append(charts.NO_LIBRARY)
    run, style = runs.active(), charts.read_style()
    mlflow.log_text(report.write_report(facts, style=style, scripts=scripts), tags.REPORT)
    return artifacts.find_location(run.info.run_id, tags.REPORT)


class ArtifactReader:
    """Reads artifacts of runs; one that cannot be read is noted in `missing`, and left out."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def text(self, run_id: str, name: str, *, required: bool = False) -> str:
        """Read a text; empty if it is not there or cannot be read.

        Args:
            run_id: of the run that logged it.
            name: of the artifact.
            required: whether every such run has it, so that its absence is noted.
        """
        try:
            is_present = required or artifacts.has_file(run_id, name)
            return artifacts.read_text(run_id, name) if is_present else ""
        except StorageError as error:
            self.missing.append(str(error))
            return ""

    def rows(self, run_id: str, name: str, *, required: bool = False) -> list[dict[str, str]]:
        """Read the rows of a table; the arguments are those of `text`."""
        return artifacts.parse_csv(self.text(run_id, name, required=required))

    def has_boosters_without_distance(self, run_id: str) -> bool:
        """Whether a model has separate boosters for trips without a distance."""
        recipe = self.text(run_id, tags.RECIPE)
        return bool(recipe and json.loads(recipe)["blind"])

    def version(self, name: str, number: str) -> dict[str, str]:
        """Read the tags of a registered version; {} if it cannot be read."""
        try:
            return dict(model_references.resolve(f"models:/{name}/{number}").tags)
        except StorageError as error:
            self.missing.append(str(error))
            return {}

    def city(self, preprocess: PreprocessResult) -> City | None:
        """Read the city's zones; None if there are none, or if they cannot be read."""
        try:
            return load_city(preprocess)
        except StorageError as error:
            self.missing.append(str(error))
            return None


def report_title(dataset: Dataset) -> str:
    """Write a report's title from the pipeline's data."""
    kind = "simulated" if dataset.is_simulated else "TLC"
    months = ", ".join(f"{split} {','.join(names)}" for split, names in dataset.months.items())
    return f"Minutes of {schema.select_taxi(dataset.taxi).singular}: {kind} months, {months}"


def step_facts(pipeline: Pipeline) -> list[list[StepFacts]]:
    """Say by stage how the pipeline got the result of each step: given, reused or run."""
    return [
        [step_fact(pipeline, step) for step in stage if step in pipeline.done] for stage in STAGES
    ]


def step_fact(pipeline: Pipeline, step: str) -> StepFacts:
    """Say how the pipeline got the result of a step that is done."""
    info = pipeline.done[step].info
    took = (info.end_time - info.start_time) / 1000 if info.end_time else None
    decision = pipeline.decisions.get(step)
    if not decision:
        return StepFacts(step, "given", "its run was named", took, info.run_id)
    how = "reused" if decision.run else "run"
    return StepFacts(step, how, decision.reason, took, info.run_id)


def read_search_gain(hpo: Run) -> dict[str, float]:
    """Read a search's gain over its first point, and the seed noise there; {} if not measured."""
    names = {"gain": tags.SEARCH_GAIN, "noise": tags.SEED_NOISE}
    found = {key: hpo.data.metrics[name] for key, name in names.items() if name in hpo.data.metrics}
    return found if len(found) == len(names) else {}


def error_facts(read: ArtifactReader, outcome: PipelineOutcome) -> ErrorFacts:
    """Read the errors on the test months, or on the validation months if no test was made."""
    dataset, judged = outcome.dataset, outcome.registered or outcome.candidates[0]
    run_id, split = judged.run_id, "test" if outcome.registered else "valid"
    months = ",".join(dataset.months[split])
    groups = [
        GroupErrors(row["kind"], row["group"], int(row["n_trips"]), *map(float, scores))
        for row in read.rows(run_id, tags.GROUPS_TABLE)
        if (scores := (row["rmse"], row["mae"], row["bias"]))
    ]
    text = read.text(run_id, tags.BREAKDOWN)
    breakdown = Breakdown.restore(json.loads(text)) if text else None
    trips = f"the {split} months {months}, with {DISTANCE_KINDS[distance_kind_of(dataset.taxi)]}"
    return ErrorFacts(trips, groups, breakdown)


def with_three_digits(text: str) -> str:
    """Round each number in a tag's text to three decimals, as minutes have in a report."""
    return re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", text)


def compare_champions(registered: RegisterResult, read: ArtifactReader) -> dict[str, list[str]]:
    """Compare a version with the champion it was measured against: column -> cells; {} if none."""
    now = read.version(registered.model_name, registered.version)
    number = now.get(tags.MEASURED_AGAINST, "")
    if not number:
        return {}
    before = read.version(registered.model_name, number)
    rows = [("version", number, registered.version)]
    distance = DISTANCE_KINDS[METERED if tags.TAXI not in now else distance_kind_of(now[tags.TAXI])]
    rows += [
        (
            what.format(distance=distance),
            with_three_digits(before.get(tag, "")),
            with_three_digits(now.get(tag, "")),
        )
        for what, tag in COMPARED.items()
    ]
    rmse = RMSES[METERED]
    names = (tags.CHAMPION_TEST.of(rmse), tags.TEST.of(rmse))
    both = [registered.metrics.get(name) for name in names]
    if both[0] is not None and both[1] is not None:
        rows.append(("RMSE on the same test trips, min", f"{both[0]:.3f}", f"{both[1]:.3f}"))
    gained = with_three_digits(
        f"{now.get(tags.IMPROVEMENT, '')} ({now.get(tags.IMPROVEMENT_INTERVAL, '')})"
    ).replace("..", " to ")
    rows.append(
        (f"better, {now.get(tags.JUDGED_BY, '')} distance, min (95 % interval)", "", gained)
    )
    return {
        "what is compared": [row[0] for row in rows],
        "champion before": [row[1] for row in rows],
        "this model": [row[2] for row in rows],
    }


def drift_rows(model_name: str, read: ArtifactReader) -> list[dict[str, str]]:
    """Read the drift of the months that versions of a model have scored lately."""
    experiment_id, uri = runs.active_info().experiment_id, f"models:/{model_name}/"
    latest = runs.latest_finished(experiment_id, "score", N_SCORED, scored_by=uri)
    scored = [run for run in latest if run.data.tags[tags.SCORED_BY].startswith(uri)]
    return [
        row | {report.VERSION: run.data.tags[tags.SCORED_BY]}
        for run in scored
        for row in read.rows(run.info.run_id, tags.DRIFT_TABLE)
    ]
