"""Search spaces, one trial, and the ask/tell loop over any executor."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import xgboost as xgb
from hyperopt import Domain, Trials, hp, space_eval, tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_OK
from hyperopt.pyll.base import scope

from . import TripError

# Suggestion n looks at the trials up to n - LAG, all of them finished. So what is asked depends on
# no race: up to LAG trials at once give the same search as one at a time, to the last bit.
LAG = 8


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what every trial has in common."""

    space: Mapping[str, Any]  # hyperopt expressions by xgboost's parameter names; empty = no search
    fixed: Mapping[str, Any]
    rounds: int = 1000  # of a trial, at most
    patience: int = 50  # rounds without a better RMSE that end a trial
    first: tuple[Mapping[str, float], ...] = ()  # points tried before anything is suggested
    refit: Mapping[str, Any] = field(default_factory=dict)  # what differs when the winner is refit
    refit_rounds: int = 1000
    n_boosters: int = 1  # of the refit, alike but for the seed; their predictions are averaged


COURSE = {"objective": "reg:squarederror"}
LOSSGUIDE = {
    "objective": "reg:squarederror",
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_depth": 0,
}

SEARCH_SPACES: dict[str, SearchSpace] = {
    # the course's own space
    "seed": SearchSpace(
        space={
            "max_depth": scope.int(hp.quniform("max_depth", 4, 100, 1)),
            "learning_rate": hp.loguniform("learning_rate", -3, 0),
            "reg_alpha": hp.loguniform("reg_alpha", -5, -1),
            "reg_lambda": hp.loguniform("reg_lambda", -6, -1),
            "min_child_weight": hp.loguniform("min_child_weight", -1, 3),
        },
        fixed=COURSE,
    ),
    # the course's best point: one trial, nothing to search
    "course_best": SearchSpace(
        space={},
        fixed=COURSE
        | {
            "max_depth": 30,
            "learning_rate": 0.09585355369315604,
            "min_child_weight": 1.060597050922164,
            "reg_alpha": 0.018060244040060163,
            "reg_lambda": 0.011658731377413597,
        },
    ),
    # trees bounded by leaves; fast while searching, slower and better when the winner is refit
    "lossguide": SearchSpace(
        space={
            # hyperopt samples floats; xgboost wants whole leaves
            "max_leaves": scope.int(hp.qloguniform("max_leaves", np.log(16), np.log(256), 1)),
            "min_child_weight": hp.loguniform("min_child_weight", np.log(1), np.log(100)),
            "subsample": hp.uniform("subsample", 0.5, 1),
            "colsample_bytree": hp.uniform("colsample_bytree", 0.3, 1),
            "reg_alpha": hp.loguniform("reg_alpha", np.log(1e-3), np.log(10)),
            "reg_lambda": hp.loguniform("reg_lambda", np.log(1e-3), np.log(100)),
        },
        fixed=LOSSGUIDE | {"learning_rate": 0.15},
        patience=20,
        first=(
            {
                "max_leaves": 64,
                "min_child_weight": 10,
                "subsample": 0.8,
                "colsample_bytree": 0.5,
                "reg_alpha": 1e-3,
                "reg_lambda": 20,
            },
        ),
        refit={"learning_rate": 0.1},
        n_boosters=5,
    ),
}


def select(name: str) -> SearchSpace:
    """Look a search space up.

    Raises:
        TripError: there is none of that name.
    """
    if name not in SEARCH_SPACES:
        raise TripError(f"Unknown search_space {name!r}. Choose from {sorted(SEARCH_SPACES)}.")
    return SEARCH_SPACES[name]


class Outcome(NamedTuple):
    """What training one booster came to."""

    rmse: float  # minutes, on valid, at the best round
    best_round: int  # counted from 0
    curve: list[float]  # valid RMSE after each round
    seconds: float
    booster: xgb.Booster | None  # cut to its best round; None where only the score was asked for


class Trial(NamedTuple):
    """One point of the search; outcome is None while it runs."""

    number: int
    point: dict[str, Any]  # parameter -> value, as xgboost takes them
    outcome: Outcome | None


class Matrices(NamedTuple):
    """Train and valid rows as xgboost holds them, shared by all trials of a process."""

    train: xgb.DMatrix
    valid: xgb.DMatrix


