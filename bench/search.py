"""What the search costs: compared with the course's loop, without pruning, and its tracking."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from statistics import fmean
from time import perf_counter
from typing import Any

from bench import DATA, Result
from bench.search_lab import MONTHS, SEED, real_rows, run, run_id, searched, settings_of, store
from steps.hpo.search import SearchLogger
from storage.tracking import runs
from storage.tracking.processes import n_cores
from storage.tracking.trials import TrialRuns
from taxi import search, spaces
from taxi.boosting import Outcome, PruningThreshold

N_TRIALS = 50
N_COURSE = 6  # trials of the course's own search, from which the cost of its 50 is estimated
YEARS = " / ".join(MONTHS)
N_TRACKED, N_ROUNDS = 100, 250


def measure_cost() -> Iterator[Result]:
    """Time, one by one, the course's loop, our search with its choice, and the whole step."""
    with store() as uri:
        run(uri, "steps.preprocess", f"--source={DATA}", "--test_months=")
        printed, course = run(uri, "bench.course", str(N_COURSE))
        given = f"--preprocess_run_id={run_id(uri, 'preprocess')}"
        _, step = run(uri, "steps.hpo", given, f"--max_evals={N_TRIALS}", f"--seed={SEED}")
    found = searched(spaces.select_space("lossguide"), real_rows("2021"))
    ours = found.search.wall + found.choice.wall
    trials = json.loads(printed.splitlines()[-1])
    wall = N_TRIALS * fmean(trials)
    # only the trials count on the course's side, not the rest of its process
    cpu = wall * course.cpu / course.wall
    yield Result(
        f"course's {N_TRIALS} trials ({N_COURSE} of them run: {min(trials):.0f} to "
        f"{max(trials):.0f} s) over our {N_TRIALS} and the choice, tracked, {n_cores()} cores",
        f"{wall / ours:.0f}x ({wall / 60:.0f} min / {ours:.0f} s)",
        "75x",
    )
    yield Result(
        "the same in CPU time",
        f"{cpu / (found.search.cpu + found.choice.cpu):.0f}x",
        "",
    )
    yield Result(
        "the same over the whole step hpo, its start, models and pictures included",
        f"{wall / step.wall:.0f}x ({step.wall:.0f} s)",
        "",
    )


def measure_pruning() -> Iterator[Result]:
    """Search with and without pruning on both years, and train the space's first point alone."""
    pruned = spaces.select_space("lossguide")
    first = replace(
        pruned, ranges={}, fixed={**pruned.fixed, **pruned.parameters(0, pruned.first[0])}
    )
    # with pruning before and after, so that other load on the machine affects both variants
    variants = [pruned, replace(pruned, pruning=None), pruned, first]
    found = [[searched(space, real_rows(year)) for space in variants] for year in MONTHS]
    yield Result(
        f"search without pruning over with, CPU seconds, {YEARS}",
        " / ".join(
            f"{without.search.cpu / fmean([one.search.cpu, two.search.cpu]):.2f}x"
            for one, without, two, _ in found
        ),
        "2x",
    )
    yield Result(
        f"the same in boosting rounds, {YEARS}",
        " / ".join(f"{without.n_rounds / one.n_rounds:.2f}x" for one, without, *_ in found),
        "",
    )
    yield Result(
        f"chosen boosters' valid RMSE with pruning, less without, {YEARS}",
        " / ".join(f"{one.rmse - without.rmse:+.3f}" for one, without, *_ in found),
        "0.01",
    )
    yield Result(
        f"valid RMSE of the boosters chosen from {N_TRIALS} trials, {YEARS}",
        " / ".join(f"{one.rmse:.3f} min" for one, *_ in found),
        "",
    )
    yield Result(
        f"valid RMSE of the space's first point alone, {YEARS}",
        " / ".join(f"{first.rmse:.3f} min" for *_, first in found),
        "",
    )


def measure_tracking() -> Iterator[Result]:
    """Write trials with curves of N_ROUNDS to sqlite; their outcomes are made up, not trained."""
    space, rows = spaces.select_space("lossguide"), real_rows("2021")
    settings, seconds = settings_of(space), 0.0
    with store(), runs.StepRun("hpo", "bench"):
        log = TrialRuns(rows.key, {"model": "xgboost"})
        logger = SearchLogger(log, settings.common, N_TRACKED)
        with log, logger:
            for trial in search.search(
                space, told_at_once, max_evals=N_TRACKED, seed=SEED, n_parallel=1
            ):
                start = perf_counter()
                logger.log_trial(trial, {})
                seconds += perf_counter() - start
    yield Result(
        f"tracking into sqlite, per trial with a curve of {N_ROUNDS} rounds",
        f"{seconds / N_TRACKED:.3f} s",
        "0.15 s",
    )


def told_at_once(point: dict[str, Any], bar: PruningThreshold | None) -> "Future[Outcome]":
    """Make up the outcome of a trial."""
    curve = [5 + point["subsample"] / (number + 1) for number in range(N_ROUNDS)]
    future: Future[Outcome] = Future()
    future.set_result(Outcome(curve[-1], N_ROUNDS - 1, curve, 1.0, pruned=False, booster=None))
    return future
