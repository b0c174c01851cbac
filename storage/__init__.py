"""The world outside: files, downloads and MLflow; knows nothing of taxis."""


class UserError(Exception):
    """What a user can mend; the message is one line that says how."""


class StorageError(UserError):
    """A file, a cache, a store or a server that cannot be used."""


class StoreGoneError(StorageError):
    """The tracking store stopped answering for good: nothing more can be written to it."""


def one_line(error: Exception) -> str:
    """Put the reason of an error, or its kind if it gives none, on one line without a full stop."""
    return " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
