"""The modules that Python source imports, read from its syntax tree: nothing is run."""

import ast
from collections.abc import Iterator, Sequence


def imported_names(tree: ast.AST, package: Sequence[str]) -> Iterator[str]:
    """List the full names that a file imports, at any depth of its code.

    Args:
        tree: the file's syntax tree.
        package: the packages that contain the file, outermost first, for relative imports.
    Yields:
        a.b both for `import a.b` and for `from a import b`, whether b is a module or a name in one.
    """
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*start, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements at any depth; expressions hold no imports or definitions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from statements(child)
