"""Open the test months once, for the best candidate; if it beats the champion, it takes its place.

python -m steps.register --source=simulated --max_evals=10
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from steps.common import page
from steps.common.parameters import RegisterParameters
from steps.common.pipeline import Pipeline
from steps.common.results import (
    LEARNING_SPLITS,
    TRAINING_STEPS,
    Candidate,
    Dataset,
    PreprocessResult,
    read_code,
    rmse_name,
    write_registration,
)
from steps.common.served import load_served
from steps.common.step import step_run
from steps.common.validate import check_given_runs, check_one_taxi, check_pipeline
from steps.register.card import description, log_card, make_facts
from steps.register.evaluate import (
    PROMOTED,
    REFUSED,
    UNCHANGED,
    GateResult,
    TestResult,
    evaluate_candidate,
    judge_candidate,
)
from steps.register.refit import TRAIN_VALID, TrainingPlace, refit_candidate
from steps.register.rollback import restore_champion
from steps.register.testset import TestSet, open_test_set
from steps.register.verdict import (
    MODEL_DESCRIPTION,
    promotion_reason,
    write_registration_page,
    write_rollback_page,
    write_test_result,
)
from storage import StorageError, UserError
from storage.tracking import artifacts, names, refusals, runs, tags
from storage.tracking.registry import CHALLENGER, CHAMPION, PROMOTE, Registry
from storage.tracking.registry_lock import RegistryError
from taxi import distances
from taxi.card import CardFacts
from taxi.gate import GateThresholds, Overrides, Provenance

NO_TEST = (
    "register needs test months, and there are none. Pass -P test_months=YYYY-MM, or stop before "
    "register with -e hpo."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Gather this pipeline's candidates, choose on valid, judge on test, register."""
    with step_run(RegisterParameters, __doc__, argv) as params:
        names.check_name(params.model_name)
        registry = open_registry(params.model_name)
        if params.rollback or params.restore:
            run_rollback(params, registry)
            return
        pipeline = open_pipeline(params, registry)
        tested, test = choose_and_test(params, pipeline)
        dataset = pipeline.preprocess().dataset
        if params.test_only:
            write_test_result(tested, dataset, test.distance)
            return
        judged = register_candidate(params, pipeline, registry, tested, test)
        write_registration_page(registry, tested, judged, dataset)
        # below main the reasons are left out: main prints them at its end
        print(
            registration_line(registry.name, tested, judged, why=runs.is_user_facing(runs.active()))
        )


def run_rollback(params: RegisterParameters, registry: Registry) -> None:
    """Make a former version champion again.

    Raises:
        UserError: both ways back were asked for, or there is no such version.
    """
    if params.rollback and params.restore:
        raise UserError("rollback and restore exclude each other. Pass one of them.")
    line = restore_champion(registry, params.restore)
    write_rollback_page(registry, line)
    print(line)


def choose_and_test(params: RegisterParameters, pipeline: Pipeline) -> tuple[TestResult, TestSet]:
    """Train what is missing, choose on valid, refit, and test on the test months, once.

    Raises:
        UserError: there are no test months, or no candidate.
    """
    preprocess = pipeline.preprocess()
    if not preprocess.dataset.has_test:
        raise UserError(NO_TEST)
    trained = [pipeline.training(step) for step in TRAINING_STEPS]
    pipeline.tag("register")
    judge_by = distances.select_distance_kind(params.judge_by)
    distance = distances.distance_kind_of(preprocess.dataset.taxi, judge_by)
    best = choose_candidate([one for step in trained for one in step.candidates], distance)
    if params.refit == TRAIN_VALID:
        place = TrainingPlace(params.scheduler, params.refit_workers)
        best = refit_candidate(best, preprocess, place)
    test = open_test_set(preprocess, distance)
    n_trips = f"{len(test.trips):,} trips of {', '.join(sorted(test.months))}"
    print(f"test: {best.model} on {n_trips}", flush=True)
    return evaluate_candidate(best, test, seed=params.seed), test


def open_registry(name: str) -> Registry:
    """Open a registered model in the name of the active run and its developer."""
    run = runs.active()
    return Registry(name, run_id=run.info.run_id, developer=run.data.tags[tags.DEVELOPER])


