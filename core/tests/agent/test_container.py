"""From an order to a container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from backendai.agent.container import Surroundings, container_name, container_spec, merge
from backendai.model.errors import Failure
from backendai.model.session import Mount, Network
from backendai.spec.runtime_v10 import ContainerSpec, DeviceNode, Edits
from backendai.spec.runtime_v10 import Mount as Made
from backendai.wire.link import KernelOrder, Peer


def shape(edits: Edits = Edits(), mount_roots: tuple[str, ...] = (), caps: frozenset[str] = frozenset(), init: Path | None = None,  # noqa: B008 - frozen
          **more: Any) -> ContainerSpec:
    around = Surroundings("agent1", "cluster1", Path("/scratch"), init, mount_roots, caps)
    return container_spec(KernelOrder("k1", "s1", "train", "owner", **more), "image:1", edits, around,
                          lambda path: os.path.realpath(path, strict=True))


def variables(spec: ContainerSpec) -> dict[str, str]:
    prefix = "BACKENDAI_CLUSTER_"
    return {name.removeprefix(prefix): value for name, value in spec.env.items() if name.startswith(prefix)}


def test_a_kernel_alone_is_a_cluster_of_one() -> None:
    assert variables(shape()) == {"SIZE": "1", "REPLICAS": "main:1", "HOSTS": "main1", "HOST": "main1", "ROLE": "main", "IDX": "1",
                                  "RANK": "0", "LOCAL_RANK": "0"}


def test_a_kernel_is_told_of_the_others_of_its_session() -> None:
    peers = (Peer("main1", "k0", "a", "main", 1), Peer("sub1", "k9", "b", "sub", 1), Peer("sub2", "k1", "a", "sub", 2),
             Peer("sub3", "k8", "b", "sub", 3))
    spec = shape(role="sub", idx=2, hostname="sub2", peers=peers, attempt=3)
    assert variables(spec) == {"SIZE": "4", "REPLICAS": "main:1,sub:3", "HOSTS": "main1,sub1,sub2,sub3", "HOST": "sub2", "ROLE": "sub",
                               "IDX": "2", "RANK": "2", "LOCAL_RANK": "1"}
    assert spec.env["BACKENDAI_ATTEMPT"] == "3"


def test_a_bootstrap_script_runs_before_the_command() -> None:
    spec = shape(command=("a", "b"), bootstrap="echo hi", init=Path("/i"))
    assert spec.argv[:4] == ("/.bai/init", "--", "/bin/sh", "-c") and spec.argv[-2:] == ("a", "b")
    assert Made("/scratch/k1/boot", "/.bai/boot", readonly=False) in spec.mounts
    assert shape(idle=True, bootstrap="echo hi", init=Path("/i")).argv[-1] == "/.bai/init"
    assert shape(idle=True, bootstrap="echo hi").argv[-2:] == ("sleep", "infinity")


def test_a_bootstrap_script_before_nobody_knows_what_is_refused() -> None:
    with pytest.raises(Failure, match="needs a command"):
        shape(bootstrap="echo hi")


def test_labels_name_and_limits() -> None:
    spec = shape(slots={"cpu": 1500, "mem": 1 << 30}, network=Network.OUTWARD, user=(7, 8))
    assert spec.name == container_name("k1") == "bai-k1" and spec.image == "image:1"
    assert spec.labels == {"ai.backendai.agent": "agent1", "ai.backendai.cluster": "cluster1", "ai.backendai.kernel": "k1",
                           "ai.backendai.session": "s1"}
    assert (spec.limits.cpu, spec.limits.memory, spec.network, spec.user) == (1500, 1 << 30, "outward", (7, 8))
    assert spec.mounts == (Made("/scratch/k1/work", "/home/work", readonly=False),) and spec.scratch == "/scratch/k1/layer"


@pytest.mark.parametrize(("init", "given", "argv"), [
    (None, {"idle": True}, ("sleep", "infinity")), (Path("/i"), {"idle": True}, ("/.bai/init",)),
    (None, {"command": ("a", "b")}, ("a", "b")), (Path("/i"), {"command": ("a",)}, ("/.bai/init", "--", "a")),
    (None, {}, ()), (Path("/i"), {}, ())])
def test_the_first_process(init: Path | None, given: dict[str, Any], argv: tuple[str, ...]) -> None:
    assert shape(init=init, **given).argv == argv


def test_the_environment_tells_the_place_and_the_user_wins_but_not_over_devices() -> None:
    env = shape(Edits(env={"GPU": "device"}), slots={"cpu": 1500}, hostname="main1", env={"HOME": "/mine", "GPU": "user"}).env
    assert env["OMP_NUM_THREADS"] == "2" and env["BACKENDAI_CLUSTER_ROLE"] == "main" and env["BACKENDAI_CLUSTER_IDX"] == "1"
    assert env["HOME"] == "/mine" and env["GPU"] == "device" and env["BACKENDAI_SESSION_NAME"] == "train"


def test_a_mount_is_allowed_only_below_a_root_and_by_its_real_path(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "in").mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    mounts = shape(mount_roots=(str(root),), mounts=(Mount(str(root / "in"), "/mnt/in", readonly=True),)).mounts
    assert mounts[-1] == Made(str(root / "in"), "/mnt/in", readonly=True)
    for source, said in ((str(root / "out"), "may not be mounted"), ("/etc", "may not be mounted"), (str(root / "no"), "is not there")):
        with pytest.raises(Failure, match=said):
            shape(mount_roots=(str(root),), mounts=(Mount(source, "/mnt/x"),))
    with pytest.raises(Failure, match="below: nothing"):
        shape(mounts=(Mount(str(root / "in"), "/mnt/in"),))


def test_capabilities_need_the_operators_leave() -> None:
    with pytest.raises(Failure, match="SYS_ADMIN"):
        shape(Edits(caps=("SYS_ADMIN",)))
    assert shape(Edits(caps=("SYS_ADMIN",)), caps=frozenset({"SYS_ADMIN"})).edits.caps == ("SYS_ADMIN",)


def test_edits_of_several_devices_come_together() -> None:
    both = merge([Edits((DeviceNode("/dev/a", "/dev/a"),), {"A": "1"}, gids=(1,)), Edits(env={"A": "1", "B": "2"}, cdi=("x/y=z",))])
    assert both == Edits((DeviceNode("/dev/a", "/dev/a"),), {"A": "1", "B": "2"}, gids=(1,), cdi=("x/y=z",))
    with pytest.raises(Failure, match="disagree about A"):
        merge([Edits(env={"A": "1"}), Edits(env={"A": "2"})])
