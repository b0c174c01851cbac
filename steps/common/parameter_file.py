"""Read a parameter file: YAML that maps each name to a value or, for a sweep, a list of values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from storage import UserError
from storage.checkout import committed_path
from storage.uris import expand_home, without_credentials

POINTS = "points"  # key of a list of points, each a mapping
NULL = "tag:yaml.org,2002:null"
KINDS: dict[type[yaml.Node], str] = {
    yaml.MappingNode: "a mapping",
    yaml.SequenceNode: "a list",
    yaml.ScalarNode: "a single value",
}


class Entry(NamedTuple):
    """A parameter's value or values in a file, as typed there."""

    texts: list[str]  # a single one, unless is_list
    line: int
    is_list: bool = False


Entries = dict[str, Entry]  # parameter -> its entry


class ParameterFile(NamedTuple):
    """A parameter file, read once."""

    path: str  # as given
    text: str
    committed: str  # its path in the project, if it is committed unchanged; empty otherwise
    entries: Entries
    points: list[Entries]  # below the key `points`

    def error(self, line: int, problem: str) -> UserError:
        """Return an error that names the file and the line."""
        return UserError(f"{self.path}:{line}: {problem}")

    @property
    def has_lists(self) -> bool:
        """Whether it holds lists or points, that is, describes a sweep."""
        return bool(self.points) or any(entry.is_list for entry in self.entries.values())

    def of(self, names: Mapping[str, object]) -> Entries:
        """Return its entries of some parameters."""
        return {name: entry for name, entry in self.entries.items() if name in names}

    def places(self, message: str, names: Sequence[str]) -> str:
        """Return the lines of the values that an error message is about, as `path:line`s.

        Those are the values that it quotes, other than as choices; failing that, those whose name
        and text both occur in it; failing that, those whose name does.

        Args:
            message: of the error.
            names: parameters to look for outside the points; those of points are all looked for.
        """
        stated = [(name, self.entries[name]) for name in names]
        stated += [pair for point in self.points for pair in point.items()]
        problem = message.partition(" Choose ")[0]
        quoted = [pair for pair in stated if any(repr(text) in problem for text in pair[1].texts)]
        mentioned = [pair for pair in stated if re.search(rf"\b{pair[0]}\b", message)]
        whole = [pair for pair in mentioned if any(text in message for text in pair[1].texts)]
        lines = sorted({entry.line for _, entry in quoted or whole or mentioned})
        return ", ".join(f"{self.path}:{line}" for line in lines)


def read_parameter_file(path: str) -> ParameterFile:
    """Read a parameter file; the caller checks that its parameters exist.

    Raises:
        UserError: there is no such file, or it is not YAML that maps names to values.
    """
    place = expand_home(path)
    try:
        content = place.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"No parameter file {path!r}: {reason}. Pass -P config=<file>, as it is named from the "
            f"project's folder, or its whole path."
        ) from error
    text = _decoded(path, content)
    root = _parsed(path, text)
    file = ParameterFile(path, text, committed_path(place, content), {}, [])
    if not isinstance(root, yaml.MappingNode):
        seen = KINDS[type(root)] if root else "nothing"
        line = _line(root) if root else 1
        raise file.error(line, f"expected a mapping of parameters, such as seed: 7; found {seen}.")
    entries, points = {}, []
    for name, node in _pairs(file, root):
        if name == POINTS:
            points = list(_points(file, node))
        else:
            entries[name] = _entry(file, name, node)
    return file._replace(entries=entries, points=points)


def _decoded(path: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: no UTF-8 text. Save the file as UTF-8.") from error


def _parsed(path: str, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        # a construct that is never closed fails at the end of the file: report where it began
        marks = [m for m in (error.problem_mark, error.context_mark) if m and m.index < len(text)]
        line, column = (marks[0].line, marks[0].column) if marks else (0, 0)
        is_tab = [*text.splitlines(), ""][line][column : column + 1] == "\t"
        problem = "a tab where YAML needs spaces" if is_tab else f"no YAML: {error.problem}"
        raise UserError(f"{path}:{line + 1}: {problem}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: no YAML: it holds U+{error.character:04X}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: no parameters: lists within lists, too deep to read.") from error


def _pairs(file: ParameterFile, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the names and values of a mapping; refuse a name that occurs twice."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            raise file.error(line, f"expected a name before the colon; found {KINDS[type(key)]}.")
        name = key.value
        if name in lines:
            raise file.error(line, f"{name} is there twice, in line {lines[name]} too. Keep one.")
        lines[name] = line
        yield name, value


def _entry(file: ParameterFile, name: str, node: yaml.Node) -> Entry:
    """Read the value of a parameter, or a list of values."""
    if not isinstance(node, yaml.SequenceNode):
        return Entry([_text(file, name, node)], _line(node))
    if not node.value:
        raise file.error(_line(node), f"{name} is an empty list. Put a value in, or take it out.")
    return Entry([_text(file, name, item) for item in node.value], _line(node), is_list=True)


def _text(file: ParameterFile, name: str, node: yaml.Node) -> str:
    """Return a value as typed: the parameter decides what it means, not YAML."""
    if not isinstance(node, yaml.ScalarNode):
        problem = f"{name} is {KINDS[type(node)]} where a value must be."
        raise file.error(_line(node), problem)
    if node.tag == NULL:
        raise file.error(_line(node), f'{name} has no value. Write "" for an empty one.')
    text = str(node.value)
    if "://" in text and without_credentials(text) != text:
        instead = "" if name != "source" else f" and let {name}: env:<NAME> read it from a variable"
        raise file.error(
            _line(node),
            f"{name} holds a user, a password or a query, and the file is kept with the run. Leave "
            f"them out{instead}.",
        )
    return text


def _points(file: ParameterFile, node: yaml.Node) -> Iterator[Entries]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise file.error(_line(node), f"{POINTS} must be a list of mappings, a point each.")
    for item in node.value:
        if not isinstance(item, yaml.MappingNode) or not item.value:
            raise file.error(_line(item), "a point must be a mapping, such as - seed: 7")
        yield {
            name: Entry([_text(file, name, value)], _line(value))
            for name, value in _pairs(file, item)
        }


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
