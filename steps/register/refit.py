"""Refit the chosen candidate to the validation months too; the refit is tested and registered.

The candidate has been chosen by its errors on valid, so those trips are free to be learned from.
Nothing of test is seen: its boosters' rounds follow from those found on valid (taxi/recipes.py).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import mlflow
import numpy as np

from steps.common import page
from steps.common.candidates import (
    N_EXAMPLE_ROWS,
    Lineage,
    log_model,
    log_worst,
    read_profiles,
)
from steps.common.inputs import load_city, load_trips, log_inputs
from steps.common.results import Candidate, PreprocessResult, read_code
from steps.common.served import load_served
from storage import UserError
from storage.scratch import scratch_folder
from storage.tracking import artifacts, models, runs, tags
from storage.tracking.processes import n_cores
from taxi import baselines, features
from taxi.drift import DriftReference, refit_reference
from taxi.features import Encoder
from taxi.fitting import TrainSets, fit_boosters, is_on_gpu, train_locally
from taxi.model import TripModel, trips_to_frame
from taxi.recipes import Recipe
from taxi.schema import Trips
from taxi.spread import restore_spread
from taxi.worst import find_worst

TRAIN_VALID = "train_valid"  # value of the parameter refit
LAST_RATE = "last_learning_rate"  # logged beside xgboost's parameters, if the rate is scheduled


class TrainingPlace(NamedTuple):
    """Where boosters are trained."""

    scheduler: str = ""  # of a Dask cluster; empty = here
    n_workers: int = 0  # workers that train each booster together; 0 = one worker trains one


def refit_candidate(
    candidate: Candidate, preprocess: PreprocessResult, place: TrainingPlace
) -> Candidate:
    """Refit a candidate to train and valid in a child run; return it with its new URI and commit.

    It keeps the candidate's spread of errors, which was measured on trips not seen in the fit. The
    reference profile, with which later months are compared, is made anew from train and valid.

    Args:
        candidate: as it was chosen.
        preprocess: the run that made the trips.
        place: where boosters are trained.
    Raises:
        UserError: it was logged without its recipe.
    """
    trips, taxi = load_trips(preprocess, "train", "valid"), preprocess.dataset.taxi
    recipe = read_recipe(candidate).for_refit(len(trips))
    valid = load_trips(preprocess, "valid")
    encoder = features.fit_encoder(recipe.features, trips, load_city(preprocess))
    refit_tags: dict[str, str] = {tags.MODEL: candidate.model, tags.FEATURES: candidate.features}
    n_trips = f"{count_fitted(recipe, len(trips))} trips of train and valid"
    if place.n_workers and not recipe.baseline:
        n_trips += f", {place.n_workers} workers together"
    print(f"refit: {candidate.model} on {n_trips}", flush=True)
    with runs.child_run("refit", refit_tags):
        log_inputs(preprocess, {"train": "training", "valid": "training"})
        mlflow.log_dict(recipe.state(), tags.RECIPE)
        model = fit(recipe, trips, taxi, encoder, place)
        predicted = model.predict(valid)
        lineage = refit_lineage(candidate, recipe, preprocess)
        uri = log_refitted(model, candidate, valid, predicted, lineage)
        log_worst(find_worst(valid, predicted))
        note = f"**{candidate.model}** refitted to {n_trips}: this model is tested and registered"
        note += f"\n\n{page.link_worst()} of valid, which it was fitted to"
        mlflow.set_tags({tags.MODEL_URI: uri, tags.NOTE: note})
    fitted_by = read_code(runs.active()).commit  # candidate.code.commit is that of its training run
    return candidate._replace(model_uri=uri, code=candidate.code._replace(commit=fitted_by))


def read_recipe(candidate: Candidate) -> Recipe:
    """Read the recipe that a candidate was fitted with.

    Raises:
        UserError: its run has none.
        StorageError: it cannot be read.
    """
    try:
        state = json.loads(artifacts.read_text(candidate.run_id, tags.RECIPE))
    except artifacts.LostError as error:
        raise UserError(
            f"Run {candidate.run_id} has no {tags.RECIPE}, so its model cannot be fitted to valid "
            f"too: an older version of this project made it. Run its step again, or pass "
            f"-P refit=train."
        ) from error
    return Recipe.restore(state)


def fit(
    recipe: Recipe, trips: Trips, taxi: str, encoder: Encoder, place: TrainingPlace
) -> TripModel:
    """Fit a recipe to n trips that the encoder was fitted on."""
    if not recipe.baseline:
        on_gpu = is_on_gpu([*recipe.members, *recipe.members_without_distance])
        with open_training(place, on_gpu=on_gpu) as train:
            return fit_boosters(recipe, trips, taxi, encoder, train)
    baseline = baselines.BASELINES[recipe.baseline]
    matrix = encoder.transform_train(trips)
    fitted = baseline.fit(matrix, trips.trip_minutes, seed=recipe.seed)
    return TripModel(taxi, encoder, [fitted])


@contextmanager
def open_training(place: TrainingPlace, *, on_gpu: bool) -> Iterator[TrainSets]:
    """Yield the function that trains boosters: on all cores here, or on a cluster's workers."""
    if not place.scheduler:
        yield partial(train_locally, n_threads=n_cores(), scratch=scratch_folder)
        return
    from steps.register.workers import cluster_training  # Dask takes half a second to import

    with cluster_training(place.scheduler, on_gpu=on_gpu, n_workers=place.n_workers) as train:
        yield train


def count_fitted(recipe: Recipe, n_trips: int) -> str:
    """Say how many of n trips a recipe is fitted on; only baselines leave some out."""
    if not recipe.baseline:
        return f"{n_trips:,}"
    return baselines.BASELINES[recipe.baseline].format_n_fitted(n_trips)


def refit_lineage(candidate: Candidate, recipe: Recipe, preprocess: PreprocessResult) -> Lineage:
    """Return the lineage of the refitted model."""
    parameters: dict[str, Any] = {"seed": recipe.seed}
    if recipe.members:
        first = recipe.members[0]
        last = {LAST_RATE: round(first.last_rate, 4)} if first.last_rate else {}
        parameters = dict(first.parameters) | last
    parent = candidate.model_uri
    return Lineage("register", candidate.model, candidate.features, preprocess, parameters, parent)


def log_refitted(
    model: TripModel,
    candidate: Candidate,
    valid: Trips,
    predicted: np.ndarray,
    lineage: Lineage,
) -> str:
    """Log the refitted model to the active run; return its URI.

    Args:
        model: fitted to train and valid.
        candidate: as it was chosen.
        valid: n validation trips.
        predicted: [n] minutes, the refitted model's predictions for them.
        lineage: where the model comes from.
    """
    chosen = load_served(candidate.model_uri, model.taxi)
    spread = models.unwrapped(chosen).spread
    kept = model.with_spread(restore_spread(spread.state()) if spread else None)
    example = trips_to_frame(valid.take(slice(N_EXAMPLE_ROWS)), model.taxi)
    profile = read_profiles(lineage.preprocess.run_id)["valid"]
    before = DriftReference.restore(json.loads(models.profile(chosen)))
    reference = refit_reference(before, profile, predicted)
    return log_model(kept, reference, example, lineage, name=f"{candidate.model}_refit")
