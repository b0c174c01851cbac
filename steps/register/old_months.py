"""Compare candidate and champion on the test months that the champion was once judged on."""

from typing import NamedTuple

from mlflow.entities.model_registry import ModelVersion

from steps.common.inputs import load_trips
from steps.common.results import SIMULATED, read_preprocess
from steps.common.served import load_served
from steps.register.testset import MAX_TEST_ROWS, TestSet, predict_minutes
from storage import UserError
from storage.tracking import artifacts, model_references, refusals, runs, tags
from taxi import distances
from taxi.distances import apply_distance_kind
from taxi.schema import Trips
from taxi.slices import PairedErrors, pair_errors


class OldMonths(NamedTuple):
    """How candidate and champion do on the champion's own test months."""

    errors: list[PairedErrors]  # a single one, or [] if there is nothing to compare
    missing_comparison: str = ""  # why none, if they differ from the candidate's and cannot be used


def compare_on_old_months(
    version: ModelVersion, candidate_uri: str, test: TestSet, seen_months: frozenset[str]
) -> OldMonths:
    """Score both models on the champion's own test months, or print why that is not possible.

    Args:
        version: the champion.
        candidate_uri: of the candidate's model.
        test: the trips that both are judged on now.
        seen_months: months that the candidate was fitted to or chosen on; the result says if some
            of the champion's are among them.
    Raises:
        StorageError: the store that has the months does not answer, or refuses.
    """
    champion_sha256, months = (
        version.tags.get(family.of("test"), "") for family in (tags.SHA256, tags.MONTHS)
    )
    if champion_sha256 == test.sha256:
        return OldMonths([])
    try:
        check_age(months, min(test.months))
        trips = read_champion_trips(version, champion_sha256, is_simulated=test.is_simulated)
    except UserError as error:
        if not isinstance(error, artifacts.LostError) and refusals.explain_refusal(error):
            raise  # the store refuses only for now: that is no reason to waive the comparison
        reason = f"{months or 'unknown months'}, not compared: {error}"
        print(f"the champion's own test months: {reason}", flush=True)
        return OldMonths([], reason)
    trips = distances.sample_trips(trips, MAX_TEST_ROWS)
    champion_uri = f"models:/{version.name}/{version.version}"
    known_trips = apply_distance_kind(trips, test.distance)
    candidate, champion = (
        predict_minutes(load_served(uri, test.taxi), uri, known_trips, test.taxi)
        for uri in (candidate_uri, champion_uri)
    )
    seen = ", which the candidate has seen" if seen_months & {*months.split(",")} else ""
    name = f"the champion's own test months {months}{seen}"
    return OldMonths([pair_errors(name, trips.trip_minutes, candidate, champion)])


def check_age(months: str, now: str) -> None:
    """Refuse months so old that such trips are not to be expected again.

    A model that has learned what has changed since does worse on them, so that an old champion
    could never be beaten. Within a year every season has come round.

    Args:
        months: the champion's own test months, YYYY-MM, separated by commas; empty if unknown.
        now: YYYY-MM, the first month that both are judged on.
    Raises:
        UserError: they are more than a year old.
    """
    year_before = f"{int(now[:4]) - 1:04}{now[4:]}"
    if months and max(months.split(",")) < year_before:
        raise UserError(f"over a year before {now}.")


def read_champion_trips(version: ModelVersion, sha256: str, *, is_simulated: bool) -> Trips:
    """Read a champion's own test trips from the run of preprocess that made them.

    Args:
        version: the champion.
        sha256: of its test trips.
        is_simulated: whether the candidate's trips are simulated.
    Raises:
        UserError: only one of the two is simulated, or the trips are too few or gone.
    """
    if (version.tags.get(tags.DATA) == SIMULATED) != is_simulated:
        raise UserError("simulated months beside real ones.")
    tag_values = model_references.logged_tags(version.tags.get(tags.MODEL_URI, ""))
    run_id = tag_values.get(tags.RUN_IDS["preprocess"])
    if not run_id:
        raise UserError("nothing names their run: it was registered by hand, or by 0.1.0.")
    preprocess = read_preprocess(runs.finished(run_id, "preprocess"))
    if preprocess.dataset.sha256.get("test") != sha256:
        raise UserError(f"run {preprocess.run_id} holds others.")
    trips = load_trips(preprocess, "test")
    if len(trips) < 2:
        raise UserError("there is one trip.")
    return trips
