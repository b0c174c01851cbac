"""How score begins: check the parameters, load the model, open the feed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd

from steps.common.parameters import ScoreParameters
from steps.common.served import load_served
from steps.score.estimate import print_months_beyond_calendar, print_no_estimate
from steps.score.feed import FeedSettings, LiveFeed, check_feed, open_feed
from steps.score.month import ScoringJob, output_path
from storage import StorageError, UserError
from storage.data.months import parse_months
from storage.tracking import model_references, models, names, runs, tags
from storage.tracking.model_references import ModelReference
from storage.uris import without_credentials
from taxi import live, schema
from taxi.drift import DriftReference
from taxi.live import LiveState
from taxi.request_params import read_params


class Request(NamedTuple):
    """What the parameters ask for, checked before anything is fetched."""

    months: list[str]
    levels: tuple[float, ...]  # of quantiles
    settings: FeedSettings


class Scorer(NamedTuple):
    """The model to score with, as it is served."""

    reference: ModelReference
    served: Any
    sha256: str
    profile: DriftReference | None  # of the trips that it was fitted to; None for an older model

    @property
    def uri(self) -> str:
        """URI of the loaded model: of the version, even if it was asked for by alias."""
        return self.reference.uri


def read_request(params: ScoreParameters) -> Request:
    """Read and check the parameters, and create the output folder.

    Raises:
        UserError, StorageError, TripError: a parameter cannot be used.
    """
    schema.raw_columns(params.taxi)
    names.check_model_uri(params.model_uri)
    settings = FeedSettings(params.live, params.feed_delay)
    check_feed(settings, state_uri=params.live_state, scheduler=params.scheduler)
    levels = read_levels(params.quantiles, live=params.live)
    months = months_to_score(params.months)
    if params.output:
        create_output_folder(params.output, params.taxi, months, overwrite=params.overwrite)
    return Request(months if settings.mode == "off" else sorted(months), levels, settings)


def open_model(params: ScoreParameters, request: Request) -> Scorer:
    """Load the model, and print what it cannot tell about these months.

    Raises:
        UserError, StorageError: it cannot be loaded, or cannot answer what is asked.
    """
    reference = model_references.resolve(params.model_uri)
    served = load_served(reference.uri, params.taxi)
    check_quantiles(served, reference.uri, params.taxi, request.levels)
    profile = read_reference(served, reference.uri, required=params.fail_on_drift)
    print_no_estimate(served, reference.uri)
    print_months_beyond_calendar(served, request.months)
    return Scorer(reference, served, models.digest(served, reference.uri), profile)


def open_live(params: ScoreParameters, request: Request, model: Scorer) -> LiveFeed | None:
    """Open the feed that the live level follows; None if live is off."""
    if request.settings.mode == "off":
        return None
    new = new_feed_state(model.served, params.taxi, model.sha256)
    return open_feed(request.settings, state_uri=params.live_state, new=new, months=request.months)


def scoring_job(params: ScoreParameters, request: Request, model: Scorer) -> ScoringJob:
    """Assemble what is needed to score a month, on this machine or on a worker."""
    run_id, store = runs.active().info.run_id, mlflow.get_tracking_uri()
    return ScoringJob(
        params.taxi, params.source, model.uri, params.output, run_id, store, request.levels
    )


def read_levels(text: str, *, live: str) -> tuple[float, ...]:
    """Read levels of quantiles, written as 0.1,0.5,0.9.

    Raises:
        UserError: one is not a number, or there is a live level, for which no errors were measured.
        TripError: one is not above 0 and below 1, or there are too many.
    """
    try:
        levels = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"quantiles {text!r} is not a list of numbers. Pass, for example, "
            "-P quantiles=0.1,0.5,0.9."
        ) from error
    if levels and live != "off":
        raise UserError("quantiles are those of the model alone. Pass live=off, or leave them out.")
    return read_params({"quantiles": levels}).quantiles


def check_quantiles(model: Any, uri: str, taxi: str, levels: Sequence[float]) -> None:
    """Check, before any month is fetched, that a model gives quantiles, by asking about no trips.

    Raises:
        StorageError: it gives none, and levels were asked for.
    """
    if levels:
        nothing = pd.DataFrame(columns=list(schema.input_names(taxi).values()))
        models.predict_columns(model, nothing, uri, {"quantiles": list(levels)})


def months_to_score(text: str) -> list[str]:
    """Read the months to score.

    Raises:
        UserError: there are none.
    """
    months = parse_months(text)
    if not months:
        raise UserError("months is empty. Pass -P months=YYYY-MM.")
    return months


def create_output_folder(output: str, taxi: str, months: Sequence[str], *, overwrite: bool) -> None:
    """Create the folder for the predictions.

    Raises:
        UserError: `output` is a URI, or a month's predictions exist already.
        StorageError: the folder cannot be created.
    """
    if "://" in output:
        raise UserError(
            f"output {without_credentials(output)!r} is an address. Pass the path of a folder, or "
            "leave it out for the artifacts of the run, which lie where the store keeps them."
        )
    paths = [output_path(output, taxi, month) for month in months]
    try:
        existing = [str(path) for path in paths if path.exists()]
        if existing and not overwrite:
            raise UserError(
                f"{existing[0]} exists. Pass -P overwrite=true to replace it, or another output."
            )
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"Cannot write to {output}: {error.strerror}. Pass another output."
        ) from error


def read_reference(model: Any, uri: str, *, required: bool) -> DriftReference | None:
    """Read the profile that a model stores; if an older one stores none, say so and return None.

    Raises:
        UserError: it stores none, and `required` is true, because drift was to end in an error.
    """
    content = models.profile(model)
    if content:
        return DriftReference.restore(json.loads(content))
    model_uri = without_credentials(uri)
    line = (
        f"Model {model_uri} stores no training profile, so drift cannot be measured. Train it again"
    )
    if required:
        raise UserError(f"{line}, or leave out fail_on_drift.")
    print(f"{line}.")
    mlflow.set_tag(tags.DRIFT, "unknown")
    return None


def new_feed_state(served: Any, taxi: str, sha256: str) -> LiveState:
    """Make the empty live state of this model, on the map of zones that the model holds."""
    encoder = getattr(models.unwrapped(served), "encoder", None)
    position = getattr(getattr(encoder, "tables", None), "position", None)
    return live.new_state(taxi, sha256, np.datetime64(0, "m"), position)
