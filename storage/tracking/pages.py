"""Links to runs in MLflow's UI: python -m storage.tracking.pages prints that of an experiment.

They name the workflow type: without it MLflow opens an empty page for language models.
"""

import os
import socket
import sys

import mlflow

from storage import UserError
from storage.tracking import experiments, store
from storage.uris import without_user

LOCAL_UI = "http://127.0.0.1:{port}"  # of `make ui`
PORT, N_PORTS = 5000, 65_536
WORKFLOW = "workflowType=machine_learning"


def run_link(experiment_id: str, run_id: str) -> str:
    """Return the link to the page of a run, relative to the UI's address."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{WORKFLOW}"


def artifact_link(experiment_id: str, run_id: str, name: str) -> str:
    """Return the link to the page of a run's file."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{name}?{WORKFLOW}"


def runs_link(experiment_id: str) -> str:
    """Return the link to the runs of an experiment, with the columns that matter."""
    view = f"viewStateShareKey={experiments.PIPELINES}"
    return f"#/experiments/{experiment_id}/runs?{WORKFLOW}&{view}"


def address(link: str, port: int = PORT) -> str:
    """Complete a link for a browser: at the tracking server, else at the UI of `make ui`."""
    uri = mlflow.get_tracking_uri()
    root = without_user(uri).rstrip("/") if uri.startswith(store.HTTP) else ""
    return f"{root or LOCAL_UI.format(port=port)}/{link}"


def free_port(text: str) -> int:
    """Parse the number of a port to listen on.

    Raises:
        UserError: it is not a port, is in use, or not permitted.
    """
    if not text.isdecimal() or int(text) >= N_PORTS:
        raise UserError(f"{text!r} is no port. Pass a number below {N_PORTS}: PORT={PORT}.")
    port = int(text)
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        reason, other = os.strerror(error.errno or 0), max((port + 1) % N_PORTS, PORT)
        raise UserError(f"Port {port}: {reason}. Pass another: PORT={other}.") from error
    return port


def main() -> None:
    """Print where `make ui` shows the runs of the experiment; the port is the only argument."""
    try:
        is_remote = mlflow.get_tracking_uri().startswith(store.HTTP)  # and has its own port
        port = PORT if is_remote else free_port(sys.argv[1])
        found = experiments.find_experiment() if store.exists() else None
    except UserError as error:
        print(f"ui: {error}", file=sys.stderr)
        sys.exit(2)
    link = runs_link(found.experiment_id) if found else f"#/experiments?{WORKFLOW}"
    print(f"The runs are at {address(link, port)}", flush=True)


if __name__ == "__main__":
    main()
