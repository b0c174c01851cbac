"""What a step builds on: named, reused or launched, on real runs of small steps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from steps.common import pipeline
from steps.common.months import find_month
from steps.common.parameters import ENTRY_POINTS
from steps.common.pipeline import Pipeline
from steps.common.results import Dataset
from storage import UserError
from storage.checkout import ROOT
from storage.repro import reuse, step_key
from storage.tracking import runs, tags
from taxi.search import LAG
from tests.entry import entry, parsed
from tests.stores import EXPERIMENT, Store
from tests.zone_files import make_zone_shapes, write_zone_files

NO_TEST = ("--train_months=2021-01", "--valid_months=2021-02", "--test_months=")
SMALL = ("--source=simulated:300", "--models=mean")


def chain(step: str, *arguments: str) -> Pipeline:
    return Pipeline(parsed(step, *arguments))


def said_by(step: str, output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(f"{step}: ")]


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout


def copied(folder: Path) -> Path:
    """Make another checkout of this code, which is not a git repository."""
    for room in ("steps", "storage", "taxi"):
        shutil.copytree(ROOT / room, folder / room)
    for name in ("MLproject", "requirements.txt", "python_env.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


# --- keys, which need no run


def test_the_order_of_the_steps_is_the_same_wherever_it_stands() -> None:
    assert list(pipeline.UPSTREAM) == list(pipeline.RESULT_READERS) == list(tags.RUN_IDS)


def test_upstream_names_the_steps_that_a_step_takes_runs_of() -> None:
    for step, above in pipeline.UPSTREAM.items():
        taken = {name for name in ENTRY_POINTS[step].model_fields if name.endswith("_run_id")}
        assert taken == {f"{name}_run_id" for name in above}


@pytest.mark.parametrize(
    ("text", "given", "steps"),
    [
        ("all", [], ["preprocess", "baseline", "hpo", "register"]),
        (" hpo, preprocess,", [], ["preprocess", "hpo"]),
        ("hpo", ["preprocess"], ["preprocess", "hpo"]),
        ("register", ["preprocess", "baseline", "hpo"], list(pipeline.UPSTREAM)),
    ],
)
def test_a_part_of_the_pipeline_is_what_is_named_and_what_is_given(
    text: str, given: list[str], steps: list[str]
) -> None:
    assert pipeline.selected_steps(text, given) == steps


def test_preprocess_is_known_by_its_months_however_they_are_written(store: Store) -> None:
    def key(*arguments: str) -> str:
        return chain("baseline", *arguments).key("preprocess").sha256

    first = key("--source=simulated:300")
    assert key("--source=simulated:0300:42", "--test_months=2021-03") == first
    assert key("--source=simulated:300", "--models=mean", "--seed=1", "--developer=bob") == first
    for other in (
        ["--source=simulated:301"],
        ["--source=simulated:300:43"],
        ["--source=simulated:300", "--test_months="],
        ["--source=simulated:300", "--train_months=2020-12,2021-01"],
        ["--source=simulated:300", "--taxi=yellow"],
    ):
        assert key(*other) != first
    ordered = [f"--train_months={months}" for months in ("2020-12,2021-01", "2021-01,2020-12")]
    assert key("--source=simulated:300", ordered[0]) != key("--source=simulated:300", ordered[1])


def test_what_a_step_hands_over_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chained, read = chain("register", "--source=simulated:300"), list[Any]()
    monkeypatch.setattr(pipeline.results, "read_training", lambda run: read.append(run) or run)
    chained.done = {"baseline": "one", "hpo": "other"}  # type: ignore[dict-item]
    assert [chained.training(step) for step in ("hpo", "baseline", "hpo")] == [
        "other",
        "one",
        "other",
    ]
    assert read == ["other", "one"]


def test_one_byte_of_a_month_makes_another_key(store: Store, tmp_path: Path) -> None:
    for month in ("2021-01", "2021-02", "2021-03"):
        (tmp_path / f"green_tripdata_{month}.csv").write_text("pickup,zone\n1,2\n")
    before = chain("baseline", f"--source={tmp_path}").key("preprocess")
    elsewhere = shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert chain("baseline", f"--source={elsewhere}").key("preprocess") == before
    (elsewhere / "green_tripdata_2021-02.csv").write_text("pickup,zone\n1,3\n")
    after = chain("baseline", f"--source={elsewhere}").key("preprocess")
    assert after.sha256 != before.sha256
    changed = {name for name in after.inputs if after.inputs[name] != before.inputs[name]}
    assert changed == {"valid 2021-02"}


def test_other_files_of_the_zones_make_another_key_and_the_same_ones_the_same(
    store: Store, tmp_path: Path
) -> None:
    for month in ("2021-01", "2021-02", "2021-03"):
        (tmp_path / f"green_tripdata_{month}.csv").write_text("pickup,zone\n1,2\n")
    without = chain("baseline", f"--source={tmp_path}").key("preprocess")
    write_zone_files(tmp_path)
    before = chain("baseline", f"--source={tmp_path}").key("preprocess")
    elsewhere = shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert chain("baseline", f"--source={elsewhere}").key("preprocess") == before
    write_zone_files(elsewhere, shapes=make_zone_shapes((1, 0, 0, 3)))
    after = chain("baseline", f"--source={elsewhere}").key("preprocess")
    assert step_key.key_differences(before._asdict(), after) == ["taxi_zones.zip changed"]
    assert len({without.sha256, before.sha256, after.sha256}) == 3


def test_what_learns_from_the_trips_runs_again_in_another_city(
    store: Store, tmp_path: Path
) -> None:
    def keys(source: Path) -> list[str]:
        entry("preprocess").main([f"--source={source}", *NO_TEST])
        made = chain("hpo", f"--source={source}", *NO_TEST)
        assert made.decide_reuse("preprocess").run is not None  # reused, as the files are the same
        made.get_or_run("preprocess")
        return [made.key(step).sha256 for step in ("baseline", "hpo")]

    for month in ("2021-01", "2021-02"):
        find_month("simulated:300", "green", month, tmp_path)
    without = keys(tmp_path)
    write_zone_files(tmp_path)
    first = keys(tmp_path)
    write_zone_files(tmp_path, shapes=make_zone_shapes((1, 0, 0, 3)))
    other = keys(tmp_path)
    assert len({*without, *first, *other}) == 6
    write_zone_files(tmp_path)
    assert keys(tmp_path) == first


@pytest.mark.parametrize(
    ("argument", "same"),
    [
        ("--max_evals=050", True),
        ("--max_minutes=0.0", True),
        ("--max_minutes=0.10", False),
        ("--warm_start=False", True),
        ("--half_life=8", True),
        ("--half_life=0", False),
        ("--search_rows=0", True),
        ("--search_rows=300", True),
        ("--search_rows=100", False),
        ("--parallelism=2", True),
        (f"--parallelism={LAG}", True),
        (f"--parallelism={LAG + 1}", False),
        ("--reuse=false", True),
        ("--developer=bob", True),
        ("--scheduler=tcp://host:8786", True),
        ("--seed=43", False),
        ("--device=cuda", False),
    ],
)
def test_a_search_is_known_by_what_changes_its_result(
    preprocessed: str, argument: str, same: bool
) -> None:
    def key(*arguments: str) -> str:
        made = chain("hpo", f"--preprocess_run_id={preprocessed}", *arguments)
        made.get_or_run("preprocess")
        return made.key("hpo").sha256

    assert (key(argument) == key()) == same


def test_the_spelling_of_a_number_does_not_count(preprocessed: str) -> None:
    def key(minutes: str) -> str:
        made = chain("hpo", f"--preprocess_run_id={preprocessed}", f"--max_minutes={minutes}")
        made.get_or_run("preprocess")
        return made.key("hpo").sha256

    assert key("0.10") == key("0.1") != key("0.2")


def test_a_value_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(UserError, match="reuse: must be true or false, got 'yes'"):
        parsed("main", "--reuse=yes")


# --- runs


@pytest.fixture
def preprocessed(store: Store) -> str:
    """Return the id of a run of preprocess on SMALL, made once."""
    key = chain("baseline", *SMALL).key("preprocess")
    if not reuse.find_reusable(key, runs.experiment_id()).run:
        entry("preprocess").main([SMALL[0]])
    return str(reuse.find_reusable(key, runs.experiment_id()).run.info.run_id)


def steps_of(store: Store) -> list[str]:
    return [run["data"]["tags"].get("step", "") for run in store.runs().values()]


def planned(folder: Path, **environment: str) -> str:
    """Ask a checkout what it plans for preprocess."""
    words = ["steps.main", "--plan=true", *SMALL]
    lines = output_of(start(folder, *words, **environment)).splitlines()
    return next(line for line in lines if "preprocess" in line)


def test_a_step_started_alone_reuses_what_it_builds_on_and_runs_itself(
    preprocessed: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = entry("baseline")
    before = steps_of(store)
    for _ in range(2):
        baseline.main(list(SMALL))
        output = capsys.readouterr().out
        assert said_by("preprocess", output)[0].startswith(
            f"preprocess: reused {preprocessed[:8]}… ("
        )
        assert "mean: rmse " in output
    new = steps_of(store)[len(before) :]
    assert (new.count("baseline"), new.count("preprocess")) == (2, 0)


def test_what_a_given_run_says_of_its_trips_wins_over_defaults_and_another_place_of_them(
    preprocessed: str, store: Store
) -> None:
    given = chain("main", f"--preprocess_run_id={preprocessed}", "--source=elsewhere")
    assert (given.params.taxi, given.params.source) == ("green", SMALL[0].partition("=")[2])
    assert given.params.test_months == "2021-03"
    repeated = given.rerun_parameters().rerun_texts()
    assert (repeated["taxi"], repeated["test_months"]) == ("green", "2021-03")
    assert "preprocess_run_id" not in repeated  # because the same months would make it again


def test_trips_that_are_not_of_the_default_are_named(
    preprocessed: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A typed default looks like none, so only the printed line shows that it is ignored."""
    assert chain("main", f"--preprocess_run_id={preprocessed}").params.taxi == "green"
    assert "trips:" not in capsys.readouterr().out
    monkeypatch.setattr(Dataset, "parameters", lambda _: {"taxi": "yellow", "source": "elsewhere"})
    given = chain("main", f"--preprocess_run_id={preprocessed}", "--taxi=green")
    assert given.params.taxi == "yellow"
    said = f"trips: taxi=yellow, as preprocess run {preprocessed[:8]}… is of\n"
    assert capsys.readouterr().out == said


