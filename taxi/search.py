"""The search: TPE suggests points, any executor trains them, and poor trials are pruned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple

import numpy as np
from hyperopt import Domain, Trials, hp, tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_OK

from . import TripError
from .boosting import Outcome, PruningThreshold, extrapolated_rmse
from .spaces import LAG, ParameterRange, SearchSpace
from .words import format_count

# a search fails when more than this share of its trials do, and more than this number
MAX_FAILED_SHARE, MAX_FAILED = 0.2, 3


class Failure(NamedTuple):
    """Why a trial failed."""

    reason: str


class Trial(NamedTuple):
    """One point of the search; result is None while it runs."""

    number: int
    point: dict[str, Any]  # parameter -> value, as xgboost takes them
    result: Outcome | Failure | None = None
    is_reused: bool = False  # an earlier process finished it; it was not run again

    @property
    def outcome(self) -> Outcome | None:
        """Its outcome; None if it is running or has failed."""
        return self.result if isinstance(self.result, Outcome) else None


class FinishedTrial(NamedTuple):
    """A trial that an earlier process finished."""

    params: Mapping[str, str]  # those of its point and others, as text
    outcome: Outcome

    def was_run_at(self, point: Mapping[str, Any]) -> bool:
        """Whether this trial was run at a point."""
        return all(self.params.get(name) == str(value) for name, value in point.items())


Submit = Callable[[dict[str, Any], PruningThreshold | None], "Future[Outcome]"]


def search(
    space: SearchSpace,
    submit: Submit,
    *,
    max_evals: int,
    seed: int,
    n_parallel: int,
    n_waiting: int = 0,
    lag: int = LAG,
    finished: Mapping[int, FinishedTrial] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Trial]:
    """Run the trials of a search: the space's first points, then TPE's, which begin at random.

    Args:
        space: what to search; without ranges a single trial is run.
        submit: submits a point and its pruning threshold to some executor.
        max_evals: total number of trials, finished ones included.
        seed: suggestion n depends only on it, on n and on the outcomes of TrialHistory.needed_by.
        n_parallel: trials at once.
        n_waiting: trials submitted beyond these, so that the executor always has one queued.
        lag: suggestion n uses outcomes up to n - lag, so no more than this are submitted at once.
        finished: trials finished by an earlier process, by number; they are not run again.
        should_stop: asked before each new trial; True ends the search once the running ones finish.
    Yields:
        Every trial twice, when it starts and when it ends; a reused one once.
    Raises:
        TripError: too many trials have failed.
    """
    n_trials = max_evals if space.ranges else 1
    history = TrialHistory(space, lag)
    sampler = Sampler(space, seed)
    submitted: dict[Future[Outcome], Trial] = {}  # in the order in which they start
    started: set[int] = set()
    ended: list[Trial] = []
    number, max_submitted = 0, n_parallel + n_waiting
    while number < n_trials or submitted or ended:
        while number < n_trials and len(submitted) < max_submitted and history.is_ready(number):
            trial = Trial(number, sampler.ask(number, history.outcomes_for(number)))
            earlier = (finished or {}).get(number)
            if earlier and earlier.was_run_at(trial.point):
                trial = trial._replace(result=earlier.outcome, is_reused=True)
                history.add(trial)
                yield trial
            elif should_stop():
                n_trials = number
                break
            else:
                submitted[submit(trial.point, history.pruning_threshold(number))] = trial
            number += 1
        # yield after submitting, so that no worker is idle while the caller logs
        for trial in [*submitted.values()][:n_parallel] + ended:
            if trial.number not in started:
                started.add(trial.number)
                yield trial._replace(result=None)
        yield from ended
        history.check_failures(max_evals)
        done = wait(submitted, return_when=FIRST_COMPLETED).done
        ended = [submitted.pop(future)._replace(result=_result(future)) for future in done]
        for trial in ended:
            history.add(trial)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the unpruned trial with the smallest RMSE; on a tie, the one with the lower number.

    Raises:
        TripError: all trials failed or were pruned.
    """
    scored = [(t.outcome.rmse, t.number, t) for t in trials if t.outcome and not t.outcome.pruned]
    if not scored:
        reasons = [trial.result.reason for trial in trials if isinstance(trial.result, Failure)]
        raise TripError(
            f"None of {format_count(len(trials), 'trial')} came to anything: "
            f"{'; '.join(reasons[-1:])}."
        )
    return min(scored)[2]


def _result(future: "Future[Outcome]") -> Outcome | Failure:
    error = future.exception()
    if error is not None:
        return Failure(f"{type(error).__name__}: {error}")
    outcome = future.result()
    if not np.isfinite(outcome.rmse):
        return Failure(f"valid RMSE is {outcome.rmse}")
    return outcome


