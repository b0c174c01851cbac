"""Make a model a candidate: score it on the validation trips, and log it with its profile."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steps.common import page
from steps.common.results import RMSES, PreprocessResult, write_candidate
from storage.tracking import artifacts, datasets, models, tags
from storage.tracking.datasets import HashedDataset
from storage.tracking.served_model import PROFILE
from taxi import coverage, distances, evaluation, schema
from taxi.breakdown import Breakdown, break_down
from taxi.distances import METERED, MISSING
from taxi.drift import DriftReference, make_reference
from taxi.evaluation import GroupErrors
from taxi.model import MODULES, TripModel, input_columns, trips_to_frame
from taxi.profile import Profile
from taxi.request_params import PARAM_DEFAULTS
from taxi.schema import Trips
from taxi.scores import rmse, score_predictions
from taxi.spread import MIN_ROWS, Calibration, Spread, fit_spread
from taxi.words import format_count
from taxi.worst import WorstTrip, find_worst

N_EXAMPLE_ROWS = 5
# Most trips on which the errors with other kinds of distance are measured. It is enough for a whole
# green month: on a sample of 30,000 trips RMSE is off by 0.7 %, as much as a planned distance may
# cost. On millions of yellow trips the three extra predictions would take longer than the fit
MAX_VALID_ROWS = 100_000


def read_profiles(preprocess_run_id: str) -> dict[str, Profile]:
    """Read the profiles of a preprocess run's train and validation trips: split -> profile."""
    states = json.loads(artifacts.read_text(preprocess_run_id, tags.PROFILES))
    return {split: Profile.restore(state) for split, state in states.items()}


class CandidateReport(NamedTuple):
    """How a model does on the n validation trips."""

    predicted: np.ndarray  # [n] minutes
    scores: dict[str, float]  # with metered distance, and the RMSE with each other kind of distance
    groups: list[GroupErrors]
    breakdown: Breakdown
    figure: Figure
    spread: Spread | None  # of its errors there; None if there are too few trips
    reliability: np.ndarray | None  # of the quantiles, as returned by `measure_reliability`
    example: pd.DataFrame  # a few of the trips, as a caller sends them
    worst: list[WorstTrip]


def report_candidate(model: TripModel, valid: Trips) -> CandidateReport:
    """Score a model that was fitted on train on the n validation trips."""
    example = trips_to_frame(valid.take(slice(N_EXAMPLE_ROWS)), model.taxi)
    predicted = model.predict(valid)
    rows = distances.sample_rows(len(valid), MAX_VALID_ROWS)
    trips = valid.take(rows)
    answers = predict_by_distance(model, trips, metered=predicted[rows])
    groups = evaluation.errors_by_group(valid, predicted)
    figure = evaluation.draw_evaluation(valid, predicted, groups)
    scores = rmse_by_distance(answers, trips) | score_predictions(valid.trip_minutes, predicted)
    if not schema.has_distance_column(model.taxi):
        # every kind of distance gives the same predictions
        scores |= dict.fromkeys(RMSES.values(), scores["rmse"])
    calibration = Calibration(trips, answers[METERED], answers[MISSING])
    spread = fit_spread(calibration)
    if spread is None:
        n_valid = format_count(len(valid), "valid trip")
        print(f"no quantiles: {n_valid}, and at least {MIN_ROWS} are needed")
    reliability = coverage.measure_reliability(calibration)
    return CandidateReport(
        predicted,
        scores,
        groups,
        break_down(valid, predicted),
        figure,
        spread,
        reliability,
        example,
        find_worst(valid, predicted),
    )


def predict_by_distance(
    model: TripModel, trips: Trips, *, metered: np.ndarray
) -> dict[str, np.ndarray]:
    """Predict n trips with each kind of distance.

    Args:
        model: fitted on other trips.
        trips: n trips with metered distances.
        metered: [n] minutes, the model's predictions for them.
    Returns:
        Kind of distance -> minutes [n].
    """
    if not schema.has_distance_column(model.taxi):
        return dict.fromkeys(RMSES, metered)
    others = {kind: distances.apply_distance_kind(trips, kind) for kind in RMSES if kind != METERED}
    return {METERED: metered} | {kind: model.predict(known) for kind, known in others.items()}


