"""Whether the place asked for is there: a device of this machine, or a Dask cluster."""

import json

from taxi import TripError

DEVICES = ("cpu", "cuda")
# a worker with another version of these might train another booster
SAME_EVERYWHERE = ("xgboost", "numpy", "scipy")


def check_device(device: str, scheduler: str) -> None:
    """Refuse a device that is none, a GPU that is not there, or a cluster that cannot be used.

    Raises:
        TripError: there is no such device, or xgboost finds none here.
        StorageError: nobody answers at the scheduler, or its workers cannot be used.
    """
    if device not in DEVICES:
        raise TripError(f"Unknown device {device!r}. Choose from {list(DEVICES)}.")
    if scheduler:
        from storage.cluster import connected  # half a second that only a cluster is worth

        with connected(scheduler, code=[], packages=SAME_EVERYWHERE, on_gpus=device == "cuda"):
            return
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
