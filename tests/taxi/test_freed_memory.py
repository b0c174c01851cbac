"""Memory that is freed between blocks that are still in use."""

import subprocess
import sys

import pytest

from storage.checkout import ROOT

FREE_EVERY_SECOND = """
from pathlib import Path
from taxi.freed_memory import release_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

blocks = [bytearray(50_000) for _ in range(4_000)]
del blocks[::2]
before = resident()
release_memory()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked")
def test_it_goes_back_to_the_system() -> None:
    run = [sys.executable, "-c", FREE_EVERY_SECOND]
    given = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert int(given) > 50_000_000  # of 100 MB; each block shares its first and last page
