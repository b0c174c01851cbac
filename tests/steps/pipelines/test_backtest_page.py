"""A backtest on stand-ins for pipelines and scoring: what it asks of them, and what it reports."""

import html
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from steps.common.parameters import MainParameters, ScoreParameters
from steps.common.results import (
    Candidate,
    Code,
    PipelineResult,
    RegisterResult,
    ScoringResult,
    TrainingResult,
)
from steps.pipelines import nested
from storage import UserError
from storage.tracking import artifacts
from taxi.backtest import DayErrors
from tests.entry import entry
from tests.steps.lab import Lab

SMALL = ("--source=simulated:300", "--models=mean", "--window=2", "--horizon=1")
MONTHS = "--months=2021-06..2021-08"


class Pipelines:
    """Stand-ins for pipelines and runs of score, which record what was asked of them."""

    def __init__(self, rmse: Callable[[str, str], float]) -> None:
        self.rmse = rmse  # returns the RMSE of a model in a month
        self.asked: list[MainParameters] = []
        self.scored: list[ScoreParameters] = []

    def run_pipeline(self, params: MainParameters, *, name: str) -> PipelineResult:
        self.asked.append(params)
        mean = Candidate("run", "mean", "compact", f"models:/mean-{name}", {}, Code("", False))
        training: Any = TrainingResult("run", "", None, "mean", {}, [mean])
        tested = RegisterResult("run", "", "", "", "", "tree", {}, f"models:/tree-{name}")
        return PipelineResult("run", None, training, training, tested)

    def run_scoring(self, params: ScoreParameters, *, name: str) -> ScoringResult:
        self.scored.append(params)
        days = [
            DayErrors(f"{month}-{day:02d}", 100, self.rmse(params.model_uri, month), 0.5)
            for month in params.months.split(",")
            for day in (1, 2, 3)
        ]
        return ScoringResult(f"run-{name}", days)


def older_is_worse(uri: str, month: str) -> float:
    return 11.0 if "mean" in uri else 5.0 if uri.endswith(month) else 5.5


def harder_in_august(uri: str, month: str) -> float:
    return older_is_worse(uri, month) * (1.04 if month == "2021-08" else 1)


@pytest.fixture
def start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Run, Pipelines]]:
    """Return a function that runs a backtest on stand-ins, and returns its run and them."""

    def started(*arguments: str, rmse: Any = older_is_worse) -> tuple[Run, Pipelines]:
        made = Pipelines(rmse)
        monkeypatch.setattr(nested, "run_pipeline", made.run_pipeline)
        monkeypatch.setattr(nested, "run_scoring", made.run_scoring)
        run, _ = lab.run("backtest", *SMALL, *arguments)
        return run, made

    return started


@pytest.mark.parametrize(
    ("taxi", "singular", "growing", "window"),
    [
        ("green", "a green taxi trip", "true", "a growing window"),
        ("fhvhv", "an app ride", "false", "a window of 2 months"),
    ],
)
def test_the_report_says_what_was_judged(
    start: Callable[..., tuple[Run, Pipelines]], taxi: str, singular: str, growing: str, window: str
) -> None:
    run, _ = start(MONTHS, f"--taxi={taxi}", f"--growing={growing}")
    text = artifacts.read_text(run.info.run_id, "report.html")
    title = f"Minutes of {singular}: backtest of simulated months 2021-06..2021-08, {window}"
    assert f"<title>{title}</title>" in text


def test_each_fold_is_a_pipeline_that_registers_nothing_and_is_scored_on_its_months(
    lab: Lab, start: Callable[..., tuple[Run, Pipelines]]
) -> None:
    run, made = start(MONTHS, "--max_evals=3", "--seed=7")
    first = made.asked[0]
    assert (first.train_months, first.valid_months) == ("2021-03,2021-04", "2021-05")
    assert [one.test_months for one in made.asked] == ["2021-06", "2021-07", "2021-08"]
    assert {(one.test_only, one.plan, one.max_evals, one.seed) for one in made.asked} == {
        (True, False, 3, 7)
    }
    assert [(one.model_uri, one.months) for one in made.scored[:3]] == [
        ("models:/tree-2021-06", "2021-06,2021-07"),
        ("models:/mean-2021-06", "2021-06"),
        ("models:/tree-2021-07", "2021-07,2021-08"),
    ]
    rows = lab.table(run, "backtest.csv")
    assert [(row["month"], row["age"]) for row in rows if row["model"] == "chosen"] == [
        *(("2021-06", "0"), ("2021-07", "1"), ("2021-07", "0"), ("2021-08", "1")),
        ("2021-08", "0"),
    ]
    assert {row["rmse"] for row in rows if row["model"] == "mean"} == {"11.0"}


