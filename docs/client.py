"""A client of the model server, of Python's standard library alone: copy it, or call it.

python docs/client.py http://127.0.0.1:5001 2021-03-05T17:45 74 75 1.3
"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class Trip(NamedTuple):
    """A trip that somebody plans."""

    pickup_at: datetime  # New York local time, or with a zone
    pickup_zone: int  # of the TLC, 1..265
    dropoff_zone: int
    planned_miles: float | None = None


class Answer(NamedTuple):
    """What the server says of n trips."""

    minutes: list[float]  # [n]
    warnings: list[str]  # rows whose distance was not used


class RefusedError(ValueError):
    """The server does not answer these trips; says why, in its own words."""


def ask(url: str, trips: Sequence[Trip], *, timeout_s: float = 10.0) -> Answer:
    """Ask a server of green trips for the minutes of n trips.

    Args:
        url: of the server, such as http://127.0.0.1:5001.
        trips: n of them.
        timeout_s: seconds to wait for the answer.
    Raises:
        RefusedError: a trip cannot be judged, or the server failed.
        OSError: the server cannot be reached.
    """
    rows = [
        {
            "lpep_pickup_datetime": trip.pickup_at.isoformat(sep=" "),
            "PULocationID": trip.pickup_zone,
            "DOLocationID": trip.dropoff_zone,
            "trip_distance": trip.planned_miles,
        }
        for trip in trips
    ]
    body = json.dumps({"dataframe_records": rows}).encode()
    request = Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=timeout_s) as response:
            said = json.load(response)
    except HTTPError as error:
        raise RefusedError(json.load(error)["message"]) from error
    return Answer(said["predictions"], said.get("warnings", []))


if __name__ == "__main__":
    url, pickup_at, *ends, miles = sys.argv[1:]
    pickup_zone, dropoff_zone = map(int, ends)
    trip = Trip(datetime.fromisoformat(pickup_at), pickup_zone, dropoff_zone, float(miles))
    print(*ask(url, [trip]).minutes)
