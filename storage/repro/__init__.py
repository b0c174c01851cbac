"""The same again: the checkout, step keys, reuse, verification."""

from storage import environment

environment.explain_when_run()
