"""What is known of the code that runs: its commit, its remote, what is not committed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from storage import checkout
from storage.checkout import Checkout


def git(root: Path, *arguments: str) -> str:
    settings = ["user.name=Ada", "user.email=ada@example.org", "maintenance.auto=false"]
    given = [word for setting in settings for word in ("-c", setting)]
    return subprocess.run(
        ["git", *given, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a checkout of two committed files that knows nothing of the user's own settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    (root / "MLproject").touch()
    (root / "step.py").write_text("n_trips = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Begin")
    return root


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_a_clean_checkout_is_its_commit(root: Path, kind: str) -> None:
    shutil.rmtree(root / ".git")
    git(root, "init", "-q", f"--object-format={kind}")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Begin")
    assert checkout.read(root) == Checkout(git(root, "rev-parse", "HEAD").strip(), "", "")


@pytest.mark.parametrize("staged", [False, True])
def test_an_edit_is_in_the_diff_staged_or_not(root: Path, staged: bool) -> None:
    (root / "step.py").write_text("n_trips = 2\n")
    if staged:
        git(root, "add", ".")
    diff = checkout.read(root).diff
    assert "-n_trips = 1" in diff
    assert "+n_trips = 2" in diff


@pytest.mark.parametrize("staged", [False, True])
def test_new_code_is_in_the_diff_but_a_file_that_may_hold_secrets_is_not(
    root: Path, staged: bool
) -> None:
    (root / ".env").write_text("PASSWORD=hush")
    (root / "notes.txt").write_text("hush")
    assert checkout.read(root).diff == ""
    (root / "new").mkdir()
    (root / "new" / "feature é.py").write_text("miles = 3\n")
    (root / "requirements.txt").write_text("numpy==1.0\n")
    if staged:
        git(root, "add", "new", "requirements.txt")
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


@pytest.mark.parametrize(
    "remote", ["https://h/t.git", "git@h:t.git", "h:/srv/t.git", "ssh://h/t.git", "git://h:1/t.git"]
)
def test_a_remote_of_another_machine_is_a_url(remote: str) -> None:
    assert Checkout("", remote, "").url == remote


@pytest.mark.parametrize("remote", ["/srv/t.git", "../t.git", "./a:b.git", "file:///srv/t.git", ""])
def test_a_remote_that_is_a_folder_is_no_url(remote: str) -> None:
    assert Checkout("", remote, "").url == ""


def test_a_relative_remote_is_named_so_that_it_is_found_from_anywhere(root: Path) -> None:
    git(root, "init", "-q", "--bare", "../team.git")
    git(root, "remote", "add", "origin", "../team.git")
    assert checkout.read(root).repository == str(root.parent / "team.git")


def test_a_remote_is_named_without_credentials(root: Path) -> None:
    git(root, "remote", "add", "origin", "https://ada:hush@host:8443/a/b.git?key=hush")
    assert checkout.read(root).repository == "https://host:8443/a/b.git"


def test_the_developer_is_the_git_user(root: Path) -> None:
    assert checkout.user_name(root) == ""
    git(root, "config", "user.name", "Zoë O'Brien")
    assert checkout.user_name(root) == "Zoë O'Brien"


# --- git does not answer: what nobody knows is not clean


def unanswered(root: Path) -> str:
    """Give the reason why nothing is known of the code."""
    code = checkout.read(root)
    assert code.dirty == "unknown"
    assert (code.commit, code.diff) == ("", "")
    return code.unknown


def test_a_folder_that_is_no_checkout_is_not_clean(tmp_path: Path) -> None:
    assert "not a git repository" in unanswered(tmp_path)


def test_a_machine_without_git_is_not_clean(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "git cannot be run" in unanswered(root)
    assert checkout.user_name(root) == ""


def test_a_checkout_without_a_commit_is_not_clean(root: Path) -> None:
    git(root, "update-ref", "-d", "HEAD")
    assert unanswered(root) == "there is no commit yet"


def test_a_folder_in_the_repository_of_something_else_is_not_that_ones_commit(root: Path) -> None:
    copy = root / "copy"
    copy.mkdir()
    (root / ".gitignore").write_text("copy\n")
    (copy / "MLproject").touch()
    assert "not in" in unanswered(copy)


def strange_git(folder: Path, line: str) -> str:
    """Put a git on the PATH that does something else first."""
    script = folder / "bin" / "git"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{line}\nexec {shutil.which("git")} "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


def test_a_checkout_of_another_user_is_not_clean_unless_it_is_called_safe(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_owner = "export GIT_TEST_ASSUME_DIFFERENT_OWNER=1"
    monkeypatch.setenv("PATH", strange_git(tmp_path, other_owner))
    assert "dubious ownership" in unanswered(root)
    (tmp_path / "home").mkdir()
    git(root, "config", "--global", "safe.directory", str(root))
    (root / "step.py").write_text("n_trips = 2\n")
    assert checkout.read(root).dirty == "true"


def test_a_difference_that_cannot_be_read_is_not_clean(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = 'test "$1" = diff && exit 128'
    monkeypatch.setenv("PATH", strange_git(tmp_path, fails))
    code = checkout.read(root)
    assert (code.dirty, code.unknown, len(code.commit)) == ("unknown", "exit code 128", 40)


# --- the user's own settings

HOSTILE = {
    "colours, prefixes and formats": {
        "color.ui": "always",
        "color.diff": "always",
        "core.quotePath": "false",
        "diff.colorMoved": "zebra",
        "diff.context": "0",
        "diff.interHunkContext": "9",
        "diff.mnemonicPrefix": "true",
        "diff.noprefix": "true",
        "diff.srcPrefix": "before/",
        "diff.relative": "true",
        "diff.renames": "copies",
        "diff.algorithm": "patience",
        "diff.indentHeuristic": "false",
        "diff.suppressBlankEmpty": "true",
        "diff.wsErrorHighlight": "all",
        "diff.wordRegex": ".",
        "diff.statNameWidth": "1",
        "log.date": "no such format",
        "log.showSignature": "true",
        "pager.diff": "false",
    },
    "programs in the place of git's own": {
        "alias.diff": "!false",
        "core.fsmonitor": "true",
        "core.hooksPath": "/bin",
        "core.pager": "false",
        "diff.external": "true",
        "diff.default.command": "true",
        "diff.default.textconv": "true",
        "diff.default.binary": "true",
        "diff.default.xfuncname": "n_.*",
        "diff.x.textconv": "true",
        "diff.x.command": "true",
        "filter.x.clean": "true",
        "filter.x.required": "true",
    },
    "what counts as changed, and where from": {
        "core.attributesFile": "{folder}/attributes",
        "core.excludesFile": "{folder}/excluded",
        "core.autocrlf": "true",
        "core.safecrlf": "true",
        "core.checkStat": "minimal",
        "core.ignoreStat": "true",
        "core.fileMode": "true",
        "core.untrackedCache": "true",
        "core.whitespace": "-trailing-space",
        "diff.autoRefreshIndex": "false",
        "diff.ignoreSubmodules": "all",
        "diff.orderFile": "{folder}/order",
        "status.showUntrackedFiles": "no",
        "url.git@nowhere:.insteadOf": "https://host/",
        "clone.defaultRemoteName": "upstream",
    },
}


@pytest.fixture
def edited(root: Path) -> Path:
    """A checkout with an edited, a moved, a removed, a new and a binary file, and a remote."""
    (root / "moved.py").write_text("miles = 1\n" * 9)
    (root / "removed.py").write_text("n = 0\n")
    (root / "ride.png").write_bytes(bytes(range(256)))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "Add")
    git(root, "remote", "add", "origin", "https://host/taxi.git")
    lines = [f"def n_{n}():\n    return {n}\n\n" for n in range(9)]
    (root / "step.py").write_text("\n".join(lines))
    (root / "moved.py").rename(root / "elsewhere é.py")
    (root / "removed.py").unlink()
    (root / "ride.png").write_bytes(bytes(range(255)))
    return root


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_of_the_users_settings_changes_what_is_recorded(
    edited: Path, tmp_path: Path, kind: str
) -> None:
    expected = checkout.read(edited)
    assert expected.diff.count("diff --git") == 5
    (tmp_path / "home").mkdir()
    (tmp_path / "attributes").write_text("*.py diff=x filter=x -text\n")
    (tmp_path / "excluded").write_text("*.py\n")
    (tmp_path / "order").write_text("step.py\n")
    shutil.copy(tmp_path / "attributes", edited / ".git" / "info")
    shutil.copy(tmp_path / "excluded", edited / ".git" / "info" / "exclude")
    for name, value in HOSTILE[kind].items():
        for scope in ("--global", "--local"):
            git(edited, "config", scope, name, value.format(folder=tmp_path))
    assert checkout.read(edited) == expected


ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"),
    *("GIT_NAMESPACE", "GIT_CONFIG", "GIT_EXTERNAL_DIFF", "GIT_CEILING_DIRECTORIES"),
)


def test_no_variable_of_git_leads_to_another_repository(
    edited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of git starts what it runs with such variables."""
    expected = checkout.read(edited)
    for variable in ELSEWHERE:
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert checkout.read(edited) == expected


