"""The model card: what a model was made from, how good it is, and what it must not be used for.

Source: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .bootstrap import CONFIDENCE, Interval
from .coverage import NOMINAL_COVERAGE, GroupCoverage
from .distances import DISTANCE_KINDS, distance_kind_of
from .evaluation import GroupErrors
from .gate import Check
from .schema import input_names, select_taxi
from .words import delimiter_row, drop_reasons_among, format_group, percent

MAX_NAMED_FEATURES = 60  # one-hot pairs of zones are too many to list
LIMITS = (
    "{Trips} in New York between TLC zones; no other city, car or kind of trip.",
    "Trips of 1 to 60 minutes: what is shorter or longer was left out, so a longer trip is "
    "predicted too short, and nobody should be promised an answer above 60.",
    "Zones and pairs that the train months do not have are guessed from their neighbours or not at "
    "all; the months after {last_month} may differ, which `-e score` measures.",
    "Its answer is a mean, and its quantiles hold for many trips, not for this one: no arrival may "
    "be promised by it, no fare set, and no driver or rider judged.",
)


class CardFacts(NamedTuple):
    """The contents of a card."""

    name: str
    taxi: str  # key of schema.TAXIS
    model: str
    outcome: str
    months: Mapping[str, Sequence[str]]  # split -> months
    files: Sequence[Mapping[str, Any]]  # rows of preprocess's months.csv
    splits_sha256: Mapping[str, str]
    is_simulated: bool
    feature_set: str
    features: Sequence[str]
    rmse_valid: float  # with metered distance
    scores: Mapping[str, Interval]  # on test, with metered distance
    rmse_by_distance: Mapping[str, float]  # kind of DISTANCE_KINDS -> RMSE on test, minutes
    n_without_distance: int  # test trips without a clean distance
    n_test: int
    checks: Sequence[Check]
    groups: Sequence[GroupErrors]  # errors on test
    coverage: Sequence[GroupCoverage]  # of the 80 % interval on test; empty without intervals
    fitted_to: Sequence[str]  # splits
    commit: str
    is_dirty: bool
    command: str
    slices: Sequence[Check] = ()  # against the champion


def write_card(facts: CardFacts, *, short: bool) -> str:
    """Write the card as markdown.

    Args:
        facts: its contents.
        short: leave out the rows for each file, hour and slice: a registry keeps 5000 characters.
    """
    rerun = [["## Run it again", "", f"    {facts.command}"]]
    sections = (
        _head(facts),
        # first, as a registry cuts off the end of a long text
        *(rerun if short else ()),
        _scores(facts),
        _distances(facts),
        _coverage(facts, short=short),
        _limits(facts),
        _data(facts, short=short),
        _features(facts),
        _gate(facts, short=short),
        _groups(facts, short=short),
        *(() if short else rerun),
    )
    return "\n".join("\n".join([*section, ""]) for section in sections)


def _head(facts: CardFacts) -> list[str]:
    data = (
        "simulated trips: it knows nothing about New York" if facts.is_simulated else "real trips"
    )
    dirty = " with uncommitted changes" if facts.is_dirty else ""
    return [
        f"# {facts.name}: the minutes of {select_taxi(facts.taxi).singular}",
        "",
        f"**{facts.model}**, {facts.outcome}. Trained by commit {facts.commit or 'none'}{dirty} on "
        f"{data}.",
    ]


def _scores(facts: CardFacts) -> list[str]:
    units = {"rmse": " min", "mae": " min", "r2": ""}
    rows = [
        f"| {name.upper()} | {score.value:.3f}{units[name]} | {score.low:.3f} to {score.high:.3f} |"
        for name, score in facts.scores.items()
    ]
    return [
        "## How good it is",
        "",
        f"On the test months {', '.join(facts.months['test'])}, opened once, with "
        f"{DISTANCE_KINDS[distance_kind_of(facts.taxi)]}; so measured, RMSE on the valid months is "
        f"{facts.rmse_valid:.3f} min.",
        "",
        f"| on test | found | {percent(CONFIDENCE, 0)} interval |",
        "|---|---|---|",
        *rows,
    ]


def _distances(facts: CardFacts) -> list[str]:
    name = input_names(facts.taxi).get("distance_miles")
    if name is None:
        return ["These trips never have a distance, so the model takes none."]
    rows = [[DISTANCE_KINDS[kind], f"{rmse:.3f}"] for kind, rmse in facts.rmse_by_distance.items()]
    return [
        f"`{name}` must be the planned distance, or missing: it was trained on the meter's, "
        f"which is known only after the trip. {facts.n_without_distance:,} of the "
        f"{facts.n_test:,} test trips have no usable distance.",
        "",
        *_table(["on test, with", "RMSE, min"], rows),
    ]


def _coverage(facts: CardFacts, *, short: bool) -> list[str]:
    if not facts.coverage:
        return ["It gives no quantiles: there were too few valid trips to measure its errors."]
    rows = [
        [
            *(one.kind, format_group(one.kind, one.group), f"{one.n_trips:,}"),
            *(percent(one.coverage), f"{one.width:.1f}"),
        ]
        for one in facts.coverage
        if not (short and one.kind == "hour")
    ]
    return [
        f"p10 to p90 should cover {percent(NOMINAL_COVERAGE, 0)} of the trips. On test:",
        "",
        *_table(["by", "group", "trips", "within", "mean width, min"], rows),
    ]


def _data(facts: CardFacts, *, short: bool) -> list[str]:
    rows = [
        f"| {split} | {', '.join(months)} | {_sum(facts, split, 'n_kept'):,} of "
        f"{_sum(facts, split, 'n_raw'):,} | {facts.splits_sha256[split][:16]} |"
        for split, months in facts.months.items()
    ]
    fitted_line = f"Once chosen, it was fitted to {' and '.join(facts.fitted_to)}."
    headers = ["| split | months | trips kept | sha256 |", "|---|---|---|---|"]
    lines = ["## Data", "", *headers, *rows, "", fitted_line]
    return lines if short else [*lines, "", *_files(facts)]


def _files(facts: CardFacts) -> list[str]:
    reasons = drop_reasons_among(facts.files[0])
    headers = ["month", "file", "sha256", *(f"dropped: {reason}" for reason in reasons)]
    rows = [
        [file["month"], file["uri"], f"`{file['sha256']}`", *(file[reason] for reason in reasons)]
        for file in facts.files
    ]
    return _table(headers, rows)


def _sum(facts: CardFacts, split: str, column: str) -> int:
    return sum(int(file[column]) for file in facts.files if file["split"] == split)


def _features(facts: CardFacts) -> list[str]:
    named = ", ".join(f"`{name}`" for name in facts.features[:MAX_NAMED_FEATURES])
    more = len(facts.features) - MAX_NAMED_FEATURES
    return [
        "## Features",
        "",
        f"`{facts.feature_set}`, {len(facts.features):,} columns: {named}"
        + (f" and {more:,} more" if more > 0 else ""),
    ]


def _gate(facts: CardFacts, *, short: bool) -> list[str]:
    rows = [
        [check.check, check.found, check.wanted, "yes" if check.passed else "**no**"]
        for check in [*facts.checks, *(() if short else facts.slices)]
    ]
    return ["## The gate", "", *_table(["check", "found", "wanted", "passed"], rows)]


def _groups(facts: CardFacts, *, short: bool) -> list[str]:
    rows = [
        [group.kind, format_group(group.kind, group.group), f"{group.n_trips:,}"]
        + [f"{value:.2f}" for value in (group.rmse, group.mae, group.bias)]
        for group in facts.groups
        if not (short and group.kind == "hour")
    ]
    headers = ["by", "group", "trips", "RMSE, min", "MAE, min", "bias, min"]
    distance_kind = DISTANCE_KINDS[distance_kind_of(facts.taxi)]
    return [f"## Errors by group, on test, with {distance_kind}", "", *_table(headers, rows)]


def _limits(facts: CardFacts) -> list[str]:
    last = max(month for split in ("train", "valid") for month in facts.months[split])
    taxi = select_taxi(facts.taxi)
    trips = f"{taxi.plural[0].upper()}{taxi.plural[1:]}"
    lines = [f"- {limit.format(Trips=trips, last_month=last)}" for limit in LIMITS]
    lines += [f"- {limit}" for limit in taxi.limits]
    return ["## What it must not be used for", "", *lines]


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    columns = zip(*([str(cell) for cell in row] for row in rows), strict=True)
    return [line(headers), line(delimiter_row(columns)), *map(line, rows)]
