"""A client for the model server, with only Python's standard library: copy it, or call it.

python docs/client.py http://127.0.0.1:5001 2021-03-05T17:45 74 75 1.3
"""

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

USAGE = "Usage: python docs/client.py URL PICKUP_AT PICKUP_ZONE DROPOFF_ZONE [PLANNED_MILES]"


class Trip(NamedTuple):
    """A planned trip."""

    pickup_at: datetime  # New York local time, or with a time zone
    pickup_zone: int  # the TLC's id, 1..265
    dropoff_zone: int
    planned_miles: float | None = None


class Answer(NamedTuple):
    """The server's answer for n trips."""

    minutes: list[float]  # [n]
    warnings: list[str]  # on rows with values that were not used


class RefusedError(ValueError):
    """The server did not predict these trips; the message is its own, if it sent one."""


def ask(url: str, trips: Sequence[Trip], *, timeout_s: float = 10.0) -> Answer:
    """Ask the server of a model of green trips for the minutes of n trips.

    Args:
        url: of the server, such as http://127.0.0.1:5001.
        trips: n trips.
        timeout_s: seconds to wait for the answer.
    Returns:
        The minutes and the warnings.
    Raises:
        RefusedError: a trip cannot be predicted, the server failed, or is not a model server.
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
    if not url.startswith(("http://", "https://")):
        raise RefusedError(f"{url!r} is no server's address. Send one like http://127.0.0.1:5001.")
    body = json.dumps({"dataframe_records": rows}).encode()
    try:
        address = f"{url.rstrip('/')}/invocations"
        said = _post(Request(address, body, {"Content-Type": "application/json"}), timeout_s)
    except (HTTPException, ValueError) as error:  # not a valid address, or the answer is not HTTP
        raise RefusedError(f"{url} cannot be asked: {error!r}") from error
    if not isinstance(said.get("predictions"), list):
        strange = f"{url} answers {said['status']}, no predictions. Is it a model server?"
        raise RefusedError(said.get("message", strange))
    return Answer(said["predictions"], said.get("warnings", []))


def _post(request: Request, timeout_s: float) -> dict[str, Any]:
    """Send a request; return the JSON object of the answer, good or bad, with its status."""
    try:
        response = urlopen(request, timeout=timeout_s)
    except HTTPError as error:
        response = error  # it is an answer, too
    with response:
        content = response.read()
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    return (said if isinstance(said, dict) else {}) | {"status": response.status}


def read_trip(words: Sequence[str]) -> Trip:
    """Read a trip from the words of a command line.

    Raises:
        ValueError: a word is not a time, zone or distance; names it.
    """
    pickup_at, pickup_zone, dropoff_zone, *miles = words
    ends = int(pickup_zone), int(dropoff_zone)
    return Trip(datetime.fromisoformat(pickup_at), *ends, *map(float, miles))


def main(words: list[str]) -> int:
    """Print the minutes of the trip that a command line describes; return the exit code."""
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    if len(words) not in (4, 5):
        print(USAGE, file=sys.stderr)
        return 2
    url, *told = words
    try:
        answer = ask(url, [read_trip(told)])
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{url} cannot be reached: {error}", file=sys.stderr)
        return 2
    for warning in answer.warnings:
        print(warning, file=sys.stderr)
    print(*answer.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
