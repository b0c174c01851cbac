"""Whether the device asked for is there."""

import json

from taxi import TripError

DEVICES = ("cpu", "cuda")


def check_device(device: str) -> None:
    """Refuse a device that is none, or a GPU that xgboost cannot find.

    Raises:
        TripError: what is wrong with it.
    """
    if device not in DEVICES:
        raise TripError(f"Unknown device {device!r}. Choose from {list(DEVICES)}.")
    if device == "cuda":
        _probe_gpu()


def _probe_gpu() -> None:
    import numpy as np
    import xgboost as xgb  # takes most of a second to import, which only a GPU is worth

    # without a GPU xgboost goes on with the CPU and merely warns
    with xgb.config_context(verbosity=0):
        probe = xgb.train({"device": "cuda"}, xgb.DMatrix(np.zeros((2, 1)), [0.0, 1.0]), 1)
    if json.loads(probe.save_config())["learner"]["generic_param"]["device"] == "cpu":
        raise TripError("device=cuda, but xgboost finds no GPU here. Pass -P device=cpu.")
