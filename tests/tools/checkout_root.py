"""A checkout for the doctor to examine, and the problems that it finds."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.checkout import ROOT
from tools import doctor
from tools.doctor import Finding


def problems(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    return [finding for finding in check() if finding.cure]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without a .venv."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("requirements.txt", "requirements-dev.txt", "python_env.yaml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr(doctor, "ROOT", root)
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    monkeypatch.chdir(root)
    return root
