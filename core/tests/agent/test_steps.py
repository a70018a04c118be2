"""The next step: whatever the facts are, following the steps ends well."""

from __future__ import annotations

from dataclasses import fields, replace

from backendai.agent.steps import Facts, Step, next_step
from backendai.spec.runtime_v10 import ContainerState
from backendai.wire.link import KernelState
from hypothesis import given
from hypothesis import strategies as st

any_facts = st.builds(
    Facts, state=st.sampled_from(KernelState), container=st.sampled_from([None, *ContainerState]),
    **{field.name: st.booleans() for field in fields(Facts) if field.name not in ("state", "container")})


def done(facts: Facts, step: Step) -> Facts:
    """Return the facts once *step* has succeeded."""
    match step:
        case Step.RESERVE:
            return replace(facts, reserved=True)
        case Step.FETCH:
            return replace(facts, image=True)
        case Step.CREATE:
            return replace(facts, container=ContainerState.CREATED, made=True)
        case Step.START:
            return replace(facts, container=ContainerState.RUNNING)
        case Step.BOOT:
            return replace(facts, booted=True)
        case Step.MARK_RUNNING:
            return replace(facts, state=KernelState.RUNNING)
        case Step.STOP:
            return replace(facts, container=ContainerState.EXITED, stopping=True)
        case Step.DRAIN:
            return replace(facts, drained=True)
        case Step.RECORD_EXIT:
            return replace(facts, state=KernelState.EXITED)
        case Step.LOSE:
            return replace(facts, failed=True)
        case Step.REMOVE:
            return replace(facts, container=None)
        case Step.CLEAN:
            return replace(facts, state=KernelState.GONE, reserved=False)
        case Step.WATCH | Step.FORGET:
            return facts


def follow(facts: Facts) -> tuple[list[Step], Facts]:
    """Follow the steps until there is nothing left to do."""
    steps: list[Step] = []
    while len(steps) < 20:
        step = next_step(facts)
        if step in (Step.WATCH, Step.FORGET):
            return [*steps, step], facts
        steps.append(step)
        facts = done(facts, step)
    raise AssertionError(f"no end: {steps}")


@given(any_facts)
def test_every_way_ends_and_what_is_not_wanted_is_gone(facts: Facts) -> None:
    steps, end = follow(facts)
    if facts.dropped:
        assert steps[-1] is Step.FORGET
    if not facts.wanted or facts.dropped or facts.failed or (facts.overdue and facts.container is ContainerState.RUNNING):
        assert (end.state is KernelState.GONE and end.container is None and not end.reserved) or facts.state is KernelState.GONE
    if end.state is not KernelState.GONE:
        assert end.state is KernelState.RUNNING and end.container is ContainerState.RUNNING


@given(any_facts)
def test_nothing_is_made_twice_or_against_the_manager(facts: Facts) -> None:
    steps, _ = follow(facts)
    if facts.made or facts.dropped or not facts.wanted or facts.failed or facts.stopping:
        assert Step.CREATE not in steps
    if facts.dropped or not facts.wanted or facts.state in (KernelState.EXITED, KernelState.GONE):
        assert Step.START not in steps
    assert steps.count(Step.CREATE) <= 1 and steps.count(Step.START) <= 1


@given(any_facts)
def test_a_kernel_runs_only_once_its_script_has_ended(facts: Facts) -> None:
    steps, _ = follow(facts)
    if not facts.booted and Step.MARK_RUNNING in steps:
        assert Step.BOOT in steps[: steps.index(Step.MARK_RUNNING)]


@given(any_facts)
def test_an_exit_is_recorded_only_with_the_whole_output_and_before_the_container_goes(facts: Facts) -> None:
    steps, _ = follow(facts)
    if Step.RECORD_EXIT in steps:
        assert facts.drained or Step.DRAIN in steps[: steps.index(Step.RECORD_EXIT)]
        assert Step.REMOVE in steps[steps.index(Step.RECORD_EXIT):]
    if facts.container in (ContainerState.RUNNING, ContainerState.EXITED) and Step.REMOVE in steps:
        assert Step.RECORD_EXIT in steps or facts.failed or facts.state in (KernelState.EXITED, KernelState.GONE)


def test_the_whole_way() -> None:
    assert follow(Facts())[0] == [Step.RESERVE, Step.FETCH, Step.CREATE, Step.START, Step.MARK_RUNNING, Step.WATCH]
    assert follow(Facts(booted=False))[0][-4:] == [Step.START, Step.BOOT, Step.MARK_RUNNING, Step.WATCH]
    ended = Facts(state=KernelState.RUNNING, container=ContainerState.EXITED, made=True, reserved=True, image=True)
    assert follow(ended)[0] == [Step.DRAIN, Step.RECORD_EXIT, Step.REMOVE, Step.CLEAN, Step.WATCH]