def test_months_that_are_typed_another_way_than_a_given_run_has_them_are_the_same(
    preprocessed: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """`main` passes the months as typed on to each step, together with the run of these months."""
    typed = ("--train_months=2021-01..2021-01", "--valid_months=2021-02..2021-02")
    given = chain("main", f"--preprocess_run_id={preprocessed}", *typed)
    assert given.params.train_months == "2021-01"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("taxi=yellow", "green"),
        ("train_months=2020-12..2021-01", "2021-01"),
        ("valid_months=2021-03", "2021-02"),
        ("test_months=2021-04", "2021-03"),
        ("test_months=", "2021-03"),
    ],
)
def test_other_trips_than_those_of_a_given_run_are_refused(
    asked: str, there: str, preprocessed: str, store: Store
) -> None:
    with pytest.raises(
        UserError, match=f"^{asked} was passed, but the trips are of {there}: "
    ) as no:
        chain("register", f"--preprocess_run_id={preprocessed}", f"--{asked}")
    assert preprocessed in str(no.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("max_evals=77", "made with 3"),
        ("features=course", "made with compact"),  # set by a parameter file
        ("half_life=4", "made with 2.5"),
        ("max_evals=3", ""),
        ("features=compact", ""),
        ("seed=9", ""),
        ("models=mean", ""),
        ("parallelism=1", ""),
        ("device=cuda", ""),  # not recorded on the run
    ],
)
def test_other_settings_than_those_of_a_given_run_are_refused(
    asked: str, said: str, preprocessed: str, store: Store
) -> None:
    client = MlflowClient()
    marks = {"step": "hpo", "preprocess_run_id": preprocessed}
    run_id = client.create_run(runs.experiment_id(), tags=marks).info.run_id
    noted = {"max_evals": "3", "half_life": "'2.50'", "seed": "42", "parallelism": "0"}
    for name, text in (noted | {"features": "full", "config.features": "compact"}).items():
        client.log_param(run_id, name, text)
    client.set_terminated(run_id)
    words = ("register", f"--hpo_run_id={run_id}", f"--{asked}")
    if not said:
        assert chain(*words).given
        return
    with pytest.raises(
        UserError, match=f"^{asked} was passed with hpo run {run_id}, which was {said}"
    ):
        chain(*words)


