"""Transfer a pipeline from one store to another: completely, and only once."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any
from unittest.mock import patch

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.models import Model

from storage.repro import reuse, verify
from storage.repro.transfer import __main__ as transfer
from storage.repro.transfer.export_file import opened
from storage.repro.transfer.id_map import IdMap
from storage.repro.transfer.importing import Import
from storage.repro.transfer.versions import assign_free_aliases
from storage.tracking import artifacts, stale_runs, tags
from storage.tracking.registry import PROMOTE, Registry
from tests.storage.repro.transfers import (
    MODEL,
    SHA256,
    Exported,
    below,
    everything,
    import_here,
    key_of,
    log_model,
    make_other,
    point_at,
    step,
)
from tests.stores import EXPERIMENT, Store


def test_all_that_a_pipeline_is_comes_along_once_however_often_it_is_imported(
    exported: Exported, store: Store, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said = import_here(exported.path, capsys)
    assert "6 runs, 1 model, 1 version" in said[0]
    assert said[0].endswith("6 of the runs were not there yet")
    first = everything()
    assert first.counts() == (6, 1, 1, 1)
    there, here = MlflowClient(store.uri), MlflowClient()
    before = facts(there, there.get_run(exported.run_id), store.uri)
    main = first.runs[exported.run_id]
    after = facts(here, main, other.uri)
    rows = [verify.compare_runs(name, before[name], after.get(name)) for name in before]
    assert [row.differences for row in rows] == [[] for _ in rows]
    assert sum(row.n_facts for row in rows) >= 4
    for run_id, run in first.runs.items():
        origin = there.get_run(run_id)
        assert run.data.params == origin.data.params
        assert (run.info.start_time, run.info.end_time, run.info.status, run.info.run_name) == (
            *(origin.info.start_time, origin.info.end_time),
            *(origin.info.status, origin.info.run_name),
        )
        assert run.data.tags[tags.ORIGIN_STORE] == store.uri
        for name in origin.data.metrics:
            assert here.get_metric_history(run.info.run_id, name) == there.get_metric_history(
                run_id, name
            )
    assert import_here(exported.path, capsys)[0].endswith(" 0 of the runs were not there yet")
    assert [*map(str, everything())] == [*map(str, first)]


def facts(client: MlflowClient, main: Run, uri: str) -> dict[str, dict[str, str]]:
    mlflow.set_tracking_uri(uri)  # artifacts are read from here
    return {
        name: verify.comparable_facts(client, run)
        for name, run in verify.pipeline_runs(client, main)
    }


def test_what_names_runs_and_models_names_those_here(
    exported: Exported, imported: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    found = everything()
    by_step = {run.data.tags.get("step", run.info.run_name): run for run in found.runs.values()}
    ids = {name: run.info.run_id for name, run in by_step.items()}
    main, ensemble, (model,) = by_step["main"], by_step["ensemble"], found.models
    assert main.data.tags["hpo_run_id"] == ids["hpo"]
    experiment = main.info.experiment_id
    assert main.data.tags[tags.NOTE] == f"[hpo](#/experiments/{experiment}/runs/{ids['hpo']})"
    folder = imported.folder / "artifacts" / main.info.run_id / "artifacts"
    assert (folder / "report.html").read_text() == main.data.tags[tags.NOTE]
    assert by_step["trial 0"].data.tags["mlflow.parentRunId"] == ids["hpo"]
    assert ensemble.data.tags["model_uri"] == model.model_uri
    assert model.source_run_id == ids["ensemble"]
    assert model.tags["preprocess_run_id"] == ids["preprocess"]
    assert model.params == {"depth": "3"}
    assert [(m.key, m.value, m.dataset_name, m.run_id) for m in model.metrics] == [
        ("rmse", 5.5, "valid", ids["ensemble"])
    ]
    (data,) = ensemble.inputs.dataset_inputs
    assert ids["preprocess"] in data.dataset.source
    assert Path(mlflow.data.get_source(data).load()).read_text() == "trips"
    about = Model.load(model.artifact_location.removeprefix("file://"))
    assert (about.model_id, about.run_id) == (model.model_id, ids["ensemble"])
    assert about.artifact_path == model.artifact_location
    (version,) = found.versions
    assert version.source == model.model_uri == version.tags["model_uri"]
    assert version.tags["pipeline_run_id"] == ids["main"]
    assert version.description == f"Of run {ids['main'][:8]}…"
    page = MlflowClient().get_registered_model(MODEL).description
    assert page.startswith("Minutes of a trip.\n\n| when (UTC) |")


def test_files_that_were_lost_here_are_put_back_as_they_were(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    import_here(exported.path, capsys)
    folder = other.folder / "artifacts"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rows = [*map(str, everything())]
    (model,) = everything().models
    shutil.rmtree(model.artifact_location.removeprefix("file://"))
    said = "import: files that were lost here and are put back: "
    assert import_here(exported.path, capsys)[1] == f"{said}2"
    report = next(path for path in files if path.name == "report.html")
    report.unlink()
    assert import_here(exported.path, capsys)[1] == f"{said}1"
    shutil.rmtree(folder)
    first, second, *_ = import_here(exported.path, capsys)
    assert first.endswith(" 0 of the runs were not there yet")
    assert second == f"{said}{len(files)}"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert [*map(str, everything())] == rows
    assert not any("put back" in line for line in import_here(exported.path, capsys))


def test_an_imported_step_is_reused_as_if_it_had_run_here(
    exported: Exported, imported: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, experiment = everything().runs, mlflow.get_experiment_by_name("team").experiment_id
    by_step = {run.data.tags.get("step"): run.info.run_id for run in runs.values()}
    for name in ("preprocess", "hpo", "register"):
        # where a key names a run id, it names the id of this store
        inputs = {"preprocess": by_step["preprocess"]} if name == "preprocess" else {}
        decision = reuse.find_reusable(key_of(name, inputs), experiment)
        assert decision.run is not None, decision.reason
        assert decision.run.info.run_id == by_step[name]
    (model,) = everything().models
    uri = model.artifact_location.removeprefix("file://")
    Path(uri, "model.json").write_text("{ }")
    lost = reuse.find_reusable(key_of("hpo", {}), experiment).reason
    Path(uri, "model.json").write_text("{}")
    assert lost.startswith(f"{model.model_uri}/model.json of ")


@pytest.fixture
def carry(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Export a pipeline and change to an empty store; returns the file to import there."""

    def export(run_id: str) -> Path:
        path = tmp_path / "carried.zip"
        transfer.main(["export", run_id, str(path)])
        point_at(make_other(store, tmp_path), monkeypatch)
        return path

    return export


