"""A pipeline below another run: reused, launched, or failing with its own message."""

from collections.abc import Callable

import mlflow
import pytest

from steps.common.parameters import MainParameters
from steps.common.pipeline import Pipeline
from steps.common.results import read_preprocess, write_dataset, write_registration
from steps.pipelines import nested
from storage import UserError
from storage.repro import reuse
from storage.tracking import experiments, launching, runs, tags
from tests.entry import entry
from tests.stores import Store

Launch = Callable[..., str]
SOURCE = "simulated:2003"  # no other test file runs steps on it in the shared store


def make_params(name: str) -> MainParameters:
    """Return parameters of a pipeline that no other test asks for."""
    return MainParameters(source=SOURCE, models="mean", test_only=True, model_name=name)


def finish(step: str, pipeline: Pipeline) -> str:
    """Make a finished run of a step below the active run, without running the step."""
    marks = {tags.STEP: step, **{tags.RUN_IDS[s]: r.info.run_id for s, r in pipeline.done.items()}}
    with mlflow.start_run(experiment_id=runs.experiment_id(), nested=True, tags=marks) as run:
        write_dataset(read_preprocess(pipeline.done["preprocess"]).dataset)
        if step == "register":
            marks = {"model_name": "", "version": "", "champion_version": "", "outcome": "tested"}
            write_registration(**marks, reasons="asked", model_uri="models:/m-1")
            mlflow.set_tag(tags.MODEL, "mean")
        key = pipeline.pipeline_key() if step == "main" else pipeline.key(step)
        reuse.tag_key(key)
        reuse.record_outputs()
    return str(run.info.run_id)


def finish_all(params: MainParameters, *, until: str = "main") -> Pipeline:
    """Make finished runs of the steps of a pipeline, beginning with a real one of preprocess."""
    pipeline = Pipeline(params)
    pipeline.done["preprocess"] = pipeline.decide_reuse("preprocess").run
    for step in ("baseline", "hpo", "register"):
        pipeline.done[step] = runs.finished(finish(step, pipeline), step)
        if step == until:
            return pipeline
    finish("main", pipeline)
    return pipeline


@pytest.fixture
def preprocessed(store: Store) -> None:
    """Preprocess the months, once for all tests."""
    experiments.use_experiment()
    if not Pipeline(make_params("any")).decide_reuse("preprocess").run:
        entry("preprocess").main([f"--source={SOURCE}"])


def test_a_pipeline_runs_once_and_is_read_where_it_finished(
    preprocessed: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params, launched = make_params("once"), []

    def launch(step: str, texts: dict[str, str], *, name: str) -> str:
        launched.append((step, name, texts["model_name"]))
        return finish("main", finish_all(params, until="register"))

    monkeypatch.setattr(launching, "launch", launch)
    with runs.StepRun("backtest", ""):
        first = nested.run_pipeline(params, name="2021-03")
        second = nested.run_pipeline(params, name="again")
    assert launched == [("main", "2021-03", "once")]
    assert first == second
    assert first.registered and first.registered.model_uri == "models:/m-1"
    assert first.preprocess.dataset.months["train"] == ["2021-01"]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2021-03: main runs, baseline runs, ")
    assert said[1].startswith(f"again: main reused {first.run_id[:8]}… (")


def test_a_pipeline_whose_step_is_missing_or_that_never_ended_runs(preprocessed: None) -> None:
    params = make_params("broken")
    with runs.StepRun("backtest", ""):
        finish_all(params, until="hpo")
        assert nested.find_pipeline(params).reason.startswith("register runs, ")
        finish_all(params, until="register")
        found = nested.find_pipeline(params)
        assert (found.step, found.run) == ("main", None)
        finish_all(params)
        assert nested.find_pipeline(params).run is not None
        again = params.model_copy(update={"reuse": False})
        assert nested.find_pipeline(again).reason == "preprocess runs, reuse=false"
        assert nested.plan_pipeline(params).startswith("reused ")


def test_a_pipeline_that_fails_is_named_with_the_reason_of_its_step(
    preprocessed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*_: object, **__: object) -> str:
        raise UserError("main failed: hpo failed: no trips.")

    monkeypatch.setattr(launching, "launch", launch)
    with runs.StepRun("backtest", ""), pytest.raises(UserError) as failure:
        nested.run_pipeline(make_params("failing"), name="2021-03")
    assert str(failure.value) == "2021-03: main failed: hpo failed: no trips."


def test_pipelines_at_the_same_time_are_told_in_their_order_and_found_ones_do_not_run(
    preprocessed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, *missing = (make_params(f"beside {name}") for name in "abc")
    launched: list[tuple[list[str], int]] = []

    def launch_all(step: str, asked: dict[str, dict[str, str]], *, at_once: int) -> dict[str, str]:
        launched.append((list(asked), at_once))
        wanted = dict(zip(asked, missing, strict=True))
        return {
            name: finish(step, finish_all(wanted[name], until="register"))
            for name in reversed(asked)
        }

    monkeypatch.setattr(launching, "launch_all", launch_all)
    with runs.StepRun("backtest", ""):
        finish_all(found)
        asked = {"2021-03": missing[0], "2021-04": found, "2021-05": missing[1]}
        made = list(nested.run_pipelines(asked, at_once=2))
    assert launched == [(["2021-03", "2021-05"], 2)]
    names = [runs.finished(one.run_id, "main").data.tags[tags.STEP] for one in made]
    assert names == ["main"] * 3
    assert len({one.run_id for one in made}) == 3
