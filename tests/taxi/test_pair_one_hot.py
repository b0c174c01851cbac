"""The course's encoding, a column per pair of zones, compared with sklearn's own."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import Lasso

from taxi import features
from taxi.schema import Trips
from tests.conftest import simulated_trips
from tests.taxi.test_features import ENCODERS, ODD, TRAIN, VALID


def course_dicts(trips: Trips) -> list[dict]:
    """Write trips as the course does: dicts of the pair as text and the distance."""
    rows = zip(trips.pickup_zone, trips.dropoff_zone, trips.distance_miles, strict=True)
    return [{"PU_DO": f"{pu}_{do}", "trip_distance": miles} for pu, do, miles in rows]


@pytest.mark.parametrize("source", ["random", "simulated"])
def test_the_pair_one_hot_equals_sklearns_dict_vectorizer(source: str) -> None:
    if source == "random":
        train, valid = (
            replace(t, distance_miles=np.abs(np.nan_to_num(t.distance_miles)))
            for t in (TRAIN, VALID)
        )
    else:
        train, valid = simulated_trips("2021-01"), simulated_trips("2021-02")
    vectorizer, encoder = DictVectorizer(), features.fit_encoder("course", train)
    wanted = vectorizer.fit_transform(course_dicts(train))
    assert encoder.names == vectorizer.get_feature_names_out().tolist()
    assert abs(encoder.transform_train(train) - wanted).max() == 0
    new = vectorizer.transform(course_dicts(valid))
    assert new[:, :-1].sum() < len(valid)  # some pairs are unseen
    assert abs(encoder.transform(valid) - new).max() == 0


def test_a_pair_of_impossible_zones_sets_no_column_of_another_pair() -> None:
    assert ENCODERS["course"].transform(ODD)[:, :-1].sum() == 0


def test_the_pair_one_hot_is_taken_by_lasso() -> None:
    matrix = ENCODERS["course"].transform_train(TRAIN)
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert np.isfinite(Lasso(alpha=0.1).fit(matrix, TRAIN.trip_minutes).coef_).all()
