"""Every form of model URI: which version or model it is pinned to, and whose scores it has."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient

from storage import StorageError, UserError
from storage.tracking import model_references, names
from storage.tracking.registry import CHAMPION, Registry
from storage.tracking.tags import MODEL_SHA256, RMSE_TEST
from tests.stores import EXPERIMENT, Store

CODE = """
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]): return model_input
mlflow.models.set_model(Model())
"""


class Registered(NamedTuple):
    """A logged model that is versions 1 and 2 of a registered model; 1 is champion."""

    name: str
    model_id: str
    run_id: str
    folder: Path


@pytest.fixture(scope="module")
def registered(
    initialised_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registered]:
    mlflow.set_tracking_uri(initialised_store.uri)
    code = tmp_path_factory.mktemp("model") / "model.py"
    code.write_text(CODE)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    with mlflow.start_run(experiment_id=experiment) as run:
        logged = mlflow.pyfunc.log_model(
            name="m", python_model=str(code), pip_requirements=["mlflow"]
        )
    name = "driver's model"
    client.create_registered_model(name)
    for number, rmse in (("1", "5.5"), ("2", "4.5")):
        mlflow.register_model(logged.model_uri, name, tags={MODEL_SHA256: f"digest {number}"})
        client.set_model_version_tag(name, number, RMSE_TEST, rmse)
    client.set_registered_model_alias(name, CHAMPION, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(name, "1", "Production")
    location = client.get_logged_model(logged.model_id).artifact_location
    folder = Path(location.removeprefix("file://"))
    yield Registered(name, logged.model_id, run.info.run_id, folder)
    mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def in_store(store: Store, registered: Registered) -> None:
    """Point MLflow at the store that holds them."""


@pytest.mark.parametrize(
    ("form", "version"),
    [
        ("models:/{name}/1", "1"),
        ("models:/{name}/2", "2"),
        ("models:///{name}/2", "2"),
        ("models:/{name}@champion", "1"),
        ("models:/{name}/latest", "2"),
        ("models:/{name}/Latest", "2"),
        ("models:/{name}/Production", "1"),
        ("models:/{name}/production", "1"),
    ],
)
def test_a_registered_model_is_pinned_to_the_version_of_now(
    registered: Registered, form: str, version: str, recwarn: pytest.WarningsRecorder
) -> None:
    reference = model_references.resolve(form.format(name=registered.name))
    assert reference.uri == f"models:/{registered.name}/{version}"
    assert (reference.name, reference.version) == (registered.name, version)
    assert reference.tags[RMSE_TEST] == {"1": "5.5", "2": "4.5"}[version]
    assert not [warning for warning in recwarn if "stage" in str(warning.message)]
    assert mlflow.pyfunc.load_model(reference.uri).predict(["a"]) == ["a"]


@pytest.mark.parametrize(
    "form",
    [
        "models:/{model_id}",
        "runs:/{run_id}/m",
        "{folder}",
        "file://{folder}",
        "s3://bucket/model",
        "mlflow-artifacts:/1/models/m/artifacts",
    ],
)
def test_what_cannot_move_stays_as_it_is(registered: Registered, form: str) -> None:
    uri = form.format(**registered._asdict())
    assert model_references.resolve(uri) == (uri, "", "", {})


def test_a_path_inside_a_version_is_pinned_and_is_another_model(registered: Registered) -> None:
    inside = model_references.resolve(f"models:/{registered.name}@champion/a/b")
    assert inside == (f"models:/{registered.name}/1/a/b", "", "", {})


@pytest.mark.parametrize(
    "uri",
    [
        "models:/driver's model/3",
        "models:/driver's model@nobody",
        "models:/driver's model/Staging",
        "models:/nobody/latest",
        "models:/nobody@champion",
        "models:/a/b/c/d",
        "models://elsewhere/a/1",
    ],
)
def test_a_uri_that_leads_to_no_version_is_one_line(uri: str) -> None:
    with pytest.raises(StorageError, match=r"^Cannot load model models:") as refusal:
        model_references.resolve(uri)
    assert "\n" not in str(refusal.value)


def test_an_alias_that_nobody_has_set_is_told_with_those_that_are(registered: Registered) -> None:
    """As when the first candidate was refused: there is a challenger, but no champion."""
    said = r"alias nobody \(champion is version 1\)\. Pass models:/driver's model/<version>, or "
    with pytest.raises(StorageError, match=said):
        model_references.resolve("models:/driver's model@nobody")


@pytest.mark.parametrize(
    "uri",
    [
        *("models://ada:hush@elsewhere/a/1", "https://ada:hush@host/m", "ftp://ada:hu/hush@host/m"),
        *("s3://key:hush@bucket/m", "mlflow-artifacts://ada:hush@host/1/m"),
    ],
)
def test_a_uri_with_a_password_is_refused_and_named_without(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_references, "MlflowClient", None)
    with pytest.raises(UserError, match=r"^The model_uri .* was passed with a password") as refusal:
        model_references.resolve(uri)
    assert "hush" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_profile_of_databricks_is_no_password() -> None:
    names.check_model_uri("models://scope:prefix@databricks/a/1")


@pytest.mark.parametrize(
    ("uri", "wrong"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("models:/a/1 ", "begins or ends with a blank"),
        ("models:/a\n/1", r"holds '\\n'"),
        ("models:/a/1\x1b[31m", r"holds '\\x1b'"),
        ("/" + "x" * 5000, "has 5001 characters"),
        ("http://[::1", "is no URI"),
        ("model:/a@champion", "begins with model:, which is none of"),
        ("x://ada:hush@b/c", "begins with x:, which is none of"),
        ("models:", "has no name"),
        ("models:/", "has no name"),
        ("models:a/1", "has no name"),
        ("models:/ /1", "has no name"),
        ("models:/@champion", "has no name before the @"),
        ("models:/a@", "has no name before the @, or no alias"),
        ("models:/a@b@c", "has no name before the @, or no alias"),
        ("models:/a", "has neither a version nor an alias"),
        ("models:/a/", "has neither a version nor an alias"),
        ("models:/m-0123", "has neither a version nor an alias"),
        ("models:/a/0", "asks for version '0'"),
        ("models:/a/2147483648", "asks for version '2147483648'"),
        ("models:/a/" + "9" * 1000, "asks for version '999"),
        ("runs:", "says nothing after runs:"),
        ("runs:/", "says nothing after runs:"),
        ("s3://", "says nothing after s3:"),
    ],
)
def test_a_uri_that_is_none_is_refused_before_any_store_is_asked(
    uri: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_references, "MlflowClient", None)
    with pytest.raises(UserError, match=f"^model_uri .* names no model: it {wrong}") as refusal:
        model_references.resolve(uri)
    line = str(refusal.value)
    assert line.isprintable()
    assert len(line) < 400
    assert "hush" not in line


def rmse(uri: str, digest: str) -> str:
    return model_references.reference_tags(model_references.resolve(uri), digest).get(
        RMSE_TEST, "none"
    )


def test_a_version_that_is_named_counts_by_its_own_error(registered: Registered) -> None:
    assert rmse(f"models:/{registered.name}/1", "digest 2") == "5.5"
    assert rmse(f"models:/{registered.name}/latest", "digest 1") == "4.5"


@pytest.mark.parametrize("form", ["models:/{model_id}", "runs:/{run_id}/m", "{folder}"])
def test_a_model_that_is_named_otherwise_counts_by_the_version_of_the_same_bytes(
    registered: Registered, form: str
) -> None:
    uri = form.format(**registered._asdict())
    assert rmse(uri, "digest 1") == "5.5"
    assert rmse(uri, "digest 2") == "4.5"


def test_a_model_without_a_digest_of_its_own_counts_by_where_it_was_registered_from(
    registered: Registered,
) -> None:
    assert rmse(f"models:/{registered.model_id}", "unknown") == "4.5"
    assert rmse("s3://bucket/model", "unknown") == "none"


def test_a_version_that_was_never_measured_counts_by_its_twin(registered: Registered) -> None:
    client = MlflowClient()
    client.create_registered_model("copies")
    client.create_model_version("copies", f"models:/{registered.model_id}")
    assert rmse("models:/copies/1", "digest 1") == "5.5"
    assert rmse("models:/copies/1", "digest 3") == "none"


def test_of_versions_of_the_same_bytes_the_one_that_was_measured_last_counts(
    registered: Registered,
) -> None:
    client, uri = MlflowClient(), f"models:/{registered.model_id}"
    measured = {"b": "6.5", "a": "7.5", "c": "8.5", "d": ""}  # the last one was not
    for name, error in measured.items():
        client.create_registered_model(name)
        marks = {MODEL_SHA256: "of several"} | ({RMSE_TEST: error} if error else {})
        client.create_model_version(name, uri, tags=marks)
        assert rmse(uri, "of several") == (error or "8.5")


# --- names

SERVABLE = [
    *("nyc-taxi-duration", "<b>bold<b>", "driver's", 'a "b" c', "a b", "a..b", "a#b", "a%20b"),
    *("50%", "é日本", "a\\b", "m-abc", "latest", "-a", "a&b=c+d;e,f", "o'brien", "x" * 255),
]


@pytest.mark.parametrize("name", SERVABLE)
def test_a_name_that_is_let_through_is_registered_found_again_and_loaded(
    registered: Registered, name: str
) -> None:
    names.check_name(name)
    with mlflow.start_run() as run:
        registry = Registry(name, run_id=run.info.run_id, developer="Ada")
        with registry.lock():
            version = registry.add_version(f"models:/{registered.model_id}", "ab")
            registry.promote(version, action="promoted", why="first")
    known = registry.find_version("ab")
    assert known is not None
    assert (known.name, str(known.version)) == (name, version)
    for uri in (
        f"models:/{name}@{CHAMPION}",
        f"models:/{name}/{version}",
        f"models:/{name}/latest",
    ):
        reference = model_references.resolve(uri)
        assert reference.uri == f"models:/{name}/{version}"
        assert mlflow.pyfunc.load_model(uri).predict(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (" a", "begins or ends with a blank"),
        ("a ", "begins or ends with a blank"),
        ("a/b", "holds /"),
        ("a:b", "holds :"),
        ("a?b", r"holds \?"),
        ("a@b", "holds @"),
        ("a\nb", r"holds '\\n'"),
        ("a\rb", r"holds '\\r'"),
        ("a\tb", r"holds '\\t'"),
        ("a\x00b", r"holds '\\x00'"),
        ("a\u2028b", r"holds '\\u2028'"),
        ("a\u200bb", r"holds '\\u200b'"),
        (".", "is no name of a file"),
        ("..", "is no name of a file"),
        ("...", "is no name of a file"),
        ('driver\'s "best"', "holds both ' and"),
        ("a\\", "ends with a backslash"),
        ("x" * 256, "has 256 bytes"),
        ("é" * 128, "has 256 bytes"),
        ("x" * 10**6, "has 1000000 bytes"),
        ("\udc80", r"holds '\\udc80'"),
    ],
)
def test_a_name_that_could_not_be_served_is_refused_beforehand(name: str, wrong: str) -> None:
    with pytest.raises(UserError, match=f"cannot be registered and served: it {wrong}") as no:
        names.check_name(name)
    assert "\n" not in str(no.value)
    assert "-P model_name=" in str(no.value)
    assert len(str(no.value)) < 250
