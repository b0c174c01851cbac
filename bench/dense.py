"""Whether the boosters' matrices are dense: time of a round, with and without missing values.

Even a few missing values in a column keep xgboost from its compact bins. There should be none:
trips without a distance have separate boosters, and unmapped zones are placed in the map's middle.
"""

from collections.abc import Iterator
from time import process_time

import numpy as np
import xgboost as xgb

from bench import DATA, Result
from bench.search_lab import MONTHS, SEED
from bench.serving import load
from steps.common.months import find_city, find_zone_files
from taxi import features, spaces
from taxi.boosting import build_matrices
from taxi.rows import Rows, rows_with_distance, rows_without_distance
from taxi.words import percent

N_ROUNDS, N_TIMES = 30, 5


def measure() -> Iterator[Result]:
    """Lay out real months as the search does, and train on them as they are, and with no gaps."""
    source = str(DATA)
    city = find_city(source, find_zone_files(source))
    for year, months in MONTHS.items():
        train, valid = map(load, months)
        encoder = features.fit_encoder("full", train, city)
        for kind, make_rows in (("with", rows_with_distance), ("without", rows_without_distance)):
            rows = make_rows(encoder, train, valid)
            share = np.isnan(rows.train).mean(axis=0).max()
            what = f"{year}, trips {kind} a distance"
            yield Result(f"{what}: most missing values of a column", percent(share), "")
            filled = rows._replace(train=np.nan_to_num(rows.train), valid=np.nan_to_num(rows.valid))
            ours, dense = fastest_ms(rows, filled)
            ratio = f"{ours / dense:.2f}x ({ours:.0f} / {dense:.0f} ms)"
            yield Result(f"{what}: a round over one without missing values", ratio, "1.1x")


def fastest_ms(*every: Rows) -> list[float]:
    """Train on each alternately; return the CPU milliseconds of a round, the best of N_TIMES."""
    space = spaces.select_space("lossguide")
    point = space.parameters(0, space.first[0])
    parameters = {**space.fixed, **point, "max_bin": space.max_bin, "nthread": 1, "seed": SEED}
    matrices = [build_matrices(rows._replace(max_bin=space.max_bin)) for rows in every]
    fastest = [np.inf] * len(every)
    for _ in range(N_TIMES):
        for place, (train, valid, _) in enumerate(matrices):
            start = process_time()
            xgb.train(parameters, train, N_ROUNDS, evals=[(valid, "valid")], verbose_eval=False)
            spent = process_time() - start
            fastest[place] = min(fastest[place], 1e3 * spent / N_ROUNDS)
    return fastest
