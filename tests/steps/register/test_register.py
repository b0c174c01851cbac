"""Which candidates become champion, which do not, and what is recorded; not rollback."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag
from mlflow.exceptions import MlflowException

from steps.common.results import (
    Candidate,
    Code,
    Dataset,
    PreprocessResult,
    read_code,
    read_registration,
)
from steps.register import __main__ as register
from steps.register.evaluate import REFUSED
from storage import StorageError, UserError
from storage.repro import reuse
from storage.tracking import artifacts, pages, runs
from taxi.schema import TAXIS
from tests.entry import entry
from tests.steps.lab import BAD, BETTER, GOOD, REACHABLE, SIMULATED, Lab, Pipelines
from tests.steps.score.conftest import read_scored
from tests.stores import Store

# --- the gate


def test_the_first_candidate_that_reaches_the_thresholds_is_champion(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, said = lab.register("first", *pipelines.of(lab, GOOD))
    assert said.startswith("tree registered as first version 1, alias champion: test rmse ")
    assert lab.aliases("first") == {"champion": "1"}
    tags = run.data.tags
    assert (tags["model_name"], tags["version"], tags["champion_version"]) == ("first", "1", "1")
    assert tags["outcome"] == "promoted"
    assert "test RMSE with metered distance is " in tags["reasons"]
    assert run.data.metrics["test_rmse_low"] < run.data.metrics["test_rmse"]
    page = tags["mlflow.note.content"].splitlines()
    assert page[0].startswith("**Promoted**: tree is the champion, first version 1: test RMSE **")
    assert "    mlflow models serve -m models:/first@champion --env-manager uv --port 5001" in page
    assert run.info.run_name.startswith("register · green 2021-01 > 02 · ")


def test_a_model_that_is_only_tested_leaves_the_registry_as_it_is(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, said = lab.register("untouched", *pipelines.of(lab, GOOD), "--test_only=true")
    assert said.startswith("tree tested: test rmse ")
    assert "untouched" not in lab.store.registered()
    found = read_registration(run)
    assert (found.model_name, found.version, found.reasons) == ("", "", "test_only=true")
    assert found.metrics["test_rmse"] == run.data.metrics["test_rmse"]
    assert found.model_uri.startswith("models:/m-")
    assert run.data.tags["mlflow.note.content"].startswith("**Tested**: tree, test RMSE **")
    assert reuse.describe_loss(run) == ""


def test_the_champion_is_found_by_its_error_on_the_test_months(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, _ = lab.register("found", *pipelines.of(lab, GOOD))
    (test,) = run.inputs.dataset_inputs
    assert test.dataset.name == "green 2021-03 test"
    about = json.loads(test.dataset.profile), mlflow.data.get_source(test).load()
    assert about[0]["num_rows"] == pq.read_metadata(about[1]).num_rows
    wanted = f"metrics.test_rmse <= {run.data.metrics['test_rmse']}"
    seen = [{"dataset_name": test.dataset.name, "dataset_digest": test.dataset.digest}]
    found = lab.client.search_logged_models([lab.experiment], wanted, datasets=seen)
    champion = lab.version("found", "1").tags["model_uri"]
    (model,) = (one for one in found if one.model_uri == champion)
    assert model.name == "tree"
    assert {"step": "hpo", "features": "compact", "months.train": "2021-01"}.items() <= (
        model.tags.items()
    )
    assert model.params["max_depth"] == str(GOOD)
    scored = {(one.key, one.dataset_name) for one in model.metrics}
    assert {("rmse", "green 2021-02 valid"), ("test_rmse", "green 2021-03 test")} <= scored


def test_a_first_candidate_below_the_thresholds_is_a_challenger_of_nobody(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, said = lab.register("poor", *pipelines.of(lab, GOOD), "--max_rmse=2", "--min_r2=0.99")
    assert "alias challenger" in said
    assert "champion is none: test RMSE with metered distance is " in said
    assert "wanted at most 2; test R2 with metered distance is " in said
    assert lab.aliases("poor") == {"challenger": "1"}
    assert run.data.tags["outcome"] == "refused"
    assert run.data.tags["champion_version"] == ""


def test_where_main_has_the_reasons_at_its_end_the_line_of_register_leaves_them_out() -> None:
    candidate = SimpleNamespace(model="tree")
    tested = SimpleNamespace(candidate=candidate, scores={"metered": {"rmse": 5.5}})
    about = {"version": "2", "champion_before": "1", "reasons": "R2 is low", "distance": "metered"}
    judged = SimpleNamespace(outcome=REFUSED, **about)
    said = [
        entry("register").registration_line("taxi", tested, judged, why=why)
        for why in (False, True)
    ]
    assert said[0] == (
        "tree registered as taxi version 2, alias challenger: test rmse 5.5000 min with metered "
        "distance; champion is version 1"
    )
    assert said[1] == f"{said[0]}: R2 is low"


def test_a_better_candidate_takes_the_champions_place_and_a_worse_one_does_not(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("both", *pipelines.of(lab, GOOD))
    run, said = lab.register("both", *pipelines.of(lab, BETTER))
    assert "version 2, alias champion, in place of version 1: test rmse" in said
    assert run.data.metrics["improvement_low"] > 0
    assert run.data.metrics["improvement"] == pytest.approx(
        run.data.metrics["champion_test_rmse"] - run.data.metrics["test_rmse"]
    )
    run, said = lab.register("both", *pipelines.of(lab, BAD))
    assert "version 3, alias challenger" in said
    assert "champion is version 2: test RMSE against the champion's with metered distance" in said
    assert "min more, wanted at least 0.01 min less" in said
    assert lab.aliases("both") == {"champion": "2", "challenger": "3"}
    assert (run.data.tags["version"], run.data.tags["champion_version"]) == ("3", "2")
    assert run.data.metrics["improvement_high"] < 0


def test_outcome_numbers_and_reasons_are_on_the_version_and_in_a_table(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("told", *pipelines.of(lab, GOOD))
    run, _ = lab.register("told", *pipelines.of(lab, BETTER))
    version = lab.version("told", "2")
    assert version.tags["outcome"] == "promoted"
    assert version.tags["measured_against"] == "1"
    assert version.tags["reasons"] == run.data.tags["reasons"]
    low, high = (float(end) for end in version.tags["improvement_interval"].split(".."))
    assert 0 < low < float(version.tags["improvement"]) < high
    assert "| test RMSE against the champion's with metered distance | " in version.description
    table = lab.table(run, "gate.csv")
    assert [row["passed"] for row in table] == ["True"] * len(table)
    assert table[3]["check"] == "test RMSE against the champion's with metered distance"
    page = lab.client.get_registered_model("told").description
    gained = float(version.tags["improvement"])
    said = f"| test RMSE {float(version.tags['rmse_test']):.3f} min with metered distance, "
    assert f"{said}{gained:.3f} below version 1's ({low:.3f} to {high:.3f}) |" in page


def test_too_small_an_improvement_is_refused(lab: Lab, pipelines: Pipelines) -> None:
    lab.register("small", *pipelines.of(lab, GOOD))
    _, said = lab.register("small", *pipelines.of(lab, BETTER), "--min_improvement=9")
    assert "wanted at least 9" in said
    assert lab.aliases("small") == {"champion": "1", "challenger": "2"}


@pytest.mark.pictures
def test_the_card_is_in_the_registry_and_a_page_with_its_pictures(
    lab: Lab, pipelines: Pipelines
) -> None:
    run, _ = lab.register("carded", *pipelines.of(lab, GOOD))
    text = lab.version("carded", "1").description
    assert len(text) <= 5000
    assert text.startswith("# carded: the minutes of a green taxi trip")
    link = pages.artifact_link(run.info.experiment_id, run.info.run_id, "model_card.html")
    assert text.endswith(f"[model_card.html of the register run]({link}).")
    assert lab.version("carded", "1").tags["developer"] == run.data.tags["developer"]
    assert f"| RMSE | {run.data.metrics['test_rmse']:.3f} min | " in text
    page = artifacts.read_text(run.info.run_id, "model_card.html")
    assert "<h1>carded: the minutes of a green taxi trip</h1>" in page
    pictures = re.findall(r'<img alt="([a-z ]+)" src="data:image/png;base64,iVBORw0KGgo', page)
    assert pictures == ["errors on test", "errors on test by zone", "train and valid trips"]
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # it is self-contained
    # each table can be reached by keyboard, and has its own name for a screen reader
    regions = re.findall(
        r'<div class="scroll" role="region" tabindex="0" aria-label="(.+?)">', page
    )
    assert len(set(regions)) == page.count("<table>") > 1
    assert page.count("<main>") == 1
    assert "<th></th>" not in page


def test_a_version_tells_the_commit_that_trained_it_not_that_of_months_cleaned_before(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("traced", *pipelines.of(lab, GOOD))  # this checkout has cleaned its months
    version = lab.version("traced", "1")
    assert "Trained by commit c0ffee" in version.description
    assert version.tags["git_commit"] == "c0ffee"


def test_a_name_that_is_html_stays_text(lab: Lab, pipelines: Pipelines) -> None:
    run, _ = lab.register("<b>bold<b>", *pipelines.of(lab, GOOD))
    page = artifacts.read_text(run.info.run_id, "model_card.html")
    assert "&lt;b&gt;bold" in page
    assert "<b>" not in page


# --- registering the same again


def test_registering_the_champion_again_changes_nothing(lab: Lab, pipelines: Pipelines) -> None:
    lab.register("again", *pipelines.of(lab, GOOD))
    before = lab.client.get_registered_model("again")
    run, said = lab.register("again", *pipelines.of(lab, GOOD))
    assert said.startswith("tree was already again version 1, alias champion")
    assert run.data.tags["outcome"] == "unchanged"
    # on the pipeline's page these follow the words "It is the champion"
    reasons = run.data.tags["reasons"]
    same = "the model is that of version 1, the champion; promoted when it was"
    assert reasons.startswith(f"{same} judged: test RMSE with metered distance is ")
    assert (run.data.tags["version"], run.data.tags["champion_version"]) == ("1", "1")
    after = lab.client.get_registered_model("again")
    assert (after.tags, after.aliases) == (before.tags, before.aliases)
    assert len(lab.client.search_model_versions("name = 'again'")) == 1


def test_a_register_cut_short_once_its_version_is_champion_loses_no_reason_of_the_gate(
    lab: Lab, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(**_: str) -> None:
        raise UserError("cut short")

    with monkeypatch.context() as broken:
        broken.setattr("steps.register.__main__.write_registration", cut_short)
        cut, _ = lab.register("cut", *pipelines.of(lab, GOOD), code=2)
    assert "reasons" not in cut.data.tags
    run, _ = lab.register("cut", *pipelines.of(lab, GOOD))
    assert run.data.tags["outcome"] == "unchanged"
    gate = lab.version("cut", "1").tags["reasons"]
    assert run.data.tags["reasons"].endswith(f"; promoted when it was judged: {gate}")
    assert "test RMSE with metered distance is " in gate


def test_a_refused_candidate_may_try_again_as_the_same_version(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("retry", *pipelines.of(lab, GOOD), "--max_rmse=2")
    _, said = lab.register("retry", *pipelines.of(lab, GOOD))
    assert "retry version 1, alias champion" in said
    assert lab.aliases("retry") == {"champion": "1"}
    assert lab.version("retry", "1").tags["outcome"] == "promoted"


# --- where the months and the code come from


def origin(lab: Lab, name: str, version: str, **tags: str) -> None:
    """Give a champion another origin than this lab can make, by its tags."""
    for key, value in tags.items():
        lab.client.set_model_version_tag(name, version, key.replace("__", "."), value)


def test_a_model_of_simulated_months_replaces_a_real_one_only_where_that_is_said(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("real", *pipelines.of(lab, GOOD))
    assert lab.version("real", "1").tags["data"] == "simulated"
    origin(lab, "real", "1", data="real")
    _, said = lab.register("real", *pipelines.of(lab, BETTER))
    assert (
        "kind of months is simulated, wanted real, like the champion's, or allow_simulated=true"
        in said
    )
    assert lab.aliases("real") == {"champion": "1", "challenger": "2"}
    run, _ = lab.register("real", *pipelines.of(lab, BETTER), "--allow_simulated=true")
    assert lab.aliases("real") == {"champion": "2"}
    assert lab.version("real", "2").tags["allowed"] == "allow_simulated"
    assert "allow_simulated" in run.data.tags["reasons"]


def test_a_model_of_code_not_known_to_be_committed_replaces_a_committed_one_only_where_that_is_said(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("clean", *pipelines.of(lab, GOOD))
    origin(lab, "clean", "1", git_dirty="false")
    dirty = pipelines.of(lab, BETTER, git_dirty="unknown")
    _, said = lab.register("clean", *dirty)
    assert (
        "state of the code is uncommitted, wanted committed, like the champion's, or "
        "allow_dirty=true" in said
    )
    lab.register("clean", *dirty, "--allow_dirty=true")
    assert lab.aliases("clean") == {"champion": "2"}
    assert lab.version("clean", "2").tags["git_dirty"] == "true"
    assert lab.version("clean", "2").tags["allowed"] == "allow_dirty"


@pytest.mark.parametrize(
    ("tags", "is_dirty"),
    [
        ({"git_dirty": "false", "mlflow.source.git.commit": "c0ffee"}, False),
        ({"git_dirty": "true", "mlflow.source.git.commit": "c0ffee"}, True),
        ({"git_dirty": "unknown", "mlflow.source.git.commit": "c0ffee"}, True),
        ({"git_dirty": "false"}, True),  # runs were once tagged so if git was missing
        ({}, True),
    ],
)
def test_only_a_run_that_says_so_is_of_committed_code(tags: dict[str, str], is_dirty: bool) -> None:
    info = RunInfo("id", "0", "ana", "FINISHED", 0, 1, "active")
    data = RunData(tags=[RunTag(name, value) for name, value in tags.items()])
    assert read_code(Run(info, data)).is_dirty == is_dirty


@pytest.mark.parametrize("uncommitted", ["preprocess", "candidate", "register", "none"])
def test_a_model_is_of_uncommitted_code_where_any_run_behind_it_is(
    monkeypatch: pytest.MonkeyPatch, uncommitted: str
) -> None:
    def code(of: str) -> Code:
        return Code("c0ffee", of == uncommitted)

    months = {"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]}
    dataset = Dataset("green", False, "tlc", months, {})
    made = PreprocessResult("1a", dataset, code("preprocess"), {}, [])
    candidate = Candidate("2b", "tree", "full", "models:/m-1", {}, code("candidate"))
    monkeypatch.setattr(runs, "active", lambda: "register")
    monkeypatch.setattr(register, "read_code", code)
    found = register.candidate_provenance(made, candidate)
    assert found.is_dirty == (uncommitted != "none")
    assert found.seen_months == {"2021-01", "2021-02"}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_champion_that_has_seen_the_test_months_is_no_measure(
    lab: Lab, pipelines: Pipelines, split: str
) -> None:
    name = f"seen in {split}"
    lab.register(name, *pipelines.of(lab, GOOD))
    origin(lab, name, "1", **{f"months__{split}": "2021-02,2021-03"})
    _, said = lab.register(name, *pipelines.of(lab, BETTER))
    assert "test months the champion has seen is 2021-03" in said
    assert "pass later test_months" in said
    assert lab.aliases(name) == {"champion": "1", "challenger": "2"}


# --- what is recorded on a given run wins over the parameters


def test_runs_of_app_rides_are_judged_as_such_without_being_told_so(lab: Lab) -> None:
    preprocess, _ = lab.run("preprocess", SIMULATED, "--taxi=fhvhv")
    baseline = lab.step("baseline", preprocess, None)
    for depth in (GOOD, BETTER):
        hpo = lab.step("hpo", preprocess, depth)
        given = [f"--baseline_run_id={baseline}", f"--hpo_run_id={hpo}", *REACHABLE]
        _, said = lab.register("cabs", *given)
    assert "cabs version 2, alias champion, in place of version 1: test rmse" in said
    version = lab.version("cabs", "2")
    assert version.tags["taxi"] == "fhvhv"
    assert "# cabs: the minutes of an app ride" in version.description
    assert "`trip_miles` must be the planned distance" in version.description
    assert f"- {TAXIS['fhvhv'].limits[0]}" in version.description
    command = version.description.rpartition("mlflow run ")[2]
    assert "-P taxi=fhvhv " in command
    assert f"-P {SIMULATED[2:]} " in command
    assert "-P test_months=2021-03 " in command
    given = ("--taxi=fhvhv", "--months=2021-04", "--model_uri=models:/cabs/2", "--live=feed")
    run, _ = lab.run("score", SIMULATED, *given)
    shared = pc.sum(read_scored(run, "2021-04", "fhvhv")["shared_match_flag"]).as_py()
    assert run.data.metrics["n_eligible"] < run.data.metrics["n_live"] - shared < 2_000


# --- bad input


@pytest.fixture
def lost(lab: Lab, pipelines: Pipelines, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of a registered model whose champion's files are missing for the test."""
    name = "lost"
    if name not in lab.store.registered():
        lab.register(name, *pipelines.of(lab, GOOD))
        lab.register(name, *pipelines.of(lab, BETTER))
    uri = lab.version(name, lab.aliases(name)["champion"]).tags["model_uri"]
    folder = Path(mlflow.get_logged_model(uri.split("/")[-1]).artifact_location[len("file://") :])
    away = Path(shutil.move(folder, folder.with_name("away")))
    yield name
    shutil.move(away, folder)


