"""What a session may be asked to be: the input of the operation, and everything that can be checked without looking anywhere."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

import msgspec

from backendai.manager.operations.registry import Input
from backendai.model.errors import Failure
from backendai.model.image import check_image
from backendai.model.session import (
    After,
    Arrange,
    Evicted,
    Mount,
    Network,
    Part,
    Retry,
    SessionSpec,
    SessionType,
    Wishes,
    Zone,
    check_mount,
    check_session_name,
)
from backendai.model.slots import parse_slots

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAG = re.compile(r"[^\x00-\x1f]{1,64}")
_ROLE = re.compile(r"[a-z](?:[a-z-]{0,22}[a-z])?")
_ARRAY = re.compile(r"(\d{1,9})-(\d{1,9})(?:%(\d{1,9}))?")
MOST_ENV, MOST_ARGUMENTS, MOST_MOUNTS, MOST_TAGS = 500, 1000, 50, 20
MOST_KERNELS, MOST_ARRAY, MOST_AFTER, MOST_WISHES, MOST_TRIES = 2000, 1000, 100, 100, 100
MOST_GRACE_S, MOST_TIME_S, MOST_BACKOFF_S = 3600.0, 366 * 86400.0, 86400.0
MOST_BOOTSTRAP = 64 * 1024  # bytes
_ADJECTIVES = (
    "amber", "brave", "calm", "clever", "crisp", "eager", "fair", "gentle", "happy", "keen", "lively", "lucid",
    "mellow", "noble", "quiet", "rapid", "sharp", "silver", "sunny", "swift", "tidy", "vivid", "warm", "wise",
)
_NOUNS = (
    "badger", "beacon", "birch", "cedar", "comet", "crane", "delta", "ember", "falcon", "fern", "harbor", "heron",
    "island", "lark", "maple", "meadow", "otter", "pine", "raven", "river", "spruce", "summit", "tulip", "willow",
)


class MountInput(Input, frozen=True):
    """A folder of the agent's node inside the container. source, target: absolute paths."""

    source: str
    target: str
    readonly: bool = False


class PartInput(Input, frozen=True):
    """Containers of one role in a cluster. slots, image, command: the session's own when left out."""

    role: str
    count: int = 1
    slots: Mapping[str, str | int | float] | None = None
    image: str | None = None
    command: tuple[str, ...] | None = None


class WishesInput(Input, frozen=True):
    """Where it wants to be. agents: one of these (names). avoid: none of these. labels: what the agents' labels must say.

    arrange: its containers together (``pack``) or apart (``spread``). zone: in the same failure domain or in different ones.
    one_agent: all containers on one. strict: otherwise it is preferred and no more.
    """

    agents: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    arrange: Arrange | None = None
    zone: Zone | None = None
    one_agent: bool = False
    strict: bool = True


class AfterInput(Input, frozen=True):
    """It waits for the end of another session. session: id or name, or an array's. kind: of which end."""

    session: str
    kind: After = After.OK


class RetryInput(Input, frozen=True):
    """When it is tried again. count: further attempts. backoff_s: before the first, doubled each time. exit_codes: empty for all but 0."""

    count: int = 0
    backoff_s: float = 10.0
    exit_codes: tuple[int, ...] = ()


class CreateSession(Input, frozen=True):
    """What is asked for.

    type: interactive idles until it is stopped, batch runs one command. name: one is made up when there is none.
    image: NAME:TAG, or none for the runtime's default. command: argv; none in a batch session means the image's own.
    slots: such as ``{"cpu": 1, "mem": "512m"}``, for each container. project: NAME, or DOMAIN/NAME; your own when left out.
    group: the resource group. preset: a named bundle of slots; *slots* come before it. reservation: an advance one to run in.
    priority: 0 to 100, higher first. time_limit_s: of running. grace_s: from SIGTERM to SIGKILL.
    cluster: its containers by role, one of which is ``main``; a single one when left out. bootstrap: a shell script that runs inside
    before the command. after: sessions that must have ended. not_before: seconds since the epoch. evicted: what becomes of it when
    a more urgent one needs its room; never that when left out. array: ``0-99`` makes a hundred such sessions, ``0-99%10`` has at most
    ten of them run at once; the first is the answer.
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
    cluster: tuple[PartInput, ...] = ()
    wishes: WishesInput = WishesInput()
    bootstrap: str = ""
    not_before: float | None = None
    after: tuple[AfterInput, ...] = ()
    retry: RetryInput = RetryInput()
    evicted: Evicted | None = None
    array: str | None = None


def to_spec(input: CreateSession, default_slots: Mapping[str, int], now: float) -> SessionSpec:
    """Check everything that can be checked without looking anywhere; raise ``Failure`` with what to write instead."""
    check_command(input)
    check_env(input.env)
    _check_numbers(input)
    if input.workdir is not None and (not input.workdir.startswith("/") or "\0" in input.workdir):
        raise Failure("invalid-request", f"workdir: {input.workdir!r} must be an absolute path, such as /home/work.")
    if len(input.tags) > MOST_TAGS or any(_TAG.fullmatch(tag) is None for tag in input.tags):
        raise Failure("invalid-request", f"tags: at most {MOST_TAGS}, each of 1 to 64 printable characters.")
    if len(input.bootstrap.encode()) > MOST_BOOTSTRAP or "\0" in input.bootstrap:
        raise Failure("invalid-request", f"bootstrap: a script of at most {MOST_BOOTSTRAP // 1024} KiB, without a zero byte.")
    return SessionSpec(
        type=input.type, name=make_name() if input.name is None else check_session_name(input.name),
        image=None if input.image is None else check_image(input.image), command=input.command, env=input.env,
        slots={**default_slots, **parse_slots(input.slots)}, priority=input.priority, time_limit_s=input.time_limit_s,
        grace_s=input.grace_s, network=input.network, mounts=_mounts(input), workdir=input.workdir, tags=input.tags,
        cluster=_cluster(input, default_slots), wishes=_wishes(input.wishes), bootstrap=input.bootstrap,
        not_before=input.not_before if (input.not_before or 0.0) > now else None, retry=_retry(input), evicted=input.evicted)


def check_command(input: CreateSession) -> None:
    """Refuse a command that no system could start."""
    if input.type is SessionType.INTERACTIVE and input.command:
        raise Failure("invalid-request", "command: an interactive session takes none; use type batch, or run it with exec later.")
    for words in (input.command, *(part.command for part in input.cluster if part.command is not None)):
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


def read_array(input: CreateSession) -> tuple[range, int | None] | None:
    """Return the indices of an array and how many may run at once, None when no array is asked for."""
    if input.array is None:
        return None
    match = _ARRAY.fullmatch(input.array)
    if match is None:
        raise Failure("invalid-request", f"array: {input.array!r} is none; write 0-99, or 0-99%10 for at most ten at once.")
    first, last, most = int(match[1]), int(match[2]), match[3]
    if not 1 <= last - first + 1 <= MOST_ARRAY or most == "0":
        raise Failure("invalid-request", f"array: {input.array} must have from 1 to {MOST_ARRAY} sessions, and let one run at least.")
    if input.type is not SessionType.BATCH:
        raise Failure("invalid-request", "array: only batch sessions come in arrays; use type batch.")
    return range(first, last + 1), None if most is None else int(most)


def make_name(numbers: int = 10_000) -> str:
    """Make up a name that people can say: ``quiet-otter-4821``."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(numbers)}"


