"""Put a real model server under load: many clients at once, valid and bad requests mixed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench import Result
from bench.serving import load, log_in, train_model
from storage.tracking.served_door import KINDS
from taxi.model import TripModel, trips_to_frame
from taxi.schema import Trips

N_CLIENTS, N_REQUESTS = 16, 20_000
BAD_EVERY = 8  # one request in so many is bad
N_WORKERS, N_ASKING, N_ROWS = 2, 8, 2_000  # processes, clients, and requests of one row each
N_ROUNDS = 50  # of each booster: few, because the load is to be requests, not trees
WARM = 0.2  # share of the requests after which memory is first measured
JSON, CSV, _ = KINDS
ZONE = "PULocationID"


class Request(NamedTuple):
    """What a client sends, and the minutes that it must get; None if it must be refused."""

    body: str
    kind: str
    minutes: list[float] | None


class Tally(NamedTuple):
    """What became of the requests."""

    n_refused: int  # valid requests without an answer
    n_different: int  # valid requests with a wrong answer
    n_let_through: int  # bad requests that were not refused in one line
    n_seconds: float
    mib: tuple[float, float]  # the server's memory once warm, and at the end


def measure() -> Iterator[Result]:
    """Serve a model, and send requests from all clients at once."""
    trips = load("2023-02").take(np.arange(5_000))
    model = train_model(load("2023-01").take(np.arange(20_000)), trips, n_rounds=N_ROUNDS)
    with TemporaryDirectory() as folder, served(model, trips, Path(folder)) as (port, pid):
        tally = ask_all(make_requests(model, trips), port, pid)
    what = f"{N_REQUESTS:,} requests of {N_CLIENTS} clients to a model server, 1 in {BAD_EVERY} bad"
    yield Result(f"{what}: valid ones refused", str(tally.n_refused), "0")
    yield Result(f"{what}: valid ones answered differently", str(tally.n_different), "0")
    yield Result(f"{what}: bad ones not refused in a line", str(tally.n_let_through), "0")
    yield Result(f"{what}: requests a second", f"{N_REQUESTS / tally.n_seconds:.0f}", "")
    warm, end = tally.mib
    shown = f"{warm:.0f} to {end:.0f} MiB"
    yield Result(f"{what}: memory once warm, and at the end", shown, "within 5 %")


def measure_workers() -> Iterator[Result]:
    """Serve a model as `make serve` does, and send requests of one row each."""
    trips = load("2023-02")
    model = train_model(load("2023-01"), trips)
    sent = trips_to_frame(trips.take(np.arange(1)), "green").astype({"lpep_pickup_datetime": str})
    body = as_json(sent)
    with (
        TemporaryDirectory() as folder,
        served(model, trips, Path(folder), n_workers=N_WORKERS) as (port, _),
    ):
        ask_often(body, port, n_clients=N_ASKING)  # warms up both processes
        alone = ask_often(body, port, n_clients=1)
        begin = perf_counter()
        ask_often(body, port, n_clients=N_ASKING)
        rate = N_ROWS / (perf_counter() - begin)
    what = f"a model server of {N_WORKERS} processes asked for one row"
    yield Result(f"{what} by one client: median wait", f"{median(alone) * 1e3:.1f} ms", "5 ms")
    yield Result(f"{what} by {N_ASKING} clients: requests a second", f"{rate:.0f}", "200")


def ask_often(body: str, port: int, *, n_clients: int) -> list[float]:
    """Send a request N_ROWS times in all; return the seconds that each took."""

    def ask(_: int) -> list[float]:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        seconds = []
        for _ in range(N_ROWS // n_clients):
            begin = perf_counter()
            status, _answer = post(connection, Request(body, JSON, None))
            if status != 200:
                raise RuntimeError(f"The server answered {status}.")
            seconds.append(perf_counter() - begin)
        return seconds

    with ThreadPoolExecutor(n_clients) as executor:
        return [wait for waits in executor.map(ask, range(n_clients)) for wait in waits]


@contextmanager
def served(
    model: TripModel, trips: Trips, folder: Path, *, n_workers: int = 1
) -> Iterator[tuple[int, int]]:
    """Start MLflow's model server on a model; yield its port and process id."""
    log_in(folder, model, trips)
    (about,) = folder.rglob("MLmodel")
    port = 5_571
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--port", str(port), "-m", str(about.parent), "--workers", str(n_workers)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(port, server)
            yield port, child_of(server.pid)
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    while server.poll() is None:
        try:
            connection = HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        except OSError:
            sleep(0.5)
    raise RuntimeError("The server ended.")


