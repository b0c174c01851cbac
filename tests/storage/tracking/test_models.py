import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from sklearn.ensemble import RandomForestRegressor

from storage import StorageError
from storage.tracking import models
from storage.tracking.served_model import CODE, DOOR, LOADER, MANIFEST
from taxi import features
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.model import MODULES, TripModel, input_columns, trips_to_frame
from taxi.rows import make_rows
from tests.conftest import simulated_trips
from tests.logged import log_model, own_experiment

START, MILES = "PULocationID", "trip_distance"
CODE_FILES = [f"{CODE}/{name}.py" for name in (*MODULES, DOOR)]
BOOSTER_FILES = [*CODE_FILES, "model.json", "booster-000.ubj"]


def make_models() -> dict[str, TripModel]:
    train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    full, compact = features.fit_encoder("full", train), features.fit_encoder("compact", train)
    matrices = build_matrices(make_rows(full, train, valid))
    parameters = {"objective": "reg:squarederror", "max_depth": 3, "nthread": 1}
    booster = train_booster(
        matrices, TrainingJob(parameters, rounds=5, patience=5, keep_booster=True)
    ).booster
    forest = RandomForestRegressor(n_estimators=3, max_depth=4, random_state=1)
    forest.fit(compact.transform_train(train), train.trip_minutes)
    return {
        "booster": TripModel("green", full, [booster]),
        "forest": TripModel("green", compact, [forest]),
    }


def frame(n: int = 50) -> pd.DataFrame:
    return trips_to_frame(simulated_trips("2021-02").take(np.arange(n)), "green")


class Logged:
    """Two tiny models logged in a separate store."""

    def __init__(self, experiment: str) -> None:
        self.tracking_uri = mlflow.get_tracking_uri()
        self.models = make_models()
        self.uris: dict[str, str] = {}
        self.folders: dict[str, Path] = {}
        for name, model in self.models.items():
            self.uris[name] = log_model(model, experiment, frame(5))
            location = mlflow.get_logged_model(self.uris[name].split("/")[-1]).artifact_location
            self.folders[name] = Path(location.removeprefix("file://"))

    def answers(self, name: str) -> np.ndarray:
        """Return the predictions of the model in memory."""
        return self.models[name].answer(frame())


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    with own_experiment(tmp_path_factory, "models") as experiment:
        yield Logged(experiment)


@pytest.fixture(autouse=True)
def this_store(logged: Logged) -> None:
    mlflow.set_tracking_uri(logged.tracking_uri)


@pytest.fixture
def copy(logged: Logged, tmp_path: Path) -> Path:
    """A copy of the booster's artifact that a test may damage."""
    return Path(shutil.copytree(logged.folders["booster"], tmp_path / "copy"))


def contents(artifact: Path) -> Path:
    """Return the folder of an artifact that the manifest covers."""
    (found,) = artifact.rglob(MANIFEST)
    return found.parent


def load_and_predict(artifact: Path, cwd: Path, *, before: str = "", path: str = "") -> np.ndarray:
    """Load a model and predict in a process that cannot import from this checkout."""
    code = f"""if True:
        {before}
        import mlflow, numpy, pandas
        model = mlflow.pyfunc.load_model({str(artifact)!r})
        numpy.save("answers.npy", model.predict(pandas.read_parquet("trips.parquet")))
    """
    frame().to_parquet(cwd / "trips.parquet")
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment |= {"PYTHONPATH": path} if path else {}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return np.load(cwd / "answers.npy")


# --- loading


@pytest.mark.parametrize("name", ["booster", "forest"])
def test_a_logged_model_answers_as_the_one_in_memory(name: str, logged: Logged) -> None:
    found = models.load(logged.uris[name]).predict(frame())
    assert np.array_equal(found, logged.answers(name))


@pytest.mark.parametrize("name", ["booster", "forest"])
def test_a_model_loads_without_pickle_where_the_checkout_is_unknown(
    name: str, logged: Logged, tmp_path: Path
) -> None:
    absent = "import importlib.util; assert importlib.util.find_spec('taxi') is None"
    found = load_and_predict(logged.folders[name], tmp_path, before=absent)
    assert np.array_equal(found, logged.answers(name))


def test_a_model_loads_beside_another_package_of_the_same_name(
    logged: Logged, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "taxi").mkdir(parents=True)
    wrong = "class TripModel:\n    from_files = classmethod(lambda c, f: c())\n"
    wrong += "    answer = lambda self, frame: [-1.0] * len(frame)\n"
    for module in MODULES:
        (other / "taxi" / f"{module}.py").write_text(wrong)
    before = "import taxi.model; assert taxi.model.TripModel().answer([0]) == [-1]"
    found = load_and_predict(logged.folders["booster"], tmp_path, before=before, path=str(other))
    assert np.array_equal(found, logged.answers("booster"))


