"""Which code runs: the checkout's git commit."""

import subprocess
from pathlib import Path


def git_commit() -> str:
    """The checkout's git commit, or `unknown` where there is no checkout."""
    asked = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
