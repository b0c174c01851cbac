"""Which pipelines verify runs again, what it refuses, and where it writes its verdict.

tests/storage/repro/test_verify.py tests what is compared; tests/test_end_to_end.py really verifies.
"""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from steps.pipelines import verify as step
from storage import StorageError, UserError
from storage.repro import verify
from storage.repro.comparison import Difference, Row
from storage.tracking import artifacts, pages, runs
from storage.tracking import store as stores
from tests.entry import entry, parsed
from tests.stores import EXPERIMENT, Store

FIT = {"step": "main", "rerun": "mlflow run .", "git_dirty": "false"}
FIT |= {"mlflow.source.git.commit": "c0ffee"}
MOVED = Difference("rmse", "5.0", "5.5")


def pipeline(status: str = "FINISHED", **more: str) -> Run:
    """Make a run of main that could be run again, unless the given tags say otherwise."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    run_id = client.create_run(experiment, tags=FIT | more).info.run_id
    client.set_terminated(run_id, status)
    return client.get_run(run_id)


def verdict(run: Run, *differences: Difference) -> verify.Verdict:
    rows = [Row("main", 3, []), Row("hpo", 2, list(differences))]
    return verify.Verdict(run, rows, machines=("A", "B"))


def newest(store: Store) -> Run:
    """Return the run of verify that started last."""
    *_, run_id = (
        run_id
        for run_id, run in store.runs().items()
        if run["data"]["tags"].get("step") == "verify"
    )
    return MlflowClient(store.uri).get_run(run_id)


def table(run: Run) -> list[dict[str, str]]:
    text = artifacts.read_text(run.info.run_id, "verify.csv")
    return list(csv.DictReader(text.splitlines()))


# --- the verdict


@pytest.mark.parametrize(("differences", "said"), [([], "identical"), ([MOVED], "differs")])
def test_the_verdict_stands_on_the_pipeline_and_on_the_run_that_verified_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, differences: list[Difference], said: str
) -> None:
    run = pipeline()
    monkeypatch.setattr(verify, "verify", lambda client, run, manager: verdict(run, *differences))
    if differences:
        with pytest.raises(SystemExit) as left:
            entry("verify").main([f"--run_id={run.info.run_id}"])
        assert left.value.code == 1
    else:
        entry("verify").main([f"--run_id={run.info.run_id}"])
    mine, theirs = newest(store), mlflow.get_run(run.info.run_id)
    assert mine.info.status == "FINISHED"
    assert mine.data.tags["verified"] == said
    assert mine.data.tags["verified_runs"] == run.info.run_id
    first = mine.data.tags["mlflow.note.content"].splitlines()[0]
    assert first.endswith(pages.run_link(run.info.experiment_id, run.info.run_id) + ")")
    assert theirs.data.tags["verified"].startswith(f"{said}: 5 metrics and hashes of 2 runs: ")
    assert theirs.data.tags["verified_by"].startswith(mine.info.run_id)
    assert table(mine) == table(theirs)
    assert [row["verdict"] for row in table(mine)] == ["identical", said]
    if differences:
        assert "rmse: 5.0 became 5.5 (+0.5, +10 %)" in mine.data.tags["mlflow.note.content"]
        assert "the first run was on A, the second on B" in theirs.data.tags["verified"]
        assert (table(mine)[1]["moved"], table(mine)[1]["moved_share"]) == ("0.5", "0.1")


def test_of_several_one_that_does_not_run_leaves_the_others_their_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, whole = pipeline(), pipeline()

    def run_again(client: MlflowClient, run: Run, manager: str) -> verify.Verdict:
        if run.info.run_id == broken.info.run_id:
            raise UserError("no clone")
        return verdict(run)

    monkeypatch.setattr(verify, "verify", run_again)
    monkeypatch.setattr(step, "choose_runs", lambda *_: [broken, whole])
    with pytest.raises(SystemExit) as left:
        entry("verify").main(["--sample=2"])
    assert left.value.code == 1
    said = [mlflow.get_run(run.info.run_id).data.tags["verified"] for run in (broken, whole)]
    assert said[0] == "not verified: no clone"
    assert said[1].startswith("identical: ")
    about = newest(store).data.tags
    first = "**1 of 2 pipelines came out identical, 1 not verified** in a fresh clone"
    assert about["mlflow.note.content"].startswith(first)
    assert about["verified"] == "not verified"


@pytest.mark.parametrize(
    ("manager", "said"),
    [
        ("uv", "in a fresh clone, environment and store; "),
        ("local", "in a fresh clone and store, and the environment of this run; "),
    ],
)
def test_the_page_calls_no_environment_fresh_that_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, manager: str, said: str
) -> None:
    run = pipeline()
    monkeypatch.setattr(verify, "verify", lambda client, run, manager: verdict(run))
    entry("verify").main([f"--run_id={run.info.run_id}", f"--env_manager={manager}"])
    first = newest(store).data.tags["mlflow.note.content"].splitlines()[0]
    assert first.startswith(f"**1 of 1 pipelines came out identical** {said}")


def test_a_pipeline_that_may_not_be_written_to_keeps_the_verdict_on_the_run_alone(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    class ReadOnly(MlflowClient):
        def set_tag(self, *_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied", "tags")

    with runs.StepRun("verify", ""):
        step.write_verdict_on_pipeline(ReadOnly(), verdict(pipeline_below()))
    assert "the verdict is only on this run" in capsys.readouterr().out


def pipeline_below() -> Run:
    return mlflow.get_run(mlflow.active_run().info.run_id)


# --- which runs


def test_a_sample_is_drawn_by_the_seed_from_what_can_be_run_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = {pipeline().info.run_id for _ in range(4)}
    unfit = pipeline(rerun="mlflow run . -P hpo_run_id=1a").info.run_id

    def drawn(*arguments: str) -> list[str]:
        params = parsed("verify", *arguments)
        return [run.info.run_id for run in step.choose_runs(MlflowClient(), params)]

    everything = drawn("--sample=100")
    assert fit <= set(everything)
    assert unfit not in everything
    assert " more cannot be run again from nothing" in capsys.readouterr().out
    assert drawn("--sample=3") == drawn("--sample=3")
    assert len({tuple(drawn("--sample=3", f"--seed={seed}")) for seed in range(6)}) > 1
    assert set(drawn("--sample=3")) < set(everything)
    this_month = f"{datetime.now(UTC):%Y-%m}"
    assert set(drawn("--sample=100", f"--month={this_month}")) == set(everything)
    with pytest.raises(UserError, match="Of 2001-01 there are 0 finished pipelines"):
        drawn("--sample=3", "--month=2001-01")


def test_a_month_is_from_its_first_day_to_the_next_months() -> None:
    begin, end = step.period("2023-12", 0)
    days = [datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d") for ms in (begin, end)]
    assert days == ["2023-12-01", "2024-01-01"]


def test_runs_of_another_store_are_found_by_its_uri(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"There is no store at .*Check tracking_uri\."):
        store_of(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="tracking_uri 'ftp://host' has a scheme"):
        store_of("ftp://host")
    run = pipeline()
    assert verify.pipeline(store_of(store.uri), run.info.run_id).info.run_id == run.info.run_id


def store_of(uri: str) -> MlflowClient:
    return stores.open_other(step.read_store(uri))


def test_a_password_is_refused_and_one_in_the_environment_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = "postgresql://ana:hush@host/runs"
    with pytest.raises(UserError, match=r"passed with a password.*tracking_uri=env:") as refused:
        step.read_store(uri)
    assert "hush" not in str(refused.value)
    monkeypatch.setenv("TEAM_STORE", uri)
    assert step.read_store("env:TEAM_STORE") == uri
    with pytest.raises(UserError, match="there is no NO_STORE in the environment"):
        step.read_store("env:NO_STORE")


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Pass either -P run_id=<id> or -P sample=<how many>."),
        (["--run_id=1a", "--sample=3"], "Pass either"),
        (["--run_id=no-such-run"], "No run 'no-such-run' in this store."),
        (["--run_id={other}"], "is of another project: it is of no step. Pass a run of main."),
        (["--run_id={failed}"], "is of main and FAILED. Pass a FINISHED run of main."),
        (["--run_id={step}"], "is of hpo and FINISHED. Pass a FINISHED run of main."),
        (["--run_id={ok}", "--env_manager=conda"], "Unknown env_manager 'conda'"),
        (["--sample=1", "--month=2021-13"], "'2021-13'"),
        (["--sample=1", "--month=2021-01,2021-02"], "must be one month"),
        (["--run_id={ok}", "--tracking_uri=http://a:hush@host"], "was passed with a password"),
    ],
)
def test_what_cannot_be_verified_is_one_line_and_2(
    store: Store, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    made = {
        "other": pipeline(step="rain"),
        "failed": pipeline("FAILED"),
        "step": pipeline(step="hpo", rerun=""),
        "ok": pipeline(),
    }
    MlflowClient().delete_tag(made["other"].info.run_id, "step")
    ids = {name: run.info.run_id for name, run in made.items()}
    with pytest.raises(SystemExit) as left:
        entry("verify").main([argument.format(**ids) for argument in arguments])
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("verify: ")
    assert said in line
    assert "hush" not in line
    assert newest(store).info.status == "FAILED"
    assert newest(store).data.tags["failure"] == line.removeprefix("verify: ")
    assert "hush" not in newest(store).data.tags["mlflow.note.content"]
