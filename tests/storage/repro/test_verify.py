"""What verify compares; tests/test_end_to_end.py has it run a pipeline again."""

from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from storage.repro import verify
from storage.tracking import runs
from tests.stores import Store


def test_an_equal_run_is_identical_and_every_difference_is_named() -> None:
    before = {"rmse": "5.4", "model/booster-000.ubj": "a"}
    assert verify.compare_runs("hpo", before, dict(before)) == ("hpo", 2, [])
    assert verify.compare_runs("hpo", before, {"rmse": "5.5", "mae": "3"}).differences == [
        "mae: not there became 3",
        "model/booster-000.ubj: a became not there",
        "rmse: 5.4 became 5.5",
    ]
    assert verify.compare_runs("hpo", before, None).differences == ["it did not run again"]


@pytest.mark.parametrize(
    ("metric", "free"),
    [
        ("train_seconds", True),
        ("system/cpu_seconds", True),
        ("system/peak_memory_megabytes", True),
        ("n_trials_recorded", True),
        ("champion_test_rmse", True),
        ("register.improvement_low", True),
        ("rmse", False),
        ("hpo.rmse", False),
        ("n_trials_pruned", False),
        ("seconds_of_trip", False),
    ],
)
def test_only_times_and_what_the_store_decides_may_differ(metric: str, free: bool) -> None:
    assert verify.is_free(metric) == free


def test_the_last_digit_of_a_metric_counts(store: Store) -> None:
    found = []
    for value in (0.1 + 0.2, 0.3):
        with runs.StepRun("hpo", ""):
            mlflow.log_metrics({"rmse": value, "train_seconds": value})
            mlflow.set_tag("sha256.train", "c0ffee")
            run = mlflow.active_run().info.run_id
        found.append(verify.comparable_facts(MlflowClient(), mlflow.get_run(run)))
    assert found[0] == {"rmse": "0.30000000000000004", "sha256.train": "c0ffee"}
    assert verify.compare_runs("hpo", *found).differences == [
        "rmse: 0.30000000000000004 became 0.3"
    ]


def test_the_table_ends_with_what_it_came_to() -> None:
    rows = [verify.Row("main", 3, []), verify.Row("hpo/trial 1", 2, ["rmse: 1 became 2"])]
    assert list(verify.comparison_table(rows)) == [
        "main           3 compared, identical",
        "hpo/trial 1    2 compared, differs",
        "    rmse: 1 became 2",
        "5 metrics and hashes of 2 runs: 1 runs differ",
    ]
    assert (
        list(verify.comparison_table(rows[:1]))[-1]
        == "3 metrics and hashes of 1 runs: all identical"
    )


def test_a_difference_leaves_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [verify.Row("main", 1, [])]
    monkeypatch.setattr(verify, "verify", lambda run_id, env_manager: rows)
    verify.main(["run"])
    rows[0].differences.append("rmse: 1 became 2")
    with pytest.raises(SystemExit) as left:
        verify.main(["run"])
    assert left.value.code == 1


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"step": "hpo"}, "is of hpo and FINISHED. Pass a FINISHED run of main."),
        ({"rerun": "mlflow run . -P hpo_run_id=1a"}, "builds on runs of this store: hpo_run_id=1a"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_one_line_and_2(
    store: Store, capsys: pytest.CaptureFixture[str], tags: dict[str, Any], said: str
) -> None:
    with runs.StepRun("main", ""):
        mlflow.set_tags(tags)
        run_id = mlflow.active_run().info.run_id
    with pytest.raises(SystemExit) as left:
        verify.main([run_id])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("words", [[], [""], ["no-such-run"]])
def test_a_run_that_is_not_named_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        verify.main(words)
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
