"""How a model becomes a candidate: it is scored on valid, and logged with what it knows."""

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
from taxi.drift import Reference, make_reference
from taxi.evaluation import Group
from taxi.model import MODULES, TripModel, input_columns, write_frame
from taxi.profile import Profile
from taxi.question import PARAMS
from taxi.schema import Trips
from taxi.scores import rmse, score_predictions
from taxi.spread import MIN_ROWS, Calibration, Spread, fit_spread
from taxi.worst import WorstTrip, find_worst

N_EXAMPLE_ROWS = 5
# trips that the errors with other kinds of distance are measured on. A month of green ones whole:
# by 30,000 of them RMSE is off by 0.7 %, as much as a planned distance may cost. Of millions of
# yellow ones three more predictions would take longer than the fit
MAX_VALID_ROWS = 100_000


def read_profiles(preprocess_run_id: str) -> dict[str, Profile]:
    """Read what the train and valid trips of a preprocess run look like."""
    states = json.loads(artifacts.read_text(preprocess_run_id, tags.PROFILES))
    return {split: Profile.restore(state) for split, state in states.items()}


class CandidateReport(NamedTuple):
    """How a model does on the n valid trips."""

    predicted: np.ndarray  # [n] minutes
    scores: dict[str, float]  # with metered distance, and the RMSE with each other kind
    groups: list[Group]
    breakdown: Breakdown
    figure: Figure
    spread: Spread | None  # of its errors there; None where they are too few
    reliability: np.ndarray | None  # of the quantiles, as `measure_reliability` gives it
    example: pd.DataFrame  # a few of the trips, as a caller sends them
    worst: list[WorstTrip]


def report_on(model: TripModel, valid: Trips) -> CandidateReport:
    """Score a model, fitted on train, on the n valid trips."""
    example = write_frame(valid.take(slice(N_EXAMPLE_ROWS)), model.taxi)
    predicted = model.predict(valid)
    rows = distances.sample_rows(len(valid), MAX_VALID_ROWS)
    trips = valid.take(rows)
    answers = answer_each(model, trips, metered=predicted[rows])
    groups = evaluation.errors_by_group(valid, predicted)
    figure = evaluation.draw_evaluation(valid, predicted, groups)
    scores = rmse_by_distance(answers, trips) | score_predictions(valid.trip_minutes, predicted)
    if not schema.knows_distance(model.taxi):  # all kinds are one, measured on all trips
        scores |= dict.fromkeys(RMSES.values(), scores["rmse"])
    calibration = Calibration(trips, answers[METERED], answers[MISSING])
    spread = fit_spread(calibration)
    if spread is None:
        print(f"no quantiles: {len(valid)} valid trips, and it takes {MIN_ROWS} to know the errors")
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


def answer_each(model: TripModel, trips: Trips, *, metered: np.ndarray) -> dict[str, np.ndarray]:
    """Predict n trips with each kind of distance.

    Args:
        model: fitted on others.
        trips: n trips, their distances as metered.
        metered: [n] minutes that it says of them so.
    Returns:
        Kind of distance -> minutes [n].
    """
    if not schema.knows_distance(model.taxi):
        return dict.fromkeys(RMSES, metered)
    others = {kind: distances.as_known(trips, kind) for kind in RMSES if kind != METERED}
    return {METERED: metered} | {kind: model.predict(known) for kind, known in others.items()}


def rmse_by_distance(answers: Mapping[str, np.ndarray], trips: Trips) -> dict[str, float]:
    """Score the answers to n trips, kind of distance -> minutes [n]: metric -> RMSE, minutes."""
    return {name: rmse(answers[kind] - trips.trip_minutes) for kind, name in RMSES.items()}


class Lineage(NamedTuple):
    """Where a model comes from, as its page in MLflow tells it."""

    step: str  # entry point that made it
    model: str  # its kind
    features: str
    preprocess: PreprocessResult  # whose trips it was fitted on
    fitted_with: Mapping[str, Any]  # parameter -> value
    parent: str = ""  # URI of the logged model that it was fitted again from

    def marks(self) -> dict[str, str]:
        """Write it as tags of the model."""
        dataset = self.preprocess.dataset
        about: dict[str, str] = {
            tags.STEP: self.step,
            tags.MODEL: self.model,
            tags.FEATURES: self.features,
            tags.TAXI: dataset.taxi,
            **{tags.MONTHS.of(split): ",".join(names) for split, names in dataset.months.items()},
            tags.RUN_IDS["preprocess"]: self.preprocess.run_id,
        }
        return about | ({tags.PARENT_MODEL: self.parent} if self.parent else {})


def log_candidate(
    model: TripModel,
    report: CandidateReport,
    profiles: Mapping[str, Profile],
    lineage: Lineage,
    valid: HashedDataset,
    bounded: str = "",
) -> None:
    """Log a model and how it does on the active run.

    Args:
        model: fitted on train.
        report: on the valid trips; the model that is logged keeps the spread of its errors.
        profiles: of the train and valid trips, which the model keeps for whoever watches it.
        lineage: where it comes from.
        valid: the valid trips as a data set, which the scores belong to.
        bounded: what of the train trips was left out, in words; nothing where the fit took all.
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
    note = page.write_scores(lineage.model, report.scores, lineage.preprocess.dataset)
    paragraphs = [f"{note}; {bounded}" if bounded else note, page.link_worst()]
    write_candidate(uri, "\n\n".join(paragraphs))


def log_errors(groups: Sequence[Group], breakdown: Breakdown) -> None:
    """Log the errors on the active run, by group and in the detail that a page draws."""
    artifacts.log_table([group._asdict() for group in groups], tags.GROUPS_TABLE)
    mlflow.log_dict(breakdown.state(), tags.BREAKDOWN)


def log_worst(worst: Sequence[WorstTrip]) -> None:
    """Log on the active run which trips its predictions are furthest off on."""
    artifacts.log_table([trip._asdict() for trip in worst], tags.WORST_TABLE)


def log_model(
    model: TripModel, reference: Reference, example: pd.DataFrame, lineage: Lineage, *, name: str
) -> str:
    """Log a model as it is served on the active run; returns its URI.

    Args:
        model: with the spread of its errors.
        reference: of the trips that it knows, for whoever watches it.
        example: a few trips, as a caller sends them.
        lineage: where it comes from.
        name: of the logged model.
    """
    profile = json.dumps(reference.state()).encode()
    return models.log(
        model.to_files() | {PROFILE: profile},
        name=name,
        package="taxi",
        modules=MODULES,
        columns=input_columns(model.taxi),
        params=PARAMS,
        example=example,
        fitted_with=lineage.fitted_with,
        marks=lineage.marks(),
    )
