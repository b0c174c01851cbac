"""Runs a search from where it was left, each trial a run, and shows how it went."""

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from steps.hpo.executor import TrialExecutor, lag_of, n_waiting
from storage import StorageError, StoreGoneError
from storage.repro import checkout
from storage.tracking import runs
from storage.tracking.trials import TrialRun, TrialRuns, earlier_points, n_finished
from taxi import features, search, search_report, spaces
from taxi.boosting import Outcome, PruningThreshold, Rows, TrainingJob, make_rows
from taxi.schema import Trips
from taxi.search import Failure, FinishedTrial, Trial
from taxi.spaces import SearchSpace

N_WARM = 5  # earlier searches whose best point is tried first


def run_search(
    space: SearchSpace, place: TrialExecutor, rows: Rows, args: argparse.Namespace
) -> list[Trial]:
    """Search, one child run per trial, and write the search's page; gives the trials, by number.

    Raises:
        TripError: too many trials failed, or none came to anything.
        StorageError: the store or the cluster went away.
    """
    common, n_parallel = in_common(space, args), args.parallelism or place.n_workers
    log = TrialRuns(search_key(space, rows, args), {"model": "xgboost"})
    space_key = key_of(space=space.describe(), features=args.features)
    mlflow.set_tags({"search_key": log.search_key, "space_key": space_key})
    known = log.recorded() if args.reuse else {}
    if args.warm_start:
        space = warm(space, log, known, space_key)

    def submit(point: dict[str, Any], bar: PruningThreshold | None) -> "Future[Outcome]":
        # two trials on a thread each do more than one trial on two
        parameters = common | point | {"nthread": 1}
        return place.submit(TrainingJob(parameters, space.rounds, space.patience, bar))

    journal = SearchLogger(log, common, args.max_evals if space.ranges else 1)
    with log, journal, kept(journal, args):
        for trial in search.search(
            space,
            submit,
            max_evals=args.max_evals,
            seed=args.seed,
            n_parallel=n_parallel,
            n_waiting=n_waiting(place, n_parallel),
            lag=lag_of(args.parallelism),
            recorded={number: as_finished(run) for number, run in known.items()},
            is_over=after(args.max_minutes),
        ):
            journal.note(trial, known)
        return journal.sum_up(args)


def search_key(space: SearchSpace, rows: Rows, args: argparse.Namespace) -> str:
    """Name what is searched: the same key, the same trials, however many of them.

    The rows stand for months, cleaning and features, whose code may change; how many trials run at
    once does not count, as long as a suggestion looks equally far back.
    """
    return key_of(
        rows=rows.key,
        space=space.describe(),
        common=in_common(space, args),
        seed=args.seed,
        lag=lag_of(args.parallelism),
        warm_start=args.warm_start,
        versions={name: version(name) for name in ("xgboost", "hyperopt", "numpy")},
    )


def n_done(train: Trips, valid: Trips, args: argparse.Namespace, experiment_id: str) -> int:
    """Count the trials that a search on these trips would find finished; nothing is changed."""
    rows = make_rows(features.fit_encoder(args.features, train), train, valid)
    key = search_key(spaces.select(args.search_space), rows, args)
    return min(n_finished(experiment_id, key), args.max_evals)


def in_common(space: SearchSpace, args: argparse.Namespace) -> dict[str, Any]:
    """Give xgboost's parameters that are the same in every trial."""
    return dict(space.fixed) | {"seed": args.seed, "device": args.device}


def key_of(**ingredients: Any) -> str:
    """Hash what JSON can say."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def warm(
    space: SearchSpace, log: TrialRuns, known: Mapping[int, TrialRun], space_key: str
) -> SearchSpace:
    """Have the best points of earlier searches tried first, and record which ones.

    A search that goes on tries those that it began with, whatever has been found since.
    """
    begun = next((run.tags["warm_start"] for run in known.values()), None)
    found = json.loads(begun) if begun else earlier_points(space_key, log.search_key, N_WARM)
    mine = [dict(point) for point in space.first]
    points = [point for n, point in enumerate(found) if point not in mine + found[:n]]
    log.tags["warm_start"] = json.dumps(points)
    mlflow.set_tag("warm_start", log.tags["warm_start"])
    print(f"search: warm start from {len(points)} earlier best points")
    return replace(space, first=(*space.first, *points))


def as_finished(run: TrialRun) -> FinishedTrial:
    """Read what an earlier process wrote of a trial."""
    outcome = Outcome(
        rmse=run.metrics["rmse"],
        best_round=int(run.metrics["best_round"]),
        curve=run.curve,
        seconds=run.metrics["train_seconds"],
        pruned=run.tags["pruned"] == "true",
        booster=None,
    )
    return FinishedTrial(run.params, outcome)


def after(minutes: float) -> Callable[[], bool]:
    """Make a clock that tells when so many minutes are over; never, for 0."""
    start = time.monotonic()
    return lambda: 0 < minutes * 60 <= time.monotonic() - start


@contextmanager
def kept(journal: "SearchLogger", args: argparse.Namespace) -> Iterator[None]:
    """Say how a search goes on that ends before it is done.

    Raises:
        StorageError: the store or the cluster went away; says how to go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"search: stopped; {journal.go_on(args)}", file=sys.stderr)
        raise
    except CancelledError as error:
        raise StorageError(
            f"The Dask cluster at {args.scheduler} went away; {journal.go_on(args)}"
        ) from error
    except MlflowException as error:
        if not runs.is_gone(error):
            raise
        place = checkout.without_credentials(mlflow.get_tracking_uri())
        raise StoreGoneError(
            f"The MLflow server at {place} went away and did not come back; {journal.go_on(args)}"
        ) from error