def test_the_page_answers_first_and_the_metrics_stand_in_time(
    lab: Lab, start: Callable[..., tuple[Run, Pipelines]]
) -> None:
    run, _ = start(MONTHS, rmse=harder_in_august)
    first, *page = run.data.tags["mlflow.note.content"].splitlines()
    # links further down do not work while MLflow shows the page folded
    answer, _, link = first.partition(" [The report]")
    assert answer == (
        "**Retrain every 1 month: after 1 month the error is 10.0 % above a fresh model's (95 % "
        "interval +10.0 to +10.0).**"
    )
    assert run.data.tags["answer"] == answer.strip("*")
    assert f"/runs/{run.info.run_id}/artifacts/report.html" in link
    report = artifacts.read_text(run.info.run_id, "report.html")
    assert f'<p class="verdict">{html.escape(answer.strip("*"))}</p>' in report
    assert "2021-08 was the hardest month: RMSE 5.200 min." in report
    heads = next(line for line in page if line.startswith("| month"))
    assert "| naive (mean) | the same model 1 month later |" in heads
    assert "the course's recipe" not in heads  # with models=mean it was not judged
    assert any("mlflow run " in line and "-e backtest" in line for line in page)
    assert run.info.run_name.startswith("backtest · green 2021-06..2021-08 · 5.07 min")
    history = lab.client.get_metric_history(run.info.run_id, "rmse")
    assert [one.step for one in history] == [202106, 202107, 202108]
    begins = [datetime.fromtimestamp(one.timestamp / 1000, UTC).date() for one in history]
    assert [str(day) for day in begins] == ["2021-06-01", "2021-07-01", "2021-08-01"]
    metrics = run.data.metrics
    assert metrics["mean_rmse"] == pytest.approx(15.2 / 3)
    assert metrics["beside_rmse.mean"] == pytest.approx(11.44)  # that of the last month
    assert metrics["rise_by_age"] == pytest.approx(0.1)
    assert lab.table(run, "ageing.csv")[0]["n_months"] == "2"


def test_models_that_are_followed_no_further_leave_no_table_of_ageing(
    lab: Lab, start: Callable[..., tuple[Run, Pipelines]]
) -> None:
    run, _ = start(MONTHS, "--horizon=0")
    assert run.data.tags["answer"].endswith(
        "over 3 months; no model was followed beyond its own month."
    )
    kept = {file.path for file in lab.client.list_artifacts(run.info.run_id)}
    assert {"backtest.csv", "backtest.png", "report.html"} <= kept
    assert "ageing.csv" not in kept


def test_two_recipes_are_compared_on_the_months_they_share(
    lab: Lab, start: Callable[..., tuple[Run, Pipelines]]
) -> None:
    first, _ = start(MONTHS)
    against = f"--against={first.info.run_id}"
    second, _ = start(MONTHS, against, rmse=lambda uri, month: older_is_worse(uri, month) - 0.5)
    said = second.data.tags["mlflow.note.content"].splitlines()[2]
    assert said.startswith("This recipe is better than that of run ")
    assert "RMSE -0.500 min, 95 % interval -0.500 to -0.500, over 3 months" in said
    assert second.data.metrics["against.value"] == -0.5
    _, (line,) = lab.run("backtest", *SMALL, "--months=2022-01..2022-02", against, code=2)
    assert f"that of run {first.info.run_id[:8]}… judged 2021-06..2021-08, none of which" in line
    _, (line,) = lab.run("backtest", *SMALL, MONTHS, "--against=nobody", code=2)
    assert line == "backtest: No run 'nobody' in this store. Check against."