def test_the_trips_of_a_given_run_may_be_asked_for_in_any_spelling(
    preprocessed: str, store: Store
) -> None:
    spelled = ("--train_months= 2021-01..2021-01", "--test_months=2021-03,")
    with pytest.raises(UserError, match="is not a month"):  # the comma leaves an empty name
        chain("register", f"--preprocess_run_id={preprocessed}", *spelled)
    chain("register", f"--preprocess_run_id={preprocessed}", spelled[0], "--test_months=2021-03")


def test_a_given_run_is_named_in_what_repeats_it_unless_the_parameters_make_it(
    preprocessed: str, store: Store
) -> None:
    entry("baseline").main([f"--preprocess_run_id={preprocessed}", "--models=mean"])
    (run_id, *_) = (key for key, run in reversed(store.runs().items()) if is_of(run, "baseline"))
    for models, is_named in (("mean", False), ("all", True)):
        words = [f"--baseline_run_id={run_id}", f"--models={models}"]
        pipeline = chain("register", *words)
        pipeline.preprocess(), pipeline.training("baseline")
        assert ("baseline_run_id" in pipeline.rerun_parameters().rerun_texts()) == is_named


def is_of(run: dict[str, Any], step: str) -> bool:
    return bool(run["data"]["tags"].get("step") == step)


