"""What verify compares; tests/test_end_to_end.py really runs a pipeline again."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage import StoreGoneError, UserError, git
from storage.checkout import ROOT
from storage.repro import verify
from storage.repro.comparison import Difference, Row, compare_runs, comparison_table, verdict_line
from storage.tracking import runs
from storage.tracking import store as tracking_store
from storage.uris import file_path
from tests.stores import Store


def lines(row: Row) -> list[str]:
    return [str(difference) for difference in row.differences]


def test_an_equal_run_is_identical_and_every_difference_is_named() -> None:
    before = {"rmse": "5.4", "model/booster-000.ubj": "a"}
    assert compare_runs("hpo", before, dict(before)) == ("hpo", 2, [])
    assert lines(compare_runs("hpo", before, {"rmse": "5.5", "mae": "3.0"})) == [
        "mae: not there became 3.0",
        "model/booster-000.ubj: a became not there",
        "rmse: 5.4 became 5.5 (+0.1, +1.9 %)",
    ]
    assert lines(compare_runs("hpo", before, None)) == ["the run: there became not there"]


@pytest.mark.parametrize(
    ("before", "after", "moved", "share"),
    [
        ("5.0", "4.75", -0.25, -0.05),
        ("1e-07", "2e-07", 1e-07, 1.0),
        ("0.0", "0.5", 0.5, None),
        ("nan", "1.0", None, None),
        ("1234567890", "2e5", None, None),  # parts of a hash that look like numbers
    ],
)
def test_how_far_a_number_moved(
    before: str, after: str, moved: float | None, share: float | None
) -> None:
    difference = Difference("rmse", before, after)
    assert difference.moved == (None if moved is None else pytest.approx(moved))
    assert difference.share == (None if share is None else pytest.approx(share))


def test_what_moved_furthest_stands_in_the_table() -> None:
    row = compare_runs("hpo", {"mae": "2.0", "rmse": "4.0"}, {"mae": "2.1", "rmse": "5.0"})
    assert row.cells() == {
        **{"run": "hpo", "compared": 2, "differing": 2, "furthest": "rmse"},
        **{"first_time": "4.0", "again": "5.0", "moved": 1.0, "moved_share": 0.25},
    }
    assert set(compare_runs("hpo", {"mae": "2.0"}, {"mae": "2.0"}).cells().values()) == {
        *("hpo", 1, 0, ""),
    }


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
    assert verify.may_differ(metric) == free


def test_the_last_digit_of_a_metric_counts(store: Store) -> None:
    found = []
    for value in (0.1 + 0.2, 0.3):
        with runs.StepRun("hpo", ""):
            mlflow.log_metrics({"rmse": value, "train_seconds": value})
            mlflow.set_tag("sha256.train", "c0ffee")
            run = mlflow.active_run().info.run_id
        found.append(verify.comparable_facts(MlflowClient(), mlflow.get_run(run)))
    assert found[0] == {"rmse": "0.30000000000000004", "sha256.train": "c0ffee"}
    assert lines(compare_runs("hpo", *found)) == [
        "rmse: 0.30000000000000004 became 0.3 (-5.55e-17, -1.9e-14 %)"
    ]


SAME = Row("main", 3, [])
OTHER = Row("hpo/trial 1", 2, [Difference("rmse", "1.0", "2.0"), Difference("x", "a", "b")])


def test_the_table_ends_with_what_it_came_to() -> None:
    assert list(comparison_table([SAME, OTHER])) == [
        "main           3 compared, identical",
        "hpo/trial 1    2 compared, differs",
        "    rmse: 1.0 became 2.0 (+1, +1e+02 %)",
        "    x: a became b",
        "5 metrics and hashes of 2 runs: 1 run differs, first hpo/trial 1, rmse: 1.0 became 2.0 "
        "(+1, +1e+02 %)",
    ]
    assert list(comparison_table([SAME]))[-1] == "3 metrics and hashes of 1 runs: all identical"


def test_the_first_to_differ_is_named_as_they_were_run_and_not_who_repeats_its_numbers() -> None:
    moved = {name: [Difference("rmse", "4.0", after)] for name, after in MOVED.items()}
    said = verdict_line([Row(name, 1, differences) for name, differences in moved.items()])
    assert said == (
        "4 metrics and hashes of 4 runs: 4 runs differ, first hpo/trial 1, rmse: 4.0 became 4.01 "
        "(+0.01, +0.25 %); the largest change is register, rmse: 4.0 became 5.0 "
        "(+1, +25 %)"
    )


MOVED = {"main": "5.0", "hpo": "4.01", "register": "5.0", "hpo/trial 1": "4.01"}


def test_where_it_differs_the_machines_are_named() -> None:
    run: Any = None
    assert verify.Verdict(run, [SAME], machines=("A", "B")).line.endswith("all identical")
    differs = verify.Verdict(run, [OTHER], machines=("", "B"))
    assert not differs.is_same
    assert differs.line.endswith("first run was on an unknown machine, the second on B")
    assert "machine" not in verify.Verdict(run, [OTHER], machines=("B", "B")).line
    assert verify.Verdict(run, [], problem="no clone").line == "not verified: no clone"


def test_a_difference_leaves_with_1(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Any = None
    monkeypatch.setattr(verify, "pipeline", lambda client, run_id: run)
    monkeypatch.setattr(verify, "verify", lambda *_: verify.Verdict(run, [SAME]))
    verify.main(["run"])
    monkeypatch.setattr(verify, "verify", lambda *_: verify.Verdict(run, [SAME, OTHER]))
    with pytest.raises(SystemExit) as left:
        verify.main(["run"])
    assert left.value.code == 1


NEW_FILE = """diff --git a/new.py b/new.py
new file mode 100644
--- /dev/null
+++ b/new.py
@@ -0,0 +1 @@
+SEEN = 1
"""


def run_of(project: str, folder: Path, *, dirty: bool = False) -> Run:
    """Leave a run of a repository that holds this project."""
    folder.mkdir()
    (folder / "MLproject").write_text(f"name: {project}\n")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    with runs.StepRun("main", ""):
        mlflow.set_tags(
            {
                "mlflow.source.git.commit": git.run_git(folder, "rev-parse", "HEAD").strip(),
                "mlflow.source.git.repoURL": str(folder),
                "git_dirty": str(dirty).lower(),
            }
        )
        mlflow.log_text(NEW_FILE, "uncommitted.diff")
        return runs.active()


def test_code_of_another_project_is_not_run(store: Store, tmp_path: Path) -> None:
    run = run_of("weather", tmp_path / "other")
    with pytest.raises(UserError, match="is of the project 'weather', and this is 'nyc-taxi-dur"):
        verify.fetch_code(MlflowClient(), run, tmp_path / "clone")


def test_what_ran_uncommitted_is_run_again(store: Store, tmp_path: Path) -> None:
    run = run_of("nyc-taxi-duration", tmp_path / "other", dirty=True)
    clone = verify.fetch_code(MlflowClient(), run, tmp_path / "clone")
    assert (clone / "new.py").read_text() == "SEEN = 1\n"


def test_uncommitted_code_that_is_lost_is_a_line(store: Store, tmp_path: Path) -> None:
    run = run_of("nyc-taxi-duration", tmp_path / "other", dirty=True)
    Path(file_path(run.info.artifact_uri), "uncommitted.diff").unlink()
    with pytest.raises(UserError, match=r"^uncommitted.diff of run \w+ is lost: [^\n]+\.$"):
        verify.fetch_code(MlflowClient(), run, tmp_path / "clone")


def test_a_server_that_goes_away_has_lost_no_uncommitted_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tags = {"mlflow.source.git.commit": git.run_git(ROOT, "rev-parse", "HEAD").strip()}
    run: Any = SimpleNamespace(
        info=SimpleNamespace(run_id="1a", artifact_uri="mlflow-artifacts:/x"),
        data=SimpleNamespace(tags={**tags, "git_dirty": "true"}),
    )
    with pytest.raises(StoreGoneError, match="went away"), tracking_store.loss_as_error("Again."):
        verify.fetch_code(MlflowClient("http://127.0.0.1:1"), run, tmp_path / "clone")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"step": "hpo"}, "is of hpo and FINISHED. Pass a FINISHED run of main."),
        ({"rerun": "x", "mlflow.source.git.commit": ""}, "git could not tell the code of run"),
        (
            {"rerun": "x", "mlflow.source.git.commit": "c0ffee", "git_dirty": "unknown"},
            "git could not tell the code of run",
        ),
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


def test_what_runs_again_takes_nothing_from_here_and_leaves_nothing_behind(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of the other store")
    with runs.StepRun("main", ""):
        mlflow.set_tag("rerun", "mlflow run . -P seed=7 -P reuse=true -P 'taxi=a b'")
        run = runs.active()
    assert runs.is_user_facing(run)
    words: list[str] = []
    env: dict[str, str] = {}
    codes = [0, 1]

    def runs_again(command: list[str], **given: Any) -> SimpleNamespace:
        words[:] = command
        env.update(given["env"])
        return SimpleNamespace(returncode=codes.pop(0))

    monkeypatch.setattr(verify.subprocess, "run", runs_again)
    verify.repeat(run, tmp_path / "clone", tmp_path, "sqlite:///again.db", "uv")
    assert [word for word in words if "=" in word] == ["seed=7", "taxi=a b", "reuse=false"]
    assert str(tmp_path / "clone") in words
    assert env["MLFLOW_TRACKING_URI"] == "sqlite:///again.db"
    assert Path(env["MLFLOW_ENV_ROOT"]).is_relative_to(tmp_path)  # of the environment it makes
    assert "MLFLOW_TRACKING_TOKEN" not in env
    monkeypatch.setenv(runs.TEMPORARY_STORE, env[runs.TEMPORARY_STORE])
    assert not runs.is_user_facing(run)  # its pages name no address of a store that goes away
    with pytest.raises(UserError, match="did not run again"):
        verify.repeat(run, tmp_path, tmp_path, "sqlite:///again.db", "local")


def test_a_server_that_is_not_there_is_one_line_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:hush@127.0.0.1:1")
    with pytest.raises(SystemExit) as left:
        verify.main(["0" * 32])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verify: ")
    assert "127.0.0.1:1" in line
    assert "hush" not in line


@pytest.mark.parametrize("words", [[], [""], ["no-such-run"]])
def test_a_run_that_is_not_named_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        verify.main(words)
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
