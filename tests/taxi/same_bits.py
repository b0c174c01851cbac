"""Print the sha256 of what is fitted to small months, and the linear algebra kernels in use.

python -m tests.taxi.same_bits
"""

import hashlib
import json

import numpy as np
from threadpoolctl import threadpool_info

from taxi import baselines, bootstrap, distances, features, simulation
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.features import Encoder
from taxi.rows import make_rows
from taxi.schema import Trips
from taxi.spaces import select_space
from tests.conftest import simulated_trips

CITY = simulation.simulated_zones(42)


def main() -> None:
    """Print two lines of JSON: the kernels, and part -> sha256."""
    train, valid = (simulated_trips(month) for month in ("2021-01", "2021-02"))
    encoder = features.fit_encoder("full", train, CITY)
    parts = {
        "map": encoder.tables.position.tobytes(),
        "features": encoder.transform(valid).tobytes(),
        "planned distances": distances.apply_distance_kind(
            valid, "planned_10"
        ).distance_miles.tobytes(),
        **{f"booster {number}": booster(encoder, train, valid, number) for number in (0, 1)},
        "booster of the course": booster(features.fit_encoder("course", train), train, valid, 1),
        "bootstrap": resampled(valid).tobytes(),
        **{name: predicted(name, train, valid).tobytes() for name in baselines.BASELINES},
    }
    libraries = threadpool_info()
    kernels = {one["architecture"] for one in libraries if one["internal_api"] == "openblas"}
    print(json.dumps(sorted(kernels)))
    print(json.dumps({name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}))


def booster(encoder: Encoder, train: Trips, valid: Trips, number: int) -> bytes:
    """Train a few trees on all threads, as trial 0 (whose loss has an exponential) or 1."""
    space = select_space("lossguide")
    point = space.parameters(number, space.first[number])
    parameters = {**space.fixed, **point, "seed": 42, "nthread": 0}
    job = TrainingJob(parameters, rounds=10, patience=10, keep_booster=True)
    trained = train_booster(build_matrices(make_rows(encoder, train, valid)), job)
    return bytes(trained.booster.save_raw("ubj"))


def resampled(valid: Trips) -> np.ndarray:
    """Bootstrap the squared errors of two made-up predictions."""
    squares = (valid.trip_minutes[:, None] - [12.0, 15.5]) ** 2
    return bootstrap.resampled_means(squares.__getitem__, len(squares), seed=1, n_resamples=64)


def predicted(name: str, train: Trips, valid: Trips) -> np.ndarray:
    """Fit a baseline, and predict."""
    baseline = baselines.BASELINES[name]
    encoder = features.fit_encoder(baseline.features, train)
    model = baseline.fit(encoder.transform_train(train), train.trip_minutes, seed=42)
    return np.asarray(model.predict(encoder.transform(valid)))


if __name__ == "__main__":
    main()
