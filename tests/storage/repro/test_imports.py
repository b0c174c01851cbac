"""Which modules Python source code imports."""

import ast

import pytest

from storage.repro.imports import imported_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a.b, c as d", ["a.b", "c"]),
        ("from a import b, c as d", ["a.b", "a.c"]),
        ("from a.b import *", ["a.b.*"]),
        ("from . import x", ["top.sub.x"]),
        ("from .x import y", ["top.sub.x.y"]),
        ("from ..x import y", ["top.x.y"]),
        ("def f():\n if 1:\n  try: import a\n  except ImportError: import b", ["a", "b"]),
        ("match 1:\n case 1: import a\n case _: from b import c", ["a", "b.c"]),
        ("class A:\n with f() as g: import a", ["a"]),
        ("'import a'  # import b", []),
    ],
)
def test_imports_are_named_in_full_wherever_they_stand(text: str, names: list[str]) -> None:
    assert list(imported_names(ast.parse(text), ("top", "sub"))) == names
