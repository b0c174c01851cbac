"""What `python -m steps.<step> --help` shows."""

import re

import pytest

from steps.common.command_line import choices, make_parser
from steps.common.parameters import ENTRY_POINTS
from steps.common.validate import check_pipeline
from taxi import TripError
from taxi.baselines import BASELINES
from taxi.features import FEATURE_SETS
from taxi.spaces import SEARCH_SPACES
from tests.entry import parsed


def shown(step: str) -> dict[str, str]:
    """Read the help of a step: group -> its text, without line breaks."""
    parts = make_parser(ENTRY_POINTS[step], None).format_help().split("\n\n")
    return {title: " ".join(text.split()) for title, _, text in (p.partition(":\n") for p in parts)}


@pytest.mark.parametrize(
    ("step", "groups"),
    [
        ("preprocess", ["months", "how it runs"]),
        ("hpo", ["months", "finished runs to build on", "search", "how it runs"]),
        ("score", ["months", "scoring", "how it runs"]),
    ],
)
def test_help_is_grouped_by_what_parameters_are_about(step: str, groups: list[str]) -> None:
    usage, options, *rest = shown(step)
    assert (usage[:6], options) == ("usage:", "options")
    assert rest == groups


def test_every_parameter_stands_in_one_group() -> None:
    groups = list(shown("main").values())
    for name in ENTRY_POINTS["main"].model_fields:
        assert sum(bool(re.search(rf"--{name} ", text)) for text in groups) == 1, name


def test_help_lists_what_a_parameter_may_be() -> None:
    groups = shown("main")
    assert f"--features {{{','.join(FEATURE_SETS)}}} " in groups["search"]
    assert f"--search_space {{{','.join(SEARCH_SPACES)}}} " in groups["search"]
    assert f": {', '.join(BASELINES)} (default: all)" in groups["baselines"]
    assert "--reuse {true,false} " in groups["how it runs"]
    assert "--max_rmse N " in groups["registration"]
    assert "(default: )" not in "".join(groups.values())


def test_what_help_lists_is_taken_and_anything_else_refused() -> None:
    wanted = {"taxi", "features", "search_space", "device", "refit", "judge_by", "models"}
    assert choices().keys() == wanted | {"live"}
    for name in wanted - {"device"}:  # that check would look for a GPU
        for value in choices()[name]:
            check_pipeline(parsed("main", f"--{name}={value}"))
    for name in wanted:
        with pytest.raises(TripError, match="'nothing of the kind'"):
            check_pipeline(parsed("main", f"--{name}=nothing of the kind"))
