"""The command that repeats a pipeline, and what people are told that it does not cover."""

import shlex
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from steps.common.parameters import MainParameters
from steps.main import rerun
from storage import UserError
from storage.checkout import Checkout
from storage.repro import verify
from storage.tracking import runs
from tests import entry
from tests.stores import EXPERIMENT, Store

COMMIT, URL = "c0ffee" * 6 + "abcd", "https://host/taxi.git"


def parsed(*arguments: str) -> MainParameters:
    params: MainParameters = entry.parsed("main", *arguments)
    return params


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Checkout:
    code = Checkout(COMMIT, URL, "")
    monkeypatch.setattr("storage.checkout.read", lambda: code)
    return code


def ran(store: Store) -> Run:
    with runs.StepRun("main", "ana"):
        return runs.active()


def values(command: str) -> dict[str, str]:
    """Read a command as a shell would: parameter -> value."""
    words = shlex.split(command)
    given = [words[n + 1] for n, word in enumerate(words) if word == "-P"]
    return dict(value.split("=", 1) for value in given)


def test_a_ticket_has_repository_full_commit_and_every_parameter(
    store: Store, code: Checkout
) -> None:
    command = rerun.command(ran(store), parsed("--max_minutes=0.50", "--developer=ana"), "week 1")
    assert command.startswith(
        f"mlflow run {URL} --env-manager uv --experiment-name 'week 1' -v {COMMIT} -P "
    )
    given = values(command)
    left_out = {"config", "developer", "plan"}
    left_out |= {"preprocess_run_id", "baseline_run_id", "hpo_run_id"}
    assert set(given) == set(MainParameters.model_fields) - left_out
    assert given["max_minutes"] == "0.5"
    assert given["reuse"] == "true"
    parsed(*(f"--{name}={value}" for name, value in given.items()))


@pytest.mark.parametrize("name", ['O\'Brien "the" 名', "a b; $(touch x) `y` && z *", "--x=1"])
def test_a_ticket_means_the_same_to_a_shell_whatever_it_holds(
    store: Store, code: Checkout, name: str
) -> None:
    command = rerun.command(ran(store), parsed(f"--model_name={name}"), EXPERIMENT)
    assert values(command)["model_name"] == name


def test_credentials_are_not_shown_and_the_page_says_so(store: Store, code: Checkout) -> None:
    args = parsed("--source=https://ana@host/trips")
    text = "\n".join(rerun.lines(ran(store), args, rerun.command(ran(store), args, EXPERIMENT)))
    assert "source=https://host/trips" in text
    assert "The source wants credentials" in text
    assert "ana@" not in text


def test_a_source_in_the_environment_is_named_and_what_it_holds_is_not(
    store: Store, code: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPS", "https://host/trips?sig=hush")
    args = parsed("--source=env:TRIPS")
    command = rerun.command(ran(store), args, EXPERIMENT)
    assert values(command)["source"] == "env:TRIPS"
    text = "\n".join(rerun.lines(ran(store), args, command))
    assert "The source stood in the variable `TRIPS`" in text
    assert "hush" not in text


def test_a_relative_folder_is_named_so_that_it_is_found_from_anywhere(
    store: Store, code: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "months").mkdir()
    monkeypatch.chdir(tmp_path)
    command = rerun.command(ran(store), parsed("--source=months"), EXPERIMENT)
    assert values(command)["source"] == str(tmp_path / "months")


def test_a_dirty_tree_is_said_to_miss_from_the_command_and_where_the_diff_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout(COMMIT, URL, "+n = 2\n"))
    run = ran(store)
    text = "\n".join(rerun.missing(run, parsed()))
    assert f"mlflow artifacts download -r {run.info.run_id} -a uncommitted.diff" in text
    assert "git apply uncommitted.diff" in text
    uri = f"{run.info.artifact_uri}/uncommitted.diff"
    assert mlflow.artifacts.load_text(uri) == "+n = 2\n"


def test_code_that_git_did_not_answer_for_is_said_to_be_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout("", "", "", "no git"))
    run = ran(store)
    assert "no commit is known to contain it" in "\n".join(rerun.missing(run, parsed()))
    MlflowClient().set_tag(run.info.run_id, "rerun", "mlflow run .")
    with pytest.raises(UserError, match="git could not tell the code of run"):
        verify.pipeline(MlflowClient(), run.info.run_id)


def test_a_clean_checkout_with_a_remote_misses_nothing(store: Store, code: Checkout) -> None:
    assert rerun.missing(ran(store), parsed()) == []


def test_a_commit_that_nobody_can_fetch_is_to_be_pushed_first(
    store: Store, code: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.checkout.is_unpushed", [COMMIT].__contains__)
    assert "push it first" in "\n".join(rerun.missing(ran(store), parsed()))


def test_without_a_remote_the_page_says_which_commit_to_check_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout(COMMIT, "", ""))
    run = ran(store)
    start = f"mlflow run . --env-manager uv --experiment-name {EXPERIMENT} -P "
    assert rerun.command(run, parsed(), EXPERIMENT).startswith(start)
    (line,) = rerun.missing(run, parsed())
    assert COMMIT in line


@pytest.mark.parametrize("remote", ["/srv/git/taxi.git", "file:///srv/git/taxi.git"])
def test_a_remote_that_is_a_folder_is_cloned_and_never_run_in(
    store: Store, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    monkeypatch.setattr("storage.checkout.read", lambda: Checkout(COMMIT, remote, ""))
    run = ran(store)
    command = rerun.command(run, parsed(), EXPERIMENT)
    # MLflow would make a repository inside the bare one, which would then look empty to everybody
    assert command.startswith(f"mlflow run . --env-manager uv --experiment-name {EXPERIMENT} -P ")
    shown = "\n".join(rerun.lines(run, parsed(), command))
    assert f"    git clone {remote} nyc-taxi && cd nyc-taxi && git checkout {COMMIT}" in shown
    assert run.data.tags["mlflow.source.git.repoURL"] == remote  # where verify gets the code


def test_runs_that_were_given_stay_in_the_command_and_are_said_to_be_of_this_store(
    store: Store, code: Checkout
) -> None:
    run, args = ran(store), parsed("--hpo_run_id=1a2b")
    assert values(rerun.command(run, args, EXPERIMENT))["hpo_run_id"] == "1a2b"
    assert rerun.missing(run, args) == ["It builds on runs of this store (hpo_run_id)."]
