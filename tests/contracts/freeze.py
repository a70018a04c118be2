"""Write ``specs.txt``, the frozen surface of all contracts: ``python -m tests.contracts.freeze [--print]``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.contracts import surface
from tests.contracts.drift import drift

FILE = Path(__file__).resolve().parents[2] / "specs.txt"
HEAD = """\
# The frozen surface of the contracts, one line for each thing that a plugin can see. `python -m tests.contracts.freeze` writes it,
# tests/contracts hold the code to it. Inside a version only additions are made: an optional hook, an argument with a default, a field
# with a default. Anything else is a new module beside the old one.

"""


def frozen() -> str:
    """Return what the file should hold."""
    return HEAD + surface.text()


def main(arguments: list[str]) -> int:
    if arguments == ["--print"]:
        sys.stdout.write(frozen())
        return 0
    if FILE.exists() and (broken := drift(FILE.read_text(), frozen())):
        sys.stderr.write("These need a new version of their contract (docs/contracts/README.md):\n  " + "\n  ".join(broken) + "\n")
        if arguments != ["--anyway"]:
            sys.stderr.write("Nothing was written; --anyway writes all the same, while no release has them.\n")
            return 1
    FILE.write_text(frozen())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