@pytest.mark.parametrize("hides", ["--assume-unchanged", "--skip-worktree"])
def test_an_edit_that_the_index_hides_is_in_the_diff(root: Path, hides: str) -> None:
    git(root, "update-index", hides, "step.py")
    (root / "step.py").write_text("n_trips = 2\n")
    assert git(root, "diff", "HEAD") == ""
    assert "+n_trips = 2" in checkout.read(root).diff


def test_line_ends_and_permissions_of_a_checkout_do_not_make_it_dirty(root: Path) -> None:
    (root / "step.py").write_bytes(b"n_trips = 1\r\n")
    (root / "MLproject").chmod(0o755)
    assert checkout.read(root).dirty == "false"


def test_a_worktree_is_its_own_commit(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / 'my wörk: $x "y"'))
    (root / "step.py").write_text("n_trips = 2\n")
    code = checkout.read(tmp_path / 'my wörk: $x "y"')
    assert (code.dirty, code.commit) == ("false", git(root, "rev-parse", "HEAD").strip())


def test_a_commit_is_unpushed_where_no_branch_that_git_knows_of_a_remote_holds_it(
    root: Path, tmp_path: Path
) -> None:
    first = git(root, "rev-parse", "HEAD").strip()
    assert not checkout.is_unpushed(first, root)  # no branch is known at all
    git(root, "clone", "-q", "--bare", ".", str(tmp_path / "team"))
    git(root, "remote", "add", "fork", str(tmp_path / "team"))
    git(root, "fetch", "-q", "fork")
    assert not checkout.is_unpushed(first, root)
    git(root, "commit", "-q", "--allow-empty", "-m", "Try")
    second = git(root, "rev-parse", "HEAD").strip()
    assert checkout.is_unpushed(second, root)
    git(root, "push", "-q", "fork", "HEAD:refs/heads/try")
    assert not checkout.is_unpushed(second, root)
    assert not checkout.is_unpushed("0" * 40, root)  # of a run from elsewhere


def test_a_checkout_that_may_not_be_written_to_is_read(root: Path) -> None:
    (root / "new.py").write_text("miles = 3\n")
    before = sorted(root.rglob("*"))
    assert "+miles = 3" in checkout.read(root).diff
    assert sorted(root.rglob("*")) == before
