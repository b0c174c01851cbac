import numpy as np

from taxi.worst import N_WORST, find_worst, join_worst
from tests.conftest import make_trips, random_trips


def test_the_trips_furthest_off_come_first_with_what_the_model_was_told() -> None:
    trips = make_trips(3, distance_miles=[1.0, np.nan, 2.0], trip_minutes=[10.0, 50.0, 20.0])
    worst = find_worst(trips, np.array([12.0, 15.0, 29.5]))
    assert [trip.error for trip in worst] == [-35.0, 9.5, 2.0]
    assert worst[0]._asdict() == {
        "pickup_at": "2021-01-15T17:45:30",
        "pickup_zone": 74,
        "dropoff_zone": 75,
        "distance_miles": None,
        "prediction": 15.0,
        "trip_minutes": 50.0,
        "error": -35.0,
    }


def test_there_are_no_more_than_100_of_them_whatever_is_joined() -> None:
    trips = random_trips(500, seed=1)
    predicted = np.full(500, 20.0)
    whole = find_worst(trips, predicted)
    assert len(whole) == N_WORST == 100
    parts = [find_worst(trips.take(rows), predicted[rows]) for rows in np.split(np.arange(500), 5)]
    assert join_worst(parts) == whole
    assert join_worst([[], []]) == []
    by_size = np.argsort(-np.abs(predicted - trips.trip_minutes), kind="stable")[:N_WORST]
    assert [trip.trip_minutes for trip in whole] == trips.trip_minutes[by_size].round(3).tolist()
    alike = find_worst(make_trips(300, pickup_zone=np.arange(300) % 250 + 1), np.zeros(300))
    assert [trip.pickup_zone for trip in alike] == [*range(1, 101)]
    assert find_worst(trips.take(slice(0)), predicted[:0]) == []
