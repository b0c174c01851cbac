"""What make serve prints: which version it serves, or why it serves none."""

import socket
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from storage import UserError
from storage.tracking import pages
from tests.stores import Store
from tools import served


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        served.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["served", "models:/nobody-has@champion", "0"])


def test_without_a_store_one_line_names_the_command_that_makes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert "Run make demo" in refused(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_the_model_is_told_in_one_line(
    initialised_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", initialised_store.uri)
    mlflow.set_tracking_uri(None)
    assert refused(capsys).startswith("serve: Cannot load model models:/nobody-has@champion: ")


def test_a_port_that_somebody_listens_on_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port}: .* in use. Pass another: PORT="):
            pages.free_port(str(port))


@pytest.mark.parametrize("port", ["abc", "-1", "65536", ""])
def test_what_is_no_port_is_told_in_one_line(port: str) -> None:
    with pytest.raises(UserError, match=f"^'{port}' is no port. Pass a number below 65536: PORT="):
        pages.free_port(port)


def test_it_names_the_version_and_its_bytes(
    initialised_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", initialised_store.uri)
    mlflow.set_tracking_uri(None)
    client = MlflowClient()
    client.create_registered_model("served-here")
    client.create_model_version("served-here", "s3://nowhere/m", tags={"model_sha256": "ab12"})
    monkeypatch.setattr(sys, "argv", ["served", "models:/served-here/1", "0"])
    served.main()
    assert "served-here version 1, sha256 ab12" in capsys.readouterr().out
