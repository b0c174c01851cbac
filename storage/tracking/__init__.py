"""MLflow: runs, trials, models, the registry, the store below them."""
