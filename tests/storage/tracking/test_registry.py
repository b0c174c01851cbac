"""Which version is champion, and the history of that in the registered model's tags."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from storage import StorageError
from storage.checkout import ROOT
from storage.tracking import registry, registry_lock
from storage.tracking.registry import (
    BEGUN,
    BROKEN_OFF,
    CHALLENGER,
    CHAMPION,
    DONE,
    PROMOTE,
    ROLL_BACK,
    Promotion,
    Registry,
    RegistryError,
    former_champions,
    previous,
)
from storage.tracking.tags import PROMOTING, ROLLED_BACK
from tests.stores import EXPERIMENT, Store
from tests.tracking_server import line_to

N_PROCESSES, N_ROUNDS = 3, 2


class Model:
    """A fresh registered model, with as many versions as wanted."""

    def __init__(self, name: str, uri: str) -> None:
        self.name = name
        self.client = MlflowClient(uri, uri)
        self.client.create_registered_model(name)

    def add(self, n: int = 1) -> list[str]:
        """Make versions, which are never loaded."""
        made = [self.client.create_model_version(self.name, "s3://nowhere/m") for _ in range(n)]
        return [str(version.version) for version in made]

    def entries(self) -> list[Promotion]:
        """Read the history."""
        tags = self.client.get_registered_model(self.name).tags
        keys = sorted(key for key in tags if key.startswith("promotion."))
        return [Promotion(**json.loads(tags[key])) for key in keys]

    def champion(self) -> str | None:
        """Return the champion's version; None if there is none."""
        found = self.client.get_registered_model(self.name).aliases.get(CHAMPION)
        return None if found is None else str(found)

    def locks(self) -> list[str]:
        """List the lock tickets that are taken."""
        tags = self.client.get_registered_model(self.name).tags
        return [tag for tag in tags if tag.startswith(PROMOTING)]


@pytest.fixture
def model(store: Store, request: pytest.FixtureRequest) -> Model:
    return Model(request.node.name, store.uri)


@pytest.fixture
def run_id(store: Store) -> Iterator[str]:
    with mlflow.start_run() as run:
        yield run.info.run_id


@pytest.fixture
def mine(model: Model, run_id: str) -> Registry:
    return Registry(model.name, run_id=run_id, developer="Ada")


def promote(on: Registry, *versions: str) -> None:
    for version in versions:
        with on.lock():
            on.promote(version, action=PROMOTE, why="better")


# --- champion and history


def test_a_model_that_nobody_has_registered_has_no_champion_and_no_history(
    store: Store, run_id: str
) -> None:
    nobody = Registry("nobody", run_id=run_id, developer="Ada")
    assert nobody.champion() is None
    assert nobody.history() == []
    assert "nobody" not in store.registered()


def test_whether_it_may_be_changed_is_asked_without_changing_it(model: Model) -> None:
    there = Registry(model.name)
    before = there.client.get_registered_model(model.name)
    there.check_writable()
    after = there.client.get_registered_model(model.name)
    assert (after.tags, after.description) == (before.tags, before.description)
    Registry("nobody's").check_writable()  # the first registration would create it
    assert Registry("nobody's").page() == ""


def test_the_history_tells_who_promoted_what_over_whom_when_and_why(
    model: Model, mine: Registry, run_id: str
) -> None:
    first, second = model.add(2)
    promote(mine, first, second)
    assert model.champion() == second
    assert [(e.version, e.over, e.action, e.state) for e in model.entries()] == [
        (first, "", PROMOTE, DONE),
        (second, first, PROMOTE, DONE),
    ]
    entry = model.entries()[1]
    assert (entry.by, entry.run_id, entry.why) == ("Ada", run_id, "better")
    assert entry.at.endswith("+00:00")
    assert mine.history() == model.entries()


def test_a_promoted_challenger_is_no_challenger_any_more(model: Model, mine: Registry) -> None:
    (version,) = model.add()
    mine.set_challenger(version)
    assert model.client.get_registered_model(model.name).aliases == {CHALLENGER: int(version)}
    promote(mine, version)
    assert model.client.get_registered_model(model.name).aliases == {CHAMPION: int(version)}


def test_a_rollback_is_written_down_and_marks_the_version_it_takes_out_of_use(
    model: Model, mine: Registry
) -> None:
    first, second = model.add(2)
    promote(mine, first, second)
    with mine.lock():
        mine.roll_back(first, why="bad")
    assert model.champion() == first
    assert model.entries()[-1][:3] == (ROLL_BACK, first, second)
    assert ROLLED_BACK in model.client.get_model_version(model.name, second).tags
    assert ROLLED_BACK not in model.client.get_model_version(model.name, first).tags


