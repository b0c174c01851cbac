"""MLflow: runs, trials, models, the registry, the store below them."""

from storage import environment

environment.explain_when_run()
