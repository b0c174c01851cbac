"""The outside world: files, downloads and MLflow; knows nothing of taxis."""


class UserError(Exception):
    """An error that the user can mend; the message says how, in one line."""


class StorageError(UserError):
    """A file, a cache, a store or a server that cannot be used."""


class StoreGoneError(StorageError):
    """The tracking store stopped answering for good: nothing more can be written to it."""


def one_line(error: Exception) -> str:
    """Return the reason of an error, or its type if it has none: one line without a full stop."""
    return " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
