"""Estimate the time and memory that a pipeline will need, from earlier runs of its steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlflow.entities import Run

from steps.common.parameters import MainParameters
from storage.data import row_counts
from storage.data.months import MonthLocation
from storage.tracking import cost, runs, tags
from taxi import spaces

N_PAST = 20  # latest runs of a step that are considered
PER_GIB = 1024  # megabytes
# what a step needs for hardly any trips; assumed if all runs are of one size
FIXED_MINUTES, FIXED_GIB = 0.1, 0.35
# parameters in which runs must agree to be comparable, where the step has them
WORK_PARAMETERS = (
    *("models", "features", "search_space", "search_rows"),
    *("device", "scheduler", "refit", "refit_workers"),
)
MAX_FACTOR = 30  # a run with less than 1/30 of the wanted trips is ignored: it is all noise


class PastRun(NamedTuple):
    """What a finished run of a step needed."""

    n_trips: int  # trips of all splits that it read
    work: float  # the quantity that its time grows with
    minutes: float
    gib: float


class Need(NamedTuple):
    """The estimated need of a step's run."""

    minutes: float
    gib: float
    based_on: list[int]  # numbers of trips of the runs that it is estimated from, ascending


def describe_needs(
    params: MainParameters, n_trips: Mapping[str, int], n_trials: int, wanted: Sequence[str]
) -> Iterator[str]:
    """Say how many trips there are, what the steps will need, and if this machine has too little.

    Args:
        params: of the pipeline.
        n_trips: split -> number of trips; empty if unknown.
        n_trials: trials of the search that are still to be run.
        wanted: steps that will run.
    """
    if not n_trips:
        yield "trips: unknown until the months are here, and so are time and memory"
        return
    yield "trips: " + ", ".join(f"{split} {count:,}" for split, count in n_trips.items())
    past = read_past_runs(params) if wanted else {}
    n_all, needs = sum(n_trips.values()), {}
    for step in wanted:
        work = estimate_work(step, n_trips, params.search_rows, n_trials)
        if need := estimate(n_all, work, past.get(step, [])):
            needs[step] = need
    for step, need in needs.items():
        yield f"needs: {step} {format_need(need)}"
    if unknown := [step for step in wanted if step not in needs]:
        enough = f"no finished run did the same on at least {n_all // MAX_FACTOR:,} trips"
        yield f"needs: no estimate for {', '.join(unknown)}: {enough} here"
    yield from warn_of_memory(needs)


def count_trips(
    metrics: Mapping[str, float],
    splits: Mapping[str, Sequence[str]],
    locations: Sequence[MonthLocation],
) -> dict[str, int]:
    """Count the trips of each split: clean ones if known, else raw ones; {} if unknown.

    Args:
        metrics: of the preprocess run; empty if it has yet to run.
        splits: split -> months.
        locations: of these months.
    """
    if metrics:
        return {split: int(n) for split, n in tags.N_TRIPS.select(metrics).items()}
    of = {month.month: month for month in locations}
    counts = {
        split: row_counts.count_raw(of[name] for name in names) for split, names in splits.items()
    }
    known = {split: count for split, count in counts.items() if count is not None}
    return known if len(known) == len(counts) else {}


def read_past_runs(params: MainParameters) -> dict[str, list[PastRun]]:
    """Read what earlier runs in this experiment needed: step -> its runs, newest first."""
    experiment_id = runs.experiment_id()
    if not experiment_id:
        return {}
    found = {step: runs.latest_finished(experiment_id, step, N_PAST) for step in tags.RUN_IDS}
    trips = {run.info.run_id: run.data.metrics for run in found["preprocess"]}
    return {
        step: [
            past
            for run in of_step
            if (past := to_past_run(step, run, count_trips_read(run, trips), params)) is not None
        ]
        for step, of_step in found.items()
    }