def test_a_recipe_of_a_parameter_file_is_judged_on_the_same_months(
    lab: Lab, start: Callable[..., tuple[Run, Pipelines]], tmp_path: Path
) -> None:
    file = tmp_path / "wider.yaml"
    file.write_text("window: 3\nhalf_life: 4\nsource: tlc\n")

    def rmse(uri: str, month: str) -> float:
        return older_is_worse(uri.removesuffix(" against"), month) + ("against" in uri)

    run, made = start(MONTHS, f"--against={file}", rmse=rmse)
    own, its = made.asked[:3], made.asked[3:]
    assert [one.test_months for one in its] == [one.test_months for one in own]
    assert (own[0].train_months, its[0].train_months) == (
        "2021-03,2021-04",
        "2021-02,2021-03,2021-04",
    )
    assert {(one.half_life, one.source, one.test_only) for one in its} == {
        (4.0, "simulated:300", True)
    }
    assert "better than that of" in run.data.tags["mlflow.note.content"].splitlines()[2]
    assert run.data.metrics["against.value"] == -1
    assert artifacts.read_text(run.info.run_id, "against.yaml") == file.read_text()
    fetched = f"mlflow artifacts download -r {run.info.run_id} -a against.yaml -d ."
    for page in (
        run.data.tags["mlflow.note.content"],
        artifacts.read_text(run.info.run_id, "report.html"),
    ):
        assert fetched in page  # because the file that the command names is uncommitted
    assert len(lab.table(run, "backtest.csv")) == 8  # rows of this recipe only
    for text, said in (
        ("taxi: green\n", "has no parameter of a recipe, such as window"),
        ("folds_at_once: 2\n", "has no parameter of a recipe, such as window"),
        ("warm_start: true\n", "warm_start=true lets a fold's search begin with"),
        ("windw: 3\n", "wider.yaml:1: no entry point has a parameter 'windw'"),
        ("seed: 7\nfeatures: fool\n", "['compact', 'course', 'full']. See " + f"{file}:2."),
    ):
        file.write_text(text)
        _, (line,) = lab.run("backtest", *SMALL, MONTHS, f"--against={file}", code=2)
        assert said in line


def test_a_fold_that_fails_ends_the_backtest_with_its_reason(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> PipelineResult:
        raise UserError("2021-06: main failed: hpo failed: no trips.")

    monkeypatch.setattr(nested, "run_pipeline", fail)
    run, (line,) = lab.run("backtest", *SMALL, MONTHS, code=2)
    assert line == "backtest: 2021-06: main failed: hpo failed: no trips."
    assert run.data.tags["failure"].startswith("2021-06: main failed")


def test_a_search_that_may_know_later_months_is_refused(lab: Lab) -> None:
    _, (line,) = lab.run("backtest", *SMALL, MONTHS, "--warm_start=true", code=2)
    assert line.startswith("backtest: warm_start=true lets a fold's search begin with ")


def test_an_interrupted_backtest_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> PipelineResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(nested, "run_pipeline", interrupt)
    with pytest.raises(SystemExit) as left:
        entry("backtest").main([*SMALL, MONTHS])
    assert left.value.code == 130
    (run, *_) = MlflowClient().search_runs([lab.experiment], "tags.step = 'backtest'")
    assert run.info.status == "KILLED"
    assert mlflow.active_run() is None


def test_a_plan_says_what_becomes_of_each_fold_and_starts_nothing(lab: Lab) -> None:
    before = lab.store.runs()
    entry("backtest").main([*SMALL, MONTHS, "--plan=true"])
    head, *folds, tail = lab.capfd.readouterr().out.splitlines()
    assert (head, tail) == ("backtest", "Nothing was started.")
    assert folds[0].startswith("├── 2021-06  of 2021-03..2021-05: runs, preprocess runs, ")
    assert folds[-1].startswith("└── 2021-08  of 2021-05..2021-07: runs, ")
    assert lab.store.runs() == before
