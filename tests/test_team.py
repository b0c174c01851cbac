"""A team's set-up: runs in PostgreSQL, artifacts on S3, through a server with users or directly."""

import csv
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage.repro import verify
from storage.tracking import artifacts, processes
from storage.tracking.registry import PROMOTE, Registry
from tests.entry import entry
from tests.pictures import blank_pictures  # noqa: F401 - autouse
from tests.stores import LEFT_BEHIND
from tests.team import BUCKET, PASSWORDS, Team, started_team
from tools import doctor

MONTHS = ("--source=simulated:200",)
MODELS = "--models=linear_regression"
SEARCH = (*MONTHS, "--features=course", "--parallelism=1")
JUDGED = ("--max_rmse=99", "--min_r2=-1", "--max_coverage_gap=1", "--refit=train")
DEAD = {"process.id": "4194304", "process.started": "1"}  # above any process id of Linux

# user, experiment, step and its arguments; code: the expected exit code -> lines of output
Say = Callable[..., list[str]]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with started_team(tmp_path_factory.mktemp("team")) as team:
        yield team


@pytest.fixture
def env(
    team: Team, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Set the S3's variables, and restore environment and signal handlers afterwards."""
    for name in LEFT_BEHIND:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in team.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # launching a step changes it
    monkeypatch.setenv("TAXI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield monkeypatch
    for number, handler in handlers.items():
        signal.signal(number, handler)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def run(team: Team, env: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs a step as a user, directly on the database or not."""

    def run(user: str, experiment: str, step: str, *given: str, code: int = 0) -> list[str]:
        log_in(team, env, user, experiment)
        arguments = [*given] if step == "score" else [*given, f"--developer={user}"]
        capfd.readouterr()
        if code:
            with pytest.raises(SystemExit) as left:
                entry(step).main(arguments)
            assert left.value.code == code
        else:
            entry(step).main(arguments)
        out, err = capfd.readouterr()
        assert not any(word in out + err for word in PASSWORDS.values())
        return (out + err if code else out).splitlines()

    return run


def log_in(team: Team, env: pytest.MonkeyPatch, user: str, experiment: str) -> None:
    """Log this process in as a user, with the password in the server's address."""
    mlflow.set_tracking_uri(None)
    env.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    for name in ("USERNAME", "PASSWORD"):
        env.setenv(f"MLFLOW_TRACKING_{name}", "")
        env.delenv(f"MLFLOW_TRACKING_{name}")
    with_password = team.server.replace("//", f"//{user}:{PASSWORDS[user]}@")
    env.setenv("MLFLOW_TRACKING_URI", team.database if experiment == "direct" else with_password)
    env.setenv("MLFLOW_EXPERIMENT_NAME", experiment)


@pytest.mark.parametrize("way", ["proxied", "direct"])
def test_a_team_runs_reuses_resumes_registers_rolls_back_scores_and_verifies(
    way: str, team: Team, env: pytest.MonkeyPatch, run: Say, caplog: pytest.LogCaptureFixture
) -> None:
    log_in(team, env, "ana", way)
    place = f"s3://{BUCKET}/direct" if way == "direct" else None
    client, name = MlflowClient(), f"taxi-{way}"
    experiment = client.create_experiment(way, place)
    if way == "proxied":
        team.allow("ben", "EDIT", "experiment", experiment)
    else:
        run("ana", way, "preprocess", *MONTHS)
    run("ana", way, "hpo", *SEARCH, "--max_evals=1")  # launches preprocess if needed
    said = run("ben", way, "hpo", *SEARCH, "--max_evals=2")
    assert said[0].startswith("preprocess: reused ") and said[0].endswith(", ana)")
    assert "search: 2 trials (0 pruned, 0 failed, 1 from before)" in "\n".join(said)

    called = f"--model_name={name}"
    everything = (*SEARCH, "--max_evals=2", MODELS, *JUDGED, called)
    run("ana", way, "baseline", *MONTHS, MODELS)
    said = run("ana", way, "register", *everything)
    assert f"registered as {name} version 1, alias champion" in "\n".join(said)
    said = run("ben", way, "main", *everything)
    assert sum(": reused " in line for line in said) == 4

    log_in(team, env, "ana", way)  # the owner of the model
    replace_champion(client, name, newest(client, experiment, "register"), by="ana")
    if way == "proxied":
        (line,) = run("ben", way, "register", "--rollback=true", called, code=2)
        assert "Ask for the permission to read and edit this experiment and model" in line
        made = client.search_runs([experiment], "tags.step != 'main'")
        refused = ("main", *everything, "--features=compact")
        said = run("ben", way, *refused, code=2)  # before the search, or another trial, begins
        assert said[-1].startswith(f"main: Cannot use registered model '{name}'")
        assert said[-1].endswith("Or pass test_only=true, which changes none.")
        assert len(client.search_runs([experiment], "tags.step != 'main'")) == len(made)
        team.allow("ben", "EDIT", "registered_model", name)
    said = run("ben", way, "register", "--rollback=true", called)
    assert said[0].startswith(f"{name}: version 1 is champion again, in place of version 2. ")

    champion = f"--model_uri=models:/{name}@champion"
    run("ben", way, "score", "--source=simulated:200", "--months=2021-04", champion)
    scored = newest(client, experiment, "score")
    assert scored.info.artifact_uri.startswith(place or "mlflow-artifacts:")
    table = artifacts.read_text(scored.info.run_id, "months.csv").splitlines()
    assert next(csv.DictReader(table))["n_predicted"] == "200"

    parts = dict(verify.pipeline_runs(client, newest(client, experiment, "main")))
    assert parts.keys() >= {"preprocess", "baseline/linear_regression", "hpo/trial 0", "register"}
    facts = verify.comparable_facts(client, parts["hpo/ensemble"])
    assert [fact for fact in facts if fact.endswith(".ubj")]
    assert not [record for record in caplog.records if record.name.startswith("psycopg")]
    texts = list(team.texts())
    assert len(texts) > 1000
    assert not [text for text in texts for word in PASSWORDS.values() if word.encode() in text]


def newest(client: MlflowClient, experiment: str, step: str) -> Run:
    is_whole = f"tags.step = '{step}' and attributes.status = 'FINISHED'"
    (run, *_) = client.search_runs([experiment], is_whole)
    return run


def replace_champion(client: MlflowClient, name: str, registered: Run, *, by: str) -> None:
    """Register the model of version 1 again, as version 2, and make that the champion."""
    source = client.get_model_version(name, "1").tags["model_uri"]
    registry = Registry(name, run_id=registered.info.run_id, developer=by)
    with registry.lock():
        assert registry.add_version(source, "another") == "2"
        registry.promote("2", action=PROMOTE, why="by hand")


def test_a_user_who_may_only_read_plans_and_is_told_in_one_line_why_no_run_begins(
    team: Team, env: pytest.MonkeyPatch, run: Say
) -> None:
    log_in(team, env, "ana", "anas")
    client = MlflowClient()
    experiment = client.create_experiment("anas")
    (line,) = run("eve", "anas", "preprocess", *MONTHS, code=2)
    assert line.startswith("preprocess: The server answers 403 Forbidden. Ask for the permission")
    assert run("eve", "anas", "main", *MONTHS, "--plan=true")[-1] == "Nothing was started."
    assert not client.search_runs([experiment])


def test_the_doctor_logs_in_as_a_run_would_and_tells_a_user_who_may_not_write(
    team: Team, env: pytest.MonkeyPatch
) -> None:
    log_in(team, env, "ana", "read")
    MlflowClient().create_experiment("read")
    for user, seen in (("ana", "is there"), ("eve", "this user may not write to it")):
        log_in(team, env, user, "read")
        assert [found.seen for found in doctor.store()] == ["answers"]
        (found,) = doctor.experiment()
        assert found.seen.startswith(seen)
    env.setenv("MLFLOW_TRACKING_URI", team.server)
    (found,) = doctor.store()
    assert (found.seen, found.cure) == ("answers 401 Unauthorized", doctor.LOG_IN)
    env.setenv("MLFLOW_TRACKING_USERNAME", "eve")
    env.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS["eve"])
    assert [found.seen for found in doctor.store()] == ["answers"]


def test_an_entry_of_netrc_that_goes_before_the_users_password_is_named(
    team: Team, env: pytest.MonkeyPatch, run: Say, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login git password of-the-git-server\n")
    env.setenv("NETRC", str(tmp_path / "netrc"))
    (line,) = run("ana", "any", "preprocess", *MONTHS, code=2)
    assert "answers 401 Unauthorized. ~/.netrc has an entry for its host" in line
    (found,) = doctor.store()
    assert found.seen == "answers 401 Unauthorized"


def test_a_dead_run_that_only_others_may_close_is_left_with_a_line(
    team: Team, env: pytest.MonkeyPatch, run: Say
) -> None:
    log_in(team, env, "ana", "hers")
    client = MlflowClient()
    marks = processes.process_tags() | DEAD
    dead = client.create_run(client.create_experiment("hers"), tags=marks).info.run_id
    said = run("eve", "eves", "register", "--rollback=true", code=2)  # nothing to roll back
    (line,) = [line for line in said if line.startswith("register: left ")]
    assert line.startswith("register: left 1 run of dead processes RUNNING")
    assert line.endswith(f"may not close: {dead}")
    assert said[-1].startswith("register: No champion")  # it went on nevertheless
    assert client.get_run(dead).info.status == "RUNNING"
