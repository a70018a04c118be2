"""Run every benchmark, or those that are named: ``python -m tests.bench [NAME...]``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.parts.image import ROOT
from tests.parts.serve import serve

HERE = Path(__file__).parent
NO_BENCHMARK = {"__main__", "table", "load", "traces"}


def main(names: list[str]) -> int:
    found = [path.stem for path in sorted(HERE.glob("*.py")) if path.stem not in NO_BENCHMARK]
    if unknown := set(names) - set(found):
        print(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(found)}.")
        return 2
    failed = []
    with ExitStack() as stack:
        named, absent = serve(stack)
        for why in absent:
            print(f"Missing here: {why}")
        for name in names or found:
            begun = time.monotonic()
            ran = subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False, cwd=ROOT, env={**os.environ, **named})
            print(f"  ({name}: {time.monotonic() - begun:.0f} s, load {os.getloadavg()[0]:.1f})", flush=True)
            if ran.returncode:
                failed.append(name)
    if failed:
        print(f"\nDid not run to the end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