def test_a_step_that_ran_in_another_pipeline_comes_with_it_and_the_rest_of_that_when_it_comes(
    exported: Exported,
    carry: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reused = mlflow.get_run(exported.run_id).data.tags["preprocess_run_id"]
    with step("main") as later:
        mlflow.set_tag("preprocess_run_id", reused)
    path = carry(later)
    import_here(path, capsys)
    part = everything().runs
    assert set(part) == {later, reused, exported.run_id}
    first = part[exported.run_id]
    assert part[reused].data.tags["mlflow.parentRunId"] == first.info.run_id
    assert part[later].data.tags["preprocess_run_id"] == part[reused].info.run_id
    assert first.data.tags[tags.IMPORTED] == tags.PART
    assert import_here(exported.path, capsys)[0].endswith(" 5 of the runs were not there yet")
    whole = everything()
    assert whole.counts() == (7, 1, 1, 1)
    first = whole.runs[exported.run_id]
    assert first.data.tags[tags.IMPORTED] == tags.WHOLE
    ids = {run.info.run_id for run in whole.runs.values()}
    assert {first.data.tags[name] for name in tags.RUN_IDS.values()} <= ids
    assert import_here(path, capsys)[0].endswith(" 0 of the runs were not there yet")


def test_a_search_brings_the_trials_of_one_that_it_went_on_with(
    exported: Exported,
    carry: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = mlflow.get_run(exported.run_id).data.tags["hpo_run_id"]
    (row,) = artifacts.read_table(earlier, tags.TRIALS_TABLE)
    with step("main") as later:
        with step("hpo") as hpo:
            mlflow.set_tag(tags.SEARCH_KEY, "search")
            mlflow.log_text(f"trial,run_id\n0,{row['run_id']}\n", tags.TRIALS_TABLE)
        mlflow.set_tag("hpo_run_id", hpo)
    import_here(carry(later), capsys)
    here = {name: run.info.run_id for name, run in everything().runs.items()}
    assert set(here) == {later, hpo, row["run_id"], earlier, exported.run_id}
    (trial,) = artifacts.read_table(here[hpo], tags.TRIALS_TABLE)
    assert trial["run_id"] == here[row["run_id"]]
    assert mlflow.get_run(trial["run_id"]).data.tags["mlflow.parentRunId"] == here[earlier]


def test_a_pipeline_that_came_to_the_champion_once_more_brings_its_version(
    exported: Exported,
    carry: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    preprocess = mlflow.get_run(exported.run_id).data.tags["preprocess_run_id"]
    with step("main") as again, step("register"):
        with below("refit", {tags.CANDIDATE: "true"}) as refit:
            log_model(refit, preprocess)
        mlflow.set_tags({tags.MODEL_NAME: MODEL, tags.VERSION: "1", tags.CHAMPION_VERSION: "1"})
    import_here(carry(again), capsys)
    (model,), (version,) = everything().models, everything().versions
    assert (version.source, version.tags[tags.MODEL_SHA256]) == (model.model_uri, SHA256)
    assert Registry(MODEL).aliases() == {"champion": "1"}


@pytest.mark.parametrize("is_known", [True, False])
def test_the_champion_that_a_candidate_was_measured_against_is_named_as_it_is_here(
    exported: Exported,
    store: Store,
    carry: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    is_known: bool,
) -> None:
    preprocess = mlflow.get_run(exported.run_id).data.tags["preprocess_run_id"]
    name, bytes_of = f"measured {is_known}", {tags.MODEL_SHA256: "a" * 64}
    client = MlflowClient()
    client.create_registered_model(name)
    client.create_model_version(name, "s3://nowhere/champion", tags=bytes_of)
    with step("main") as main, step("register") as register:
        with below("refit", {tags.CANDIDATE: "true"}) as refit:
            uri = log_model(refit, preprocess)
        held = Registry(name, run_id=register)
        held.promote("1", action=PROMOTE, why="it was the first")
        held.describe(held.add_version(uri, SHA256), {tags.MEASURED_AGAINST: "1"}, "Refused.")
        mlflow.set_tags({tags.MODEL_NAME: name, tags.VERSION: "2", tags.CHAMPION_VERSION: "1"})
    path = carry(main)
    if is_known:
        here = MlflowClient()
        here.create_registered_model(name)
        for marks in ({}, {}, bytes_of):
            here.create_model_version(name, "s3://nowhere/m", tags=marks)
    import_here(path, capsys)
    champion = "3" if is_known else f"1 of {store.uri}"
    marks = everything().runs[register].data.tags
    assert (marks[tags.VERSION], marks[tags.CHAMPION_VERSION]) == (
        "4" if is_known else "1",
        champion,
    )
    (version,) = (v for v in everything().versions if str(v.version) == marks[tags.VERSION])
    assert version.tags[tags.MEASURED_AGAINST] == champion
    assert tags.ORIGIN_PROMOTIONS not in version.tags  # which are the champion's


def test_a_version_of_these_bytes_that_is_here_keeps_what_is_known_of_it(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    client.create_registered_model(MODEL)
    own = {tags.MODEL_SHA256: SHA256, tags.PIPELINE: "its own"}
    client.create_model_version(MODEL, "s3://nowhere/m", tags=own)
    import_here(exported.path, capsys)
    (version,) = everything().versions
    assert version.source == "s3://nowhere/m"
    assert (version.tags[tags.PIPELINE], version.tags[tags.TAXI]) == ("its own", "green")


def test_the_way_home_changes_nothing(
    exported: Exported,
    store: Store,
    imported: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    back = tmp_path / "back.zip"
    transfer.main(["export", everything().runs[exported.run_id].info.run_id, str(back)])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    before = str(store.runs()), store.registered()
    said = import_here(back, capsys)
    assert said[0].endswith(" 0 of the runs were not there yet")
    assert f" is {exported.run_id} in experiment {EXPERIMENT} " in said[-1]
    assert (str(store.runs()), store.registered()) == before


WRITES = (  # in the order in which an import makes them
    *("create_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model"),
    *("set_registered_model_tag", "update_model_version", "set_registered_model_alias"),
    *("set_model_version_tag", "log_artifacts", "log_inputs", "log_outputs", "log_batch"),
    "set_terminated",
)


class Died(BaseException):
    """Stands for the sudden death of a process, without any clean-up."""


def dying(name: str) -> Any:
    """Make a method of the client do its work, and then die before it returns."""
    method = getattr(MlflowClient, name)

    def call(self: MlflowClient, *args: Any, **options: Any) -> Any:
        method(self, *args, **options)
        raise Died

    return patch.object(MlflowClient, name, call)


def test_an_import_that_dies_again_and_again_ends_without_doubles(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    for name in WRITES:
        with pytest.raises(Died), dying(name):
            import_here(exported.path, capsys)
        for run in everything().runs.values():  # the next pipeline does this
            if run.info.status == "RUNNING":
                assert stale_runs.close_run(client, run.info.run_id, "its process ended")
    import_here(exported.path, capsys)
    found = everything()
    assert found.counts() == (6, 1, 1, 1)
    assert {run.info.status for run in found.runs.values()} == {"FINISHED"}
    assert [run for run in found.runs.values() if tags.FAILURE in run.data.tags] == []
    assert [len(model.metrics) for model in found.models] == [1]
    trial = next(run for run in found.runs.values() if tags.TRIAL in run.data.tags)
    assert tags.NOTE not in trial.data.tags
    assert len(client.get_metric_history(trial.info.run_id, tags.CURVE)) == 3
    assert client.get_registered_model(MODEL).aliases == {"champion": 1}
    history = Registry(MODEL, run_id="", developer="").history()
    assert [entry.version for entry in history if entry.state == "done"] == ["1"]


def test_two_imports_of_a_file_at_once_make_no_doubles(
    exported: Exported,
    other: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    together, search = Barrier(2), Import._search_run

    def search_together(self: Import, record: Any) -> Any:
        with suppress(BrokenBarrierError):  # each waits for the other
            together.wait(timeout=1)
        return search(self, record)

    monkeypatch.setattr(Import, "_search_run", search_together)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: transfer.main(["import", str(exported.path)]), range(2)))
    assert everything().counts() == (6, 1, 1, 1)
    assert capsys.readouterr().out.count(" 0 of the runs were not there yet") == 1
    left = MlflowClient().get_experiment_by_name("team").tags
    assert [tag for tag in left if tag.startswith(tags.IMPORTING)] == []


def test_an_import_that_died_goes_on_in_no_other_experiment(
    exported: Exported,
    other: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Died), dying("create_run"):
        import_here(exported.path, capsys)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with pytest.raises(SystemExit) as left:
        import_here(exported.path, capsys)
    assert left.value.code == 2
    assert "Go on there with MLFLOW_EXPERIMENT_NAME=team, or delete" in capsys.readouterr().err
    mine = MlflowClient().get_experiment_by_name("mine")
    assert MlflowClient().search_runs([mine.experiment_id]) == []


# --- who is champion


def test_a_champion_that_is_there_stays_and_a_line_says_how_to_measure_both(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, "nowhere")
    client.set_registered_model_alias(MODEL, "champion", "1")
    said = import_here(exported.path, capsys)
    assert client.get_registered_model(MODEL).aliases == {"champion": 1, "challenger": 2}
    assert Registry(MODEL, run_id="", developer="").history() == []
    assert "version 2 was champion there; here version 1 is, and stays. To have both" in said[1]
    runs = everything().runs.values()
    by_step = {run.data.tags.get("step"): run for run in runs}
    assert " -e register " in said[1]
    # with the same name and settings as in the other store
    given = f"-P hpo_run_id={by_step['hpo'].info.run_id} -P model_name={MODEL} -P refit=train"
    given += " -P judge_by=planned"
    assert said[1].endswith(given)
    # the versions that register's tags name are those of this store
    marks = by_step["register"].data.tags
    assert (marks["version"], marks["champion_version"]) == ("2", "2")
    (version,) = (one for one in everything().versions if str(one.version) == "2")
    (entry,) = json.loads(version.tags[tags.ORIGIN_PROMOTIONS])
    assert (entry["version"], entry["why"]) == ("1", "it is the first")


def test_of_a_version_that_was_no_champion_a_line_says_how_to_measure_it(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    version = client.create_model_version(client.create_registered_model(MODEL).name, "nowhere")
    with opened(exported.path) as file:
        record = file.manifest.versions[0].model_copy(update={"aliases": []})
        here = IdMap(client.get_experiment_by_name("Default"))
        held = Registry(MODEL, run_id="", developer="")
        (line,) = assign_free_aliases(held, version, record, file.manifest, here)
    assert "version 1 was not champion there, and there is none here" in line
    assert " -e register " in line
    assert client.get_registered_model(MODEL).aliases == {}


@pytest.mark.parametrize(
    ("there", "here", "then"),
    [
        (["next", "shadow"], {"shadow": "1"}, {"shadow": 1, "next": 2}),
        (["challenger"], {"champion": "1"}, {"champion": 1, "challenger": 2}),
        (["challenger"], {"champion": "2"}, {"champion": 2}),  # made here, and better
    ],
)
def test_an_import_takes_an_alias_from_nobody(
    exported: Exported, other: Store, there: list[str], here: dict[str, str], then: dict[str, int]
) -> None:
    client = MlflowClient()
    client.create_registered_model(MODEL)
    _, version = (client.create_model_version(MODEL, "nowhere") for _ in range(2))
    for alias, number in here.items():
        client.set_registered_model_alias(MODEL, alias, number)
    with opened(exported.path) as file:
        record = file.manifest.versions[0].model_copy(update={"aliases": there})
        ids = IdMap(client.get_experiment_by_name("Default"))
        assign_free_aliases(Registry(MODEL), version, record, file.manifest, ids)
    assert client.get_registered_model(MODEL).aliases == then


def test_an_alias_that_was_moved_since_is_not_moved_back(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    import_here(exported.path, capsys)
    client = MlflowClient()
    client.delete_registered_model_alias(MODEL, "champion")
    import_here(exported.path, capsys)
    assert client.get_registered_model(MODEL).aliases == {}
