"""What is true of taxi trips: pure functions and tables; no MLflow, no files, no command line.

Modules here import each other relatively, so that a copy of this package inside a saved model can
be loaded under a name of its own beside any other copy.
"""


class TripError(ValueError):
    """Trips or settings of this domain that cannot be used; the message is one line."""
