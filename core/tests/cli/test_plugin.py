"""``bai plugin``: what is listed, checked and diagnosed, with plugins of the test's own beside those that are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from backendai.cli.main import NAMES
from backendai.testing.check import KITS
from backendai.testing.cli_v10 import BUILT_IN

BAI = str(Path(sys.executable).with_name("bai"))
Run = Callable[..., subprocess.CompletedProcess[str]]

MODULE = """
from backendai.spec import Skip, hookimpl
from backendai.spec.scheduler_v10 import Attempt

class Good:
    @hookimpl
    def attempts(self, view):
        for waiting in view.waiting:
            yield Attempt(waiting.id)

class Lazy(Good):
    @hookimpl
    def attempts(self, view):
        for waiting in view.waiting[:3]:
            yield Attempt(waiting.id)

class Wrong(Good):
    @hookimpl
    def attempts(self, view):
        yield Attempt("ghost")

class Absent(Good):
    async def setup(self):
        raise Skip("there is no moon")

class Unfit:
    pass
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Give a folder from which Python imports what is installed there."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "moon.py").write_text(MODULE)
    return folder


@pytest.fixture
def bai(site: Path, tmp_path: Path) -> Run:
    """Run ``bai`` with the plugins of *site* beside the others."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BACKENDAI_")}

    def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BAI, "plugin", *argv], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False,
                              env={**kept, "PYTHONPATH": str(site), "HOME": str(tmp_path), **env})

    return run


def install(site: Path, dist: str, entries: dict[str, dict[str, str]], *needs: str) -> None:
    """Put the metadata of a distribution into *site*. entries: object by name by group."""
    folder = site / f"{dist.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0", *(f"Requires-Dist: {need}" for need in needs)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in found.items()) for group, found in entries.items()))


def schedulers(**entries: str) -> dict[str, dict[str, str]]:
    return {"backendai_scheduler_v10": entries}


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in json.loads(done.stdout)}


def test_ls_shows_every_fate(bai: Run, site: Path) -> None:
    install(site, "moon", schedulers(good="moon:Good", absent="moon:Absent", unfit="moon:Unfit", gone="mars:Good"))
    found = rows(bai("ls", "--json"))
    assert {"id", "dist", "version", "state", "why"} == set(found["scheduler_v10.fifo"])
    states = {id.partition(".")[2]: row["state"] for id, row in found.items() if row["dist"] == "moon"}
    assert states == {"good": "up", "absent": "skip", "unfit": "broken", "gone": "broken"}
    assert found["scheduler_v10.absent"]["why"] == "there is no moon"
    assert "attempts() is not implemented" in found["scheduler_v10.unfit"]["why"]
    assert "mars" in found["scheduler_v10.gone"]["why"]
    table = bai("ls")
    assert table.stdout.splitlines()[0].split() == ["ID", "DIST", "VERSION", "STATE", "WHY"]
    assert not table.stderr


class Answer(BaseHTTPRequestHandler):
    """A manager that lists one plugin to whoever has the token."""

    def do_GET(self) -> None:
        good = self.path == "/v1/plugins" and self.headers["Authorization"] == "Bearer bai_test"
        row = {"id": "scheduler_v10.far", "dist": "d", "version": "2", "state": "up", "why": "", "where": "manager"}
        body = json.dumps({"items": [row]})
        self.send_response(200 if good else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def manager() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_ls_asks_the_server(bai: Run, manager: str) -> None:
    login = {"BACKENDAI_URL": manager, "BACKENDAI_TOKEN": "bai_test"}
    assert json.loads(bai("ls", "--server", "--json", **login).stdout)["items"][0]["id"] == "scheduler_v10.far"
    assert bai("ls", "--server", **login).stdout.splitlines()[1].split() == ["scheduler_v10.far", "manager", "d", "2", "up"]


def test_check_grades(bai: Run, site: Path) -> None:
    install(site, "moon", schedulers(good="moon:Good", lazy="moon:Lazy", wrong="moon:Wrong", absent="moon:Absent"))
    found = {}
    for name in ("good", "lazy", "wrong", "absent"):
        done = bai("check", f"scheduler_v10.{name}", "--json")
        told = json.loads(done.stdout)
        found[name] = (told["grade"], done.returncode, [law["law"] for law in told["laws"] if law["outcome"] == "fail"][:1])
    assert found == {"good": ("A", 0, []), "lazy": ("B", 0, ["test_it_forgets_nobody"]),
                     "wrong": ("C", 1, ["test_it_names_only_who_waits"]), "absent": ("-", 1, [])}
    said = bai("check", "scheduler_v10.lazy").stdout
    assert "FAIL  Where there is room for everybody, everybody is tried. (recommended)\n      test_it_forgets_nobody: it never" in said
    assert said.splitlines()[-1].startswith("scheduler_v10.lazy: grade B. Every required law holds: 20 hold, 1 do not")


def test_check_says_one_reason_once(bai: Run, site: Path) -> None:
    install(site, "moon", schedulers(absent="moon:Absent"))
    said = bai("check", "scheduler_v10.absent").stdout
    assert (said.count("skip  "), said.count("there is no moon")) == (24, 1)


def test_check_takes_options(bai: Run) -> None:
    assert bai("check", "scheduler_v10.fifo", "-o", "overtake=true").returncode == 0
    wrong = bai("check", "scheduler_v10.fifo", "-o", "overtake=maybe")
    assert wrong.returncode == 1
    assert "overtake" in wrong.stdout


def test_a_roles_file_is_heeded(bai: Run, site: Path, tmp_path: Path) -> None:
    install(site, "moon", schedulers(good="moon:Good", lazy="moon:Lazy"))
    file = tmp_path / "site.toml"
    file.write_text('[plugins]\ndisabled = ["scheduler_v10.lazy"]\nrequired = ["scheduler_v10.mars"]\n'
                    '[plugins."scheduler_v10.fifo"]\novertake = 7\n')
    found = rows(bai("ls", "--json", "--config", str(file)))
    assert [found[f"scheduler_v10.{name}"]["state"] for name in ("good", "lazy", "fifo")] == ["up", "off", "broken"]
    told = {one["plugin"]: one for one in json.loads(bai("doctor", "--json", "--config", str(file)).stdout)}
    assert told["scheduler_v10.fifo"]["mend"] == 'Correct its options under [plugins."scheduler_v10.fifo"] of the configuration.'
    assert not told["scheduler_v10.lazy"]["grave"]
    check = ("check", "scheduler_v10.fifo", "--config", str(file))
    assert bai(*check).returncode == 1
    assert bai(*check, "-o", "overtake=true").returncode == 0
    file.write_text("[plug]\n")
    assert "nothing is called [plug]" in bai("ls", "--config", str(file)).stderr


@pytest.mark.parametrize(("argv", "code", "said"), [
    (["check", "fifo"], 2, "write one such as scheduler_v10.fifo"),
    (["check", "scheduler_v10.nobody"], 66, "of its contract there are: scheduler_v10.backfill"),
    (["check", "scheduler_v99.fifo"], 66, "There is no contract scheduler_v99; there are: runtime_v10"),
    (["check", "scheduler_v10.fifo", "-o", "overtake"], 2, "write -o NAME=VALUE"),
])
def test_check_says_what_is_wrong_with_the_question(bai: Run, argv: list[str], code: int, said: str) -> None:
    done = bai(*argv)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_doctor_finds_what_is_wrong_and_says_the_mend(bai: Run, site: Path) -> None:
    install(site, "moon", schedulers(absent="moon:Absent", unfit="moon:Unfit", gone="mars:Good", twin="moon:Good"))
    install(site, "twin", schedulers(twin="moon:Good"))
    install(site, "old", schedulers(old="moon:Good"), "backendai>=7.0,<8", 'backendai>=9; extra == "dev"')
    install(site, "fine", schedulers(fine="moon:Good"), "backendai>=0.1,<99")
    install(site, "future", {"backendai_scheduler_v99": {"late": "moon:Good"}, "backendai_sheduler_v10": {"typo": "moon:Good"}})
    done = bai("doctor", "--json")
    found = {one["plugin"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert set(found) == {"old", "scheduler_v99.late", "sheduler_v10.typo",
                          *(f"scheduler_v10.{name}" for name in ("absent", "unfit", "gone", "twin"))}
    assert found["old"]["what"] == "old 1.0 needs backendai>=7.0,<8, and this is 0.1.0."
    assert "pip uninstall" in found["scheduler_v10.twin"]["mend"]
    assert "newer than this backendai" in found["scheduler_v99.late"]["what"]
    assert "Perhaps it should be backendai_scheduler_v10" in found["sheduler_v10.typo"]["what"]
    assert "pip install --force-reinstall moon" in found["scheduler_v10.gone"]["mend"]
    assert "does not fit its contract: attempts() is not implemented" in found["scheduler_v10.unfit"]["what"]
    assert not found["scheduler_v10.absent"]["grave"]
    assert "scheduler_v99.late: It comes from future 1.0" in bai("doctor").stdout


def test_doctor_is_content_when_all_is_well(bai: Run, site: Path) -> None:
    done = bai("doctor")
    assert (done.returncode, done.stdout) == (0, "All plugins are up.\n")
    install(site, "moon", schedulers(absent="moon:Absent"))
    skipped = bai("doctor")
    assert skipped.returncode == 0, "a plugin that cannot be used here is no illness"
    assert "there is no moon" in skipped.stdout


def test_the_kit_knows_the_commands_that_are_built_in() -> None:
    assert set(NAMES) | {"help"} == BUILT_IN


def test_every_contract_has_a_kit() -> None:
    import backendai.spec

    modules = {path.stem for path in Path(backendai.spec.__file__).parent.glob("*_v*.py")}
    assert modules == set(KITS)