class TrialHistory:
    """The results of a search so far, and those that each trial depends on."""

    def __init__(self, space: SearchSpace, lag: int) -> None:
        self.space = space
        self.lag = lag
        self.results: dict[int, Outcome | Failure] = {}

    def add(self, trial: Trial) -> None:
        """Add the result of a trial that has ended."""
        if trial.result is not None:
            self.results[trial.number] = trial.result

    def needed_by(self, number: int) -> range:
        """Return the trials that this one depends on: those up to `number` - lag.

        A trial after the space's first points depends on all of these too, so that each suggestion
        uses them, and is pruned by the best of them.
        """
        n_first = len(self.space.first)
        return range(max(number - self.lag + 1, n_first if number >= n_first else 0))

    def is_ready(self, number: int) -> bool:
        """Whether the results of all trials that this one depends on are known."""
        return all(needed in self.results for needed in self.needed_by(number))

    def outcomes_for(self, number: int) -> dict[int, Outcome]:
        """Return the outcomes that this trial depends on, by number, without failures."""
        known = ((n, self.results[n]) for n in self.needed_by(number))
        return {n: result for n, result in known if isinstance(result, Outcome)}

    def pruning_threshold(self, number: int) -> PruningThreshold | None:
        """Return the best RMSE that this trial depends on; None without any, or without pruning.

        Trials of another objective do not count: one objective may be better at every point.
        """
        objective = self.space.objective(number)
        known = [
            outcome.rmse
            for n, outcome in self.outcomes_for(number).items()
            if self.space.objective(n) == objective
        ]
        if self.space.pruning is None or not known:
            return None
        return PruningThreshold(min(known), self.space.pruning)

    def check_failures(self, max_evals: int) -> None:
        """Refuse to go on after too many failed trials.

        Raises:
            TripError: more than MAX_FAILED trials and MAX_FAILED_SHARE of max_evals have failed.
        """
        failures = [result for result in self.results.values() if isinstance(result, Failure)]
        max_failed = max(MAX_FAILED, int(MAX_FAILED_SHARE * max_evals))
        if len(failures) > max_failed:
            last = failures[-1].reason.rstrip(".")
            raise TripError(
                f"{len(failures)} trials failed, more than the {max_failed} that a search of "
                f"{max_evals} may lose. The last one: {last}. Mend that and start it again: "
                f"finished trials are kept."
            )


class Sampler:
    """hyperopt's TPE, one suggestion at a time."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        # hyperopt does not support a space without dimensions
        self.domain: Any = Domain(lambda p: 0.0, _expressions(space)) if space.ranges else None
        self.values: dict[int, dict[str, list[float]]] = {}  # trial -> its point in hyperopt's form

    def ask(self, number: int, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
        """Suggest the point of a trial.

        Args:
            number: of the trial.
            outcomes: of earlier trials, by number; their points must come from this sampler.
        Returns:
            Parameter -> value, as xgboost takes them: the objective and the searched parameters.
        """
        if self.domain is None:
            return self.space.parameters(number, {})
        if number < len(self.space.first):
            self.values[number] = {name: [v] for name, v in self.space.first[number].items()}
        else:
            self.values[number] = self._suggest(number, outcomes)
        sampled = {name: values[0] for name, values in self.values[number].items()}
        # hyperopt samples whole numbers as floats, xgboost requires ints
        point = {
            name: int(sampled[name]) if value_range.is_integer else float(sampled[name])
            for name, value_range in self.space.ranges.items()
        }
        return self.space.parameters(number, point)

    def _suggest(self, number: int, outcomes: Mapping[int, Outcome]) -> dict[str, list[float]]:
        trials = Trials()
        for earlier, loss in self._losses(outcomes).items():
            trials.insert_trial_doc(self._document(trials, earlier, loss))
        trials.refresh()
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        suggested = tpe.suggest([number], self.domain, trials, seed)[0]["misc"]["vals"]
        return {name: [_rounded(value) for value in values] for name, values in suggested.items()}

    def _losses(self, outcomes: Mapping[int, Outcome]) -> dict[int, float]:
        """Return how far each trial is behind the best one of its objective.

        So TPE can learn from the trials of all objectives, even if one is better at every point.
        """
        losses = {number: self._loss(outcome) for number, outcome in outcomes.items()}
        best: dict[str, float] = {}
        for number, loss in losses.items():
            name = self.space.objective(number).name
            best[name] = min(loss, best.get(name, loss))
        return {n: loss - best[self.space.objective(n).name] for n, loss in losses.items()}

    def _loss(self, outcome: Outcome) -> float:
        # a pruned trial had few rounds: by its best RMSE, TPE would favour points that learn fast
        if outcome.pruned and self.space.pruning is not None:
            return extrapolated_rmse(outcome.curve, self.space.pruning.n_doublings)
        return outcome.rmse

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


def _rounded(value: float) -> float:
    # the last digits of the exponentials and logarithms behind it depend on the machine
    return float(f"{value:.6g}")


def _expressions(space: SearchSpace) -> dict[str, Any]:
    return {name: _expression(name, value_range) for name, value_range in space.ranges.items()}


def _expression(name: str, value_range: ParameterRange) -> Any:
    """Convert a range to hyperopt's expression; on a log scale its bounds are logarithms."""
    low, high = np.log(value_range[:2]) if value_range.is_log else value_range[:2]
    if value_range.is_integer:
        return (hp.qloguniform if value_range.is_log else hp.quniform)(name, low, high, 1)
    return (hp.loguniform if value_range.is_log else hp.uniform)(name, low, high)
