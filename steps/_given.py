"""What a user gave, looked at before any other step starts, so that no hour is lost to a typo."""

import argparse
import json

import numpy as np
import xgboost as xgb

from storage import StorageError, runs
from taxi import TripError, baselines, features, schema, spaces

DEVICES = ("cpu", "cuda")


def refuse_typos(args: argparse.Namespace) -> None:
    """Look at every value that only a later step would stumble over.

    Raises:
        TripError: one of them is unknown.
    """
    schema.raw_columns(args.taxi)
    baselines.select(args.models)
    spaces.select(args.search_space)
    features.check_name(args.features)
    check_device(args.device)


def check_device(device: str) -> None:
    """Refuse a device that is none, or a GPU that xgboost cannot find.

    Raises:
        TripError: what is wrong with it.
    """
    if device not in DEVICES:
        raise TripError(f"Unknown device {device!r}. Choose from {list(DEVICES)}.")
    if device == "cpu":
        return
    # without a GPU xgboost goes on with the CPU and merely warns
    with xgb.config_context(verbosity=0):
        probe = xgb.train({"device": device}, xgb.DMatrix(np.zeros((2, 1)), [0.0, 1.0]), 1)
    if json.loads(probe.save_config())["learner"]["generic_param"]["device"] == "cpu":
        raise TripError("device=cuda, but xgboost finds no GPU here. Pass -P device=cpu.")


def base_run_id(args: argparse.Namespace) -> str:
    """Find the preprocess run that the runs given build on; empty where none is given.

    Raises:
        StorageError: a run cannot be used, or two did not read the same trips, so that their
            scores do not compare.
    """
    named = {"baseline": args.baseline_run_id, "hpo": args.hpo_run_id}
    given = [runs.finished(run_id, step) for step, run_id in named.items() if run_id]
    bases = {run.data.tags["preprocess_run_id"] for run in given}
    bases |= {args.preprocess_run_id} - {""}
    if len(bases) > 1:
        raise StorageError(
            f"The runs given build on different preprocess runs ({', '.join(sorted(bases))}), so "
            f"their scores do not compare. Pass runs of one pipeline."
        )
    return next(iter(bases), "")
