"""The steps of a pipeline and what each builds on: named by the user, reused, or launched."""

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

from mlflow.entities import Run

from storage import StorageError
from storage.data import months, splits
from storage.data.splits import Content
from storage.repro import checkout, reuse, step_key
from storage.repro.reuse import ReuseDecision
from storage.repro.step_key import StepKey
from storage.tracking import runs
from taxi import schema

# step -> the steps it builds on, in the order they run
UPSTREAM: dict[str, tuple[str, ...]] = {
    "preprocess": (),
    "baseline": ("preprocess",),
    "hpo": ("preprocess",),
    "register": ("preprocess", "baseline", "hpo"),
}
MOST_AT_ONCE = 8  # so many trials at once change no result, and taxi.search.LAG says so
TRIPS = ("taxi", "sha256.train", "sha256.valid")  # tags that say which trips were learned from


class Pipeline:
    """The runs that a step builds on, each taken or made in its turn."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args: dict[str, Any] = vars(args) | {"preprocess_run_id": base_run_id(args)}
        self.done: dict[str, Run] = {}
        self.decisions: dict[str, ReuseDecision] = {}  # of the steps that nobody named a run of

    def get_or_run(self, step: str) -> Run:
        """Give the run of a step: the one that was named, one with the same key, or a new one.

        Raises:
            StorageError: the named run cannot be used, or the new one failed.
        """
        if run_id := self.args.get(f"{step}_run_id", ""):
            self.done[step] = runs.finished(run_id, step)
        else:
            self.decisions[step] = decision = self.decide_reuse(step)
            print(decision.line)
            self.done[step] = decision.run or runs.finished(self._launch(step), step)
        return self.done[step]

    def decide_reuse(self, step: str) -> ReuseDecision:
        """Say whether a step must run; the steps it builds on are done."""
        if not self.args["reuse"]:
            return ReuseDecision(step, None, "runs, reuse=false")
        return reuse.find_reusable(self.key(step), runs.experiment_id())

    def key(self, step: str) -> StepKey:
        """Make the key of a step; the steps it builds on are done."""
        if step == "preprocess":
            return preprocess_key(self.args, self.months())
        declared = set(checkout.parameters(step))
        for name in UPSTREAM[step]:
            declared -= set(checkout.parameters(name))  # it enters as what that step came to
        # what only the step itself knows of, such as register's rollback, keeps its default
        parameters = {name: self.args[name] for name in sorted(declared) if name in self.args}
        if "parallelism" in parameters:
            parameters["parallelism"] = max(MOST_AT_ONCE, parameters["parallelism"])
        return step_key.make(step, parameters, self._inputs(step))

    def tag(self, step: str) -> None:
        """Tag the active run, of this step, with its key."""
        reuse.tag(self.key(step))

    def months(self) -> list[Content]:
        """Say what every month asked for is known by; those that are not here are downloaded."""
        schema.raw_columns(self.args["taxi"])
        source, taxi = self.args["source"], self.args["taxi"]
        return [
            Content(split, month, months.identify(source, taxi=taxi, month=month))
            for split, names in self.split_months().items()
            for month in names
        ]

    def split_months(self) -> dict[str, list[str]]:
        """Say which months were asked for: split -> months."""
        return splits.split_months(*(self.args[f"{split}_months"] for split in splits.NAMES))

    def _inputs(self, step: str) -> dict[str, str]:
        if step == "register":
            return {name: content_of(self.done[name]) for name in UPSTREAM[step]}
        # what was learned from, not the run it came from: other test months change no model
        return {name: self.done["preprocess"].data.tags[name] for name in TRIPS}

    def _launch(self, step: str) -> str:
        given = self.args | {f"{name}_run_id": run.info.run_id for name, run in self.done.items()}
        declared = checkout.parameters(step)
        return runs.launch(step, {name: given[name] for name in declared if name in given})


def preprocess_key(args: dict[str, Any], contents: list[Content]) -> StepKey:
    """Make the key of preprocess from what its months are known by."""
    return step_key.make("preprocess", {"taxi": args["taxi"]}, splits.inputs(contents))


def content_of(run: Run) -> str:
    """Give what a run's result is known by: its key, else the run itself."""
    return str(run.data.tags.get(reuse.TAG, run.info.run_id))


def base_run_id(args: argparse.Namespace) -> str:
    """Find the preprocess run that the runs given build on; empty where none is given.

    Raises:
        StorageError: a run cannot be used, or two did not read the same trips, so that their
            scores do not compare.
    """
    given = [
        runs.finished(run_id, step)
        for step in UPSTREAM
        if (run_id := getattr(args, f"{step}_run_id", ""))
    ]
    if len({tuple(run.data.tags.get(name) for name in TRIPS) for run in given}) > 1:
        named = ", ".join(sorted(run.info.run_id for run in given))
        raise StorageError(
            f"The runs given ({named}) do not build on the same trips, so their scores do not "
            f"compare. Pass runs of one pipeline."
        )
    return next(_bases(given), "")


def _bases(given: Iterable[Run]) -> Iterator[str]:
    for run in given:
        yield run.data.tags.get("preprocess_run_id", run.info.run_id)
