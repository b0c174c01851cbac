"""Lint, types and what is written from the declarations, beside the other tests."""

import subprocess

from storage.checkout import ROOT


def test_make_check_finds_nothing() -> None:
    check = ["make", "--assume-old=.venv/.ready", "check"]  # this environment will do
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