class SearchLogger:
    """Writes a search down as it goes: the trials' runs, the parent's metrics, the bar."""

    def __init__(self, log: TrialRuns, common: Mapping[str, Any], n_trials: int) -> None:
        """Begin the journal of n_trials, whose runs `log` writes; `common` holds for all."""
        self.log = log
        self.common = common
        self.n_trials = n_trials
        self.ended: dict[int, Trial] = {}
        self.run_ids: dict[int, str] = {}
        self.rmse = np.inf

    def __enter__(self) -> "SearchLogger":
        # disable=None: no bar unless stderr is a terminal
        self.bar = tqdm(total=self.n_trials, unit="trial", disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def note(self, trial: Trial, known: Mapping[int, TrialRun]) -> None:
        """Take in that a trial starts, or has ended."""
        if trial.result is None:
            self.log.start(trial.number)
            return
        if trial.is_recorded:
            self.run_ids[trial.number] = known[trial.number].run_id
        elif isinstance(trial.result, Failure):
            self.run_ids[trial.number] = self.log.fail(trial.number, trial.result.reason)
            tqdm.write(f"trial {trial.number} failed: {trial.result.reason}", file=sys.stderr)
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
                "best_round": outcome.best_round,
                "n_rounds": len(outcome.curve),
                "train_seconds": outcome.seconds,
            },
            curve=outcome.curve,
            tags={"pruned": str(outcome.pruned).lower()},
        )

    def _show(self, trial: Trial) -> None:
        if trial.outcome and not trial.outcome.pruned:
            self.rmse = min(self.rmse, trial.outcome.rmse)
        if np.isfinite(self.rmse):
            mlflow.log_metric("best_rmse", self.rmse, step=trial.number)
        states = self.states()
        self.bar.set_postfix(
            best=f"{self.rmse:.4f}", pruned=states["pruned"], failed=states["failed"]
        )
        self.bar.update()

    def states(self) -> Counter[str]:
        """Count how the trials ended."""
        return Counter(map(search_report.state_of, self.ended.values()))

    def go_on(self, args: argparse.Namespace) -> str:
        """Say what is kept, and the command that goes on from there."""
        n_kept = len(self.ended) - self.states()["failed"]
        return (
            f"{n_kept} of {self.n_trials} trials are kept. Go on from there with: "
            f"{checkout.run_command('hpo', vars(args))}"
        )

    def sum_up(self, args: argparse.Namespace) -> list[Trial]:
        """Write the search's page: counts, table, pictures; gives the trials, by number."""
        trials = [self.ended[number] for number in sorted(self.ended)]
        best = search.best_of(trials)
        states = self.states()
        n_recorded = sum(trial.is_recorded for trial in trials)
        mlflow.log_metrics(
            {f"n_trials_{state}": states[state] for state in ("finished", "pruned", "failed")}
            | {"n_trials_recorded": n_recorded}
        )
        mlflow.set_tags({"best_trial": best.number, "best_point": json.dumps(best.point)})
        rows = search_report.table(trials)
        runs.log_table(
            [{**row, "run_id": self.run_ids[row["trial"]]} for row in rows], "trials.csv"
        )
        self._draw(trials, args.seed)
        before = f", {n_recorded} from before" if n_recorded else ""
        print(
            f"search: {len(trials)} trials ({states['pruned']} pruned, {states['failed']} failed"
            f"{before}), best rmse {self.rmse:.4f} min, trial {best.number}"
        )
        return trials

    def _draw(self, trials: list[Trial], seed: int) -> None:
        mlflow.log_figure(search_report.draw_history(trials), "search.png")
        if len(trials) > 1:
            mlflow.log_figure(search_report.draw_parallel(trials), "parallel_coordinates.png")
        if found := search_report.importance(trials, seed):
            picture = search_report.draw_parameter_importance(found)
            mlflow.log_figure(picture, "parameter_importance.png")
