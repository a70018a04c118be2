"""Whether the engine works, and what it can do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from aiodocker import DockerError
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import FEATURES, Capabilities

from backendai_runtime_docker.engine import HINT, Engine, sentence

ASK_S = 4.0
TRIAL_S = 30.0
OLDEST = (1, 41)  # the API of Docker 20.10 and of Podman 4
NO_PROGRAM = "/.bai/no-such-program"
TRIAL = "backendai-trial"
MENDS = {
    "memory": "the kernel has no memory cgroup for the engine; boot with cgroup_enable=memory",
    "cpu": "the kernel has no CPU quota for the engine; enable CONFIG_CFS_BANDWIDTH",
    "pids": "the kernel has no pids cgroup for the engine; use cgroup v2",
    "network-outward": "Podman needs slirp4netns or pasta for networks that reach out; install one",
}


def is_podman(version: Mapping[str, Any]) -> bool:
    """Tell whether a version answer is Podman's."""
    return any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())


def user_space() -> str:
    """Return Podman's mode for a network of one's own in user space, by what is installed; empty for none."""
    return next((mode for mode in ("slirp4netns", "pasta") if shutil.which(mode)), "")


def capabilities(version: Mapping[str, Any], info: Mapping[str, Any], default_image: str, parallel: int) -> Capabilities:
    """Return what the engine says it can do; raise ``Failure('unavailable')`` for one that is too old."""
    name = "podman" if is_podman(version) else "docker"
    engine = f"{name} {version['Version']}"
    if tuple(int(part) for part in str(version["ApiVersion"]).split(".")) < OLDEST:
        raise Failure("unavailable", f"{engine} is too old; Docker 20.10 or Podman 4.3 is needed.")
    has = {"memory": info.get("MemoryLimit"), "cpu": info.get("CPUCfsQuota", info.get("CpuCfsQuota")), "pids": info.get("PidsLimit")}
    has["network-outward"] = name == "docker" or user_space()
    missing = {feature: MENDS[feature] for feature, there in has.items() if not there}
    cgroup = f"cgroup v{info.get('CgroupVersion') or 1}"
    slots = {"memory": "mem", "cpu": "cpu", "pids": "pids"}
    limits = {slots[feature]: cgroup for feature in slots if feature not in missing}
    return Capabilities(engine, default_image, FEATURES - missing.keys(), missing, limits, parallel)


async def try_start(engine: Engine, image: str) -> None:
    """Start a container for real; raise ``Failure('unavailable')`` when the engine does not even say that its program is missing.

    An engine may answer everything else and start nothing, so nothing less tells whether it works.
    """
    body = {"Image": image, "Entrypoint": [NO_PROGRAM], "HostConfig": {"NetworkMode": "none"}}
    try:
        await _remove_trial(engine)  # one that was cut off
        await engine.ask("POST", "containers/create", params={"name": TRIAL}, data=body, within_s=TRIAL_S)
        try:
            await engine.ask("POST", f"containers/{TRIAL}/start", within_s=TRIAL_S)
        except DockerError as error:
            if "exec" not in error.message:  # it was not the missing program
                raise
        await _remove_trial(engine)
    except DockerError as error:
        raise Failure("unavailable", f"The container engine starts nothing: {sentence(error.message)}", detail=str(error)) from error
    except Failure as failure:
        raise Failure("unavailable", f"The container engine answers and starts nothing; restart it, or {HINT}.",
                      detail=failure.detail) from failure
    engine.doubted = ""


async def _remove_trial(engine: Engine) -> None:
    try:
        await engine.ask("DELETE", f"containers/{TRIAL}", params={"force": True}, within_s=TRIAL_S)
    except DockerError as error:
        if error.status != 404:
            raise
