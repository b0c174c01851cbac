"""Open the test months once, for the best candidate; if it beats the champion, it takes its place.

python -m steps.register --source=simulated --max_evals=10
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import mlflow
from mlflow.entities import Run

from steps.common.pipeline import Pipeline
from steps.common.served import load_served
from steps.common.step import entry_parser, step_run
from steps.common.validate import refuse_typos
from steps.register.card import description, facts, log_card
from steps.register.evaluate import (
    PROMOTED,
    UNCHANGED,
    GateResult,
    TestResult,
    is_dirty,
    judge,
    roll_back,
    test,
)
from storage import StorageError
from storage.repro import checkout
from storage.tracking import models, runs
from storage.tracking.registry import CHALLENGER, CHAMPION, PROMOTE, Registry, RegistryError
from taxi.gate import GateThresholds, Overrides

NO_TEST = (
    "register needs test months, and there are none. Pass -P test_months=YYYY-MM, or stop before "
    "register with -e hpo."
)


class Upstream(NamedTuple):
    """The runs whose models compete."""

    preprocess: Run
    baseline: Run
    hpo: Run


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("register", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Gather this pipeline's candidates, choose on valid, judge on test, register."""
    with step_run(build_parser(), argv) as args:
        models.check_name(args.model_name)
        active = runs.active()
        registry = Registry(
            args.model_name, run_id=active.info.run_id, developer=active.data.tags["developer"]
        )
        if args.rollback:
            print(roll_back(registry))
            return
        check_before_training(args, registry)
        found = gather(args)
        best = choose(
            [*runs.children(found.baseline.info.run_id), *runs.children(found.hpo.info.run_id)]
        )
        tested = test(best, found.preprocess, seed=args.seed)
        try:
            with registry.lock():
                judged = judge(registry, tested, thresholds(args), allowed(args))
                version = settle(registry, tested, judged, args)
        except RegistryError as error:
            raise StorageError(f"{error} {again(args, found)}") from error
        print(report(registry.name, version, tested, judged))


def check_before_training(args: argparse.Namespace, registry: Registry) -> None:
    """Look at everything typed, and at the champion, before any upstream step starts."""
    refuse_typos(args)
    given = args.preprocess_run_id or args.baseline_run_id or args.hpo_run_id
    if not given and not args.test_months.strip():
        raise StorageError(NO_TEST)
    champion = registry.champion()
    if not champion:
        return
    try:
        load_served(f"models:/{args.model_name}/{champion.version}", args.taxi)
    except StorageError as error:
        raise StorageError(
            f"The champion cannot be measured against: {error} Mend it, or put the champion before "
            f"it back with -e register -P rollback=true."
        ) from error


def gather(args: argparse.Namespace) -> Upstream:
    """Look up or make the runs whose models compete.

    Raises:
        StorageError: a run cannot be used, or there are no test trips to judge by.
    """
    chain = Pipeline(args)
    base = chain.get_or_run("preprocess")
    if "sha256.test" not in base.data.tags:
        raise StorageError(NO_TEST)
    baseline, hpo = chain.get_or_run("baseline"), chain.get_or_run("hpo")
    chain.tag("register")
    return Upstream(base, baseline, hpo)


def choose(found: list[Run]) -> Run:
    """Pick the candidate with the smallest RMSE on valid.

    Raises:
        StorageError: no run among these logged a model.
    """
    candidates = [run for run in found if run.data.tags.get("candidate") == "true"]
    if not candidates:
        raise StorageError("No candidate model in the baseline and hpo runs. Run them again.")
    return min(candidates, key=lambda run: run.data.metrics["rmse"])


def thresholds(args: argparse.Namespace) -> GateThresholds:
    """Read what the gate asks for."""
    return GateThresholds(args.max_rmse, args.min_r2, args.min_improvement)


def allowed(args: argparse.Namespace) -> Overrides:
    """Read what somebody has said may happen all the same."""
    return Overrides(simulated=args.allow_simulated, dirty=args.allow_dirty)


