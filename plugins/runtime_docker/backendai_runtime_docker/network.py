"""Networks: none at all, or one that leads outward and not to one's neighbours."""

from __future__ import annotations

import asyncio

from aiodocker import DockerError
from backendai.model.errors import Failure

from backendai_runtime_docker.engine import Engine, refused

NETWORK_S = 10.0
OWNER = {"ai.backendai.network": "outward"}
ISOLATED = {"com.docker.network.bridge.enable_icc": "false"}


class Networks:
    """The one network of ours on the engine; made at its first use, since most containers need none.

    user_space: the mode that gives each container a user-space network of its own (Podman), so that it needs none of ours.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._ready = False
        self._making = asyncio.Lock()
        self.user_space = ""

    async def mode(self, network: str) -> str:
        """Return the engine's network mode for the spec's *network*."""
        if network == "private":
            return "none"
        if network != "outward":
            raise Failure("unsupported", f"There is no network {network!r}; use private or outward.")
        if self.user_space:
            return self.user_space
        async with self._making:
            if not self._ready:
                await self._make()
                self._ready = True
        return self._name

    def forget(self) -> None:
        """Look for the network anew at its next use: the engine may be another, or someone has removed it."""
        self._ready = False

    async def remove(self) -> None:
        """Remove the network, if it is ours and no container runs on it."""
        self._ready = False
        try:
            found = await self._engine.get(f"networks/{self._name}", within_s=NETWORK_S)
            if OWNER.items() <= (found.get("Labels") or {}).items():
                await self._engine.ask("DELETE", f"networks/{self._name}", within_s=NETWORK_S)
        except DockerError as error:
            if error.status not in (403, 404, 409):  # in use, or gone
                raise refused(error, "remove the network") from error

    async def _make(self) -> None:
        body = {"Name": self._name, "Driver": "bridge", "CheckDuplicate": True, "Labels": OWNER, "Options": ISOLATED}
        try:
            found = await self._engine.get(f"networks/{self._name}", within_s=NETWORK_S)
        except DockerError as error:
            if error.status != 404:
                raise refused(error, "look at the network") from error
        else:
            if found.get("Options", {}).items() >= ISOLATED.items():
                return
            raise Failure("conflict", f"The engine has a network {self._name} that is not ours; remove it, or set the option network.")
        try:
            await self._engine.ask("POST", "networks/create", data=body, within_s=NETWORK_S)
        except DockerError as error:
            if error.status != 409:  # someone else has just made it
                raise refused(error, "make a network") from error
