"""The doctor: what is wrong with the running platform, in words, and what can safely be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backendai.manager.access import Caller, Thing, Verb, require
from backendai.manager.context import Context
from backendai.manager.diagnosis import Books, compare, read_books
from backendai.manager.operations.registry import Input, declare
from backendai.manager.store.engine import Tx
from backendai.manager.store.placement import settle_ledger
from backendai.manager.store.quotas import settle_quotas
from backendai.manager.store.usage import count
from backendai.model.errors import Failure
from backendai.model.views import Diagnosis, Finding
from backendai.plugin.host import State
from backendai.wire.frames import Verb as Ask

ASK_S = 20.0
AT_ONCE = 64  # agents that are asked together: each answer is a stream of its own
SILENCE_S = 60.0  # as /readyz has it
TOLD_ANEW, COUNTED = "--mend has the agent", ("--mend makes", "--mend counts")


class Examine(Input, frozen=True):
    """mend: put right what can safely be put right: ledgers, quotas, and agents that know something else than the database."""

    mend: bool = False


async def examine(context: Context, caller: Caller, input: Examine) -> Diagnosis:
    """Compare ledgers with what is held and the database with what agents and their runtimes have; say what is wrong, and mend it."""
    require(caller, Verb.CHANGE if input.mend else Verb.READ, Thing("platform's state"))
    now = context.clock()
    before = await context.store.read(lambda connection: read_books(connection, now))
    links = {id: link.name for id, link in context.live.links.items()}
    few = asyncio.Semaphore(AT_ONCE)
    answers = dict(zip(links, await asyncio.gather(*(_ask(context, id, few) for id in links)), strict=True))
    after = await context.store.read(lambda connection: read_books(connection, now))
    silent = {links[id]: answer.message for id, answer in answers.items() if isinstance(answer, Failure)}
    told = {id: answer for id, answer in answers.items() if not isinstance(answer, Failure)}
    astray = {id: list(compare(id, links[id], before, after, answer)) for id, answer in told.items()}
    findings = [*_manager(context), *_lasting(before, after), *(one for some in astray.values() for one in some)]
    if input.mend:
        findings = await _mend(context, caller, findings, [id for id, some in astray.items() if some])
    counts = {links[id]: sum(held.agent == id for held in after.held.values()) for id in told}
    return Diagnosis(tuple(findings), counts, silent)


def _lasting(before: Books, after: Books) -> list[Finding]:
    """Return what both looks found: the database is whole at each, so what only one saw was on its way."""
    return [finding for finding in after.findings if finding in before.findings or not finding.grave]


def _manager(context: Context) -> list[Finding]:
    found = []
    if (silent := context.clock() - context.heartbeat) > SILENCE_S:
        found.append(Finding("manager", f"Its orchestrator has been silent for {silent:.0f} s.", "Look at its log, and restart it."))
    return found + [Finding(f"plugin {row.id}", f"It is broken: {row.why}", "See `bai plugin doctor`.", grave=False)
                    for row in context.host.rows if row.state is State.BROKEN]


async def _mend(context: Context, caller: Caller, findings: Sequence[Finding], astray: Sequence[str]) -> list[Finding]:
    """Put right what can be; return the findings with what was done."""
    async def job(tx: Tx) -> None:
        await settle_ledger(tx)
        await settle_quotas(tx.connection)
        await count(tx.connection, context.clock())
        tx.after(context.bus.wake)

    if any(finding.mend.startswith(COUNTED) for finding in findings):
        await context.store.write(job)
    for agent in astray:
        if (link := context.live.links.get(agent)) is not None:
            link.close("the doctor wants to hear everything anew")
    return [_mended(finding) for finding in findings]


def _mended(finding: Finding) -> Finding:
    if finding.mend.startswith(COUNTED):
        return replace(finding, mend="It was counted anew.", mended=True)
    if finding.mend.startswith(TOLD_ANEW):
        return replace(finding, mend="The agent connects anew; what it should have and what it has are made equal.", mended=True)
    return finding


async def _ask(context: Context, agent: str, few: asyncio.Semaphore) -> Mapping[str, Any] | Failure:
    try:
        async with few:
            return await context.live.ask(agent, Ask.STATE, {}, ASK_S)
    except Failure as failure:
        return failure


OPERATIONS = (declare("doctor.examine", examine, "POST", "/v1/doctor", mutates=True),)
