"""Say in a line which model is served, or why it cannot be, before MLflow does in fifty.

python -m tools.served models:/nyc-taxi-duration@champion 5001
"""

import os
import socket
import sys

from storage import UserError
from storage.tracking import model_references, store
from storage.tracking.tags import MODEL_SHA256


def main() -> None:
    """Look up the model, and whether the port is free; exit code 2 where it is not to be."""
    uri, port = sys.argv[1:]
    try:
        if not store.exists():
            raise UserError("There is no store here yet. Run make demo, which registers a model.")
        found = model_references.resolve(uri)
        check_free(int(port))
        about = f"{found.name} version {found.version}, sha256 {found.tags.get(MODEL_SHA256)}"
        print(f"serve: {about}, until this server is started again", flush=True)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        sys.exit(2)


def check_free(port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        UserError: it is in use, or may not be used.
    """
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"Port {port}: {reason}. Pass another: PORT={port + 1}.") from error


if __name__ == "__main__":
    main()
