"""Reproducibility: step keys, reuse, verification, transfer to another store."""

from storage import environment

environment.install_import_error_hook()
