"""Write what follows from declarations: MLproject, the parameter table, the pictures of the code.

python -m tools.contract [--check]

With --check nothing is written: it exits with 1 if a file is not what it would write.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from steps.common.declaration import Parameters, fields_of
from steps.common.parameters import ENTRY_POINTS
from storage.checkout import ROOT, as_text
from storage.repro.imports import imported_names
from storage.tracking import tags
from storage.tracking.tags import Name

WIDTH = 100
# MLflow checks none of these
TYPES: dict[object, str] = {str: "string", int: "float", float: "float", bool: "string"}
HEAD = """\
# The public contract, written by `make contract` from steps/common/parameters.py.
# What each parameter means: docs/parameters.md, or `python -m steps.main --help`.
name: nyc-taxi-duration
python_env: python_env.yaml

entry_points:
"""
TREES = ("steps", "storage", "taxi", "tools", "bench")


def main(argv: list[str] | None = None) -> None:
    """Write every generated file, or compare it with the one that is there."""
    words = sys.argv[1:] if argv is None else argv
    outdated = {path: text for path, text in generate() if (ROOT / path).read_text() != text}
    for path, text in outdated.items():
        if "--check" in words:
            print(f"{path} is not what the declarations say. Run make contract.", file=sys.stderr)
        else:
            (ROOT / path).write_text(text)
            print(f"{path} written")
    if "--check" in words:
        sys.exit(bool(outdated))


def generate(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield every generated file: path from the root, text."""
    yield "MLproject", mlproject(ENTRY_POINTS)
    parts = {"parameters": parameter_table(ENTRY_POINTS)}
    yield "docs/parameters.md", fill_page(root / "docs" / "parameters.md", parts)
    parts = {"imports": import_diagram(root), "tags": name_table(root)}
    yield "docs/architecture.md", fill_page(root / "docs" / "architecture.md", parts)


def fill_page(path: Path, parts: Mapping[str, str]) -> str:
    """Return a page with the generated parts between their markers."""
    page = path.read_text()
    for name, text in parts.items():
        begin, end = f"<!-- {name}: written by make contract -->", f"<!-- end of {name} -->"
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


# --- MLproject


def mlproject(entry_points: Mapping[str, type[Parameters]]) -> str:
    """Return the text of MLproject."""
    return HEAD + "\n".join(
        entry_point_block(name, declared) for name, declared in entry_points.items()
    )


def entry_point_block(name: str, declared: type[Parameters]) -> str:
    """Return the block of an entry point."""
    lines = [f"  {name}:", "    parameters:"]
    for parameter, field in fields_of(declared).items():
        kind, default = TYPES[field.annotation], as_text(field.default)
        shown = f'"{default}"' if kind == "string" and must_be_quoted(default) else default
        lines.append(f"      {parameter}: {{type: {kind}, default: {shown}}}")
    words = [f"python -m {declared.module()}", *(f"--{p}={{{p}}}" for p in fields_of(declared))]
    return "\n".join([*lines, "    command: >-", *wrapped(words, indent=6), ""])


def must_be_quoted(text: str) -> bool:
    """Whether YAML would read a text as something else."""
    words = ("true", "false", "yes", "no", "on", "off", "null")
    return not re.fullmatch(r"[a-z][a-z0-9_-]*", text) or text in words


