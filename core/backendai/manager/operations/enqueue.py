"""Accepting a session: what was asked for is checked, put to the site's plugins, and enters the queue."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace

import msgspec
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from backendai.manager.access import Caller, Verb, require
from backendai.manager.context import Context
from backendai.manager.operations.once import create_once, remember, violates
from backendai.manager.operations.registry import Input
from backendai.manager.operations.terms import Choice, Terms, find_terms
from backendai.manager.store.engine import Tx
from backendai.manager.store.owners import Place, check_open, check_usable, find_place
from backendai.manager.store.schema import kernels, sessions
from backendai.manager.store.sessions import find_session, show
from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.session import Mount, Network, Session, SessionSpec, SessionState, SessionType, check_mount, check_session_name
from backendai.model.slots import parse_slots, plain_slots
from backendai.spec import Reject
from backendai.spec.hook_v20 import SPEC as HOOK
from backendai.spec.hook_v20 import Enqueue

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG = re.compile(r"[^\x00-\x1f]{1,64}")
MOST_ENV, MOST_ARGUMENTS, MOST_MOUNTS, MOST_TAGS = 500, 1000, 50, 20
MOST_GRACE_S, MOST_TIME_S = 3600.0, 366 * 86400.0
_ADJECTIVES = (
    "amber", "brave", "calm", "clever", "crisp", "eager", "fair", "gentle", "happy", "keen", "lively", "lucid",
    "mellow", "noble", "quiet", "rapid", "sharp", "silver", "sunny", "swift", "tidy", "vivid", "warm", "wise",
)
_NOUNS = (
    "badger", "beacon", "birch", "cedar", "comet", "crane", "delta", "ember", "falcon", "fern", "harbor", "heron",
    "island", "lark", "maple", "meadow", "otter", "pine", "raven", "river", "spruce", "summit", "tulip", "willow",
)
_encoder = msgspec.json.Encoder()


class MountInput(Input, frozen=True):
    """A folder of the agent's node inside the container. source, target: absolute paths."""

    source: str
    target: str
    readonly: bool = False


class CreateSession(Input, frozen=True):
    """What is asked for.

    type: interactive idles until it is stopped, batch runs one command. name: one is made up when there is none.
    image: NAME:TAG, or none for the runtime's default. command: argv; none in a batch session means the image's own.
    slots: such as ``{"cpu": 1, "mem": "512m"}``. project: NAME, or DOMAIN/NAME; your own when left out.
    group: the resource group. preset: a named bundle of slots; *slots* come before it. reservation: an advance one to run in.
    priority: 0 to 100, higher first. time_limit_s: of running. grace_s: from SIGTERM to SIGKILL.
    """

    type: SessionType
    name: str | None = None
    image: str | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    slots: Mapping[str, str | int | float] = msgspec.field(default_factory=dict)
    priority: int = 10
    time_limit_s: float | None = None
    grace_s: float = 10.0
    network: Network = Network.PRIVATE
    mounts: tuple[MountInput, ...] = ()
    workdir: str | None = None
    tags: tuple[str, ...] = ()
    project: str | None = None
    group: str | None = None
    preset: str | None = None
    reservation: str | None = None


async def create(context: Context, caller: Caller, input: CreateSession) -> Session:
    """Ask for a session. It waits in the queue until there is room for it."""

    async def again(id: str) -> Session:
        return show(context, await find_session(context, caller, id), caller)

    return await create_once(context, caller, lambda: _enqueue(context, caller, input), again)


async def _enqueue(context: Context, caller: Caller, input: CreateSession) -> Session:
    place = await find_place(context.places, context.store, caller, input.project)
    require(caller, Verb.CREATE, place.thing("session"))
    check_usable(place)
    terms = await find_terms(context, caller, place, input.type.value, Choice(input.group, input.preset, input.reservation))
    spec = terms.apply(to_spec(input, {**context.config.default_slots, **terms.slots}))
    await terms.check(context, spec)
    enqueue = Enqueue(context.new_id(), caller.user, spec, place.name, place.domain)
    hooked = bool(context.host.each(HOOK))
    if hooked:
        try:
            await context.host.all(HOOK).pre_enqueue_session(enqueue)
        except Reject as veto:
            raise Failure("rejected", veto.reason) from veto
    while True:
        try:
            session = await _insert(context, caller, enqueue, place, terms)
            break
        except IntegrityError as error:
            if not violates(error, sessions):
                raise
            if input.name is not None:
                said = f"You have an active session named {input.name!r}; stop it or choose another name."
                raise Failure("name-taken", said) from error
            enqueue = replace(enqueue, spec=replace(spec, name=make_name(1_000_000)))
    if hooked:
        context.tasks.spawn(context.host.all(HOOK).post_enqueue_session(enqueue), "post_enqueue_session")
    return session