def rmse_by_distance(answers: Mapping[str, np.ndarray], trips: Trips) -> dict[str, float]:
    """Score predictions of n trips: kind of distance -> minutes [n] to metric -> RMSE, minutes."""
    return {name: rmse(answers[kind] - trips.trip_minutes) for kind, name in RMSES.items()}


class Lineage(NamedTuple):
    """Where a model comes from, as shown on its page in MLflow."""

    step: str  # entry point that made it
    model: str  # its kind
    features: str
    preprocess: PreprocessResult  # the trips that it was fitted on
    fitted_with: Mapping[str, Any]  # parameter -> value
    parent: str = ""  # URI of the logged model that it is a refit of

    def tag_values(self) -> dict[str, str]:
        """Return the lineage as tags of the model."""
        dataset = self.preprocess.dataset
        tag_values: dict[str, str] = {
            tags.STEP: self.step,
            tags.MODEL: self.model,
            tags.FEATURES: self.features,
            tags.TAXI: dataset.taxi,
            **{tags.MONTHS.of(split): ",".join(names) for split, names in dataset.months.items()},
            tags.RUN_IDS["preprocess"]: self.preprocess.run_id,
        }
        return tag_values | ({tags.PARENT_MODEL: self.parent} if self.parent else {})


def log_candidate(
    model: TripModel,
    report: CandidateReport,
    profiles: Mapping[str, Profile],
    lineage: Lineage,
    valid: HashedDataset,
    bounded: str = "",
) -> None:
    """Log a model and its report to the active run.

    Args:
        model: fitted on train.
        report: on the validation trips; the spread of its errors is logged with the model.
        profiles: of the train and validation trips; logged with the model, to measure drift.
        lineage: where the model comes from.
        valid: the validation trips as a data set, to which the scores belong.
        bounded: note on how many train trips it was fitted on; empty if on all of them.
    """
    log_errors(report.groups, report.breakdown)
    log_worst(report.worst)
    artifacts.log_figure(report.figure, tags.EVALUATION_PICTURE)
    if report.reliability is not None:
        artifacts.log_figure(
            coverage.draw_reliability(report.reliability), tags.RELIABILITY_PICTURE
        )
    reference = make_reference(
        profiles["train"], profiles["valid"], report.predicted, report.scores["rmse"]
    )
    fitted = model.with_spread(report.spread)
    uri = log_model(fitted, reference, report.example, lineage, name=lineage.model)
    datasets.log_scores(report.scores, model_uri=uri, dataset=valid)
    note = page.scores_line(lineage.model, report.scores, lineage.preprocess.dataset)
    paragraphs = [f"{note}; {bounded}" if bounded else note, page.link_worst()]
    write_candidate(uri, "\n\n".join(paragraphs))


def log_errors(groups: Sequence[GroupErrors], breakdown: Breakdown) -> None:
    """Log errors to the active run, by group and in the detail that the report's charts need."""
    artifacts.log_table([group._asdict() for group in groups], tags.GROUPS_TABLE)
    mlflow.log_dict(breakdown.state(), tags.BREAKDOWN)


def log_worst(worst: Sequence[WorstTrip]) -> None:
    """Log the worst predicted trips to the active run."""
    artifacts.log_table([trip._asdict() for trip in worst], tags.WORST_TABLE)


def log_model(
    model: TripModel,
    reference: DriftReference,
    example: pd.DataFrame,
    lineage: Lineage,
    *,
    name: str,
) -> str:
    """Log a model to the active run in the form in which it is served; return its URI.

    Args:
        model: with the spread of its errors.
        reference: profile of the trips that it was fitted and scored on, to measure drift.
        example: a few trips, as a caller sends them.
        lineage: where the model comes from.
        name: of the logged model.
    """
    profile = json.dumps(reference.state()).encode()
    return models.log(
        model.to_files() | {PROFILE: profile},
        name=name,
        package="taxi",
        modules=MODULES,
        columns=input_columns(model.taxi),
        params=PARAM_DEFAULTS,
        example=example,
        fitted_with=lineage.fitted_with,
        tag_values=lineage.tag_values(),
    )