def test_reuse_false_runs_everything(
    preprocessed: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    before = steps_of(store)
    entry("baseline").main([*SMALL, "--reuse=false"])
    assert said_by("preprocess", capfd.readouterr().out) == ["preprocess: runs, reuse=false"]
    assert steps_of(store)[len(before) :].count("preprocess") == 1


def test_two_started_at_the_same_moment_both_finish_and_a_third_reuses(tmp_path: Path) -> None:
    """On a new store; neither reuses what the other has not finished."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    given = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    both = [start(ROOT, "steps.baseline", *SMALL, **given) for _ in range(2)]
    scores = {line for process in both for line in said_by("mean", output_of(process))}
    assert len(scores) == 1
    found = Store(uri, tmp_path).runs().values()
    assert {run["info"]["status"] for run in found} == {"FINISHED"}
    assert "preprocess  reused " in planned(ROOT, **given)


def test_a_teammates_run_on_a_server_is_reused_from_another_checkout(
    mlflow_server: str, tmp_path: Path
) -> None:
    given = {"MLFLOW_TRACKING_URI": mlflow_server, "MLFLOW_EXPERIMENT_NAME": "teammates"}
    output_of(start(ROOT, "steps.preprocess", SMALL[0], "--developer=ana", **given))
    other = copied(tmp_path / "bob")
    (other / "README.md").write_text("Another README, and no git.")
    line = planned(other, **given)
    assert "preprocess  reused " in line
    assert line.endswith(" ago, ana)")
    with (other / "taxi" / "cleaning.py").open("a") as code:
        code.write("# a thought\n")
    assert "preprocess  reused " in planned(other, **given)
    with (other / "taxi" / "cleaning.py").open("a") as code:
        code.write("CHANGED = True\n")
    assert "preprocess  runs, taxi/cleaning.py changed since " in planned(other, **given)
