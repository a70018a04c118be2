"""What can be asked of the manager. Each operation is declared once; REST, OpenAPI, audit and metrics are derived from that."""

from __future__ import annotations

from backendai.manager.operations import (
    agents,
    bookings,
    doctor,
    domains,
    explain,
    groups,
    images,
    plugins,
    presets,
    projects,
    quotas,
    sessions,
    streams,
    tokens,
    usage,
    users,
)
from backendai.manager.operations.registry import Registry


def built_in() -> Registry:
    """Return a registry of the platform's own operations."""
    registry = Registry()
    for module in (
        sessions, explain, agents, groups, presets, quotas, bookings, usage, doctor, images, domains, projects, users, tokens, plugins,
    ):
        for operation in module.OPERATIONS:
            registry.add(operation)
    for stream in streams.STREAMS:
        registry.add_stream(stream)
    return registry
