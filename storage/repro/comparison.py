"""The results of a pipeline compared with those of its repetition: what moved, and how far."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from storage.tracking import tags

Facts = dict[str, str]  # what is compared: name of a metric or hash -> value
NUMBER = re.compile(r"-?(\d+\.\d+|\d(\.\d+)?e[+-]?\d+)")  # a float as Python writes it, not a hash
MISSING = "not there"


class Difference(NamedTuple):
    """A fact that differs in the repetition."""

    what: str
    before: str
    after: str

    @property
    def moved(self) -> float | None:
        """By how much the number moved; None if it is not a number."""
        is_number = NUMBER.fullmatch(self.before) and NUMBER.fullmatch(self.after)
        return float(self.after) - float(self.before) if is_number else None

    @property
    def share(self) -> float | None:
        """The same as a share of the first value; None if there is none, or it was 0."""
        is_zero = self.moved is None or float(self.before) == 0
        return None if is_zero or self.moved is None else self.moved / abs(float(self.before))

    def __str__(self) -> str:
        moved, share = self.moved, self.share
        far = "" if moved is None else f" ({moved:+.3g}"
        far += "" if share is None else f", {100 * share:+.2g} %"
        return f"{self.what}: {self.before} became {self.after}{far}{')' if far else ''}"


class Row(NamedTuple):
    """A run of the pipeline, compared with its repetition."""

    name: str
    n_facts: int
    differences: list[Difference]

    @property
    def furthest(self) -> Difference | None:
        """The largest difference, by share; one without a share counts as larger than any."""
        shares = [1e9 if one.share is None else abs(one.share) for one in self.differences]
        return self.differences[shares.index(max(shares))] if shares else None

    def cells(self) -> dict[str, object]:
        """Return the row of verify.csv."""
        far = self.furthest
        counts = {"run": self.name, "compared": self.n_facts, "differing": len(self.differences)}
        values = (far.what, far.before, far.after, far.moved, far.share) if far else ("",) * 5
        names = ("furthest", "first_time", "again", "moved", "moved_share")
        return counts | {k: "" if v is None else v for k, v in zip(names, values, strict=True)}


def compare_runs(name: str, before: Facts, after: Mapping[str, str] | None) -> Row:
    """Compare a run with its repetition; `after` is None if it did not run again."""
    if after is None:
        return Row(name, len(before), [Difference("the run", "there", MISSING)])
    differences = [
        Difference(what, before.get(what, MISSING), after.get(what, MISSING))
        for what in sorted({*before, *after})
        if before.get(what) != after.get(what)
    ]
    return Row(name, len(before), differences)


def comparison_table(rows: Sequence[Row]) -> Iterator[str]:
    """Format the comparison: a line for each run and each difference, and a summary."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        verdict = "differs" if row.differences else "identical"
        yield f"{row.name:<{width}}  {row.n_facts:>3} compared, {verdict}"
        yield from (f"    {difference}" for difference in row.differences)
    yield verdict_line(rows)


def verdict_line(rows: Sequence[Row]) -> str:
    """Sum a comparison up: the first difference, and the number that moved furthest."""
    n_facts, differing = sum(row.n_facts for row in rows), [row for row in rows if row.differences]
    summary = f"{n_facts} metrics and hashes of {len(rows)} runs: "
    if not differing:
        return f"{summary}all identical"
    found = [(row.name, one) for row in sorted(differing, key=_sort_key) for one in row.differences]
    summary += f"{len(differing)} runs differ" if differing[1:] else "1 run differs"
    summary += f", first {found[0][0]}, {found[0][1]}"
    furthest = max(found, key=lambda pair: abs(pair[1].share or 0))
    if furthest[1].share and furthest != found[0]:
        summary += f"; the largest change is {furthest[0]}, {furthest[1]}"
    return summary


ORDER = (*tags.RUN_IDS, "main")  # later steps repeat the numbers of earlier ones


def _sort_key(row: Row) -> tuple[int, bool]:
    """Return the sort key of a run: steps in order, child runs before their parent."""
    step = row.name.partition("/")[0]
    return ORDER.index(step), step == row.name
