"""Writing a new plugin: a package that installs, passes its tests as it is, and waits for its author's idea."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from string import Template

import backendai
from backendai.model.errors import Failure
from backendai.testing.check import KITS

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40

PYPROJECT = Template('''\
[project]
name = "backendai-$name"
version = "0.1.0"
description = "$title"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["backendai>=$this,<$next"]

[project.optional-dependencies]
test = ["pytest>=8", "hypothesis>=6"]

[project.entry-points.backendai_$spec]
$name = "$module:$cls"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["$module"]
''')
README = Template('''\
# backendai-$name

$title It is a plugin of the contract `$spec`.

```console
pip install -e '.[test]'           # bai plugin ls shows it now
python -m pytest                   # the laws of its contract, tried on it
bai plugin check $spec.$name
```

The plugin is `$module/__init__.py`. What each method must do stands in the docstrings of `backendai.spec.$spec`.
''')
TESTS = Template('''\
from backendai.testing.$spec import $kit


class Test$cls($kit):
    plugin = "$spec.$name"
''')
_SCHEDULER = '''\
"""$title"""

from __future__ import annotations

from collections.abc import Generator

from backendai.spec import hookimpl
from backendai.spec.scheduler_v10 import Attempt, Outcome, QueueView


class $cls:
    """The scheduler ``$name``: whoever came first goes first, and who does not fit is passed over."""

    @hookimpl
    def attempts(self, view: QueueView) -> Generator[Attempt, Outcome, None]:
        for waiting in view.waiting:
            yield Attempt(waiting.id)
'''
_SELECTOR = '''\
"""$title"""

from __future__ import annotations

import numpy as np
from backendai.spec import hookimpl
from backendai.spec.agentselector_v10 import PlacementView
from numpy.typing import NDArray


class $cls:
    """The agent selector ``$name``: the agent with the fewest containers wins."""

    @hookimpl
    def scores(self, view: PlacementView) -> NDArray[np.float64]:
        return -view.kernels.astype(np.float64)
'''
_ACCELERATOR = '''\
"""$title"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backendai.model.slots import SCALE, SlotDecl, SlotKind
from backendai.spec import Skip, hookimpl
from backendai.spec.accelerator_v21 import Device, Grant
from backendai.spec.runtime_v10 import DeviceNode, Edits

SLOT = SlotDecl("$name.device", SlotKind.COUNT, quantum=SCALE, unit="device", title="$cls")


class $cls:
    """The accelerator ``$name``: lends device files, one to a container."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """nodes: the device files that there are."""

        nodes: tuple[str, ...] = ("/dev/null",)

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    async def setup(self) -> None:
        if not self._config.nodes:
            raise Skip("no device is configured; set nodes")

    @hookimpl
    def slots(self) -> Sequence[SlotDecl]:
        return (SLOT,)

    @hookimpl
    async def devices(self) -> Sequence[Device]:
        return [Device(node, {SLOT.name: SCALE}) for node in self._config.nodes]

    @hookimpl
    def edits(self, grants: Sequence[Grant]) -> Edits:
        return Edits(tuple(DeviceNode(grant.device, grant.device) for grant in grants))
'''
_HOOK = '''\
"""$title"""

from __future__ import annotations

from dataclasses import dataclass

from backendai.spec import Reject, hookimpl
from backendai.spec.hook_v20 import Enqueue


class $cls:
    """The hook plugin ``$name``: refuses sessions that ask for more memory than is allowed."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """most: bytes of memory that a session may have."""

        most: int = 64 << 30

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or self.Config()

    @hookimpl
    async def pre_enqueue_session(self, enqueue: Enqueue) -> None:
        if enqueue.spec.slots.get("mem", 0) > self._config.most:
            raise Reject(f"A session may have {self._config.most >> 30} GiB of memory; ask for less.")
'''
_WEBAPP = '''\
"""$title"""

from __future__ import annotations

from aiohttp import web
from backendai.spec import hookimpl
from backendai.spec.webapp_v20 import Site


class $cls:
    """The web application ``$name``: one page that links to itself."""

    @hookimpl
    async def create_app(self, site: Site) -> web.Application:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text=f'<h1>$cls</h1><a href="{site.prefix}/">again</a>', content_type="text/html")

        app = web.Application()
        app.router.add_get("/", page)
        return app
'''
_STATS = '''\
"""$title"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backendai.spec import hookimpl
from backendai.spec.monitor_stats_v10 import Metric

log = logging.getLogger(__name__)


class $cls:
    """The receiver of metrics ``$name``: writes them to the log."""

    @hookimpl
    async def report(self, metrics: Sequence[Metric]) -> None:
        for metric in metrics:
            log.debug("%s %s %s %s", metric.name, metric.kind, metric.value, dict(metric.tags))
