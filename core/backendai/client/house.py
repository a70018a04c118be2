"""Calls about resource groups and the rules of the house. Use them as ``backendai.client.calls``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backendai.client.call import Call, given, make_key

if TYPE_CHECKING:
    from backendai.model.views import Agent, Booking, Diagnosis, Group, Preset, Quota, SlotType, UsageLine


def list_groups() -> Call[tuple[Group, ...]]:
    return Call("GET", "/v1/groups", "Group", many=True)


def get_group(name: str) -> Call[Group]:
    return Call("GET", _at("groups", name), "Group")


def create_group(name: str, key: str = "", **options: Any) -> Call[Group]:
    """options: as ``POST /v1/groups`` has them; what is None is left out."""
    return Call("POST", "/v1/groups", "Group", body={"name": name, **given(options)}, key=key or make_key())


def change_group(name: str, **options: Any) -> Call[Group]:
    """options: as for ``create_group``; what is None stays."""
    return Call("PATCH", _at("groups", name), "Group", body=given(options))


def remove_group(name: str) -> Call[None]:
    return Call("DELETE", _at("groups", name))


def change_agent(agent: str, **changes: Any) -> Call[Agent]:
    """changes: group, cordoned, draining, labels; what is None stays."""
    return Call("PATCH", _at("agents", agent), "Agent", body=given(changes))


def list_slots() -> Call[tuple[SlotType, ...]]:
    return Call("GET", "/v1/slots", "SlotType", many=True)


def list_presets() -> Call[tuple[Preset, ...]]:
    return Call("GET", "/v1/presets", "Preset", many=True)


def create_preset(name: str, slots: Mapping[str, str | int | float], group: str | None = None, about: str = "",
                  key: str = "") -> Call[Preset]:
    body = {"name": name, "slots": dict(slots), "about": about, **given({"group": group})}
    return Call("POST", "/v1/presets", "Preset", body=body, key=key or make_key())


def remove_preset(name: str) -> Call[None]:
    return Call("DELETE", _at("presets", name))


def list_quotas(scope: str | None = None, group: str | None = None) -> Call[tuple[Quota, ...]]:
    return Call("GET", "/v1/quotas", "Quota", {"scope": scope, "group": group}, many=True)


def set_quotas(scope: str, limits: Mapping[str, str | int | float | None], group: str | None = None) -> Call[tuple[Quota, ...]]:
    """limits: by slot, and sessions, waiting, kernels, lifetime; None removes one."""
    return Call("PATCH", "/v1/quotas", "Quota", body={"scope": scope, "limits": dict(limits), **given({"group": group})}, many=True)


def remove_quotas(scope: str, group: str | None = None, what: str | None = None) -> Call[None]:
    return Call("DELETE", "/v1/quotas", query={"scope": scope, "group": group, "what": what})


def list_bookings() -> Call[tuple[Booking, ...]]:
    return Call("GET", "/v1/reservations", "Booking", many=True)


def create_booking(name: str, scope: str, begins: float, ends: float, key: str = "", **more: Any) -> Call[Booking]:
    """begins, ends: seconds since the epoch. more: group, agents or count with labels, slots; what is None is left out."""
    body = {"name": name, "scope": scope, "begins": begins, "ends": ends, **given(more)}
    return Call("POST", "/v1/reservations", "Booking", body=body, key=key or make_key())


def remove_booking(name: str) -> Call[None]:
    return Call("DELETE", _at("reservations", name))


def read_usage(by: str = "slot", since: str | None = None, until: str | None = None) -> Call[tuple[UsageLine, ...]]:
    """by: any of day, group, domain, project, user, slot, with commas. since, until: days such as 2026-11-26, both included."""
    return Call("GET", "/v1/usage", "UsageLine", {"by": by, "since": since, "until": until}, many=True)


def examine(mend: bool = False) -> Call[Diagnosis]:
    """mend: put right what can safely be put right."""
    return Call("POST", "/v1/doctor", "Diagnosis", body={"mend": mend})


def _at(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"