async def _insert(context: Context, caller: Caller, enqueue: Enqueue, place: Place, terms: Terms) -> Session:
    now, spec, kernel = context.clock(), enqueue.spec, context.new_id()
    row = {"id": enqueue.id, "owner_id": caller.id, "name": spec.name, "type": spec.type.value,
           "spec": _encoder.encode(spec).decode(), "priority": spec.priority, "state": SessionState.PENDING.value,
           "state_since": now, "stop": False, "reason": "", "hold": "", "created_at": now,
           "project_id": place.id, "domain_id": place.domain_id, "group_id": terms.group.id}
    container = {"id": kernel, "session_id": enqueue.id, "role": "main", "idx": 1, "slots": _encoder.encode(spec.slots).decode(),
                 "holds": False, "state": ""}

    async def job(tx: Tx) -> None:
        if not context.places.sure_of(place):
            await check_open(tx.connection, place)
        if await terms.admit(context, tx.connection, spec):  # the next in this commit must see it wait
            await tx.connection.execute(insert(sessions), [row])
            await tx.connection.execute(insert(kernels), [container])
        else:
            tx.later(sessions, row)
            tx.later(kernels, container)
        remember(tx, caller, enqueue.id, now)
        tx.event("session.created", enqueue.id, caller.id, {"by": caller.user.name, "name": spec.name, "state": "PENDING"})
        tx.after(lambda: context.bus.wake(fresh=[enqueue.id]))

    await context.store.write(job)
    return Session(
        id=enqueue.id, name=spec.name, owner=caller.user.name, type=spec.type, image=spec.image, command=spec.command,
        state=SessionState.PENDING, result=None, exit_code=None, reason="", hold="", agent=None, priority=spec.priority,
        slots=plain_slots(spec.slots), env=spec.env, network=spec.network, mounts=spec.mounts, tags=spec.tags,
        time_limit_s=spec.time_limit_s, progress="", created_at=now, started_at=None, ended_at=None,
        project=place.name, domain=place.domain, group=terms.group.name)


def to_spec(input: CreateSession, default_slots: Mapping[str, int]) -> SessionSpec:
    """Check everything that can be checked without looking anywhere; raise ``Failure`` with what to write instead."""
    check_command(input)
    check_env(input.env)
    _check_numbers(input)
    if input.workdir is not None and (not input.workdir.startswith("/") or "\0" in input.workdir):
        raise Failure("invalid-request", f"workdir: {input.workdir!r} must be an absolute path, such as /home/work.")
    if len(input.tags) > MOST_TAGS or any(_TAG.fullmatch(tag) is None for tag in input.tags):
        raise Failure("invalid-request", f"tags: at most {MOST_TAGS}, each of 1 to 64 printable characters.")
    if len(input.mounts) > MOST_MOUNTS:
        raise Failure("bad-mount", f"At most {MOST_MOUNTS} mounts; mount a folder above them.")
    mounts = tuple(check_mount(Mount(m.source, m.target, m.readonly)) for m in input.mounts)
    if len({m.target for m in mounts}) < len(mounts):
        raise Failure("bad-mount", "Two mounts have the same target; give each its own.")
    return SessionSpec(
        type=input.type, name=make_name() if input.name is None else check_session_name(input.name),
        image=None if input.image is None else check_image(input.image), command=input.command, env=input.env,
        slots={**default_slots, **parse_slots(input.slots)}, priority=input.priority, time_limit_s=input.time_limit_s,
        grace_s=input.grace_s, network=input.network, mounts=mounts, workdir=input.workdir, tags=input.tags)


def check_command(input: CreateSession) -> None:
    """Refuse a command that no system could start."""
    if input.type is SessionType.INTERACTIVE and input.command:
        raise Failure("invalid-request", "command: an interactive session takes none; use type batch, or run it with exec later.")
    words = input.command
    if len(words) > MOST_ARGUMENTS or any("\0" in word for word in words) or (words and not words[0]):
        raise Failure("invalid-request", f"command: a program and at most {MOST_ARGUMENTS} arguments, none with a zero byte.")


def check_env(env: Mapping[str, str]) -> None:
    """Refuse names and values that no system could pass on."""
    if len(env) > MOST_ENV:
        raise Failure("invalid-request", f"env: at most {MOST_ENV} variables.")
    for name, value in env.items():
        if _ENV.fullmatch(name) is None:
            raise Failure("invalid-request", f"env: {name!r} cannot be a variable's name; use letters, digits and '_'.")
        if "\0" in value:
            raise Failure("invalid-request", f"env: the value of {name} holds a zero byte; encode it first.")


def _check_numbers(input: CreateSession) -> None:
    if not 0 <= input.priority <= 100:
        raise Failure("invalid-request", f"priority: {input.priority} must be from 0 to 100; 10 is usual.")
    if input.time_limit_s is not None and not 0 < input.time_limit_s <= MOST_TIME_S:
        raise Failure("invalid-request", "time_limit_s: must be more than 0 and at most a year, or left out for no limit.")
    if not 0 <= input.grace_s <= MOST_GRACE_S:
        raise Failure("invalid-request", f"grace_s: must be from 0 to {MOST_GRACE_S:g}.")


def make_name(numbers: int = 10_000) -> str:
    """Make up a name that people can say: ``quiet-otter-4821``."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(numbers)}"
