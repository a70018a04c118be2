"""What a session cannot do, tried from inside."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from backendai.spec.runtime_v10 import Limits, Mount

pytestmark = pytest.mark.docker


async def test_it_has_no_power_over_the_host(bench: Any) -> None:
    said = await bench.say("sh", "-c", "id -u; id -G; grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status")
    lines = said.split("\n")
    assert lines[:2] == ["1000", "1000"]
    status = dict(line.split(":\t") for line in lines[2:] if line)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


ATTEMPTS = (
    "mount -t tmpfs none /mnt", "mount --bind /etc /tmp", "umount /proc/sys", "mknod /tmp/disk b 254 0", "chroot / true", "hostname other",
    "unshare -n true", "unshare -m true", "unshare -U true", "nsenter -t 1 -m true", "dd if=/dev/mem count=1", "chown 1 /etc/passwd",
    "echo 1 > /proc/sys/kernel/sysrq", "test -w /proc/sysrq-trigger", "dmesg", "head -c 1 /proc/kcore | grep -q .", "grep -q . /proc/keys",
    "test -e /run/docker.sock -o -e /var/run/docker.sock", "test -b /dev/vda -o -b /dev/sda", "kill -0 2",
    "for g in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $g/mine && exit 0; done; false",
    "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo $$ > $f && exit 0; done; false",
    "for f in /sys/fs/cgroup/*/*.limit_in_bytes /sys/fs/cgroup/memory.max; do echo 9999999999 > $f && exit 0; done; false",
)
CALLS = {"keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298, "init_module": 175, "kexec_load": 246,
         "setns": 308, "pivot_root": 155, "reboot": 169, "swapon": 167}


@pytest.mark.parametrize("user", [(1000, 1000), (0, 0)], ids=["user", "root"])
async def test_whoever_it_is_it_has_no_power(bench: Any, user: tuple[int, int]) -> None:
    id = await bench.run(user=user)
    for attempt in ATTEMPTS:
        code, _, _ = await bench.inside(id, "sh", "-c", f"({attempt}) </dev/null >/dev/null 2>&1")
        assert code != 0, attempt


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are those of x86_64")
@pytest.mark.parametrize("user", [(1000, 1000), (0, 0)], ids=["user", "root"])
async def test_dangerous_calls_are_refused(bench: Any, user: tuple[int, int]) -> None:
    tries = "; ".join(f"$! = 0; print '{name} ', syscall({number}, 0, 0, 0, 0, 0), ' ', $! + 0, qq(\\n)" for name, number in CALLS.items())
    said = await bench.say("perl", "-e", tries, user=user)
    assert said.splitlines() == [f"{name} -1 {errno.EPERM}" for name in CALLS]


async def test_no_secret_of_the_platform_comes_in_by_the_environment(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKENDAI_TOKEN", "baa_secret")
    said = await bench.say("sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert {line.partition("=")[0] for line in said.splitlines()} <= {"PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "container", "TERM"}


@pytest.mark.parametrize("network", ["private", "outward"])
async def test_the_platform_s_sockets_are_out_of_reach(bench: Any, network: str) -> None:
    name = f"bai-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        id = await bench.run(network=network)
        _, out, _ = await bench.inside(id, "perl", "-MSocket", "-e", f"""
            socket(my $tcp, PF_INET, SOCK_STREAM, 0); alarm 5;
            print connect($tcp, pack_sockaddr_in({server.getsockname()[1]}, inet_aton('127.0.0.1'))) ? 'reached' : 'refused', ' ';
            socket(my $unix, PF_UNIX, SOCK_STREAM, 0);
            print connect($unix, pack_sockaddr_un("\\0{name}")) ? 'reached' : 'refused'""")
    assert out == b"refused refused"


async def test_a_setuid_program_gives_nothing(bench: Any) -> None:
    id = await bench.run()
    code, out, _ = await bench.inside(id, "sh", "-c", "ls -l /bin/su >&2; echo | su root -c 'id -u'")
    assert code != 0
    assert out.strip() != b"0"


async def test_it_sees_no_other_processes_and_no_other_files(bench: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    other = await bench.run("sh", "-c", "echo private > /tmp/mine; exec sleep 4242")
    id = await bench.run()
    code, out, _ = await bench.inside(id, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /tmp")
    assert code == 0
    assert b"4242" not in out
    assert b"mine" not in out
    pid = (await bench.see(other)).pid
    assert (await bench.inside(id, "sh", "-c", f"kill -0 {pid}"))[0] != 0
    assert (await bench.inside(id, "cat", str(secret)))[0] != 0
    assert (await bench.inside(id, "sh", "-c", "ls /run/docker.sock /var/run/docker.sock"))[0] != 0


async def test_the_limit_of_memory_bites(bench: Any) -> None:
    id = await bench.run(limits=Limits(memory=32 << 20))
    assert (await bench.inside(id, "tail", "/dev/zero"))[0] == 137


async def test_the_limit_of_tasks_bites(bench: Any) -> None:
    id = await bench.run(limits=Limits(pids=20))
    _, out, err = await bench.inside(id, "sh", "-c", "i=0; while [ $i -lt 60 ]; do sleep 2 & i=$((i+1)); done; echo all")
    assert b"all" not in out
    assert b"fork" in err


async def test_the_limit_of_cores_is_set(bench: Any) -> None:
    id = await bench.run(limits=Limits(cpu=500))
    _, out, _ = await bench.inside(id, "sh", "-c", "cat /sys/fs/cgroup/cpu.max 2>/dev/null || "
                                   "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us")
    quota, period = map(int, out.split())
    assert quota / period == pytest.approx(0.5)


async def test_the_least_of_a_core_is_enough_to_start(bench: Any) -> None:
    assert await bench.say("echo", "slow", limits=Limits(cpu=1)) == "slow\n"


async def test_it_burns_no_more_than_its_cores(bench: Any) -> None:
    id = await bench.run("sh", "-c", "for i in 1 2; do while :; do :; done & done; wait", limits=Limits(cpu=200))
    throttled = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.stat"
    for _ in range(100):
        _, out, _ = await bench.inside(id, "sh", "-c", throttled)
        if int(dict(line.split() for line in out.decode().splitlines())["nr_throttled"]) > 3:
            return
    pytest.fail("it was never held back")


async def test_only_the_home_and_its_own_layer_can_be_written(bench: Any, tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    (tmp_path / "given").write_text("as it was")
    id = await bench.run(mounts=(Mount(str(tmp_path), "/data"),), user=(1000, 1000))
    assert (await bench.inside(id, "sh", "-c", "pwd; touch here; echo own > /tmp/own"))[:2] == (0, b"/home/work\n")
    for target in ("/data/given", "/etc/passwd", "/usr/bin/env", "/proc/sys/kernel/hostname"):
        assert (await bench.inside(id, "sh", "-c", f"echo x > {target}"))[0] != 0, target
    assert (tmp_path / "given").read_text() == "as it was"


async def test_a_read_only_root_still_has_a_home_and_a_place_for_temporary_files(bench: Any) -> None:
    id = await bench.run(read_only_root=True, user=(1000, 1000))
    assert (await bench.inside(id, "sh", "-c", "touch /home/work/x /tmp/y; cd /home/work; touch z"))[0] == 0
    assert (await bench.inside(id, "touch", "/x", user=(0, 0)))[0] != 0


async def test_a_mounted_home_belongs_to_the_user(bench: Any, tmp_path: Path) -> None:
    home = tmp_path / "work"
    home.mkdir()
    home.chmod(0o777)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    said = await bench.say("sh", "-c", "pwd; echo mine > file; hostname; id -u", mounts=(Mount(str(home), "/home/work", readonly=False),),
                           user=(4321, 4321), hostname="sub2")
    assert said == "/home/work\nsub2\n4321\n"
    assert (home / "file").stat().st_uid == 4321


async def test_a_private_network_has_nothing_but_itself(bench: Any) -> None:
    id = await bench.run()
    _, out, _ = await bench.inside(id, "ls", "/sys/class/net")
    assert out == b"lo\n"


async def test_an_outward_network_reaches_out_but_not_its_neighbours(bench: Any, docker_engine: Any) -> None:
    if bench.podman:
        pytest.skip("each has a network of its own in user space, where all have the same address")
    first, second = await bench.run(network="outward"), await bench.run(network="outward")
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
    address, gateway = docker_engine.run("inspect", "-f", where, second).split()
    assert bench.network in docker_engine.run("network", "ls", "--format", "{{.Name}}").split()
    reach = "timeout 2 bash -c 'echo > /dev/tcp/{}/9' 2>&1"
    code, out, _ = await bench.inside(first, "bash", "-c", reach.format(address))
    assert (code, b"refused" in out) == (124, False)
    assert b"refused" in (await bench.inside(first, "bash", "-c", reach.format(gateway)))[1]


async def test_the_outward_network_goes_with_its_last_user_and_comes_back(bench: Any, with_runtime: Any, docker_engine: Any) -> None:
    if bench.podman:
        pytest.skip("Podman needs no network of ours")
    first, second = await with_runtime(), await with_runtime()
    names = ("network", "ls", "--format", "{{.Name}}")
    id = await first.create(bench.spec(network="outward"))
    assert bench.network in docker_engine.run(*names).split()
    await second.probe()
    docker_engine.run("network", "rm", bench.network)
    await first.start(id)  # with a new one
    assert bench.network in docker_engine.run(*names).split()
    await first.remove(id)

