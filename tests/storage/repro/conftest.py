"""The fixtures of this folder."""

from tests.storage.repro.transfers import exported, imported, other

__all__ = ["exported", "imported", "other"]
