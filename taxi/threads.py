"""Threads that share the cores, never more than there are, and do their linear algebra alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from joblib import cpu_count
from threadpoolctl import threadpool_limits


def open_pool(n_threads: int | None = None) -> ThreadPoolExecutor:
    """Open a pool for work without linear algebra.

    Args:
        n_threads: at once; None for one a core.
    """
    return ThreadPoolExecutor(n_threads or cpu_count())


@contextmanager
def thread_pool(n_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Open a pool in which every thread has a core; BLAS starts no threads of its own meanwhile.

    Two of those in each thread of a pool wait for one another: the bootstrap took five times the
    CPU time.

    Args:
        n_threads: at once; None for one a core.
    """
    with threadpool_limits(1, user_api="blas"), open_pool(n_threads) as threads:
        yield threads