def test_a_restored_version_is_promoted_with_a_trace_and_not_marked_any_more(
    model: Model, mine: Registry
) -> None:
    first, second = model.add(2)
    promote(mine, first, second)
    with mine.lock():
        mine.roll_back(first, why="bad")
        mine.restore(second, why="it was the feed")
        assert model.champion() == second
        mine.restore(first, why="nobody had marked it")
    assert model.entries()[-2][:3] == (PROMOTE, second, first)
    for version in (first, second):
        assert ROLLED_BACK not in model.client.get_model_version(model.name, version).tags
    assert previous(model.entries(), first, {first, second}) == second


def test_who_never_became_champion_is_no_former_one() -> None:
    history = [change(PROMOTE, "2", "1"), change(PROMOTE, "3", "2", BROKEN_OFF)]
    assert former_champions(history) == {"1", "2"}
    assert former_champions([]) == set()


def change(action: str, version: str, over: str, state: str = DONE) -> Promotion:
    return Promotion(action, version, over, "", "", "", "", state)


@pytest.mark.parametrize(
    ("history", "champion", "wanted"),
    [
        ("", "", None),
        ("", "1", None),
        ("1", "1", None),
        ("1 2", "2", "1"),
        ("1 2 3 <2", "2", "1"),
        ("1 2 3 <2 <1", "1", None),
        ("1 2 3 <2 4", "4", "2"),
        ("1 2", "5", "2"),  # 5 was put in place by hand
        ("1 2", "", "2"),  # somebody deleted the alias
        ("1 2 5>6", "6", "5"),  # 5 was put in place by hand, then 6 came over it
        ("4>5", "5", "4"),  # 4 was champion before there was a history
        ("1 2 3!", "2", "1"),  # 3 never became champion
        ("1 2x 3", "3", "1"),  # somebody deleted 2
        ("1x 2", "2", None),
    ],
)
def test_rollbacks_go_back_one_champion_at_a_time(
    history: str, champion: str, wanted: str | None
) -> None:
    entries: list[Promotion] = []
    there, top = {*"123456"}, ""
    for word in history.split():
        over, _, version = word.rpartition(">")
        action = ROLL_BACK if version[0] == "<" else PROMOTE
        version = version.strip("<!x")
        there -= {version} if word.endswith("x") else set()
        state = BROKEN_OFF if word.endswith("!") else DONE
        entries.append(change(action, version, over or top, state))
        top = top if state == BROKEN_OFF else version
    assert previous(entries, champion, there) == wanted


def test_the_same_bytes_are_known_whatever_run_logged_them(model: Model, mine: Registry) -> None:
    tags = {"model_sha256": "ab"}
    first, second, other = (
        str(model.client.create_model_version(model.name, "s3://nowhere/m", tags=found).version)
        for found in (tags, tags, {"model_sha256": "cd"})
    )
    known = mine.find_version("ab")
    assert known is not None
    assert str(known.version) == second
    assert {first, second, other} == {"1", "2", "3"}
    assert mine.find_version("ef") is None


# --- one at a time

PROMOTE_SOME = """
import sys, mlflow
from storage.tracking.registry import PROMOTE, Registry
uri, name, me = sys.argv[1:4]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment("promotions")
with mlflow.start_run() as run:
    registry = Registry(name, run_id=run.info.run_id, developer=me)
    for version in sys.argv[4:]:
        with registry.lock():
            registry.promote(version, action=PROMOTE, why="better")
"""


def test_processes_that_promote_at_once_leave_one_champion_and_a_true_history(
    mlflow_server: str,
) -> None:
    model = Model("at-once", mlflow_server)
    model.client.create_experiment("promotions")
    versions = model.add(N_PROCESSES * N_ROUNDS)
    command = [sys.executable, "-c", PROMOTE_SOME, mlflow_server, model.name]
    processes = [
        subprocess.Popen([*command, f"process {k}", *versions[k::N_PROCESSES]], cwd=ROOT)
        for k in range(N_PROCESSES)
    ]
    assert [process.wait(120) for process in processes] == [0] * N_PROCESSES
    entries = model.entries()
    assert sorted(entry.version for entry in entries) == sorted(versions)
    # each replaced exactly the champion before it: no promotion overtook another
    assert [entry.over for entry in entries] == ["", *(e.version for e in entries[:-1])]
    assert {entry.state for entry in entries} == {DONE}
    assert model.champion() == entries[-1].version
    assert model.locks() == []


def hold(model: Model, run_id: str, **more: object) -> None:
    """Take a lock ticket, like a run that is promoting right now."""
    value = json.dumps({"ticket": 1, **more})
    model.client.set_registered_model_tag(model.name, f"{PROMOTING}{run_id}", value)


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "FINISHED"])
def test_the_ticket_of_a_run_that_has_ended_stops_nobody(
    model: Model, mine: Registry, store: Store, status: str
) -> None:
    experiment = model.client.get_experiment_by_name(EXPERIMENT)
    gone = model.client.create_run(experiment.experiment_id).info.run_id
    model.client.set_terminated(gone, status)
    hold(model, gone)
    promote(mine, *model.add())
    assert model.locks() == []


