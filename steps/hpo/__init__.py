"""The entry point hpo: search xgboost's parameters, refit the winner."""
