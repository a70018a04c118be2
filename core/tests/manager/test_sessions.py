"""Sessions through the API, on both databases."""

from __future__ import annotations

from typing import Any

from backendai.manager.store.engine import Tx
from backendai.manager.store.schema import sessions
from sqlalchemy import update


async def move(served: Any, id: str, state: str, **more: Any) -> None:
    """Play the orchestrator: put a session into a state."""

    async def job(tx: Tx) -> None:
        await tx.connection.execute(update(sessions).where(sessions.c.id == id).values(state=state, **more))
        tx.after(lambda: served.context.bus.changed(id))

    await served.context.store.write(job)


async def test_a_session_is_accepted_and_shown(served_both: Any) -> None:
    made = await served_both.session(name="first", slots={"cpu": 2, "mem": "1g"}, env={"A": "b"}, tags=["x"])
    assert made["state"] == "PENDING" and made["owner"] == "admin" and made["slots"] == {"cpu": 2, "mem": 1 << 30}
    for address in (made["id"], "first", "admin%2Ffirst"):
        assert await served_both.call("GET", f"/v1/sessions/{address}", status=200) == made
    page = await served_both.call("GET", "/v1/sessions", status=200)
    assert page == {"items": [made], "next": None}
