"""Threads that share the cores: each does its linear algebra by itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def thread_pool(n_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Open a pool in which every thread has a core; BLAS starts no threads of its own meanwhile.

    Two of those in each thread of a pool wait for one another: the bootstrap took five times the
    CPU time.

    Args:
        n_threads: at once; None for as many as Python thinks good.
    """
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as threads:
        yield threads