'''
_ERROR = '''\
"""$title"""

from __future__ import annotations

import logging

from backendai.spec import hookimpl
from backendai.spec.monitor_error_v10 import ErrorReport

log = logging.getLogger(__name__)


class $cls:
    """The receiver of errors ``$name``: writes them to the log."""

    @hookimpl
    async def capture(self, report: ErrorReport) -> None:
        log.debug("%r from %s: %r", report.message, report.plugin or "the platform", report.error)
'''
_CLI = '''\
"""$title"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from backendai.spec import hookimpl
from backendai.spec.cli_v10 import Command


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("who", nargs="?", default="world", help="whom to greet")


def run(options: Namespace) -> int:
    print(f"Hello, {options.who}.")
    return 0


class $cls:
    """The command ``bai $name``."""

    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (Command("$name", "Say hello.", arguments, run),)
'''
_MODULES: Mapping[str, tuple[str, str]] = {
    "scheduler_v10": ("A scheduler.", _SCHEDULER),
    "agentselector_v10": ("An agent selector.", _SELECTOR),
    "accelerator_v21": ("Devices that a node can lend.", _ACCELERATOR),
    "hook_v20": ("A policy of this site.", _HOOK),
    "webapp_v20": ("A web application.", _WEBAPP),
    "monitor_stats_v10": ("A place for metrics to go.", _STATS),
    "monitor_error_v10": ("A place for errors to go.", _ERROR),
    "cli_v10": ("A command of bai.", _CLI),
    "runtime_v10": ("A container runtime.", ""),  # these two begin as copies of the null ones
    "network_v10": ("A network between nodes.", ""),
}


def write_plugin(group: str, name: str, where: Path) -> Path:
    """Write the package of a new plugin below *where* and return its folder; raise ``Failure`` and write nothing when it may not be."""
    spec = check_group(group)
    check_name(name)
    folder = where / f"backendai-{name}"
    if folder.exists():
        raise Failure("name-taken", f"{folder} is there already; choose another name, or work on that one.")
    files = make_files(spec, name)
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def check_group(group: str) -> str:
    """Return the id of the contract that *group* names, with or without its version."""
    found = [spec for spec in KITS if group in (spec, f"backendai_{spec}", spec.rpartition("_v")[0])]
    if not found:
        raise Failure("invalid-request", f"There is no group {group!r}; there are: {', '.join(spec.rpartition('_v')[0] for spec in KITS)}.")
    return found[0]


def check_name(name: str) -> str:
    """Return *name* if a plugin may bear it; raise ``Failure('bad-name')`` if not."""
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise Failure("bad-name", f"{name!r} cannot be a plugin's name; use a-z and 0-9, words joined by '-', {_LONGEST} letters at most.")
    try:
        there = distribution(f"backendai-{name}")
    except PackageNotFoundError:
        return name
    raise Failure("name-taken", f"The package {there.name} is installed already; choose another name.")


def make_files(spec: str, name: str) -> dict[str, str]:
    """Return the files of a package by their paths."""
    title, module = _MODULES[spec]
    major, minor = map(int, backendai.__version__.split(".")[:2])
    words = {
        "name": name, "module": f"backendai_{name.replace('-', '_')}", "cls": "".join(map(str.capitalize, name.split("-"))), "spec": spec,
        "kit": KITS[spec], "title": title, "this": f"{major}.{minor}", "next": f"{major}.{minor + 1}"}
    return {
        "pyproject.toml": PYPROJECT.substitute(words),
        "README.md": README.substitute(words),
        f"{words['module']}/__init__.py": Template(module).substitute(words) if module else _copy_of_null(words),
        "tests/test_conformance.py": TESTS.substitute(words),
        ".gitignore": "__pycache__/\n*.egg-info/\n.venv/\n",
    }


def _copy_of_null(words: Mapping[str, str]) -> str:
    """Return the null plugin of a contract under another name: every hook is there, to be filled one by one."""
    from backendai.testing import null_network, null_runtime

    source = null_network.__file__ if words["spec"] == "network_v10" else null_runtime.__file__
    text = Path(source).read_text(encoding="utf-8").replace("NullRuntime", words["cls"]).replace("NullNetwork", words["cls"])
    text = re.sub(r"\bnull\b", words["name"], text.partition('"""')[2].partition('"""')[2])
    text = re.sub(r"_NULL_", f"_{words['name'].replace('-', '_').upper()}_", text)
    return f'''"""{words["title"]} It begins as one that does nothing; fill the hooks one by one."""{text}'''
