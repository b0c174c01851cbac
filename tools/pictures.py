"""Draw the pictures that README shows, of the last pipeline in this store: make pictures.

Needs a store with a pipeline, which `make demo` makes, and Chromium.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import requests
from mlflow.entities import Run
from requests.adapters import HTTPAdapter, Retry

from storage import UserError
from storage.checkout import ROOT
from storage.tracking import artifacts, experiments, pages, runs, store, tags

# MLflow's assistant opens over a third of the page, unless the server has another host name
HOST = "mlflow"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
)
UI_SIZE, REPORT_SIZE = (1600, 900), (1280, 1000)  # pixels
PATIENCE_MS = 20_000  # of a page's own clock, which stops while it waits for the server


def main() -> None:
    """Draw every picture, or say in one line what is missing."""
    try:
        draw_pictures(ROOT / "docs")
    except UserError as error:
        print(f"pictures: {error}", file=sys.stderr)
        sys.exit(2)


def draw_pictures(folder: Path) -> None:
    """Draw the last pipeline of the experiment: its report, and its page and its row in the UI.

    Raises:
        UserError: there is no browser, no store, or no pipeline in it.
    """
    browser = find_browser()
    run = last_pipeline()
    take_screenshot(browser, report_of(run).as_uri(), folder / "report.png", REPORT_SIZE)
    with serving() as address:
        experiment_id = run.info.experiment_id
        links = {"runs.png": pages.runs_link(experiment_id)}
        links["run.png"] = pages.run_link(experiment_id, run.info.run_id)
        for name, link in links.items():
            take_screenshot(browser, f"{address}/{link}", folder / name, UI_SIZE)


def find_browser() -> str:
    """Find Chromium, or a browser of its kind.

    Raises:
        UserError: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise UserError(f"No {BROWSERS[0]} on the PATH. Install it (Debian: apt install chromium).")
    return found


def last_pipeline() -> Run:
    """Find the finished run of main that started last in the experiment.

    Raises:
        UserError: there is none.
    """
    experiment = experiments.find_experiment() if store.exists() else None
    found = runs.latest_finished(experiment.experiment_id, "main", 1) if experiment else []
    if not found:
        raise UserError("No finished pipeline in this store. Run make demo first.")
    return found[0]


def report_of(run: Run) -> Path:
    """Return the path of a pipeline's report, which must be on this machine."""
    return Path(artifacts.find_location(run.info.run_id, tags.REPORT)).resolve()


@contextmanager
def serving() -> Iterator[str]:
    """Serve the UI of this store during the body; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shown = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"{HOST}:*,127.0.0.1:*", "--cors-allowed-origins", shown]
    with subprocess.Popen(
        [*command, "--backend-store-uri", mlflow.get_tracking_uri()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_for_server(f"http://127.0.0.1:{port}")
            yield shown
        finally:
            server.terminate()


def wait_for_server(address: str, *, n_tries: int = 120) -> None:
    """Wait until the UI answers, about a second per try.

    Raises:
        UserError: it does not.
    """
    tries = Retry(total=n_tries, backoff_factor=0.1, backoff_max=1)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=tries))
    try:
        session.get(f"{address}/health", timeout=10).raise_for_status()
    except requests.RequestException as error:
        raise UserError(
            f"The MLflow UI does not answer at {address}. See what make ui says, or run this again "
            f"when the machine has less to do."
        ) from error


def take_screenshot(browser: str, url: str, path: Path, size: tuple[int, int]) -> None:
    """Take a screenshot of a page once it has settled."""
    width, height = size
    with TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"),
                *(f"--virtual-time-budget={PATIENCE_MS}", f"--screenshot={path}", url),
            ],
            check=True,
            capture_output=True,
        )
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
