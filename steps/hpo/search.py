"""Run or resume a search, with a child run per trial, and log how it went."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import mlflow
import numpy as np

from steps.common import page
from steps.common.search_key import SearchSettings
from steps.hpo.ensemble import make_job
from steps.hpo.executor import TrialExecutor
from storage.terminal import Progress
from storage.tracking import artifacts, store, tags
from storage.tracking.trials import TrialRun, TrialRuns, earlier_points
from taxi import search, search_pictures, search_results
from taxi.boosting import Outcome, PruningThreshold
from taxi.search import Failure, FinishedTrial, Trial
from taxi.spaces import SearchSpace
from taxi.words import format_count

N_WARM_POINTS = 5  # earlier searches whose best point is tried


class Budget(NamedTuple):
    """How long and how parallel a search is; none of it changes a trial."""

    max_evals: int
    max_minutes: float  # 0 = no limit
    parallelism: int  # trials at once; 0 = as many as the executor has workers


def run_search(
    settings: SearchSettings,
    budget: Budget,
    executor: TrialExecutor,
    log: TrialRuns,
    *,
    reuse: bool,
    resume: Callable[[], str],
) -> list[Trial]:
    """Search, with a child run per trial, and log the search's results.

    Args:
        settings: what is searched.
        budget: how far it goes.
        executor: trains the boosters.
        log: the trials' runs, for this search's key.
        reuse: whether to resume from trials that an earlier process finished.
        resume: returns the command that resumes the search.
    Returns:
        The trials, ordered by number.
    Raises:
        TripError: too many trials failed, or no trial has a result.
        StorageError: the store or the cluster went away.
    """
    space, common = settings.space, settings.common
    mlflow.set_tags({tags.SEARCH_KEY: log.search_key, tags.SPACE_KEY: settings.space_key})
    finished = log.recorded() if reuse else {}
    if settings.warm_start:
        space = start_warm(space, log, finished, settings.space_key)

    def submit(
        point: dict[str, Any], pruning_threshold: PruningThreshold | None
    ) -> "Future[Outcome]":
        job = make_job(settings, point)._replace(pruning_threshold=pruning_threshold)
        return executor.submit(job)

    n_parallel = budget.parallelism or executor.n_workers
    logger = SearchLogger(log, common, budget.max_evals if space.ranges else 1)
    # the logger is entered last: the hint must be printed after its progress bar is closed
    with log, resume_hint(logger, executor, resume), logger:
        for trial in search.search(
            space,
            submit,
            max_evals=budget.max_evals,
            seed=settings.seed,
            n_parallel=n_parallel,
            n_waiting=executor.n_waiting(n_parallel),
            lag=settings.lag,
            finished={number: to_finished_trial(run, space) for number, run in finished.items()},
            should_stop=after(budget.max_minutes),
        ):
            logger.log_trial(trial, finished)
        logger.log_page()
    return logger.trials()


def start_warm(
    space: SearchSpace, log: TrialRuns, finished: Mapping[int, TrialRun], space_key: str
) -> SearchSpace:
    """Add the best points of earlier searches after the space's own first points, and record them.

    A resumed search keeps the points that it began with, whatever searches have ended since.
    """
    begun = next((run.tags[tags.WARM_START] for run in finished.values()), None)
    earlier = (
        json.loads(begun) if begun else earlier_points(space_key, log.search_key, N_WARM_POINTS)
    )
    own = [dict(point) for point in space.first]
    if not begun:
        earlier = [space.point(parameters) for parameters in earlier]
    points = [point for n, point in enumerate(earlier) if point not in own + earlier[:n]]
    log.tags[tags.WARM_START] = json.dumps(points)
    mlflow.set_tag(tags.WARM_START, log.tags[tags.WARM_START])
    print(f"search: warm start from {len(points)} earlier best points")
    return replace(space, first=(*space.first, *points))


def to_finished_trial(run: TrialRun, space: SearchSpace) -> FinishedTrial:
    """Read a trial of this space from the run that an earlier process logged."""
    outcome = Outcome(
        rmse=run.metrics["rmse"],
        best_round=int(run.metrics[tags.BEST_ROUND]),
        curve=run.curve,
        seconds=run.metrics[tags.TRAIN_SECONDS],
        pruned=run.tags[tags.PRUNED] == "true",
        booster=None,
        score_every=space.score_every,
    )
    return FinishedTrial(run.params, outcome)


def after(minutes: float) -> Callable[[], bool]:
    """Return a function that tells whether so many minutes have passed since; never, for 0."""
    start = time.monotonic()
    return lambda: 0 < minutes * 60 <= time.monotonic() - start


@contextmanager
def resume_hint(
    logger: "SearchLogger", executor: TrialExecutor, resume: Callable[[], str]
) -> Iterator[None]:
    """Tell, if a search ends early, how many trials are kept and which command resumes it.

    Raises:
        StorageError: the store or the cluster went away.
    """

    def hint() -> str:
        kept = f"{logger.n_kept} of {logger.n_trials} trials are kept"
        return f"{kept}. Go on from there with: {resume()}"

    try:
        with store.loss_as_error(hint), executor.loss_as_error(hint):
            yield
    except KeyboardInterrupt:
        print(f"search: stopped; {hint()}", file=sys.stderr)
        raise


class SearchLogger:
    """Logs a search as it goes: the trials' runs, the parent's metrics, the progress bar."""

    def __init__(self, log: TrialRuns, common: Mapping[str, Any], n_trials: int) -> None:
        """Start logging.

        Args:
            log: writes the trials' runs.
            common: parameters that all trials share.
            n_trials: how many trials the search runs.
        """
        self.log = log
        self.common = common
        self.n_trials = n_trials
        self.ended: dict[int, Trial] = {}
        self.run_ids: dict[int, str] = {}
        self.rmse = np.inf

    def __enter__(self) -> "SearchLogger":
        self.progress = Progress("search", self.n_trials, "trials")
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.close()

    @property
    def n_kept(self) -> int:
        """Number of trials that a resumed search need not run again."""
        return len(self.ended) - self.states()["failed"]

    def states(self) -> Counter[str]:
        """Count how the trials ended."""
        return Counter(map(search_results.state_of, self.ended.values()))

    def trials(self) -> list[Trial]:
        """Return the trials, ordered by number."""
        return [self.ended[number] for number in sorted(self.ended)]

    def log_trial(self, trial: Trial, finished: Mapping[int, TrialRun]) -> None:
        """Log that a trial starts, or has ended."""
        if trial.result is None:
            self.log.start(trial.number)
            return
        if trial.is_reused:
            self.run_ids[trial.number] = finished[trial.number].run_id
        elif isinstance(trial.result, Failure):
            self.run_ids[trial.number] = self.log.fail(trial.number, trial.result.reason)
            print(f"trial {trial.number} failed: {trial.result.reason}", file=sys.stderr)
        else:
            self.run_ids[trial.number] = self._finish(trial, trial.result)
        self.ended[trial.number] = trial
        self._show(trial)

    def _finish(self, trial: Trial, outcome: Outcome) -> str:
        return self.log.finish(
            trial.number,
            params={**self.common, **trial.point},
            metrics={
                "rmse": outcome.rmse,
                tags.BEST_ROUND: outcome.best_round,
                tags.N_ROUNDS: outcome.n_rounds,
                tags.TRAIN_SECONDS: outcome.seconds,
                tags.WALL_SECONDS: outcome.seconds,
                tags.CPU_SECONDS: outcome.cpu_seconds,
                tags.PEAK_MEMORY: outcome.peak_megabytes,
            },
            curve=dict(zip(outcome.rounds, outcome.curve, strict=True)),
            tags={
                tags.PRUNED: str(outcome.pruned).lower(),
                tags.NOTE: page.trial_page(
                    trial.number,
                    rmse=outcome.rmse,
                    best_round=outcome.best_round,
                    n_rounds=outcome.n_rounds,
                    pruned=outcome.pruned,
                ),
            },
        )

    def _show(self, trial: Trial) -> None:
        if trial.outcome and not trial.outcome.pruned:
            self.rmse = min(self.rmse, trial.outcome.rmse)
        if np.isfinite(self.rmse):
            # the step counts ended trials: those end in any order, and so the curve never rises
            mlflow.log_metric(tags.BEST_RMSE, self.rmse, step=len(self.ended) - 1)
        states = self.states()
        ended = [f"{states[state]} {state}" for state in ("pruned", "failed") if states[state]]
        best = [f"best rmse {self.rmse:.4f} min"] if np.isfinite(self.rmse) else []
        self.progress.update(note=", ".join([*best, *ended]))

    def log_page(self) -> None:
        """Log the results of the search: counts, best point, tables, pictures."""
        trials = self.trials()
        best, states = search.best_trial(trials), self.states()
        n_recorded = sum(trial.is_reused for trial in trials)
        counts = {state: states[state] for state in ("finished", "pruned", "failed")}
        counts["recorded"] = n_recorded
        mlflow.log_metrics({tags.N_TRIALS.of(state): n for state, n in counts.items()})
        mlflow.set_tags({tags.BEST_TRIAL: best.number, tags.BEST_POINT: json.dumps(best.point)})
        rows = search_results.trials_table(trials)
        with_runs = [{**row, "run_id": self.run_ids[row["trial"]]} for row in rows]
        artifacts.log_table(with_runs, tags.TRIALS_TABLE)
        artifacts.log_table(search_results.curves_table(trials), tags.CURVES_TABLE)
        log_pictures(trials, self.common["seed"])
        before = f", {n_recorded} from before" if n_recorded else ""
        ended = f"{states['pruned']} pruned, {states['failed']} failed{before}"
        found = f"best rmse {self.rmse:.4f} min, trial {best.number}"
        print(f"search: {format_count(len(trials), 'trial')} ({ended}), {found}")


def log_pictures(trials: list[Trial], seed: int) -> None:
    """Log pictures of the history, the points, and the importance of the parameters."""
    artifacts.log_figure(search_pictures.draw_history(trials), tags.SEARCH_PICTURE)
    if len(trials) > 1:
        artifacts.log_figure(search_pictures.draw_parallel(trials), tags.PARALLEL_PICTURE)
    if importance := search_results.parameter_importance(trials, seed):
        picture = search_pictures.draw_parameter_importance(importance)
        artifacts.log_figure(picture, tags.PARAMETER_PICTURE)
