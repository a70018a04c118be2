"""Where the real traces are, on machines that have them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.parts.image import ROOT


def trace(name: str) -> Path:
    """Return the path of a trace, or end the benchmark with a reason: a machine without traces has nothing to measure."""
    if (path := find(name)) is None:
        print(f"\nNot measured: there is no {name}. Name the folder that has it in BACKENDAI_TRACES.")
        sys.exit(0)
    return path


def find(name: str) -> Path | None:
    """Return the path of a trace in BACKENDAI_TRACES or in ``shared/traces`` beside the checkout or above; None where there is none."""
    folders = [Path(os.environ["BACKENDAI_TRACES"])] if os.environ.get("BACKENDAI_TRACES") else [
        parent / "shared" / "traces" for parent in ROOT.parents]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
