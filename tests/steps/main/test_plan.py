"""What a plan says, and that it changes nothing."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from steps.main import plan as main_plan
from storage.data import downloads, months
from storage.repro import reuse, step_key
from storage.tracking import runs, tags
from tests.entry import entry
from tests.stores import EXPERIMENT, Store

SMALL = "--source=simulated:300"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    entry("main").main(["--plan=true", *arguments])
    return capsys.readouterr().out.splitlines()


def test_a_plan_without_a_store_says_that_all_is_new_and_makes_no_store(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TAXI_CACHE", f"{tmp_path}/cache")
    first = "for the first time in this experiment"
    assert plan(capsys, SMALL) == [
        "main",
        f"├── preprocess  runs, {first}",
        f"├── baseline    runs, {first}",
        f"├── hpo         runs, {first}",
        f"└── register    runs, {first}",
        "trips: train 300, valid 300, test 300",
        "needs: no estimate for preprocess, baseline, hpo, register: "
        "no finished run did the same on at least 30 trips here",
        "to download: nothing",
        "Nothing was started.",
    ]
    kept = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert all(name.startswith("meanings-") for name in kept)  # cache of the code's meanings only


def test_a_plan_makes_no_run_and_knows_what_is_done(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # in a shared experiment, other tests' runs would be used to estimate what the steps need
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", store.experiment("planned"))
    entry("preprocess").main([SMALL, "--developer=ana"])
    before = store.runs()
    capsys.readouterr()
    said = plan(capsys, SMALL)
    assert said[1].startswith("├── preprocess  reused ")
    assert said[1].endswith(" (seconds ago, ana)")
    assert "; 0 of 50 trials are done" in said[3]
    # before max_evals was less
    monkeypatch.setattr(main_plan, "count_finished_trials", lambda *_: 60)
    assert "; 50 of 50 trials are done" in plan(capsys, SMALL)[3]
    assert re.fullmatch(r"trips: train 2\d\d, valid 2\d\d, test 2\d\d", said[5])  # clean ones
    assert said[6].startswith("needs: no estimate for baseline, hpo, register: ")
    (known,) = (line for line in plan(capsys, SMALL, "--reuse=false") if "needs: preproc" in line)
    # the memory is this process's peak, in whichever test that was
    told = r"at most 0\.\d min and \d+\.\d GiB, estimated from runs on [78]\d\d trips$"
    assert re.search(told, known)
    assert plan(capsys, SMALL, "--test_months=")[4] == (
        "└── register    left out, there are no test months"
    )
    assert plan(capsys, SMALL, "--reuse=false")[1] == "├── preprocess  runs, reuse=false"
    assert store.runs() == before


def test_steps_below_one_that_runs_wait_for_its_trips(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with runs.StepRun("baseline", "ana"):
        reuse.tag_key(step_key.StepKey("baseline", {}, {}, {}, {}))
    said = plan(capsys, "--source=simulated:301")
    assert said[2] == "├── baseline    runs after preprocess, unless the trips come out as before"


def test_a_run_that_is_given_is_taken(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    entry("preprocess").main([SMALL])
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT).experiment_id
    run_id = reuse.newest("preprocess", experiment).info.run_id
    MlflowClient().set_tag(run_id, tags.ODD_MONTHS, "2021-02 is short\n2021-03 is long")
    said = plan(capsys, f"--preprocess_run_id={run_id}", SMALL)
    assert {"odd: 2021-02 is short", "odd: 2021-03 is long"} <= set(said)
    assert f"├── preprocess  taken as given, {run_id[:8]}…" in said


def test_a_plan_that_mlflow_run_asks_for_names_its_run_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT).experiment_id
    run_id = MlflowClient().create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    entry("main").main(["--plan=true", SMALL])
    run = MlflowClient().get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("plan", "FINISHED")
    assert run.data.tags["step"] == "plan"


def test_months_that_are_not_here_are_listed_with_their_sizes(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask_size(source: str, name: str) -> int | None:
        return None if "2021-02" in name else 1_234_567

    monkeypatch.setattr(downloads, "ask_size", ask_size)
    monkeypatch.setenv("TAXI_CACHE", f"{tmp_path}/cache")
    said = plan(capsys, "--test_months=")
    assert said[1] == "├── preprocess  runs, unless the same bytes have been read before"
    name = f"{months.TLC_URL}/green_tripdata_2021-0"
    side = months.TLC_URL.replace("trip-data", "misc")
    assert said[-5:] == [
        f"to download: {name}1.parquet (1.2 MB)",
        f"to download: {name}2.parquet (size unknown: the server does not say)",
        f"to download: {side}/taxi_zone_lookup.csv (1.2 MB)",
        f"to download: {side}/taxi_zones.zip (1.2 MB)",
        "Nothing was started.",
    ]
    assert list(tmp_path.iterdir()) == []