def test_versions_of_the_code_live_beside_each_other_in_a_process(
    logged: Logged, copy: Path
) -> None:
    code = contents(copy) / CODE / "model.py"
    changed_text = code.read_text().replace("return minutes\n", "return minutes + 100\n", 1)
    code.write_text(changed_text)
    manifest = json.loads((contents(copy) / MANIFEST).read_text())
    manifest[f"{CODE}/model.py"] = hashlib.sha256(code.read_bytes()).hexdigest()
    (contents(copy) / MANIFEST).write_text(json.dumps(manifest))
    wanted = logged.answers("booster")
    first, changed = models.load(logged.uris["booster"]), models.load(str(copy))
    for _ in range(2):
        assert np.array_equal(first.predict(frame()), wanted)
        assert np.array_equal(changed.predict(frame()), wanted + 100)


def test_a_loaded_model_is_let_go_by_a_search_for_waste_and_not_before(copy: Path) -> None:
    """A step ends without garbage collection, so no booster is freed after xgboost's module."""
    held = weakref.ref(models.load(str(copy)))
    assert held() is not None
    gc.collect()
    assert held() is None


def test_loading_leaves_nothing_behind_in_the_artifact(copy: Path) -> None:
    before = sorted(contents(copy).rglob("*"))
    models.load(str(copy)).predict(frame())
    assert sorted(contents(copy).rglob("*")) == before


# --- integrity


