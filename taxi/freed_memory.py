"""Return freed memory to the system, which allocators would rather keep for later.

Many rows are processed in batches of megabytes, and a pass leaves freed blocks between used ones:
glibc and pyarrow then hold on to a fifth of all memory for nothing.
"""

import ctypes

import pyarrow as pa


def release_memory() -> None:
    """Return this process's freed memory to the system, as far as its C library can (glibc)."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
