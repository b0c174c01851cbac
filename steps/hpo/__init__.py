"""The entry point hpo: search xgboost's parameters, make the best boosters one model."""
