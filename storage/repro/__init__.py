"""Reproducibility: step keys, reuse, verification, transfer to another store."""

from storage import environment

environment.explain_when_run()
