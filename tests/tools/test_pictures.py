"""What drawing the pictures requires; whether they look good is for people to judge."""

import socket
from pathlib import Path

import pytest
import requests

from storage import UserError
from tests.stores import Store
from tools import pictures


@pytest.fixture
def said(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """Draw on a store without a pipeline, and with only the browser in tmp_path, if any."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        pictures.main()
    assert left.value.code == 2
    return list(capsys.readouterr().err.splitlines())


def test_without_a_browser_it_says_which(said: list[str]) -> None:
    (line,) = said
    assert line.startswith("pictures: No chromium on the PATH. Install it")


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\nexit 1\n")
    browser.chmod(0o755)
    return browser


def test_without_a_pipeline_it_says_how_to_have_one(browser: Path, said: list[str]) -> None:
    assert said == ["pictures: No finished pipeline in this store. Run make demo first."]


def test_a_server_that_does_not_come_is_one_line() -> None:
    with socket.socket() as held:  # bound, but not listening
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(UserError, match=f"^The MLflow UI does not answer at {address}. See"):
            pictures.wait_for_server(address, n_tries=0)


def test_the_server_answers_by_the_name_that_the_browser_knows_and_by_no_other(
    store: Store,
) -> None:
    assert f"--host-resolver-rules=MAP {pictures.HOST} 127.0.0.1" in pictures.FLAGS
    with pictures.serving() as address:
        name, _, port = address.removeprefix("http://").partition(":")
        assert name == pictures.HOST
        asked = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=1"
        answers = {
            host: requests.get(asked, headers={"Host": f"{host}:{port}"}, timeout=10).status_code
            for host in (name, "elsewhere")
        }
    assert answers == {name: 200, "elsewhere": 403}
