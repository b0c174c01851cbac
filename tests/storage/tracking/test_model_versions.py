"""A registered version: its tag vouches for the manifest, and for the modules MLflow imports."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from storage.tracking import models
from storage.tracking.served_model import CODE, DOOR, LOADER, MANIFEST, SERVER, place_of
from storage.tracking.tags import MODEL_SHA256
from tests.storage.tracking.test_models import (
    Logged,
    contents,
    frame,
    logged,
    refusal_of,
    this_store,
)

__all__ = ["logged", "this_store"]


class Stored(NamedTuple):
    """A registered version, and its files where the store keeps them."""

    uri: str
    folder: Path


@pytest.fixture(scope="module")
def version(logged: Logged) -> str:
    mlflow.set_tracking_uri(logged.tracking_uri)
    uri = logged.uris["booster"]
    sha256 = models.digest(models.load(uri), uri)
    mlflow.register_model(uri, "stored", tags={MODEL_SHA256: sha256})
    return "models:/stored/1"


@pytest.fixture
def stored(version: str, logged: Logged, tmp_path: Path) -> Iterator[Stored]:
    """The version, with files that a test may damage."""
    folder = logged.folders["booster"]
    kept = shutil.copytree(folder, tmp_path / "kept")
    yield Stored(version, folder)
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def vouch_for_all(folder: Path) -> None:
    """Rewrite the manifest for the files as they are now."""
    names = json.loads((folder / MANIFEST).read_text())
    manifest = {
        name: hashlib.sha256(place_of(name, folder).read_bytes()).hexdigest() for name in names
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


def settle(stored: Stored, **settings: object) -> None:
    """Change the settings in MLmodel that say what MLflow imports."""
    path = stored.folder / "MLmodel"
    about = yaml.safe_load(path.read_text())
    about["flavors"]["python_function"] |= settings
    path.write_text(yaml.safe_dump(about))


def test_a_version_is_loaded_by_whatever_names_it(stored: Stored, logged: Logged) -> None:
    MlflowClient().set_registered_model_alias("stored", "champion", "1")
    for uri in (stored.uri, "models:/stored@champion", "models:/stored/latest"):
        assert np.array_equal(models.load(uri).predict(frame()), logged.answers("booster"))


@pytest.mark.parametrize("name", [f"{CODE}/model.py", f"{CODE}/{DOOR}.py", LOADER])
def test_code_that_the_version_was_not_registered_with_is_never_run(
    name: str, stored: Stored, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    place = place_of(name, contents(stored.folder))
    place.write_text(f"open({str(ran)!r}, 'w').close()\n{place.read_text()}")
    assert f"{name} is not the one that was saved" in refusal_of(stored.uri)
    vouch_for_all(contents(stored.folder))
    assert "not those that the version was registered with" in refusal_of(stored.uri)
    assert not ran.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"loader_module": "evil"},
        {"code": "artifacts"},
        {"data": "artifacts"},
        {"model_code_path": "other.py"},
        {"model_code_path": None, "python_model": "model.pkl"},
        {"artifacts": {}},
        {"artifacts": {"model": {"path": "artifacts"}}},
        {"artifacts": {"model": {"path": "../artifacts"}}},
        {"artifacts": {"model": {"path": "a/b/c"}}},
    ],
    ids=str,
)
def test_a_version_whose_mlmodel_has_other_code_imported_is_refused(
    settings: dict[str, object], stored: Stored
) -> None:
    settle(stored, **settings)
    assert "MLmodel is not the one that was saved" in refusal_of(stored.uri)


@pytest.mark.parametrize(
    "text",
    ["[]", "", "no", "<html>\n  <br>\n</html>", "{", "flavors: 3", "flavors: {python_function: x}"],
)
def test_what_is_no_mlmodel_is_refused(text: str, stored: Stored) -> None:
    (stored.folder / "MLmodel").write_text(text)
    assert "MLmodel" in refusal_of(stored.uri)


@pytest.mark.parametrize("artifacts", [3, ["model"], {"model": 3}], ids=str)
def test_an_mlmodel_of_another_shape_is_refused(artifacts: object, stored: Stored) -> None:
    settle(stored, artifacts=artifacts)
    assert "MLmodel is no description of a model" in refusal_of(stored.uri)


def test_a_server_compares_the_version_that_it_was_asked_for_with_its_tag(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_server, "invocations", scoring_server.invocations)
    monkeypatch.setitem(sys.modules, f"{SERVER}.app", ModuleType("app"))
    mlflow.pyfunc.load_model(stored.uri)
    code = contents(stored.folder) / CODE / "model.py"
    code.write_text(code.read_text() + "# changed")
    vouch_for_all(contents(stored.folder))
    with pytest.raises(MlflowException, match="version 1 of 'stored' was registered with other"):
        mlflow.pyfunc.load_model(stored.uri)
