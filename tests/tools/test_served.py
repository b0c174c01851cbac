"""What make serve says where there is nothing to serve."""

import sys
from pathlib import Path

import mlflow
import pytest

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
    monkeypatch.setattr(sys, "argv", ["served", "models:/nobody-has@champion"])


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
