"""Lint, types and generated files, checked together with the other tests."""

import subprocess

from storage.checkout import ROOT


def test_make_check_finds_nothing() -> None:
    check = ["make", "--assume-old=.venv/.ready", "check"]  # keep the current environment
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
