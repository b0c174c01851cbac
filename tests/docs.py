"""Parse README, CONTRIBUTING and docs/: their commands, links, headings and tables."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from storage.checkout import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md"]
SHELLS = ("bash", "console", "sh", "shell")  # of fenced blocks; indented ones all hold commands


def command(start: str) -> str:
    """Return the only command of README and docs/ that begins with `start`, for a test to run."""
    known = {line for page in PAGES for line in commands(page)}
    matching = sorted(line for line in known if line.startswith(start))
    assert len(matching) == 1, f"README.md and docs/*.md have {matching} for {start!r}"
    return matching[0]


def readme_command(start: str) -> str:
    """Return the only command of README and docs/ that begins with `start`."""
    return command(start)


def with_curl(command: str) -> str:
    """Have Python send the request of a curl command, if there is no curl on this machine."""
    if shutil.which("curl"):
        return command
    _curl, _silent, url, _header, header, _data, body = shlex.split(command)
    kind = header.removeprefix("Content-Type: ")
    ask = f"requests.post({url!r}, {body!r}, headers={{'Content-Type': {kind!r}}}).text"
    return shlex.join([sys.executable, "-c", f"import requests; print({ask})"])


@cache
def commands(page: Path) -> list[str]:
    """List the commands in a page's blocks, one line each, without comments."""
    text = "\n".join(block.content for block in parse(page) if _holds_commands(block))
    lines = (re.sub(r"\s+#.*", "", line) for line in text.replace("\\\n", " ").splitlines())
    return [line.strip() for line in lines if line.strip()]


def _holds_commands(block: Token) -> bool:
    return block.type == "code_block" or (block.type == "fence" and block.info in SHELLS)


@cache
def parse(page: Path) -> list[Token]:
    """Read a page as GitHub does, tables included."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def inlines(page: Path) -> Iterator[Token]:
    """Yield the texts, links, pictures and code spans of a page's running text."""
    for block in parse(page):
        yield from block.children or ()


def links(page: Path) -> list[str]:
    """List the targets of a page's links and pictures."""
    ends = [token.attrGet("href") or token.attrGet("src") for token in inlines(page)]
    return [str(end) for end in ends if end]


def code_words(page: Path) -> list[str]:
    """List a page's code spans."""
    return [token.content for token in inlines(page) if token.type == "code_inline"]


def prose(page: Path) -> str:
    """Return the running text of a page, including tables, without code blocks."""
    return "\n".join(token.content for token in parse(page) if token.type == "inline")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    tokens = parse(page)
    titles = [
        "".join(part.content for part in inline.children or ())
        for opening, inline in pairwise(tokens)
        if opening.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(page: Path, *headings: str) -> list[list[str]]:
    """Return the rows of the only table of a page that has these headings."""
    tables = [rows for rows in _tables(page) if rows[0] == list(headings)]
    assert len(tables) == 1, f"{page.name} needs one table headed {headings}"
    return tables[0][1:]


def _tables(page: Path) -> Iterator[list[list[str]]]:
    rows: list[list[str]] = []
    for token in parse(page):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            rows[-1].append(token.content)
        elif token.type == "table_close":
            yield rows
            rows = []
