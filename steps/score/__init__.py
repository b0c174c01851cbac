"""The entry point score: score months with a registered model."""
