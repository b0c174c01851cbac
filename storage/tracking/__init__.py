"""MLflow: runs, trials, models, the registry, the store below them."""

from storage import environment

environment.install_import_error_hook()
