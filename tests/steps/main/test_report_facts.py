"""What the report of a pipeline gathers from the runs of its steps."""

from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from steps.common import charts
from steps.common.results import (
    Candidate,
    Code,
    Dataset,
    PreprocessResult,
    RegisterResult,
    TrainingResult,
)
from steps.main import report
from steps.main.headline import PipelineOutcome
from storage.repro.reuse import ReuseDecision
from storage.tracking import artifacts, tags
from taxi.distances import METERED
from tests.stores import EXPERIMENT, Store

NAME = "taxi-report"
CODE = Code("c0ffee", False)
MONTHS = {"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]}
DATASET = Dataset("green", True, "simulated", MONTHS, dict.fromkeys(MONTHS, "ab"), "cd")
GROUP = {"kind": "hour", "group": "07", "n_trips": 90, "rmse": 5.5, "mae": 4.0, "bias": 0.1}


def recorded(step: str, tables: dict[str, list[dict[str, object]]], **more: str) -> Run:
    """Make a run of a step with these tables."""
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(tags={tags.STEP: step} | more) as run:
        for name, rows in tables.items():
            artifacts.log_table(rows, name)
    return mlflow.get_run(run.info.run_id)


def make_version(**about: str) -> str:
    """Make a version of the model with these tags."""
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    made = client.create_model_version(NAME, "runs:/none/model", tags=about)
    return str(made.version)


def make_pipeline(**done: Run) -> SimpleNamespace:
    """Make a stand-in for a pipeline whose steps are done, with one candidate."""
    run_id = done["hpo"].info.run_id
    candidate = Candidate(run_id, "tree", "full", "uri", {"rmse": 5.25}, CODE)
    training = TrainingResult(run_id, "", DATASET, "tree", {}, [candidate])
    preprocess = PreprocessResult(done["preprocess"].info.run_id, DATASET, CODE, {}, [])
    decisions = {"register": ReuseDecision("register", None, "after all of this")}
    return SimpleNamespace(
        preprocess=lambda: preprocess,
        training=lambda step: training,
        done=done,
        decisions=decisions,
    )


def logged(pipeline: SimpleNamespace, registered: RegisterResult | None) -> tuple[str, str]:
    """Log the report on a run; return its text, and where it is."""
    candidates = pipeline.training("hpo").candidates
    outcome = PipelineOutcome(DATASET, candidates, registered, METERED, "mlflow run .", "")
    with mlflow.start_run(tags={tags.DEVELOPER: "ana <b>"}):
        place = report.log_report(
            pipeline,
            outcome,
            headline=["**tree won**", "Next: `serve it`"],
            conclusion=["It is the champion."],
            leaderboard=["| model |", "|---|", "| tree |"],
            rerun=["    mlflow run ."],
        )
    return Path(place).read_text(), place


@pytest.fixture
def pipeline(store: Store) -> SimpleNamespace:
    trial = {"trial": 0, "state": "finished", "rmse": 5.25, "best_round": 3, "failure": ""}
    month = {"split": "train", "month": "2021-01", "uri": "simulated:9", "sha256": "ab"}
    month |= {"n_bytes": 9, "n_raw": 10, "n_kept": 9, "zone missing": 1}
    return make_pipeline(
        preprocess=recorded("preprocess", {tags.MONTHS_TABLE: [month]}),
        hpo=recorded("hpo", {tags.TRIALS_TABLE: [trial], tags.GROUPS_TABLE: [GROUP]}),
    )


def test_a_report_tells_of_the_champion_before_the_gate_and_what_scored_months_came_to(
    pipeline: SimpleNamespace,
) -> None:
    gate = {"check": "test R2", "found": "0.8", "wanted": "at least 0.5", "passed": True}
    register = recorded("register", {tags.GATE_TABLE: [gate], tags.GROUPS_TABLE: [GROUP]})
    pipeline.done["register"] = register
    before = make_version(**{tags.MODEL: "mean", tags.MONTHS.of("train"): "2020-01"})
    gained = {tags.IMPROVEMENT: "4.100321", tags.IMPROVEMENT_INTERVAL: "4.000123..4.200789"}
    version = make_version(**{tags.MODEL: "tree", tags.MEASURED_AGAINST: before, **gained})
    backtested = [f"m-{number}" for number in range(report.N_SCORED)]  # must not crowd out others
    for name in (NAME, f"{NAME}-other", *backtested):
        row = {"month": f"2023-0{len(name) % 9}", "measure": "PSI", "of": "hour", "value": 0.3}
        row |= {"threshold": 0.25, "drifted": True}
        recorded("score", {tags.DRIFT_TABLE: [row]}, **{tags.SCORED_BY: f"models:/{name}/1"})
    metrics = {tags.TEST.of("rmse"): 5.1, tags.CHAMPION_TEST.of("rmse"): 9.2}
    registered = RegisterResult(
        register.info.run_id, NAME, version, version, "best", "tree", metrics
    )
    text, place = logged(pipeline, registered)
    assert Path(place).name == tags.REPORT
    assert "<p><strong>tree won</strong><br>\nNext: <code>serve it</code></p>" in text
    assert "<td>model</td><td>mean</td><td>tree</td>" in text
    assert "<td>trained on</td><td>2020-01</td><td></td>" in text
    assert "<td>9.200</td><td>5.100</td>" in text
    assert "<td>4.100 (4.000 to 4.201)</td>" in text
    assert '<th scope="col"></th>' not in text  # a screen reader would have nothing to read out
    assert ">RMSE when it was tested, metered distance, min</td>" in text
    number = '<td class="number">0.8</td>'
    assert f"<td>test R2</td>{number}<td>at least 0.5</td><td>yes</td>" in text
    assert "after all of this" in text
    run_id = Path(place).parent.parent.name
    assert f"Run {run_id} of experiment {EXPERIMENT}, begun 20" in text
    assert " UTC by ana &lt;b&gt;.</p>" in text
    assert "Errors on the test months 2021-03, with metered distance." in text
    assert f"models:/{NAME}/1" in text
    assert f"models:/{NAME}-other/1" not in text
    # it is self-contained, charts included, and can be passed around
    assert 1_000_000 < len(text) < 3_000_000
    assert text.count("<script>") == len(charts.LIBRARY) + 1


def test_what_the_store_has_lost_is_told_and_costs_no_more_than_its_section(
    pipeline: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "find_spec", lambda name: None)
    folder = urlsplit(pipeline.done["preprocess"].info.artifact_uri).path
    Path(folder, tags.MONTHS_TABLE).unlink()
    text, _ = logged(pipeline, None)
    assert "Errors on the valid months 2021-02" in text
    assert 'id="search"' in text
    assert 'id="data"' not in text
    assert "has no artifact months.csv. Was it deleted?" in text
    assert "has no artifact city.json. Was it deleted?" in text
    assert "the package bokeh is not installed" in text
    assert "<script>" not in text


@pytest.mark.parametrize("blind", [[], [[{"max_depth": 3}, 9]]])
def test_a_report_knows_whether_trips_without_a_distance_have_boosters_of_their_own(
    pipeline: SimpleNamespace, blind: list[object]
) -> None:
    with mlflow.start_run(pipeline.done["hpo"].info.run_id):
        mlflow.log_dict({"blind": blind}, tags.RECIPE)
    text, _ = logged(pipeline, None)
    assert ("Trips without a distance have boosters of their own" in text) is bool(blind)


def test_the_library_asks_for_nothing_more() -> None:
    library = charts.read_library()
    assert not [text for text in library if "</script" in text or "sourceMappingURL" in text]
