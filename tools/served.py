"""Say in one line which model is served, or why it cannot be, before MLflow does in fifty.

python -m tools.served models:/nyc-taxi-duration@champion 5001
"""

import sys

from storage import UserError
from storage.tracking import model_references, store
from storage.tracking.pages import free_port
from storage.tracking.tags import MODEL_SHA256


def main() -> None:
    """Look up the model and check the port; exit with 2 if the model cannot be served."""
    uri, port = sys.argv[1:]
    try:
        if not store.exists():
            raise UserError("There is no store here yet. Run make demo, which registers a model.")
        found = model_references.resolve(uri)
        free_port(port)
        about = f"{found.name} version {found.version}, sha256 {found.tags.get(MODEL_SHA256)}"
        print(f"serve: {about}, until this server is started again", flush=True)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
