"""Resource groups: what their operator chose, who may use them, and which one a session goes to that names none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from backendai.manager.store.schema import DEFAULT, group_access, groups
from backendai.manager.store.scopes import EVERYONE
from backendai.model.errors import Failure
from backendai.model.group import GroupOptions

if TYPE_CHECKING:
    from backendai.manager.store.engine import Store

_options_decoder = msgspec.json.Decoder(GroupOptions)


@dataclass(frozen=True, slots=True)
class Group:
    """A resource group. scheduler, selector: names of plugins, empty for the manager's own. open_to: ids of scopes, or ``*``."""

    id: str
    name: str
    scheduler: str
    selector: str
    options: GroupOptions
    open_to: frozenset[str]
    created_at: float


async def read_groups(connection: AsyncConnection) -> tuple[Group, ...]:
    """Return every group, by name."""
    access: defaultdict[str, set[str]] = defaultdict(set)
    for row in await connection.execute(select(group_access)):
        access[row.group_id].add(row.scope_id)
    return tuple(Group(row.id, row.name, row.scheduler, row.selector, _options_decoder.decode(row.options), frozenset(access[row.id]),
                       row.created_at) for row in await connection.execute(select(groups).order_by(groups.c.name)))


class Groups:
    """Every group by id, in memory until one changes."""

    def __init__(self) -> None:
        self._known: Mapping[str, Group] | None = None
        self._generation = 0

    async def all(self, store: Store) -> Mapping[str, Group]:
        """Return the groups by id."""
        if self._known is not None:
            return self._known
        generation = self._generation
        found = {group.id: group for group in await store.read(read_groups)}
        if generation == self._generation:
            self._known = found
        return found

    def forget(self) -> None:
        """Look again next time: a group was made, changed or removed."""
        self._generation += 1
        self._known = None

    def sure_of(self, group: Group) -> bool:
        """Tell whether *group*, which ``all`` returned, is still so."""
        return self._known is not None and self._known.get(group.id) is group


def choose(known: Iterable[Group], scopes: Iterable[str], everything: bool, wanted: str | None, type: str) -> Group:
    """Return the group of a session of *scopes* (ids of its user, project and domain).

    everything: every group is open to whoever asks. wanted: by name or id; None for the only one that takes such sessions, or the
    one named ``default``. Raise ``Failure`` that says what to choose from.
    """
    ids = {EVERYONE, *scopes}
    usable = [group for group in known if everything or ids & group.open_to]
    if wanted is not None:
        return _take(next((group for group in usable if wanted in (group.name, group.id)), None), wanted, usable, type)
    fitting = [group for group in usable if type in group.options.types]
    if len(fitting) == 1:
        return fitting[0]
    for group in fitting:
        if group.id == DEFAULT:
            return group
    if not fitting:
        kinds = f"for {type} sessions " if usable else ""
        raise Failure("forbidden", f"No resource group {kinds}is open to you in this project; ask your administrator for one.")
    raise Failure("invalid-request", f"group: name one of {', '.join(group.name for group in fitting)}.")


def _take(found: Group | None, wanted: str, usable: Iterable[Group], type: str) -> Group:
    if found is None:
        names = ", ".join(group.name for group in usable) or "none"
        raise Failure("not-found", f"There is no resource group {wanted!r} for you; there are: {names}.")
    if type not in found.options.types:
        raise Failure("rejected", f"The group {found.name} takes no {type} sessions, only {' and '.join(found.options.types) or 'none'}.")
    return found
