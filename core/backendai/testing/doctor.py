"""What is wrong with the plugins that are installed here, and how to mend it."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import Distribution, distributions

import backendai
from backendai.plugin.host import PluginHost, Row, Settings, State
from backendai.testing.check import KITS, specs

OLDEST, NEWEST = (3, 11), (3, 13)
_GROUP = re.compile(r"backendai_(?P<spec>(?P<name>.+)_v(?P<version>\d+))")
_NEED = re.compile(r"backendai\s*(?:\[[^]]*\])?\s*\(?(?P<bounds>[^;)]*)\)?\s*(?:;(?P<marker>.*))?", re.IGNORECASE)
_BOUND = re.compile(r"(==|!=|<=|>=|~=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?.*")


_SIGNS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. plugin: its id, or what else is ill. grave: it keeps something from working."""

    plugin: str
    what: str
    mend: str
    grave: bool = True


async def look(settings: Settings | None = None) -> list[Finding]:
    """Look at this Python, at every installed distribution and at every plugin; what needs attention most comes first."""
    found = [*check_python(sys.version_info[:2]), *check_distributions(distributions())]
    found += [diagnose(row) for row in await list_plugins(settings) if row.state is not State.UP]
    return sorted(found, key=lambda finding: not finding.grave)


async def list_plugins(settings: Settings | None = None) -> list[Row]:
    """Bring every plugin of every contract up, and down again, and return what became of each."""
    host = PluginHost(specs(), replace(settings or Settings(), required=frozenset()))  # a list ends at nothing that is missing
    await host.start()
    rows = [Row(row.id, row.dist, row.version, row.state, row.why) for row in host.rows]
    await host.stop()
    return rows


def check_python(version: tuple[int, ...]) -> Iterator[Finding]:
    """Say so when this Python is not one that backendai is tested with."""
    if not OLDEST <= version <= NEWEST:
        told, oldest, newest = (".".join(map(str, one)) for one in (version, OLDEST, NEWEST))
        yield Finding("python", f"This is Python {told}; backendai is tested with {oldest} to {newest}.",
                      f"Install it for Python {newest}.", grave=version < OLDEST)


def check_distributions(dists: Iterable[Distribution]) -> Iterator[Finding]:
    """Look at what each distribution declares: groups that this core does not know, and the backendai that it needs."""
    for dist in dists:
        groups = sorted({entry.group for entry in dist.entry_points if entry.group.startswith("backendai_")})
        for group in groups:
            yield from _check_group(dist, group)
        if groups:
            yield from (finding for need in dist.requires or () if (finding := _check_need(dist, need)))


def _check_group(dist: Distribution, group: str) -> Iterator[Finding]:
    found = _GROUP.fullmatch(group)
    if found and found["spec"] in KITS:
        return
    known = [spec for spec in KITS if found and spec.rpartition("_v")[0] == found["name"]]
    names = [entry.name for entry in dist.entry_points if entry.group == group]
    for name in names:
        plugin = f"{group.removeprefix('backendai_')}.{name}"
        what = f"It comes from {dist.name} {dist.version} under the group {group}, which "
        if known and found and int(found["version"]) > int(known[-1].rpartition("_v")[2]):
            yield Finding(plugin, f"{what}is newer than this backendai {backendai.__version__} knows ({known[-1]}).",
                          f"Upgrade backendai, or install an older {dist.name}.")
        elif known:
            yield Finding(plugin, f"{what}this backendai {backendai.__version__} no longer knows; it knows {known[-1]}.",
                          f"Upgrade {dist.name}.")
        else:
            near = get_close_matches(group.removeprefix("backendai_"), KITS, 1)
            hint = f" Perhaps it should be backendai_{near[0]}." if near else ""
            yield Finding(plugin, f"{what}no backendai knows.{hint}", f"Tell the authors of {dist.name}, or upgrade backendai.")


def _check_need(dist: Distribution, need: str) -> Finding | None:
    found = _NEED.fullmatch(need.strip())
    if found is None or "extra" in (found["marker"] or "") or fits(backendai.__version__, found["bounds"]):
        return None
    return Finding(dist.name, f"{dist.name} {dist.version} needs backendai{found['bounds'].strip()}, and this is {backendai.__version__}.",
                   f"Run `pip install --upgrade {dist.name}`, or install the backendai that it needs.")


def fits(version: str, bounds: str) -> bool:
    """Tell whether a version is within bounds such as ``>=0.1,<0.2``; what cannot be read is taken to fit."""
    have = _numbers(version)
    for bound in filter(None, map(str.strip, bounds.split(","))):
        if (found := _BOUND.fullmatch(bound)) is None:
            continue
        sign, text, star = found.groups()
        want = _numbers(text)
        if sign == "~=":
            holds = have >= want and have[: text.count(".")] == want[: text.count(".")]
        elif star:
            holds = (have[: text.count(".") + 1] == want[: text.count(".") + 1]) is (sign == "==")
        else:
            holds = _SIGNS[sign](have, want)
        if not holds:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    return tuple(numbers + [0] * (4 - len(numbers)))


def diagnose(row: Row) -> Finding:
    """Say what keeps a plugin from being up, and the mend."""
    if row.state is State.OFF:
        return Finding(row.id, row.why, f"Take it out of `disabled` to use {row.dist}.", grave=False)
    if row.state is State.SKIP:
        return Finding(row.id, f"It cannot be used here: {row.why}", f"Provide what is missing, or uninstall {row.dist}.", grave=False)
    if ", " in row.dist:
        return Finding(row.id, row.why, f"Run `pip uninstall` for all of {row.dist} but the one that you want.")
    if "ModuleNotFoundError" in row.why or "ImportError" in row.why:
        return Finding(row.id, f"It cannot be imported: {row.why}",
                       f"Run `pip install --force-reinstall {row.dist}`; it brings what it needs.")
    if "option" in row.why and row.why.startswith("Incompatible"):
        return Finding(row.id, row.why, f"""Correct its options under [plugins."{row.id}"] of the configuration.""")
    if row.why.startswith("Incompatible"):
        return Finding(row.id, f"It does not fit its contract: {row.why.partition(': ')[2]}",
                       f"Upgrade {row.dist}; its authors can run `bai plugin check {row.id}`.")
    return Finding(row.id, row.why, f"Tell the authors of {row.dist} {row.version}; until then disable {row.id}, or uninstall it.")
