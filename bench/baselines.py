"""Each baseline by number of trips: what its fit costs, and how large its files are.

BASELINES=300000,3000000 names the sizes, and BASELINES_MODELS=linear_svr,random_forest the models.
"""

import os
from collections.abc import Iterator
from time import process_time

from bench import Result
from bench.estimate import simulate
from bench.search_lab import SEED
from storage.tracking.cost import peak_megabytes
from taxi import features
from taxi.baselines import select_baselines
from taxi.model import TripModel
from taxi.schema import Trips

SIZES = os.environ.get("BASELINES", "300000,3000000")
MODELS = os.environ.get("BASELINES_MODELS", "all")
TRAIN = "2021-01"
MUST = "300 s; 150 MiB"


def measure() -> Iterator[Result]:
    """Fit each model to a simulated month of each size."""
    for size in map(int, SIZES.split(",")):
        train = simulate(TRAIN, size)
        for name in select_baselines(MODELS):
            yield fit_one(name, train)


def fit_one(name: str, train: Trips) -> Result:
    """Encode the trips and fit a model to them, and write its files."""
    (baseline,) = select_baselines(name).values()
    encoder = features.fit_encoder(baseline.features, train)
    matrix, began = encoder.transform_train(train), process_time()
    fitted = baseline.fit(matrix, train.trip_minutes, seed=SEED)
    seconds = process_time() - began
    files = TripModel("green", encoder, [fitted]).to_files()
    size = sum(map(len, files.values())) / (1 << 20)
    return Result(
        f"{name} on {baseline.format_n_fitted(len(train))} simulated trips: CPU of its fit; "
        f"its files; memory so far",
        f"{seconds:.1f} s; {size:.1f} MiB; {peak_megabytes():,.0f} MiB",
        MUST,
    )
