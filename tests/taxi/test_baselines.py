from functools import cache

import numpy as np
import pytest

from taxi import TripError, baselines, features
from taxi.baselines import BASELINES
from taxi.features import FEATURE_SETS
from taxi.model import TripModel
from tests.conftest import simulated_trips

MONTHS = ("2021-01", "2021-02")
# on so few trips it may stop before it has converged
pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")


@cache
def fitted(name: str, seed: int = 42) -> TripModel:
    train = simulated_trips(MONTHS[0])
    encoder = features.fit_encoder(BASELINES[name].features, train)
    estimator = BASELINES[name].make(seed)
    estimator.fit(encoder.transform_train(train), train.trip_minutes)
    return TripModel("green", encoder, [estimator])


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_names_its_features_and_is_made_afresh(name: str) -> None:
    assert BASELINES[name].features in FEATURE_SETS
    assert BASELINES[name].make(1) is not BASELINES[name].make(1)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_predicts_the_minutes_of_another_month(name: str) -> None:
    valid = simulated_trips(MONTHS[1])
    predicted = fitted(name).predict(valid)
    assert predicted.dtype == np.float64
    assert predicted.shape == (len(valid),)
    assert np.isfinite(predicted).all()
    # half of the trips are told to within so many minutes; guessing their mean makes it 8
    assert np.median(np.abs(predicted - valid.trip_minutes)) < 10
    assert (np.ptp(predicted) == 0) == (name == "mean")


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_gives_the_same_answers_for_the_same_seed(name: str) -> None:
    valid = simulated_trips(MONTHS[1])
    again = fitted.__wrapped__(name)
    assert again.predict(valid).tobytes() == fitted(name).predict(valid).tobytes()


def test_another_seed_makes_another_forest() -> None:
    valid = simulated_trips(MONTHS[1])
    other = fitted("random_forest", seed=43).predict(valid)
    assert not np.array_equal(other, fitted("random_forest").predict(valid))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_answers_the_same_after_saving_and_loading(name: str) -> None:
    model, valid = fitted(name), simulated_trips(MONTHS[1])
    loaded = TripModel.from_files(model.to_files())
    assert loaded.predict(valid).tobytes() == model.predict(valid).tobytes()
    assert type(loaded.estimators[0]) is type(model.estimators[0])


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_answers_no_trips_with_no_minutes(name: str) -> None:
    assert fitted(name).predict(simulated_trips(MONTHS[1]).take(np.arange(0))).shape == (0,)


def test_models_are_selected_by_name_in_the_order_asked_for() -> None:
    assert baselines.select("all") == BASELINES
    assert list(baselines.select(" mean ,lasso_0.1,,")) == ["mean", "lasso_0.1"]
    assert baselines.select("mean,mean") == {"mean": BASELINES["mean"]}


@pytest.mark.parametrize(
    ("text", "seen"), [("lasso", "'lasso'"), ("mean,svm", "'svm'"), ("", "''"), (" , ", "' , '")]
)
def test_an_unknown_model_is_answered_with_the_known_ones(text: str, seen: str) -> None:
    with pytest.raises(TripError) as refusal:
        baselines.select(text)
    assert f"Unknown model {seen}. Choose all or from mean, " in str(refusal.value)
    assert all(name in str(refusal.value) for name in BASELINES)