def settle(
    registry: Registry, tested: TestResult, judged: GateResult, args: argparse.Namespace
) -> str:
    """Write the outcome to the registry and to this run; gives the version, holding the lock."""
    if judged.outcome == UNCHANGED:
        tag_run(registry.name, judged.known, judged.known, judged)
        return judged.known
    version = judged.known or registry.add_version(tested.run.data.tags["model_uri"], tested.digest)
    tags = about_outcome(judged, args) | about_model(tested)
    card = facts(tested, judged, args)
    registry.describe(version, tags, description(card))
    log_card(card, tested)
    runs.log_table([check._asdict() for check in judged.decision.checks], "gate.csv")
    if judged.outcome == PROMOTED:
        registry.promote(version, action=PROMOTE, why=why(judged))
        tag_run(registry.name, version, version, judged)
    else:
        registry.challenge(version)
        tag_run(registry.name, version, judged.before, judged)
    return version


def tag_run(name: str, version: str, champion: str, judged: GateResult) -> None:
    """Say on this run what it registered and which version is champion now."""
    mlflow.set_tags(
        {
            "model_name": name,
            "version": version,
            "champion_version": champion,
            "outcome": judged.outcome,
            "reasons": why(judged),
        }
    )


def about_outcome(judged: GateResult, args: argparse.Namespace) -> dict[str, str]:
    """Give the tags of a version that say what the gate found."""
    said = [name for name in ("allow_simulated", "allow_dirty") if getattr(args, name)]
    found = {"outcome": judged.outcome, "measured_against": judged.before, "reasons": why(judged)}
    if said:
        found["allowed"] = ",".join(said)
    if judged.improvement:
        value, low, high = judged.improvement
        found |= {"improvement": f"{value:.6f}", "improvement_interval": f"{low:.6f}..{high:.6f}"}
    return found


def about_model(tested: TestResult) -> dict[str, str]:
    """Give the tags of a version by which a reader finds the way back."""
    tags = tested.preprocess.data.tags
    found = {key: tags[key] for key in tags if key.startswith(("months.", "sha256."))}
    return found | {
        "taxi": tested.taxi,
        "data": tags.get("data", "real"),
        "git_commit": tags.get("mlflow.source.git.commit", ""),
        "git_dirty": str(is_dirty(tested)).lower(),
        "model": name_of(tested),
        "pipeline_run_id": runs.active().data.tags.get("mlflow.parentRunId", ""),
        "rmse_valid": f"{tested.run.data.metrics['rmse']:.6f}",
        "rmse_test": f"{tested.scores['rmse']:.6f}",
    }


def why(judged: GateResult) -> str:
    """Give the reasons in one line."""
    return "; ".join(judged.decision.reasons)


def report(name: str, version: str, tested: TestResult, judged: GateResult) -> str:
    """Say in one line what was done."""
    model, rmse = name_of(tested), f"test rmse {tested.scores['rmse']:.4f} min"
    if judged.outcome == UNCHANGED:
        return f"{model} was already {name} version {version}, alias {CHAMPION}: {rmse}"
    if judged.outcome == PROMOTED:
        over = f", in place of version {judged.before}" if judged.before else ""
        return f"{model} registered as {name} version {version}, alias {CHAMPION}{over}: {rmse}"
    return (
        f"{model} registered as {name} version {version}, alias {CHALLENGER}: {rmse}; champion is "
        f"{f'version {judged.before}' if judged.before else 'none'}: {why(judged)}"
    )


def again(args: argparse.Namespace, found: Upstream) -> str:
    """Give the command that judges the very same candidates again."""
    given = {f"{step}_run_id": run.info.run_id for step, run in found._asdict().items()}
    return f"That is: {checkout.run_command('register', vars(args) | given)}"


def name_of(tested: TestResult) -> str:
    """Name the kind of model the candidate is."""
    return str(tested.run.data.tags["model"])


if __name__ == "__main__":
    main()
