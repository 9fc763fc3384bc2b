"""Run a tool in a process of its own and see that it refuses before the heavy libraries are there."""

import subprocess
import sys
from typing import Any

from tests.support.tree import ROOT

_HEAVY = ("torch", "transformers", "lightning", "datasets")


def refused(module: str, *words: Any) -> list[str]:
    """Return the lines on stderr of a tool that refuses its words without a heavy import."""
    program = (
        f"import sys\nfrom {module} import main\ncode = main({[str(word) for word in words]!r})\n"
        f"sys.exit(code if not any(name in sys.modules for name in {_HEAVY}) else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()
