"""How a model becomes a candidate: it is scored on valid, and logged with what it knows."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steps.common.results import write_candidate
from storage.tracking import artifacts, models, tags
from storage.tracking.served_model import PROFILE
from taxi import evaluation
from taxi.drift import make_reference
from taxi.evaluation import Group
from taxi.model import MODULES, TripModel, input_columns, write_frame
from taxi.profile import Profile
from taxi.schema import Trips
from taxi.scores import score_predictions

N_EXAMPLE_ROWS = 5


def read_profiles(preprocess_run_id: str) -> dict[str, Profile]:
    """Read what the train and valid trips of a preprocess run look like."""
    states = json.loads(artifacts.read_text(preprocess_run_id, tags.PROFILES))
    return {split: Profile.restore(state) for split, state in states.items()}


class CandidateReport(NamedTuple):
    """How a model does on the n valid trips."""

    predicted: np.ndarray  # [n] minutes
    scores: dict[str, float]
    groups: list[Group]
    figure: Figure
    example: pd.DataFrame  # a few of the trips, as a caller sends them


def report_on(model: TripModel, valid: Trips) -> CandidateReport:
    """Score a model, fitted on train, on the n valid trips."""
    example = write_frame(valid.take(np.arange(N_EXAMPLE_ROWS)), model.taxi)
    predicted = model.predict(valid)
    groups = evaluation.errors_by_group(valid, predicted)
    figure = evaluation.draw_evaluation(valid, predicted, groups)
    scores = score_predictions(valid.trip_minutes, predicted)
    return CandidateReport(predicted, scores, groups, figure, example)


def log_candidate(
    model: TripModel, report: CandidateReport, profiles: Mapping[str, Profile]
) -> None:
    """Log a model and how it does on the active run.

    Args:
        model: fitted on train.
        report: on the valid trips.
        profiles: of the train and valid trips, which the model keeps for whoever watches it.
    """
    mlflow.log_metrics(report.scores)
    artifacts.log_table([group._asdict() for group in report.groups], tags.GROUPS_TABLE)
    mlflow.log_figure(report.figure, tags.EVALUATION_PICTURE)
    reference = make_reference(
        profiles["train"], profiles["valid"], report.predicted, report.scores["rmse"]
    )
    uri = models.log(
        model.to_files() | {PROFILE: json.dumps(reference.state()).encode()},
        name="model",
        package="taxi",
        modules=MODULES,
        columns=input_columns(model.taxi),
        example=report.example,
    )
    write_candidate(uri)