def _check_numbers(input: CreateSession) -> None:
    if not 0 <= input.priority <= 100:
        raise Failure("invalid-request", f"priority: {input.priority} must be from 0 to 100; 10 is usual.")
    if input.time_limit_s is not None and not 0 < input.time_limit_s <= MOST_TIME_S:
        raise Failure("invalid-request", "time_limit_s: must be more than 0 and at most a year, or left out for no limit.")
    if not 0 <= input.grace_s <= MOST_GRACE_S:
        raise Failure("invalid-request", f"grace_s: must be from 0 to {MOST_GRACE_S:g}.")
    if input.not_before is not None and not 0 <= input.not_before < 1 << 40:
        raise Failure("invalid-request", "not_before: must be seconds since the epoch.")
    if len(input.after) > MOST_AFTER:
        raise Failure("invalid-request", f"after: at most {MOST_AFTER} sessions; let one of them follow the others.")


def _mounts(input: CreateSession) -> tuple[Mount, ...]:
    if len(input.mounts) > MOST_MOUNTS:
        raise Failure("bad-mount", f"At most {MOST_MOUNTS} mounts; mount a folder above them.")
    mounts = tuple(check_mount(Mount(m.source, m.target, m.readonly)) for m in input.mounts)
    if len({m.target for m in mounts}) < len(mounts):
        raise Failure("bad-mount", "Two mounts have the same target; give each its own.")
    return mounts


def _cluster(input: CreateSession, default_slots: Mapping[str, int]) -> tuple[Part, ...]:
    parts = input.cluster
    roles = [part.role for part in parts]
    if not parts:
        return ()
    if bad := [role for role in roles if _ROLE.fullmatch(role) is None]:
        raise Failure("invalid-request", f"cluster: {bad[0]!r} cannot be a role; use up to 24 lower case letters and '-'.")
    if "main" not in roles or len(set(roles)) < len(roles):
        raise Failure("invalid-request",
                      "cluster: each role stands there once, and one of them is main, whose first container is the session's.")
    if any(part.count < 1 for part in parts) or sum(part.count for part in parts) > MOST_KERNELS:
        raise Failure("invalid-request", f"cluster: at least one container of each role, and at most {MOST_KERNELS} in all.")
    return tuple(Part(part.role, part.count, None if part.slots is None else {**default_slots, **parse_slots(part.slots)},
                      None if part.image is None else check_image(part.image), part.command) for part in parts)


def _wishes(input: WishesInput) -> Wishes:
    words = (*input.agents, *input.avoid, *input.labels, *input.labels.values())
    if len(words) > MOST_WISHES or any(_TAG.fullmatch(word) is None for word in words):
        raise Failure("invalid-request", f"wishes: at most {MOST_WISHES} names and labels, each of 1 to 64 printable characters.")
    if both := set(input.agents) & set(input.avoid):
        raise Failure("invalid-request", f"wishes: {', '.join(sorted(both))} cannot be wanted and avoided; leave one out.")
    return Wishes(input.agents, input.avoid, input.labels, input.arrange, input.zone, input.one_agent, input.strict)


def _retry(input: CreateSession) -> Retry:
    retry = input.retry
    if retry.count and input.type is not SessionType.BATCH:
        raise Failure("invalid-request", "retry: only batch sessions are tried again; use type batch.")
    if not 0 <= retry.count <= MOST_TRIES or not 0 <= retry.backoff_s <= MOST_BACKOFF_S:
        raise Failure("invalid-request", f"retry: count must be from 0 to {MOST_TRIES}, backoff_s from 0 to {MOST_BACKOFF_S:g}.")
    if len(retry.exit_codes) > 255 or any(not 1 <= code <= 255 for code in retry.exit_codes):
        raise Failure("invalid-request", "retry: exit_codes are from 1 to 255.")
    return Retry(retry.count, retry.backoff_s, retry.exit_codes)
