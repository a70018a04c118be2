"""``bai image``: images on the agents."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backendai.cli.screen import Status, age, connect, say, show_json, show_table
from backendai.client import calls
from backendai.model.units import format_bytes


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list the images of every connected agent")
    pull = commands.add_parser("pull", help="fetch one")
    pull.add_argument("image", metavar="NAME:TAG")
    build = commands.add_parser("build", help="build one from a recipe: a folder with a Dockerfile and a recipe.toml")
    build.add_argument("folder", type=Path, metavar="FOLDER", help="where the recipe is, such as kernels/python")
    build.add_argument("--name", metavar="NAME:TAG", help="instead of the recipe's own")
    remove = commands.add_parser("rm", help="remove one")
    remove.add_argument("image", metavar="NAME:TAG")
    for command in (pull, build, remove):
        command.add_argument("--agent", help="on this one only, by id or name; on every connected one when left out")


def run(options: Namespace) -> int:
    """List, fetch, build or remove images."""
    with connect() as client:
        if options.verb == "pull":
            return _watch(client.pull(options.image, options.agent), options.image, options.json)
        if options.verb == "build":
            return _watch(client.build(options.folder, options.name, options.agent), str(options.folder), options.json)
        if options.verb == "rm":
            removed = client.raw(calls.remove_image(options.image, options.agent))
            return show_json(removed) if options.json else 0
        found = client.raw(calls.list_images())
    if options.json:
        return show_json(found)
    show_table(("NAME", "AGENT", "SIZE", "AGE"), [
        (image["name"], image["agent"], format_bytes(image["size"]) if image["size"] else "", age(image["created_at"]))
        for image in found["items"]])
    for agent, why in found["silent"].items():
        say(f"{agent} did not answer: {why}")
    return 0


def _watch(lines: Iterable[dict[str, Any]], what: str, as_json: bool) -> int:
    """Show progress until the end."""
    begun, last = time.monotonic(), {}
    with Status() as status:
        for line in lines:
            last = line
            if "progress" in line:
                status.show(f"{line['agent']}: {describe(line['progress'])}")
    if as_json:
        return show_json(last)
    say(f"{what}: done on {', '.join(last.get('agents', ()))} in {time.monotonic() - begun:.1f} s")
    return 0


def describe(progress: dict[str, Any]) -> str:
    """Say how far it is."""
    text, done, total = progress.get("text") or "", progress.get("done"), progress.get("total")
    if done and total and "/" not in text:
        return f"{text} {format_bytes(int(done))} of {format_bytes(int(total))}".strip()
    return str(text)
