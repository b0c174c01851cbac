"""Make the previous champion, or any former one by its number, champion again."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import pytest

from storage.tracking.registry import Registry
from tests.docs import readme_command
from tests.steps.lab import BETTER, GOOD, Lab, Pipelines

LOST = 3  # depth of a tree that no other test uses: its files get lost


def test_a_rollback_puts_the_previous_champion_back_and_says_so(
    lab: Lab, pipelines: Pipelines
) -> None:
    lab.register("back", *pipelines.of(lab, GOOD))
    lab.register("back", *pipelines.of(lab, BETTER))
    run, said = lab.register("back", "--rollback=true")
    assert said.startswith("back: version 1 is champion again, in place of version 2. Restart")
    assert lab.aliases("back") == {"champion": "1"}
    tags = run.data.tags
    assert (tags["outcome"], tags["version"], tags["champion_version"]) == ("rolled back", "1", "1")
    assert run.info.run_name.startswith("register · back back to version 1 · ")
    # a model that was rolled back does not come back with the next pipeline
    _, said = lab.register("back", *pipelines.of(lab, BETTER))
    assert "version 2, alias challenger" in said
    assert "pass restore=2 to use it again" in said
    _, said = lab.register("back", "--rollback=true", code=2)
    assert "back had no champion before version 1" in said
    # by hand, as described in docs/champion.md
    line = readme_command('python -c "from mlflow import MlflowClient as C; C().set_registered_')
    run_by_hand(lab, line, "back")
    assert lab.aliases("back")["champion"] == "2"


def test_the_only_champion_whose_files_are_lost_makes_way_for_the_same_model_trained_anew(
    lab: Lab, pipelines: Pipelines
) -> None:
    """The old version, which cannot be loaded any more, must not become champion again."""
    lab.register("strayed", *pipelines.of(lab, LOST, developer="Bob"))
    model_id = lab.version("strayed", "1").tags["model_uri"].rpartition("/")[2]
    shutil.rmtree(mlflow.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    _, said = lab.register("strayed", *pipelines.of(lab, LOST), code=2)
    assert "if there is none, remove the alias as described in docs/champion.md." in said
    line = readme_command('python -c "from mlflow import MlflowClient as C; C().delete_registered_')
    run_by_hand(lab, line, "strayed")
    _, said = lab.register("strayed", *pipelines.of(lab, LOST))
    assert said.startswith("tree registered as strayed version 2, alias champion")
    first, second = (lab.version("strayed", number).tags["model_sha256"] for number in "12")
    assert first == second


def run_by_hand(lab: Lab, line: str, name: str) -> None:
    """Run a documented line of Python on the lab's store, for a model of another name."""
    _, *words = shlex.split(line.replace("nyc-taxi-duration", name))
    env = os.environ | {"MLFLOW_TRACKING_URI": lab.store.uri}
    subprocess.run([sys.executable, *words], env=env, check=True)


def test_a_rollback_that_waited_takes_no_champion_out_that_nobody_had_seen(
    lab: Lab, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth in (GOOD, BETTER):
        lab.register("waits", *pipelines.of(lab, depth))

    @contextmanager
    def lock(held: Registry) -> Iterator[None]:
        held.client.set_registered_model_alias("waits", "champion", "1")  # by the lock's holder
        yield

    monkeypatch.setattr(Registry, "lock", lock)
    _, said = lab.register("waits", "--rollback=true", code=2)
    assert "was version 2 when this began, and is version 1 by now" in said
    assert lab.aliases("waits") == {"champion": "1"}
    assert "rolled_back" not in lab.version("waits", "1").tags
    # who names a version means it, whichever is champion by then
    lab.client.set_registered_model_alias("waits", "champion", "2")
    _, said = lab.register("waits", "--restore=2")
    assert said.startswith("waits: version 2 is champion again, in place of version 1. ")


def test_a_champion_that_was_rolled_back_is_restored_by_its_number_with_a_trace(
    lab: Lab, pipelines: Pipelines
) -> None:
    for depth in (GOOD, BETTER):
        lab.register("again", *pipelines.of(lab, depth))
    lab.register("again", "--rollback=true")
    _, *_, line = readme_command("mlflow run . -e register -P restore=").split()
    run, said = lab.register("again", f"--{line}")
    assert said.startswith("again: version 2 is champion again, in place of version 1. Restart")
    assert lab.aliases("again") == {"champion": "2"}
    assert "rolled_back" not in lab.version("again", "2").tags
    tags = run.data.tags
    assert (tags["outcome"], tags["version"], tags["champion_version"]) == ("promoted", "2", "2")
    page = lab.client.get_registered_model("again").description
    (told,) = (line for line in page.splitlines() if "restore=2: replaced version 1" in line)
    assert "| 2 | 1 | promoted |" in told
    _, said = lab.register("again", *pipelines.of(lab, BETTER))
    assert said.startswith("tree was already again version 2, alias champion")
    _, said = lab.register("again", "--rollback=true")
    assert "version 1 is champion again, in place of version 2" in said


def test_a_version_that_never_was_champion_is_not_restored(lab: Lab, pipelines: Pipelines) -> None:
    for depth in (BETTER, GOOD):
        lab.register("never", *pipelines.of(lab, depth))
    before = lab.client.get_registered_model("never").tags
    for version in ("2", "7", "x"):  # was refused, does not exist, is not a number
        _, said = lab.register("never", f"--restore={version}", code=2)
        wanted = f"Version {version} of never is not a former champion, or is deleted."
        assert f"{wanted} Former champions: none." in said
    _, said = lab.register("never", "--restore=1", code=2)
    assert "Version 1 of never is already the champion" in said
    _, said = lab.register("never", "--restore=1", "--rollback=true", code=2)
    assert "rollback and restore exclude each other. Pass one of them." in said
    assert lab.aliases("never") == {"champion": "1", "challenger": "2"}
    after = lab.client.get_registered_model("never").tags
    assert {key for key in after if key.startswith("promotion.")} == {
        key for key in before if key.startswith("promotion.")
    }


def test_a_rollback_of_what_nobody_registered_is_refused(lab: Lab) -> None:
    _, said = lab.register("nobody", "--rollback=true", code=2)
    assert said.startswith("register: No champion of nobody was ever promoted")
    assert "nobody" not in lab.store.registered()
