"""The module that `python -m steps.<name>` runs, and the parameters that it reads."""

import importlib
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from steps.common.command_line import make_parser, parse
from steps.common.parameters import ENTRY_POINTS


def entry(step: str) -> ModuleType:
    """Import an entry point, whether it is a file or a package."""
    module = ENTRY_POINTS[step].module()
    found = find_spec(module)
    is_package = found is not None and found.submodule_search_locations is not None
    return importlib.import_module(f"{module}.__main__" if is_package else module)


def parsed(step: str, *arguments: str) -> Any:
    """Read a command line as a step does."""
    return parse(ENTRY_POINTS[step], make_parser(ENTRY_POINTS[step], None), arguments)
