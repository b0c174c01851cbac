"""The domain of taxi trips: pure functions and tables; no MLflow, no files, no command line.

Modules here import each other relatively, so that the copy of this package inside a saved model can
be loaded under its own name beside any other copy.
"""


class TripError(ValueError):
    """Trips or settings that cannot be used; the message is one line."""