def test_a_champion_whose_files_are_gone_stops_register_before_anything_is_trained(
    lab: Lab, lost: str
) -> None:
    before = lab.client.get_registered_model(lost)
    run, said = lab.register(lost, SIMULATED, code=2)
    assert f"Cannot load model models:/{lost}/2: " in said
    assert "restore the previous champion with -e register -P rollback=true" in said
    assert runs.children(run.info.run_id) == []
    after = lab.client.get_registered_model(lost)
    assert (after.tags, after.aliases) == (before.tags, before.aliases)


def test_a_champion_that_a_store_does_not_give_for_now_is_not_advised_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("See the server's log.") from MlflowException(
            "API request to endpoint /x failed with error code 503 != 200."
        )

    def lose(*_: object) -> None:
        raise StorageError("Its files are lost.")

    any_version: Any = SimpleNamespace(champion=lambda: SimpleNamespace(name="any", version="1"))
    for load, is_advised in (refuse, False), (lose, True):
        monkeypatch.setattr(register, "load_served", load)
        with pytest.raises(StorageError) as caught:
            register.check_champion(any_version, "green")
        assert ("-e register -P rollback=true" in str(caught.value)) is is_advised


def test_a_rollback_helps_where_the_champions_files_are_gone(lab: Lab, lost: str) -> None:
    _, said = lab.register(lost, "--rollback=true")
    assert said.startswith("lost: version 1 is champion again, in place of version 2. ")


