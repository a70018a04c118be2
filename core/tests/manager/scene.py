"""What a storm finds: two groups that decide differently, quotas, and three agents."""

from __future__ import annotations

from random import Random

from backendai.manager.operations import agents, groups, quotas

from core.tests.manager.stage import Stage

SCHEDULERS = ("backfill", "fifo", "drf", "fairshare", "lifo")
SELECTORS = ("concentrated", "dispersed", "roundrobin", "fragmentation")


async def found(stage: Stage) -> None:
    """Make the groups and the quotas. In the first group urgent sessions may have others make room, in the other rules end idle ones."""
    context, caller = stage.context, stage.caller
    await groups.change(context, caller, groups.ChangeGroup("default", preemption=groups.PreemptionInput(enabled=True, grace_s=5.0)))
    await groups.create(context, caller, groups.CreateGroup("other", allow=("*",), idle=(
        groups.IdleInput("lifetime", 900.0, warn_s=0.0), groups.IdleInput("network", 300.0, warn_s=60.0))))
    await quotas.set_(context, caller, quotas.SetQuotas("user:admin", {"sessions": 9, "cpu": 12}))
    await quotas.set_(context, caller, quotas.SetQuotas("project:default/default", {"cpu": 6, "mem": "24g"}, "default"))


async def people(stage: Stage, chance: Random) -> None:
    """Have three agents, one of them in the other group."""
    for name, cpu in (("one", 2), ("two", 4), ("three", 4)):
        await stage.box(name, cpu=cpu)
    await groups.change(stage.context, stage.caller, groups.ChangeGroup("other", scheduler=chance.choice(SCHEDULERS)))
    await agents.change(stage.context, stage.caller, agents.ChangeAgent("three", group="other"))