def test_the_manifest_names_every_file_of_the_model(copy: Path) -> None:
    there = {str(p.relative_to(contents(copy))) for p in contents(copy).rglob("*") if p.is_file()}
    assert there == {MANIFEST, *BOOSTER_FILES}
    listed = set(json.loads((contents(copy) / MANIFEST).read_text()))
    assert listed == {LOADER, *BOOSTER_FILES}


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("name", [*BOOSTER_FILES, MANIFEST])
def test_a_model_with_one_changed_byte_is_refused(name: str, place: float, copy: Path) -> None:
    spoilt = contents(copy) / name
    content = bytearray(spoilt.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    spoilt.write_bytes(content)
    assert name == MANIFEST or f"{name} is not the one" in refusal_of(str(copy))


@pytest.mark.parametrize("name", [*BOOSTER_FILES, MANIFEST])
def test_a_model_that_lacks_a_file_is_refused(name: str, copy: Path) -> None:
    (contents(copy) / name).unlink()
    assert Path(name).name in refusal_of(str(copy))


def refusal_of(uri: str) -> str:
    """Load a damaged model; return the one-line error."""
    with pytest.raises(StorageError, match=r"The model's files are not whole: .*Fetch") as refusal:
        models.load(uri)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def leave_out(folder: Path, name: str) -> None:
    """Remove a file from the manifest of a model."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest[name]
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", "null", "1", '"a"', '["model.json"]', '{"model.json": 1}', "\x00"),
        *("[" * 10**5, '{"/dev/zero": ""}', '{"../../../MLmodel": ""}', '{"code": ""}'),
    ],
    ids=lambda text: text[:20],
)
def test_a_manifest_that_is_none_is_refused(text: str, copy: Path) -> None:
    (contents(copy) / MANIFEST).write_text(text)
    refusal_of(str(copy))


@pytest.mark.parametrize("name", BOOSTER_FILES)
def test_a_manifest_that_does_not_list_a_file_is_refused(name: str, copy: Path) -> None:
    leave_out(contents(copy), name)
    assert f"the manifest does not list {name}" in refusal_of(str(copy))


@pytest.mark.parametrize(
    "name", ["model.json", "booster-000.ubj", *(f"{CODE}/{name}.py" for name in ("model", "zones"))]
)
def test_a_file_that_is_missing_in_the_manifest_too_is_missed(name: str, copy: Path) -> None:
    leave_out(contents(copy), name)
    (contents(copy) / name).unlink()
    assert "the manifest lists too few" in refusal_of(str(copy))


@pytest.mark.parametrize(
    ("library", "told"),
    [
        ("raise ValueError('Library could not\\nbe loaded. ' * 99)", "Library could not be"),
        ("import no_such_package", "No module named 'no_such_package'"),
    ],
    ids=["does not load", "is not installed"],
)
def test_a_library_that_this_machine_lacks_is_no_fault_of_the_models_files(
    library: str, told: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xgboost.py").write_text(library)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith(("served_", "xgboost"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(StorageError) as refusal:
        models.load(str(copy))
    assert f"The model's packages cannot be used here: {told}" in str(refusal.value)
    assert str(refusal.value).endswith("Its requirements.txt names them.")
    assert "whole" not in str(refusal.value)


def test_a_file_beside_the_models_own_is_refused_unless_it_is_hidden(copy: Path) -> None:
    (contents(copy) / ".DS_Store").write_bytes(b"of a file browser")
    models.load(str(copy))
    (contents(copy) / "blind-000.ubj").write_bytes(b"of another model")
    assert "the manifest does not list blind-000.ubj" in refusal_of(str(copy))


@pytest.mark.parametrize("name", ["booster", "forest"])
def test_nothing_in_an_artifact_is_pickled(name: str, logged: Logged) -> None:
    files = [path for path in logged.folders[name].rglob("*") if path.is_file()]
    assert len(files) > len(BOOSTER_FILES)
    for path in files:
        content = path.read_bytes()
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".dill", ".pt"}
        # every pickle since protocol 2 begins with these bytes
        assert not content.startswith(tuple(bytes([0x80, n]) for n in range(2, 6))), path
        assert path.name == "MLmodel" or b"cloudpickle" not in content, path
    about = yaml.safe_load((logged.folders[name] / "MLmodel").read_text())
    assert "python_model" not in about["flavors"]["python_function"]


@pytest.mark.parametrize(
    "uri",
    [
        "models:/nobody@champion",
        "models:/nobody/1",
        f"models:/m-{0:032}",
        "runs:/0/model",
        "/nowhere",
    ],
)
def test_a_model_that_is_not_there_is_refused_in_one_line(uri: str) -> None:
    with pytest.raises(StorageError, match=f"Cannot load model {uri}: ") as refusal:
        models.load(uri)
    assert "\n" not in str(refusal.value)


def test_a_model_is_known_by_all_its_bytes(logged: Logged, copy: Path) -> None:
    booster, again, forest = (
        models.digest(models.load(uri), uri)
        for uri in (logged.uris["booster"], str(copy), logged.uris["forest"])
    )
    assert booster == again != forest


def test_a_model_names_the_columns_it_must_be_given(logged: Logged) -> None:
    found = models.required_columns(models.load(logged.uris["booster"]))
    assert found == {name for name, must in input_columns("green").items() if must}


def test_rows_a_model_refuses_are_told_in_one_line(logged: Logged) -> None:
    model = models.load(logged.uris["booster"])
    with pytest.raises(StorageError, match=r"Model x refuses these rows: .*PULocationID"):
        models.predict(model, frame().drop(columns=START), "x")


# --- what MLflow says of it


def test_mlmodel_says_which_columns_must_be_there(logged: Logged) -> None:
    signature = mlflow.models.get_model_info(logged.uris["booster"]).signature
    assert {column.name: column.required for column in signature.inputs} == input_columns("green")
    assert [column.type.name for column in signature.outputs] == ["double"]


def test_the_saved_example_is_a_request_the_model_answers(logged: Logged) -> None:
    example = (logged.folders["booster"] / "serving_input_example.json").read_text()
    found = mlflow.models.validate_serving_input(logged.uris["booster"], example)
    assert np.array_equal(found, logged.answers("booster")[:5])


def test_an_optional_column_may_be_left_out(logged: Logged) -> None:
    found = models.load(logged.uris["booster"]).predict(frame().drop(columns=MILES))
    wanted = logged.models["booster"].answer(frame().drop(columns=MILES))
    assert np.array_equal(found, wanted)


def test_a_row_that_cannot_be_judged_is_refused_as_the_callers_mistake(logged: Logged) -> None:
    bad = frame().astype({START: object})
    bad.loc[7, START] = "Harlem"
    with pytest.raises(MlflowException) as refusal:
        models.load(logged.uris["booster"]).predict(bad)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    assert f"Row 7, column '{START}': got 'Harlem'" in str(refusal.value)


def test_a_missing_column_is_refused_by_name(logged: Logged) -> None:
    with pytest.raises(MlflowException, match=START):
        models.load(logged.uris["booster"]).predict(frame().drop(columns=START))


def test_what_a_model_needs_is_pinned(logged: Logged) -> None:
    lines = (logged.folders["booster"] / "requirements.txt").read_text().split()
    assert lines == models.pinned_requirements()
    assert all("==" in line for line in lines)
