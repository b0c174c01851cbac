"""A file of parameters: YAML, each name with its value or, for a sweep, a list of values."""

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
    """What a file says of one parameter, as it is typed there."""

    texts: list[str]  # one, unless it is a list
    line: int
    is_list: bool = False


Entries = dict[str, Entry]  # parameter -> what the file says of it


class ParameterFile(NamedTuple):
    """A file of parameters, read once."""

    path: str  # as it was given
    text: str
    committed: str  # its path in the project where the commit holds it as it is; empty: it does not
    entries: Entries
    points: list[Entries]  # below the key of that name

    def error(self, line: int, problem: str) -> UserError:
        """Say what is wrong in a line."""
        return UserError(f"{self.path}:{line}: {problem}")

    @property
    def has_lists(self) -> bool:
        """Whether it spans a sweep."""
        return bool(self.points) or any(entry.is_list for entry in self.entries.values())

    def of(self, names: Mapping[str, object]) -> Entries:
        """Return what it says of some parameters."""
        return {name: entry for name, entry in self.entries.items() if name in names}

    def places(self, message: str, names: Sequence[str]) -> str:
        """Say on which lines the values stand that a message is about.

        They are those that it quotes, unless as choices; where it quotes none, those of which it
        has name and text; where there are none either, those of which it has the name.

        Args:
            message: of a refusal.
            names: of parameters beside points, that are looked for; those of points all are.
        """
        stated = [(name, self.entries[name]) for name in names]
        stated += [pair for point in self.points for pair in point.items()]
        said = message.partition(" Choose ")[0]
        quoted = [pair for pair in stated if any(repr(text) in said for text in pair[1].texts)]
        spoken_of = [pair for pair in stated if re.search(rf"\b{pair[0]}\b", message)]
        whole = [pair for pair in spoken_of if any(text in message for text in pair[1].texts)]
        lines = sorted({entry.line for _, entry in quoted or whole or spoken_of})
        return ", ".join(f"{self.path}:{line}" for line in lines)


def read_parameter_file(path: str) -> ParameterFile:
    """Read a file of parameters; whether there are such parameters is for others to say.

    Raises:
        UserError: there is no such file, it is no YAML, or no mapping of names to values.
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
        raise file.error(
            line, f"a mapping of parameters must stand here, such as seed: 7; {seen} does."
        )
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
        # what ends nowhere is told by where it began
        marks = [m for m in (error.problem_mark, error.context_mark) if m and m.index < len(text)]
        line, column = (marks[0].line, marks[0].column) if marks else (0, 0)
        is_tab = [*text.splitlines(), ""][line][column : column + 1] == "\t"
        said = "a tab stands where YAML wants blanks" if is_tab else f"no YAML: {error.problem}"
        raise UserError(f"{path}:{line + 1}: {said}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: no YAML: it holds U+{error.character:04X}.") from error
    except RecursionError as error:
        raise UserError(f"{path}: no parameters: lists within lists, too deep to read.") from error


def _pairs(file: ParameterFile, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the names of a mapping with what they stand for, each once."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            raise file.error(line, f"a name must stand before the colon; {KINDS[type(key)]} does.")
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
    """Return a value as it is typed: what it means is for the parameter to say, not for YAML."""
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