def child_of(pid: int) -> int:
    """Return the id of the process that MLflow's command has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def mib_of(pid: int) -> float:
    """Return the resident memory of a process, MiB."""
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


def make_requests(model: TripModel, trips: Trips) -> list[Request]:
    """Make requests of 1 to 5 rows each, of which every BAD_EVERY-th is bad."""
    frame = trips_to_frame(trips, "green")
    minutes = model.predict(trips).tolist()
    sent = frame.astype({"lpep_pickup_datetime": str})
    requests = []
    for number in range(N_REQUESTS):
        start = number * 7 % (len(frame) - 5)
        rows = slice(start, start + 1 + number % 5)
        if number % BAD_EVERY == BAD_EVERY - 1:
            requests.append(bad_request(number // BAD_EVERY, sent.iloc[rows]))
        elif number % 3:
            requests.append(Request(as_json(sent.iloc[rows]), JSON, minutes[rows]))
        else:
            requests.append(Request(sent.iloc[rows].to_csv(index=False), CSV, minutes[rows]))
    return requests


def as_json(rows: pd.DataFrame) -> str:
    """Write rows as a request; a missing distance becomes null."""
    return (
        f'{{"dataframe_split": {rows.to_json(orient="split", index=False, double_precision=15)}}}'
    )


def bad_request(number: int, rows: pd.DataFrame) -> Request:
    """Make one of several bad requests."""
    good = as_json(rows)
    bodies = [
        as_json(rows.assign(**{ZONE: "Harlem"})),
        as_json(rows.assign(**{ZONE: "9" * 400})),
        as_json(rows.drop(columns=ZONE)),
        good[: len(good) // 2],
        f'{{"dataframe_records": {"[" * 5000}{"]" * 5000}}}',
        good[:-1] + ', "params": {"quantiles": [2]}}',
    ]
    return Request(bodies[number % len(bodies)], JSON, None)


def ask_all(requests: list[Request], port: int, pid: int) -> Tally:
    """Send all requests, from N_CLIENTS clients at once."""
    n_warm = int(WARM * len(requests))
    begin = perf_counter()
    found = ask_from_clients(requests[:n_warm], port)
    warm = mib_of(pid)
    found += ask_from_clients(requests[n_warm:], port)
    return Tally(
        n_refused=found.count("refused"),
        n_different=found.count("different"),
        n_let_through=found.count("let through"),
        n_seconds=perf_counter() - begin,
        mib=(warm, mib_of(pid)),
    )


def ask_from_clients(requests: list[Request], port: int) -> list[str]:
    """Send requests, each client its share over its own connection; return a verdict for each."""

    def ask(first: int) -> list[str]:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        return [judge(one, *post(connection, one)) for one in requests[first::N_CLIENTS]]

    with ThreadPoolExecutor(N_CLIENTS) as executor:
        return [found for share in executor.map(ask, range(N_CLIENTS)) for found in share]


def post(connection: HTTPConnection, request: Request) -> tuple[int, Any]:
    """Send a request; return the status and the answer."""
    connection.request("POST", "/invocations", request.body, {"Content-Type": request.kind})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def judge(request: Request, status: int, answer: Any) -> str:
    """Return what is wrong with an answer; empty if nothing is."""
    if request.minutes is None:
        message = str(answer.get("message", ""))
        is_short = 0 < len(message) < 500 and message.isprintable()
        return "" if status == 400 and is_short else "let through"
    if status != 200:
        return "refused"
    return "" if answer["predictions"] == request.minutes else "different"