def open_pipeline(params: RegisterParameters, registry: Registry) -> Pipeline:
    """Check everything that this step would refuse, before any upstream step starts.

    Raises:
        UserError, TripError: something cannot be used.
    """
    check_pipeline(params)
    pipeline = Pipeline(params)
    check_given_runs(pipeline.given, params.judge_by)
    check_has_test(pipeline.dataset, params.test_months)
    if not params.test_only:
        check_one_taxi(params.model_name, pipeline.params.taxi)
        registry.check_writable()
        check_champion(registry, pipeline.params.taxi)
    return pipeline


def register_candidate(
    params: RegisterParameters,
    pipeline: Pipeline,
    registry: Registry,
    tested: TestResult,
    test: TestSet,
) -> GateResult:
    """Have the gate judge a tested candidate, and write the outcome to the registry.

    Args:
        params: of register.
        pipeline: all its steps are done.
        registry: for the model's name.
        tested: the candidate.
        test: the trips that it was tested on.
    """
    preprocess = pipeline.preprocess()
    provenance = candidate_provenance(preprocess, tested.candidate)
    thresholds, overrides = gate_settings(params)
    command = page.rerun_command(pipeline.rerun_parameters())
    with registry_errors_with_hint(pipeline), registry.lock():
        judged = judge_candidate(
            registry, tested, test, provenance, thresholds, overrides, seed=params.seed
        )
        if judged.outcome != UNCHANGED:
            fitted_to = LEARNING_SPLITS if params.refit == TRAIN_VALID else LEARNING_SPLITS[:1]
            facts = make_facts(
                registry.name, preprocess, test, tested, judged, provenance, command, fitted_to
            )
            log_card(facts, test, tested, preprocess)
            tag_values = version_tags(facts, preprocess.dataset, judged, overrides)
            whole = page.link(f"{tags.CARD} of the register run", tags.CARD)
            judged = apply_outcome(registry, tested, judged, tag_values, description(facts, whole))
        registry.describe_model(MODEL_DESCRIPTION)
    write_registration(
        model_name=registry.name,
        version=judged.version,
        champion_version=judged.champion_before if judged.outcome == REFUSED else judged.version,
        outcome=judged.outcome,
        reasons=judged.reasons,
        model_uri=tested.candidate.model_uri,
    )
    return judged


def gate_settings(params: RegisterParameters) -> tuple[GateThresholds, Overrides]:
    """Read the gate's thresholds and the user's overrides from the parameters."""
    thresholds = GateThresholds(
        max_rmse=params.max_rmse,
        min_r2=params.min_r2,
        min_improvement=params.min_improvement,
        max_coverage_gap=params.max_coverage_gap,
        max_slice_loss=params.max_slice_loss,
    )
    overrides = Overrides(
        simulated=params.allow_simulated,
        dirty=params.allow_dirty,
        slice_loss=params.allow_slice_loss,
    )
    return thresholds, overrides


@contextmanager
def registry_errors_with_hint(pipeline: Pipeline) -> Iterator[None]:
    """Add to a registry error the command that judges the same candidates again.

    Raises:
        StorageError: the registry went away.
    """
    experiment = runs.experiment_name()  # looked up now: the store may be gone by then
    try:
        yield
    except RegistryError as error:
        ids: dict[str, Any] = {
            tags.RUN_IDS[step]: run.info.run_id for step, run in pipeline.done.items()
        }
        again = RegisterParameters.of(pipeline.params.model_copy(update=ids))
        command = page.rerun_command(again, experiment=experiment)
        raise StorageError(f"{error} To judge the same candidates again: {command}") from error


def check_has_test(given: Dataset | None, test_months: str) -> None:
    """Check that there will be test months, before any upstream step starts.

    Args:
        given: trips of the given runs, which are checked later; None if no run was given.
        test_months: as typed; counts if no run was given.
    Raises:
        UserError: no run was given, and test_months is empty.
    """
    if not given and not test_months.strip():
        raise UserError(NO_TEST)


def check_champion(registry: Registry, taxi: str) -> None:
    """Check that the champion takes trips of this taxi, before any upstream step starts.

    Raises:
        StorageError: it cannot be loaded, or does not take them. Unless the store only refuses
            for now, the message says how to remove the champion.
    """
    champion = registry.champion()
    if not champion:
        return
    try:
        uri = f"models:/{champion.name}/{champion.version}"
        load_served(uri, taxi)
    except StorageError as error:
        if refusals.explain_refusal(error):
            raise  # the store refuses for now: nothing may be wrong with the champion
        raise StorageError(
            f"The champion cannot be measured: {error} Fix it, or restore the previous champion "
            "with -e register -P rollback=true; if there is none, remove the alias as described in "
            "docs/champion.md."
        ) from error


