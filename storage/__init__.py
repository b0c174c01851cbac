"""The world outside: files, downloads and MLflow; knows nothing of taxis."""


class StorageError(RuntimeError):
    """A file, a cache or a server that cannot be used; the message is one line for the user."""
