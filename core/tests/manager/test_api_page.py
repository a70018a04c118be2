"""docs/api.md against the API: the same routes, the same errors, and every command on it works."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from backendai.manager.openapi import document
from backendai.manager.operations import built_in
from backendai.model.errors import KINDS
from backendai.model.session import SessionState

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
BESIDE = {("GET", "/v1/openapi.json"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}


def sections() -> dict[tuple[str, str], str]:
    """Return what the page says of each route."""
    parts = re.split(r"^### `(\w+) (\S+)`$", PAGE, flags=re.MULTILINE)
    return {(method, path): text for method, path, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}


def commands() -> list[str]:
    """Return the page's commands in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if not line.startswith("$ export")]


def test_the_page_has_every_route_and_no_other() -> None:
    described = document(built_in())["paths"]
    routes = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert set(sections()) == routes | BESIDE


def test_every_parameter_of_an_address_is_explained() -> None:
    for path, methods in document(built_in())["paths"].items():
        for method, operation in methods.items():
            names = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
            missing = [name for name in names if name not in sections()[method.upper(), path] and name != "cursor"]
            assert not missing, (method, path)


@pytest.mark.parametrize("route", sections(), ids=" ".join)
def test_every_route_has_an_example(route: tuple[str, str]) -> None:
    method, path = route
    text = sections()[route]
    pattern = re.sub(r"\{\w+\}", "[^/?]+", path)
    if route == ("GET", "/v1/sessions/{id}/exec"):
        assert "ws_connect" in text
        return
    examples = [line for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE) if re.search(rf"\$URL{pattern}[\"? ]", line + " ")]
    assert examples, "no example"
    explicit = {"POST": "-X POST|-d ", "PUT": "-T |-X PUT", "GET": "", "PATCH": "-X PATCH", "DELETE": "-X DELETE"}[method]
    assert any(re.search(explicit, line) for line in examples)


def test_the_page_has_every_error_as_it_is() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) \| (.+?) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert rows == [(kind.code, str(kind.status), kind.title, str(kind.exit)) for kind in KINDS.values()]


def test_the_page_has_every_event() -> None:
    kinds = "session|agent|user|token|group|preset|quota|booking|domain|project"
    said = set(re.findall(rf"`((?:{kinds})\.[a-z]+)`", PAGE))
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "backendai" / "manager").rglob("*.py"))
    lines = "".join(re.findall(r"(?:\.event|_follow)\((?!f\").*", source))
    written = set(re.findall(rf'"((?:{kinds})\.[a-z]+)"[, ]', lines))
    assert said == written | {f"session.{state.value.lower()}" for state in SessionState}


async def test_every_command_works_in_order(managed: Any, tmp_path: Path) -> None:
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    agent = managed.player("box")
    await agent.connect()
    serving = asyncio.create_task(agent.serve())
    here = tmp_path / "here"
    for folder in ("data", "recipe"):
        (here / folder).mkdir(parents=True)
        (here / folder / "file").write_text("content")
    env = {"PATH": os.environ["PATH"], "URL": managed.url, "AUTH": f"Authorization: Bearer {managed.token}"}
    for command in commands():
        strict = command.replace("curl ", f"{curl} -sS --fail-with-body ")
        process = await asyncio.create_subprocess_exec("bash", "-o", "pipefail", "-c", strict, cwd=here, env=env,
                                                       stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        async with asyncio.timeout(20.0):
            said = (await process.communicate())[0].decode(errors="replace")
        assert process.returncode == 0 and '"error"' not in said, f"{command}\n{said}"
    assert (here / "data.tar").read_bytes() == b"tar" and (here / "train.frames").exists()
    serving.cancel()