def count_trips_read(run: Run, known: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """Count the trips of each split that a run read; {} if its preprocess run is not in `known`."""
    base = run.data.tags.get(tags.RUN_IDS["preprocess"], run.info.run_id)
    return {split: int(n) for split, n in tags.N_TRIPS.select(known.get(base, {})).items()}


def to_past_run(
    step: str, run: Run, n_trips: Mapping[str, int], params: MainParameters
) -> PastRun | None:
    """Read what a run needed; None if that is not recorded, or if it is not comparable."""
    metrics, values = run.data.metrics, params.texts()
    recorded = {name: runs.recorded_text(run.data.params, name) for name in WORK_PARAMETERS}
    differs = any(text not in (None, values[name]) for name, text in recorded.items())
    if tags.WALL_SECONDS not in metrics or not n_trips or differs:
        return None
    n_trials = sum(metrics.get(tags.N_TRIALS.of(one), 0) for one in ("finished", "pruned"))
    n_trials -= metrics.get(tags.N_TRIALS.of("recorded"), 0)
    work = estimate_work(step, n_trips, params.search_rows, n_trials)
    minutes, gib = metrics[tags.WALL_SECONDS] / 60, metrics.get(tags.PEAK_MEMORY, 0) / PER_GIB
    return PastRun(sum(n_trips.values()), work, minutes, gib) if work > 0 else None


def estimate_work(
    step: str, n_trips: Mapping[str, int], search_rows: int, n_trials: float
) -> float:
    """Return what the time of a step grows with: its trips, for a search train trips x trials."""
    if step != "hpo":
        return float(sum(n_trips.values()))
    max_trips = spaces.sample_size_for(n_trips.values(), search_rows)
    return n_trials * min(n_trips.get("train", 0), max_trips or max(n_trips.values()))


def estimate(n_trips: int, work: float, past: Sequence[PastRun]) -> Need | None:
    """Estimate what a step will need; None if no run of it had enough trips.

    Args:
        n_trips: number of trips that it will read.
        work: see `estimate_work`.
        past: its earlier runs, newest first.
    """
    known = [one for one in past if one.n_trips * MAX_FACTOR >= n_trips]
    if not known:
        return None
    return Need(
        extrapolate(work, [(one.work, one.minutes) for one in known], FIXED_MINUTES),
        extrapolate(n_trips, [(one.n_trips, one.gib) for one in known], FIXED_GIB),
        sorted({one.n_trips for one in known}),
    )


def extrapolate(wanted: float, known: Sequence[tuple[float, float]], fixed: float) -> float:
    """Extrapolate a value to a size, along the line through the smallest and the largest size.

    Args:
        wanted: the size.
        known: (size, value) pairs, newest first.
        fixed: the part that does not depend on size, assumed if all sizes are equal; the rest then
            grows in proportion.
    """
    newest = {size: value for size, value in reversed(known)}
    (least, low), (most, high) = min(newest.items()), max(newest.items())
    if least == most:
        fixed = min(fixed, high)
        return fixed + (high - fixed) * wanted / most
    slope = max(high - low, 0) / (most - least)
    return max(low + slope * (wanted - least), 0.0)


def format_need(need: Need) -> str:
    """Write what a step will need, and from which runs: "at most" if they are all of one size."""
    span = dict.fromkeys((need.based_on[0], need.based_on[-1]))
    words, based_on = "about" if len(span) > 1 else "at most", " to ".join(f"{n:,}" for n in span)
    minutes = f"{need.minutes:,.0f}" if need.minutes >= 10 else f"{need.minutes:.1f}"
    return f"{words} {minutes} min and {need.gib:.1f} GiB, estimated from runs on {based_on} trips"


def warn_of_memory(needs: Mapping[str, Need]) -> Iterator[str]:
    """Yield a one-line warning if a step needs more memory than this machine has."""
    has = cost.machine_megabytes() / PER_GIB
    step, need = max(needs.items(), key=lambda item: item[1].gib, default=("", None))
    if need and need.gib > has:
        yield (
            f"warning: {step} may need {need.gib:.1f} GiB, and this machine has {has:.1f}. "
            f"Take fewer months, a larger machine, or workers (scheduler)."
        )
