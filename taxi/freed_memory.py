"""Memory that is free again goes back to the system, which its users would rather keep for later.

Many rows are taken in batches of megabytes, and what one pass over them has freed lies between what
is still used: glibc and pyarrow then hold a fifth of all memory for nobody.
"""

import ctypes

import pyarrow as pa


def give_back() -> None:
    """Give back what this process has freed, as far as its C library can (glibc)."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
