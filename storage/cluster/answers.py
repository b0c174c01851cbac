"""What a cluster is asked, for so long as one waits: Dask itself waits for ever for what hangs."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

ANSWER_S = 60  # within which all workers do what they are asked, however busy they are


def begin(call: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
    """Ask a cluster something in a thread."""
    answer = Future[Any]()

    def ask() -> None:
        try:
            answer.set_result(call(*arguments, **options))
        except BaseException as raised:  # noqa: BLE001  who waits is told
            answer.set_exception(raised)

    Thread(target=ask, daemon=True).start()
    return answer


def answered(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Ask a cluster something.

    Raises:
        TimeoutError: it has not answered within ANSWER_S.
    """
    return begin(call, *arguments, **options).result(ANSWER_S)
