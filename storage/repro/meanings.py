"""What Python source means, as a sha256, and what it imports; cached for later processes.

Parsing the files of all steps takes half as long as importing MLflow.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from storage.data.cache import cache_dir
from storage.repro import imports
from storage.repro.imports import imported_names, statements

MAX_CACHED = 4_000  # newest files in the cache: a megabyte or two


class Meaning(NamedTuple):
    """What a file does, regardless of its comments and docstrings."""

    sha256: str
    imports: tuple[str, ...]  # full names


def read_meaning(text: bytes, package: Sequence[str]) -> Meaning:
    """Return the meaning of a file, from the cache if it is there.

    Args:
        text: the file's content.
        package: the packages that contain the file, outermost first.
    """
    entries, name = _cache(), _sha256(b"\0".join([*(part.encode() for part in package), text]))
    if name not in entries:
        tree = ast.parse(text)
        names = tuple(dict.fromkeys(imported_names(tree, package)))
        entries[name] = Meaning(_sha256(_dump(_without_docstrings(tree)).encode()), names)
    return entries[name]


def save_cache() -> None:
    """Write the cache file for other processes, atomically; skip it if it cannot be written."""
    cached = read_cache(path := _file())
    if _cache().keys() <= cached.keys():
        return
    text = json.dumps(dict([*(cached | _cache()).items()][-MAX_CACHED:])).encode()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(_sha256(text).encode() + b"\n" + text)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def read_cache(path: Path) -> dict[str, Meaning]:
    """Read the cache file; empty if it is missing or damaged."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if digest.decode(errors="replace") != _sha256(text):
        return {}
    return {
        name: Meaning(sha256, tuple(names)) for name, (sha256, names) in json.loads(text).items()
    }


@cache
def _cache() -> dict[str, Meaning]:
    return read_cache(_file())


@cache
def _file() -> Path:
    """Return the cache file of this Python and this code: others parse or hash differently."""
    readers = (Path(str(module.__file__)) for module in (sys.modules[__name__], imports))
    version = _sha256(b"".join([sys.version.encode(), *(path.read_bytes() for path in readers)]))
    return cache_dir() / f"meanings-{version[:16]}.json"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove the docstrings from a syntax tree, in place; it has no comments anyway."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in (tree, *statements(tree)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _dump(node: Any) -> str:
    """Format a syntax tree equally in every Python: `ast.unparse` and `ast.dump` differ.

    Empty fields are left out, as later Pythons have more of them, and so are empty texts in an
    f-string, which only 3.12 puts after a width.
    """
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        texts = [part for part in node.values if getattr(part, "value", None) != ""]
        return f"JoinedStr({_dump(texts)})"
    fields = [name for name in node._fields if getattr(node, name, None) not in (None, [])]
    dumped = (f"{name}={_dump(getattr(node, name))}" for name in fields)
    return f"{type(node).__name__}({','.join(dumped)})"