def build_matrices(train: Any, train_y: Any, valid: Any, valid_y: Any) -> Matrices:
    """Bin dense features once for all trials; leave the sparse one-hot as it is.

    Args:
        train, valid: [n, k] float32 or CSR. train_y, valid_y: minutes [n].
    """
    if isinstance(train, np.ndarray):
        first = xgb.QuantileDMatrix(train, train_y)
        return Matrices(first, xgb.QuantileDMatrix(valid, valid_y, ref=first))
    # a quantile matrix gains nothing on one-hot columns and costs ninefold
    return Matrices(xgb.DMatrix(train, train_y), xgb.DMatrix(valid, valid_y))


def fit(
    matrices: Matrices, parameters: Mapping[str, Any], *, rounds: int, patience: int, keep: bool
) -> Outcome:
    """Train until valid RMSE has not improved for `patience` rounds.

    Args:
        matrices: what to train on and to stop by.
        parameters: xgboost's.
        rounds: at most so many trees.
        patience: rounds without improvement that end it.
        keep: give the booster back too.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    start = perf_counter()
    booster = xgb.train(
        dict(parameters),
        matrices.train,
        rounds,
        evals=[(matrices.valid, "valid")],
        early_stopping_rounds=patience,
        evals_result=curves,
        verbose_eval=False,
    )
    return Outcome(
        rmse=float(booster.best_score),
        best_round=booster.best_iteration,
        curve=curves["valid"]["rmse"],
        seconds=perf_counter() - start,
        booster=booster[: booster.best_iteration + 1] if keep else None,
    )


def search(
    space: SearchSpace,
    objective: Callable[[Mapping[str, Any]], Outcome],
    *,
    max_evals: int,
    seed: int,
    executor: Executor,
    n_parallel: int,
) -> Iterator[Trial]:
    """Ask for points, have them tried, tell the outcomes; TPE after the first random ones.

    Args:
        space: what to search; without dimensions one trial is made.
        objective: tries a point; runs in the executor.
        max_evals: trials in all.
        seed: suggestion n depends on it, on n and on the outcomes up to n - LAG alone.
        executor: runs the trials.
        n_parallel: trials at once, at most LAG.
    Yields:
        Every trial twice: as it starts, and with its outcome when it has finished.
    """
    n_trials = max_evals if space.space else 1
    sampler = Sampler(space, seed)
    running: dict[Future[Outcome], Trial] = {}
    outcomes: dict[int, Outcome] = {}
    asked = 0
    while len(outcomes) < n_trials:
        while asked < n_trials and len(running) < n_parallel and _told(outcomes, asked - LAG):
            trial = Trial(asked, sampler.ask(asked, outcomes), None)
            running[executor.submit(objective, trial.point)] = trial
            asked += 1
            yield trial
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            trial, outcome = running.pop(future), future.result()
            outcomes[trial.number] = outcome
            yield trial._replace(outcome=outcome)


class Sampler:
    """hyperopt's TPE, one suggestion at a time."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        # hyperopt knows no space without dimensions
        self.domain: Any = Domain(lambda p: 0.0, dict(space.space)) if space.space else None
        self.values: dict[int, dict[str, list[float]]] = {}  # trial -> hyperopt's own values

    def ask(self, number: int, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
        """Suggest the point of a trial, knowing the outcomes up to number - LAG."""
        if self.domain is None:
            return {}
        if number < len(self.space.first):
            self.values[number] = {name: [v] for name, v in self.space.first[number].items()}
        else:
            self.values[number] = self._suggest(number, outcomes)
        found = {name: v[0] for name, v in self.values[number].items()}
        point = space_eval(dict(self.space.space), found)
        # numpy's numbers print, compare and travel worse than Python's
        return {name: getattr(value, "item", lambda v=value: v)() for name, value in point.items()}

    def _suggest(self, number: int, outcomes: Mapping[int, Outcome]) -> dict[str, list[float]]:
        trials = Trials()
        for told in range(number - LAG + 1):
            trials.insert_trial_doc(self._document(trials, told, outcomes[told].rmse))
        trials.refresh()
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return dict(tpe.suggest([number], self.domain, trials, seed)[0]["misc"]["vals"])

    def _document(self, trials: Trials, number: int, rmse: float) -> dict[str, Any]:
        values = self.values[number]
        misc = {
            "tid": number,
            "cmd": None,
            "workdir": None,
            "idxs": {name: [number] for name in values},
            "vals": values,
        }
        result = {"status": STATUS_OK, "loss": rmse}
        (document,) = trials.new_trial_docs([number], [None], [result], [misc])
        return dict(document) | {"state": JOB_STATE_DONE}


def _told(outcomes: Mapping[int, Outcome], last: int) -> bool:
    return all(number in outcomes for number in range(last + 1))