def test_no_candidate(lab: Lab, pipelines: Pipelines) -> None:
    _, said = lab.register("none", *pipelines.of(lab, None), code=2)
    assert "No candidate model in the baseline and hpo runs. Run them again" in said
    assert "none" not in lab.store.registered()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_test_months_that_overlap_those_that_models_saw(
    lab: Lab, pipelines: Pipelines, split: str
) -> None:
    given = pipelines.of(lab, GOOD)
    assert pipelines.preprocess is not None
    run_id, tags = pipelines.preprocess.info.run_id, pipelines.preprocess.data.tags
    lab.client.set_tag(run_id, f"months.{split}", "2021-01,2021-03")
    try:
        _, said = lab.register("overlap", *given, code=2)
    finally:
        lab.client.set_tag(run_id, f"months.{split}", tags[f"months.{split}"])
    assert f"Month 2021-03 is among the {split} and the test months of run {run_id}" in said
    assert "overlap" not in lab.store.registered()


def test_a_champion_of_another_taxi(lab: Lab, pipelines: Pipelines) -> None:
    lab.register("green", *pipelines.of(lab, GOOD))
    wanted = "green is a model of green trips: version 1, its champion, is. Pass another model_name"
    for step, *more in (("register",), ("main",), ("main", "--plan=true")):
        run, lines = lab.run(step, SIMULATED, "--taxi=yellow", "--model_name=green", *more, code=2)
        assert lines[-1].endswith(f"{wanted} for yellow ones, such as -P model_name=green-yellow.")
        assert runs.children(run.info.run_id) == []  # refused before anything is trained
    lab.client.delete_model_version_tag("green", "1", "taxi")  # versions of other projects lack it
    _, said = lab.register("green", SIMULATED, "--taxi=yellow", code=2)
    assert "needs ['lpep_pickup_datetime'], which yellow trips do not have" in said


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--rollback=yes", "must be true or false, got 'yes'"),
        ("--max_rmse=low", "must be a number of at least 0, got 'low'"),
        ("--min_improvement=-1", "must be a number of at least 0, got '-1'"),
        ("--min_r2=inf", "must be a number of at least -1, got 'inf'"),
        ("--max_coverage_gap=2", "must be a number of at least 0 and at most 1, got '2'"),
        ("--max_slice_loss=-0.1", "must be a number of at least 0, got '-0.1'"),
        ("--allow_slice_loss=airports", "must be true or false, got 'airports'"),
    ],
)
def test_a_threshold_that_means_nothing(
    argument: str, said: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        entry("register").main([argument])
    assert left.value.code == 2
    assert said in capsys.readouterr().err
