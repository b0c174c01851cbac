"""The commands of README, which tests run as they stand there."""

import re

from storage.repro.checkout import ROOT

README = (ROOT / "README.md").read_text()


def readme_command(start: str) -> str:
    """The one command of README that begins so; a README that drops it fails its test."""
    text = README.replace("\\\n", " ")
    found = [line.strip() for line in text.splitlines() if line.strip().startswith(start)]
    assert len(set(found)) == 1, f"README has {found} for {start!r}"
    return re.sub(r"\s+#.*", "", found[0])