def choose_candidate(candidates: Sequence[Candidate], distance: str) -> Candidate:
    """Choose the candidate with the smallest validation RMSE.

    Args:
        candidates: of the baseline and hpo runs.
        distance: kind of distance in taxi.distances.DISTANCE_KINDS that the RMSE is measured with.
    Raises:
        UserError: there is no candidate.
    """
    if not candidates:
        raise UserError("No candidate model in the baseline and hpo runs. Run them again.")
    return min(candidates, key=lambda candidate: candidate.scores[rmse_name(distance)])


def candidate_provenance(preprocess: PreprocessResult, candidate: Candidate) -> Provenance:
    """Return what the candidate was made from: its months, and the code of all runs behind it."""
    codes = (preprocess.code, candidate.code, read_code(runs.active()))
    return Provenance(
        is_simulated=preprocess.dataset.is_simulated,
        is_dirty=any(code.is_dirty for code in codes),
        seen_months=frozenset(
            month for split in LEARNING_SPLITS for month in preprocess.dataset.months[split]
        ),
    )


def version_tags(
    facts: CardFacts, dataset: Dataset, judged: GateResult, overrides: Overrides
) -> dict[str, str]:
    """Return the tags of a version: the gate's outcome, and where its data and code come from."""
    tag_values = {
        **dataset.tags(),
        tags.OUTCOME: judged.outcome,
        tags.REASONS: judged.reasons,
        tags.MEASURED_AGAINST: judged.champion_before,
        tags.VERSION_COMMIT: facts.commit,
        tags.DIRTY: str(facts.is_dirty).lower(),
        tags.MODEL: facts.model,
        tags.DEVELOPER: runs.active().data.tags[tags.DEVELOPER],
        tags.PIPELINE: runs.active().data.tags.get(tags.PARENT, ""),
        tags.RMSE_VALID: f"{facts.rmse_valid:.6f}",
        tags.RMSE_TEST: f"{facts.scores['rmse'].value:.6f}",
        tags.JUDGED_BY: judged.distance,
    }
    allowed = [f"allow_{name}" for name, value in overrides._asdict().items() if value]
    if allowed:
        tag_values[tags.ALLOWED] = ",".join(allowed)
    if judged.improvement:
        value, low, high = judged.improvement
        tag_values[tags.IMPROVEMENT] = f"{value:.6f}"
        tag_values[tags.IMPROVEMENT_INTERVAL] = f"{low:.6f}..{high:.6f}"
    return tag_values


def apply_outcome(
    registry: Registry,
    tested: TestResult,
    judged: GateResult,
    tag_values: dict[str, str],
    text: str,
) -> GateResult:
    """Write the outcome to the registry; the caller holds its lock.

    Args:
        registry: for the model's name.
        tested: the candidate.
        judged: the outcome.
        tag_values: tags of the version.
        text: description of the version.
    Returns:
        The outcome, with the version.
    """
    version = judged.version or registry.add_version(tested.candidate.model_uri, tested.digest)
    registry.describe(version, tag_values, text)
    artifacts.log_table([check._asdict() for check in judged.decision.rows], tags.GATE_TABLE)
    if judged.outcome == PROMOTED:
        why = promotion_reason(tested, judged, tag_values.get(tags.ALLOWED, ""))
        registry.promote(version, action=PROMOTE, why=why)
    else:
        registry.set_challenger(version)
    return judged._replace(version=version)


def registration_line(name: str, tested: TestResult, judged: GateResult, *, why: bool) -> str:
    """Say in one line what was registered; with `why`, also why a candidate was refused."""
    model, score = tested.candidate.model, tested.scores[judged.distance]["rmse"]
    rmse = f"test rmse {score:.4f} min with {distances.DISTANCE_KINDS[judged.distance]}"
    if judged.outcome == UNCHANGED:
        return f"{model} was already {name} version {judged.version}, alias {CHAMPION}: {rmse}"
    before = f"version {judged.champion_before}" if judged.champion_before else ""
    registered = f"{model} registered as {name} version {judged.version}, alias"
    if judged.outcome == PROMOTED:
        return f"{registered} {CHAMPION}{f', in place of {before}' if before else ''}: {rmse}"
    reasons = f": {judged.reasons}" if why else ""
    return f"{registered} {CHALLENGER}: {rmse}; champion is {before or 'none'}{reasons}"


if __name__ == "__main__":
    main()
