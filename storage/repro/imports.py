"""Which modules a text of Python imports, read from its syntax tree: nothing is run."""

import ast
from collections.abc import Iterator, Sequence


def imported_names(tree: ast.AST, package: Sequence[str]) -> Iterator[str]:
    """List the full names of what a file imports, wherever in it the import stands.

    Args:
        tree: of the file.
        package: the packages that the file lies in, from the top one on; relative imports need it.
    Yields:
        a.b for `import a.b` as for `from a import b`, whether b is a module or something in one.
    """
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*start, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the statements at any depth: imports and definitions stand in no expression."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from statements(child)
