"""Threads that share the cores, never more than there are, and do their linear algebra alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from joblib import cpu_count
from threadpoolctl import threadpool_limits

# Threads of one booster wait for one another hundreds of times a round: with fewer rows each, that
# takes longer than they save. `python -m bench flat_threads` has what it comes to
ROWS_A_THREAD = 500_000


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


def share_threads(n_threads: int, n_jobs: int, n_rows: int) -> list[int]:
    """Deal threads to jobs that begin in turn, as others end: one to each, all to the last ones.

    Args:
        n_threads: that there are.
        n_jobs: each trains a booster.
        n_rows: of every job, which gets no more threads than these are worth.
    Returns:
        The threads of each job.
    """
    n_last = n_jobs % n_threads
    most = max(n_rows // ROWS_A_THREAD, 1)
    last = [min((n_threads + place) // n_last, most) for place in range(n_last)]
    return [1] * (n_jobs - n_last) + last
