"""Say in a line why a model cannot be served, before MLflow does in fifty.

python -m tools.served models:/nyc-taxi-duration@champion
"""

import sys

from storage import UserError
from storage.tracking import model_references, store


def main() -> None:
    """Look up the model that the only argument names; exit code 2 where there is none."""
    uri = sys.argv[1]
    try:
        if not store.exists():
            raise UserError("There is no store here yet. Run make demo, which registers a model.")
        model_references.resolve(uri)
    except UserError as error:
        print(f"serve: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
