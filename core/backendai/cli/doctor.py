"""``bai doctor``: what is wrong with the running platform."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.screen import connect, plain, say, show_json
from backendai.client import calls

ILL = 1  # the exit status when something is left that somebody should look at


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--mend", action="store_true", help="put right what can safely be put right")


def run(options: Namespace) -> int:
    """Print what was found and what to do; succeed when nothing grave is left."""
    with connect() as client:
        found = client.raw(calls.examine(options.mend))
    left = [finding for finding in found["findings"] if finding["grave"] and not finding["mended"]]
    if options.json:
        show_json(found)
        return ILL if left else 0
    for finding in found["findings"]:
        print(plain(f"{finding['subject']}: {finding['what']}"))
        print(plain(f"    {finding['mend']}"))
    for agent, why in found["silent"].items():
        print(plain(f"agent {agent}: It did not answer: {why}"))
    if not found["findings"]:
        kernels = sum(found["agents"].values())
        say(f"All is well: {len(found['agents'])} agents and {kernels} kernels were compared with the books.")
    return ILL if left else 0
