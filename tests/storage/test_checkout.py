"""What is known of the code that runs: its commit, its remote, what is not committed."""

import subprocess
from pathlib import Path

import pytest

from storage import checkout
from storage.checkout import Checkout


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a checkout of one committed file that knows nothing of the user's own settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    (root / "step.py").write_text("n_trips = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Begin")
    return root


def test_a_clean_checkout_is_its_commit(root: Path) -> None:
    assert checkout.read(root) == Checkout(git(root, "rev-parse", "HEAD").strip(), "", "")


@pytest.mark.parametrize("staged", [False, True])
def test_an_edit_is_in_the_diff_staged_or_not(root: Path, staged: bool) -> None:
    (root / "step.py").write_text("n_trips = 2\n")
    if staged:
        git(root, "add", ".")
    diff = checkout.read(root).diff
    assert "-n_trips = 1" in diff
    assert "+n_trips = 2" in diff


def test_new_code_is_in_the_diff_but_a_file_that_may_hold_secrets_is_not(root: Path) -> None:
    (root / ".env").write_text("PASSWORD=hush")
    (root / "notes.txt").write_text("hush")
    assert checkout.read(root).diff == ""
    (root / "new").mkdir()
    (root / "new" / "feature é.py").write_text("miles = 3\n")
    (root / "requirements.txt").write_text("numpy==1.0\n")
    diff = checkout.read(root).diff
    assert "+miles = 3" in diff
    assert "+numpy==1.0" in diff
    assert "hush" not in diff


def test_a_diff_applied_to_its_commit_gives_the_code_that_ran(root: Path) -> None:
    (root / "step.py").write_text("n_trips = 2\n")
    (root / "new.py").write_text("miles = 3\n")
    diff = checkout.read(root).diff
    git(root, "clean", "-fdq")
    git(root, "reset", "-q", "--hard")
    subprocess.run(["git", "apply"], cwd=root, input=diff, text=True, check=True)
    assert (root / "step.py").read_text() == "n_trips = 2\n"
    assert (root / "new.py").read_text() == "miles = 3\n"


def test_ignored_files_do_not_make_a_checkout_dirty(root: Path) -> None:
    (root / ".gitignore").write_text("*.py\n")
    git(root, "add", ".gitignore")
    git(root, "commit", "-q", "-m", "Ignore")
    (root / "scratch.py").write_text("1")
    assert checkout.read(root).diff == ""


def test_a_remote_is_named_without_credentials(root: Path) -> None:
    git(root, "remote", "add", "origin", "https://ada:hush@host:8443/a/b.git?key=hush")
    assert checkout.read(root).repository == "https://host:8443/a/b.git"


def test_the_developer_is_the_git_user(root: Path) -> None:
    assert checkout.user_name(root) == ""
    git(root, "config", "user.name", "Zoë O'Brien")
    assert checkout.user_name(root) == "Zoë O'Brien"


def test_a_folder_that_is_no_checkout_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkout.read(tmp_path) == Checkout("", "", "")


def test_a_machine_without_git_is_not_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout.read(root) == Checkout("", "", "")
    assert checkout.user_name(root) == ""