def test_the_ticket_of_a_process_that_was_killed_stops_nobody(model: Model, mine: Registry) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json; from storage.tracking.processes import process_tags as tags;"
            "print(json.dumps(tags()))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    hold(model, "0123", **json.loads(done.stdout))
    promote(mine, *model.add())
    assert model.locks() == []


def test_a_lock_that_is_never_released_ends_in_a_line_that_says_what_to_do(
    model: Model, mine: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_lock, "PATIENCE_S", 0.0)
    hold(model, "0123abcd")
    with pytest.raises(RegistryError) as refusal, mine.lock():
        pytest.fail("it went on")
    assert "Run 0123abcd has been changing the champion" in str(refusal.value)
    assert f"delete the tag {PROMOTING}0123abcd" in str(refusal.value)
    assert model.locks() == [f"{PROMOTING}0123abcd"]


def test_whatever_goes_wrong_inside_the_lock_is_released(model: Model, mine: Registry) -> None:
    with pytest.raises(ZeroDivisionError), mine.lock():
        1 / 0  # noqa: B018
    assert model.locks() == []


# --- notifying others


def test_a_promotion_is_on_the_page_of_the_registered_model(model: Model, mine: Registry) -> None:
    first, second = model.add(2)
    promote(mine, first, second)
    with mine.lock():
        mine.roll_back(first, why="it was | late")
    mine.describe_model("Minutes of a trip.")
    text = model.client.get_registered_model(model.name).description
    about, _, _, _, *rows = text.splitlines()
    assert about == "Minutes of a trip."
    told = [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]
    assert told == [
        [first, second, ROLL_BACK, "Ada", "it was / late"],
        [second, first, PROMOTE, "Ada", "better"],
        [first, "none", PROMOTE, "Ada", "better"],
    ]
    many = [entry for entry in mine.history() for _ in range(registry.N_SHOWN)]
    assert "40 before that are in the tags promotion." in registry.history_table(many)


def test_a_webhook_is_told_of_a_promotion(
    mlflow_server: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    model = Model("announced", mlflow_server)
    (version,) = model.add()
    monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", mlflow_server)
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        hook = model.client.create_webhook("promotions", url, ["model_version_alias.created"])
        try:
            promote(Registry(model.name, run_id=run_id, developer="Ada"), version)
            event = told.get(timeout=60)
        finally:
            model.client.delete_webhook(hook.webhook_id)
            server.shutdown()
    assert (event["entity"], event["action"]) == ("model_version_alias", "created")
    assert event["data"] == {"name": model.name, "alias": CHAMPION, "version": version}


# --- the registry goes away


@pytest.mark.parametrize("n_writes", range(4))
def test_a_registry_that_goes_away_leaves_the_old_or_the_new_champion_and_is_mended(
    mlflow_server: str, run_id: str, n_writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(f"gone-{n_writes}", mlflow_server)
    old, new = model.add(2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with line_to(mlflow_server) as line:
        monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", line.uri)
        here = Registry(model.name, run_id=run_id, developer="Ada")
        promote(here, old)
        here.set_challenger(new)
        # the history's first entry, two aliases, the end of that entry
        with pytest.raises(RegistryError) as refusal, here.lock():
            line.writes_left = n_writes
            here.promote(new, action=PROMOTE, why="better")
        assert f"the champion is version {old} or version {new}" in str(refusal.value)
        assert "Run this again" in str(refusal.value)
        assert model.champion() == (old if n_writes < 2 else new)
        line.mend()
        monkeypatch.setattr(registry_lock, "PATIENCE_S", 0.0)
        for tag in model.locks():  # removed as when its run is FAILED
            model.client.delete_registered_model_tag(model.name, tag)
        with here.lock():
            states = [entry.state for entry in model.entries()]
            if model.champion() == old:
                here.promote(new, action=PROMOTE, why="better")
    assert states == {0: [DONE], 1: [DONE, BROKEN_OFF]}.get(n_writes, [DONE, DONE])
    assert model.champion() == new
    assert BEGUN not in {entry.state for entry in model.entries()}


def test_a_registry_error_shows_no_password(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://ada:geheim@127.0.0.1:1"
    monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", uri)
    with pytest.raises(StorageError) as refusal:
        Registry("taxi", run_id=run_id, developer="Ada").champion()
    assert "127.0.0.1" in str(refusal.value)
    assert "geheim" not in str(refusal.value)
