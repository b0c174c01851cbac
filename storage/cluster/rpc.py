"""Requests to a cluster with a time limit: Dask itself waits for ever if something hangs."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

ANSWER_TIMEOUT_S = 60  # enough for all workers to answer, however busy they are


def start_request(call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Start a request to a cluster in a thread."""
    answer = Future[Any]()

    def ask() -> None:
        try:
            answer.set_result(call(*arguments, **options))
        except BaseException as raised:  # noqa: BLE001  raised to the caller who waits
            answer.set_exception(raised)

    Thread(target=ask, daemon=True).start()
    return answer


def send_request(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Send a request to a cluster, and wait for the answer.

    Raises:
        TimeoutError: it has not answered within ANSWER_TIMEOUT_S.
    """
    return start_request(call, *arguments, **options).result(ANSWER_TIMEOUT_S)