def wrapped(words: list[str], *, indent: int) -> list[str]:
    """Wrap words into lines of at most WIDTH characters; no word is broken."""
    lines = [" " * indent + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append(" " * indent + word)
        else:
            lines[-1] += f" {word}"
    return lines


# --- docs


def parameter_table(entry_points: Mapping[str, type[Parameters]]) -> str:
    """Return a table of all parameters, each once, with default, entry points and meaning."""
    rows: dict[str, str] = {}
    for declared in entry_points.values():
        for name, field in fields_of(declared).items():
            takers = [step for step, other in entry_points.items() if name in other.model_fields]
            who = "all" if len(takers) == len(entry_points) else ", ".join(takers)
            default = as_text(field.default) or '""'
            rows[name] = f"| `{name}` | `{default}` | {who} | {field.description} |"
    return "\n".join(
        ["| parameter | default | entry points | meaning |", "|---|---|---|---|", *rows.values()]
    )


def name_table(root: Path) -> str:
    """Return a table of all tags, metrics and artifacts, and the files that write or read them."""
    users = users_of_names(root)
    rows = [
        f"| {name.kind} | `{name}{'…' if isinstance(name, tags.Family) else ''}` | {name.meaning} "
        f"| {', '.join(name.writers) or 'MLflow'} "
        f"| {', '.join(sorted(users[called] - {*name.writers}))} |"
        for called, names in declared_names().items()
        for name in names
    ]
    return "\n".join(
        [
            "| kind | name | meaning | written by (file) | read by (other file) |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def declared_names() -> dict[str, list[Name]]:
    """Return the names that tags.py declares, by variable; RUN_IDS is several under one."""
    alone = {called: [it] for called, it in vars(tags).items() if isinstance(it, Name)}
    return alone | {"RUN_IDS": [*tags.RUN_IDS.values()]}


def users_of_names(root: Path) -> dict[str, set[str]]:
    """Return variable of tags.py -> the files of steps and storage that mention it."""
    users: dict[str, set[str]] = {called: set() for called in declared_names()}
    for path in (path for tree in ("steps", "storage") for path in (root / tree).rglob("*.py")):
        short = path.parent.name if path.name == "__main__.py" else path.stem
        for called in mentioned_names(ast.parse(path.read_bytes())) & users.keys():
            users[called].add(short)
    return users


def mentioned_names(tree: ast.Module) -> set[str]:
    """Return the variables of tags.py that a file mentions, as tags.STEP or imported by name."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id == "tags" else set()
        elif isinstance(node, ast.ImportFrom) and node.module == tags.__name__:
            found |= {alias.name for alias in node.names}
    return found


def import_diagram(root: Path) -> str:
    """Draw which package imports which, as mermaid; between trees one arrow for all imports."""
    arrows = set(package_imports(root))
    packages = {package for arrow in arrows for package in arrow if "/" in package}
    inside = {(a, b) for a, b in arrows if tree_of(a) == tree_of(b)}
    across = {(tree_of(a), tree_of(b)) for a, b in arrows - inside}
    lines = ["```mermaid", "flowchart TD"]
    for tree in sorted({tree_of(package) for package in packages}):
        own = sorted(package for package in packages if tree_of(package) == tree)
        lines.append(f"    subgraph {tree}")
        lines += [f'        {node(package)}["{package}"]' for package in own]
        lines += [f"        {node(a)} --> {node(b)}" for a, b in sorted(inside) if a in own]
        lines.append("    end")
    return "\n".join([*lines, *(f"    {a} --> {b}" for a, b in sorted(across)), "```"])


def tree_of(package: str) -> str:
    """Return the tree (steps, storage, taxi, ...) that a package is in."""
    return package.partition("/")[0]


def node(package: str) -> str:
    """Return the identifier of a package in mermaid."""
    return package.replace("/", "_")


def package_imports(root: Path) -> Iterator[tuple[str, str]]:
    """Yield every import of one package by another, without bench: importer, imported."""
    for tree in TREES[:-1]:
        for path in sorted((root / tree).rglob("*.py")):
            package = path.relative_to(root).parts[:-1]
            for name in imported_names(ast.parse(path.read_bytes()), package):
                parts = name.split(".")
                if parts[0] in TREES:
                    importer = package_of(path.relative_to(root).parts, root=root)
                    imported = package_of(parts, root=root)
                    if importer != imported and imported not in ("steps", "storage"):
                        yield importer, imported


def package_of(parts: Sequence[str], *, root: Path) -> str:
    """Return the package, or the module, that a file is in: steps/hpo, storage/data, taxi."""
    if parts[0] not in ("steps", "storage") or len(parts) == 1:
        return parts[0]
    name = parts[1].removesuffix(".py")
    exists = (root / parts[0] / name).is_dir() or (root / parts[0] / f"{name}.py").is_file()
    # what is neither is a function or class of the package itself
    return f"{parts[0]}/{name}" if exists and name != "__init__" else parts[0]


if __name__ == "__main__":
    main()
