"""What was typed, looked at before any other step starts, so that no hour is lost to a typo.

The names are looked up where their tables are. Looking takes seconds of imports for some, so those
are imported here, and only where the question comes up.
"""

import json

from steps.common.parameters import HpoParameters, PipelineParameters
from storage.tracking import models
from taxi import TripError, baselines, schema, spaces

DEVICES = ("cpu", "cuda")
# a worker with another version of these might train another booster
TRAINING_PACKAGES = ("xgboost", "numpy", "scipy")
DEFAULT_FEATURES = HpoParameters.model_fields["features"].default


def check_pipeline(params: PipelineParameters) -> None:
    """Look at every value that only a later step would stumble over.

    Raises:
        TripError, StorageError: one of them cannot be used.
    """
    schema.raw_columns(params.taxi)
    baselines.select_baselines(params.models)
    check_search(
        space=params.search_space,
        features=params.features,
        device=params.device,
        scheduler=params.scheduler,
    )
    models.check_name(params.model_name)


def check_search(*, space: str, features: str, device: str, scheduler: str) -> None:
    """Look at what a search is asked to do.

    Raises:
        TripError: there is no such space, feature set or device.
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    spaces.select_space(space)
    if features != DEFAULT_FEATURES:
        from taxi.features import check_feature_set

        check_feature_set(features)
    check_device(device, scheduler)


def check_device(device: str, scheduler: str) -> None:
    """Refuse a device that is none, a GPU that is not there, or a cluster that cannot be used."""
    if device not in DEVICES:
        raise TripError(f"Unknown device {device!r}. Choose from {list(DEVICES)}.")
    if scheduler:
        from storage.cluster import connected

        with connected(scheduler, code=[], packages=TRAINING_PACKAGES, on_gpus=device == "cuda"):
            return
    if device == "cuda":
        _probe_gpu()


def _probe_gpu() -> None:
    import numpy as np
    import xgboost as xgb

    # without a GPU xgboost goes on with the CPU and merely warns
    with xgb.config_context(verbosity=0):
        probe = xgb.train({"device": "cuda"}, xgb.DMatrix(np.zeros((2, 1)), [0.0, 1.0]), 1)
    if json.loads(probe.save_config())["learner"]["generic_param"]["device"] == "cpu":
        raise TripError("device=cuda, but xgboost finds no GPU here. Pass -P device=cpu.")
