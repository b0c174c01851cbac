"""The world outside: files, downloads and MLflow; knows nothing of taxis."""


class StorageError(RuntimeError):
    """A file, a cache or a server that cannot be used; the message is one line for the user."""


class StoreGoneError(StorageError):
    """The tracking store stopped answering for good: nothing more can be written to it."""
