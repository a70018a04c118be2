"""What nobody can do from inside, each tried from inside."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from backendai.model.errors import Failure
from backendai.spec.runtime_v10 import Limits, Mount
from backendai_runtime_sandbox.config import Config
from backendai_runtime_sandbox.plugin import Sandbox
from sandbox_inside import PATIENCE_S, finish, get, idle, output, run, spec

pytestmark = pytest.mark.system
PYTHON = "/usr/bin/python3"
ROOT = os.geteuid() == 0


async def python(sandbox: Sandbox, program: str, **fields: object) -> tuple[str, int | None, bool]:
    """Run a Python program in a container; return its output, its exit code and whether it ran out of memory."""
    outcome = await run(sandbox, "", argv=(PYTHON, "-c", program), **fields)
    return outcome.out + outcome.err, outcome.code, outcome.container.out_of_memory


CALLS = """
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
calls = {
    "mount": 165 if X86 else 40, "umount2": 166 if X86 else 39, "pivot_root": 155 if X86 else 41, "setns": 308 if X86 else 268,
    "bpf": 321 if X86 else 280, "keyctl": 250 if X86 else 219, "add_key": 248 if X86 else 217, "request_key": 249 if X86 else 218,
    "perf_event_open": 298 if X86 else 241, "open_tree": 428, "fsopen": 430,
    "io_uring_setup": 425, "kexec_load": 246 if X86 else 104, "userfaultfd": 323 if X86 else 282, "init_module": 175 if X86 else 105,
    "reboot": 169 if X86 else 142, "swapon": 167 if X86 else 224, "chroot": 161 if X86 else 51,
}
for name, number in calls.items():
    ctypes.set_errno(0)
    print(name, libc.syscall(number, 0, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
print("clone3", libc.syscall(435, 0, 0), errno.errorcode[ctypes.get_errno()])
print("newest", libc.syscall(4242, 0, 0), errno.errorcode[ctypes.get_errno()])
for flag in (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x80):
    print("unshare", libc.unshare(flag), errno.errorcode[ctypes.get_errno()])
    if flag > 0xff:
        print("clone", libc.syscall(56 if X86 else 220, flag | 17, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
"""


async def test_dangerous_calls_are_refused(sandbox: Sandbox) -> None:
    out, code, _ = await python(sandbox, CALLS)
    answers = {tuple(line.split()[1:]) for line in out.splitlines() if not line.startswith(("clone3", "newest"))}
    assert (answers, code) == ({("-1", "EPERM")}, 0), out
    assert "clone3 -1 ENOSYS" in out and "newest -1 ENOSYS" in out


async def test_a_process_that_joins_is_behind_the_same_walls(sandbox: Sandbox) -> None:
    id = await idle(sandbox)
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' {}; readlink /proc/self/ns/{{mnt,pid,net,ipc,uts,user}}"
    first, _, _ = await finish(await sandbox.exec(id, ("bash", "-c", script.format("/proc/1/status")), {}, None, None, False))
    joined, _, _ = await finish(await sandbox.exec(id, ("bash", "-c", script.format("/proc/self/status")), {}, None, None, False))
    assert joined == first and b"Seccomp:\t2" in joined
    assert (await run(sandbox, "", argv=("bash", "-c", script.format("/proc/self/status")))).out != joined.decode(), "others have others"
    out, _, code = await finish(await sandbox.exec(id, (PYTHON, "-c", CALLS), {}, None, None, False))
    answers = {tuple(line.split()[1:]) for line in out.decode().splitlines() if not line.startswith(("clone3", "newest"))}
    assert (answers, code) == ({("-1", "EPERM")}, 0), out


async def test_the_filter_may_be_left_out(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "grep ^Seccomp: /proc/self/status", seccomp=False)
    assert outcome.out.split()[1] == "0"


async def test_no_way_to_root(sandbox: Sandbox) -> None:
    script = """
        grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb):' /proc/self/status | grep -v 0000000000000000 && exit 1
        for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe; do (echo x > $f) 2>/dev/null && exit 2; done
        mknod /tmp/disk b 8 0 2>/dev/null && exit 3
        ls /dev/mem /dev/kmem /dev/sda /dev/vda /dev/kvm /dev/fuse /dev/net 2>/dev/null && exit 4
        cp /bin/sh /tmp/sh && chmod 4755 /tmp/sh && [ "$(/tmp/sh -c 'id -u')" = 1000 ] || exit 5
        [ "$(su -c 'id -u' root </dev/null 2>/dev/null)" = 0 ] && exit 6
        [ -s /etc/shadow ] && exit 7
        [ -e /sys/fs ] && exit 8
        grep -v '[ ,]nosuid[ ,]' /proc/mounts && exit 9
        grep -v '[ ,]nodev[ ,]' /proc/mounts | grep -v ' /dev[ /]' && exit 10
        exit 0
    """
    outcome = await run(sandbox, script)
    assert outcome.code == 0, (outcome.code, outcome.out, outcome.err)


@pytest.mark.parametrize("fields", [
    {"workdir": "/tmp\0bind\0/etc\0/planted"}, {"hostname": "a\0bind\0/etc\0/planted"}, {"env": {"A": "\0bind\0/etc\0/planted"}},
    {"argv": ("true", "\0bind")}, {"mounts": (Mount("/usr", "/data\0bind\0/etc\0/planted"),)},
])
async def test_no_word_smuggles_in_an_operation(sandbox: Sandbox, fields: dict[str, object]) -> None:
    with pytest.raises(Failure, match="zero byte"):
        await sandbox.create(spec("true", **fields))
    id = await idle(sandbox)
    with pytest.raises(Failure, match="zero byte"):
        await sandbox.exec(id, ("true", "\0bind"), {}, None, None, False)


async def test_no_secret_of_the_platform_comes_in_by_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKENDAI_TOKEN", "baa_secret")
    script = "tr '\\0' '\\n' < /proc/1/environ; cat /proc/*/environ | grep -ac secre[t]; cat /proc/*/cmdline | grep -ac sandbo[x]; exit 0"
    id = await idle(sandbox)
    out, _, _ = await finish(await sandbox.exec(id, ("sh", "-c", script), {}, None, None, False))
    lines = out.decode().splitlines()
    assert {line.partition("=")[0] for line in lines[:-2]} == {"PATH", "HOME", "HOSTNAME"}
    assert lines[-2:] == ["0", "0"]


async def test_keys_of_the_node_are_out_of_sight(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "cat /proc/keys /proc/key-users; (echo x > /proc/keys) 2>/dev/null && echo written; exit 0")
    assert (outcome.out, outcome.code) == ("", 0)


SPY = """
import os
print("ready", flush=True)
while True:
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) > 1 and int(pid) != os.getpid():
            for name in (f"/proc/{pid}/fd/{fd}" for fd in range(3, 16)):
                try:
                    print(name, os.readlink(name), flush=True)
                except OSError:
                    pass
"""


async def test_nobody_can_look_into_a_process_on_its_way_in(sandbox: Sandbox) -> None:
    """A process that joins by exec comes from outside; until it has become the command nobody may ask it what it holds."""
    spy = await sandbox.create(spec("", argv=(PYTHON, "-c", SPY)))
    await sandbox.start(spy)
    async with asyncio.timeout(PATIENCE_S):
        async for _ in sandbox.logs(spy, 0, True):
            break
    for _ in range(100):
        assert (await finish(await sandbox.exec(spy, ("true",), {}, None, None, False)))[2] == 0
    await sandbox.stop(spy, "SIGKILL", 0)
    seen = (await output(sandbox, spy))[0].decode().splitlines()[1:]
    assert not [line for line in seen if not line.split()[1].startswith(("/usr/", "/lib", "/etc/"))]


async def test_only_three_descriptors_come_in(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "ls /proc/1/fd; true")).out == "0\n1\n2\n"


async def test_other_sessions_are_out_of_sight(sandbox: Sandbox) -> None:
    other = await idle(sandbox)
    await finish(await sandbox.exec(other, ("sh", "-c", "echo secret > /home/work/mine; echo secret > /tmp/mine; echo > /dev/shm/mine"),
                                    {}, None, None, False))
    pid = (await get(sandbox, other)).pid
    outcome = await run(sandbox, f"""
        ls -d /proc/[0-9]* | wc -l
        kill -9 {pid} 2>&1
        find / -name mine 2>/dev/null
        grep -rl secret /home /tmp /var /run /root /srv 2>/dev/null
        ls /proc/{pid} 2>&1
    """)
    lines = outcome.out.splitlines()
    assert int(lines[0]) <= 3
    assert "No such process" in lines[1]
    assert [line for line in lines[2:] if line] == [f"ls: cannot access '/proc/{pid}': No such file or directory"]
    assert (await get(sandbox, other)).pid == pid


async def test_the_platform_is_out_of_sight(sandbox: Sandbox, root: Path) -> None:
    (root / "token").write_text("secret")
    (root / "token").chmod(0o644)
    names = " ".join(f"-o -name {name}" for name in ("record.json", "plan", root.name, "docker.sock", "containerd.sock"))
    outcome = await run(sandbox, f"find / -xdev \\( -name token {names} \\) -not -path '/usr/*' -not -path '/opt/*' 2>/dev/null;"
                                 f"cat {root}/token; ls -A /root /run /var/lib /home; ls {root}")
    assert outcome.out == "/home:\nwork\n\n/root:\n\n/run:\n\n/var/lib:\n", outcome.out
    assert "secret" not in outcome.out


async def test_hidden_folders_below_shared_ones(root: Path) -> None:
    for name in ("shared", "shared/state", "shared/manager"):
        (root / name).mkdir(mode=0o755)
    (root / "shared" / "manager" / "token").write_text("secret")
    (root / "shared" / "open").write_text("open")
    shared = root / "shared"
    shared.chmod(0o777)  # so that nothing but the mount keeps them from writing
    sandbox = Sandbox(Config(state_dir=str(shared / "state"), share=(str(shared),), hide=(str(shared / "manager"),)))
    outcome = await run(sandbox, f"cat {shared}/open; ls -A {shared}/state {shared}/manager; touch {shared}/planted")
    assert outcome.out == f"open{shared}/manager:\n\n{shared}/state:\n"
    assert not (shared / "planted").exists()
    await sandbox.teardown()


@pytest.mark.parametrize("network", ["private", "outward"])
async def test_the_platforms_sockets_are_out_of_reach(sandbox: Sandbox, network: str) -> None:
    if "network-outward" not in (await sandbox.probe()).features and network == "outward":
        pytest.skip("there is no slirp4netns here, or no access to /dev/net/tun")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0sandbox-test-{os.getpid()}")
        abstract.listen()
        program = f"""
import socket
port = {server.getsockname()[1]}
for family, address in ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("10.0.2.2", port)),
                        (socket.AF_UNIX, "\\0sandbox-test-{os.getpid()}")):
    try:
        with socket.socket(family) as one:
            one.settimeout(5)
            one.connect(address)
            print("reached", address)
    except OSError as error:
        print("refused")
"""
        assert await python(sandbox, program, network=network) == ("refused\n" * 3, 0, False)


async def test_nothing_outside_its_layer_can_be_written(sandbox: Sandbox, root: Path) -> None:
    (root / "data").mkdir(mode=0o777)
    (root / "data").chmod(0o777)
    outcome = await run(
        sandbox, "for d in /usr /etc /opt /usr/local /usr/bin /data; do touch $d/planted 2>/dev/null && echo $d; done; exit 0",
        mounts=(Mount(str(root / "data"), "/data"),))
    assert outcome.out == ""
    outcome = await run(sandbox, "for d in / /home/work /tmp /var/tmp /dev/shm; do touch $d/planted 2>/dev/null; done; exit 0")
    found = await asyncio.to_thread(lambda: [path for path in ("/planted", "/tmp/planted", "/var/tmp/planted", "/home/work/planted")
                                             if Path(path).exists()])
    assert not found


async def test_the_layer_does_not_outlive_its_container(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "echo 1 > /tmp/mine; echo 1 > /home/work/mine; mkdir -p a/b/c; chmod 0 a/b", name="same")).code == 0
    assert (await run(sandbox, "ls -A /tmp /home/work", name="same")).out == "/home/work:\n\n/tmp:\n"


GROW = "data = []\nfor _ in range(512): data.append(b'x' * (1 << 20))\nprint('grown')"
SHARE = """
import os
fd = os.open('/dev/shm/big', os.O_CREAT | os.O_RDWR)
for _ in range(512):
    os.write(fd, b'x' * (1 << 20))
print('grown')
"""


async def test_memory_is_limited(sandbox: Sandbox) -> None:
    limited = "memory" in (await sandbox.probe()).features
    out, code, oom = await python(sandbox, GROW, limits=Limits(memory=64 << 20))
    assert "grown" not in out
    assert (code, oom) == ((137, True) if limited else (1, False))
    if not limited:
        assert "MemoryError" in out


async def test_shared_memory_is_limited(sandbox: Sandbox) -> None:
    out, code, _ = await python(sandbox, SHARE, limits=Limits(shm=16 << 20))
    assert (code, "No space left" in out) == (1, True)


@pytest.mark.skipif(not ROOT, reason="only cgroups count shared memory")
async def test_shared_memory_counts_as_memory(sandbox: Sandbox) -> None:
    if "memory" not in (await sandbox.probe()).features:
        pytest.skip("no memory cgroup can be written here")
    assert (await python(sandbox, SHARE, limits=Limits(memory=64 << 20, shm=1 << 30)))[1:] == (137, True)


async def test_a_death_that_is_not_for_memory_is_not_said_to_be(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "sh -c 'kill -9 $$'; exit $?", limits=Limits(memory=64 << 20))
    assert (outcome.code, outcome.container.out_of_memory) == (137, False)


FORKS = """
import os, time
pids = []
try:
    for _ in range(200):
        pid = os.fork()
        if not pid:
            time.sleep(60)
        pids.append(pid)
except OSError as error:
    print(len(pids) < 40, error.errno == 11)
for pid in pids:
    os.kill(pid, 9)
"""


async def test_processes_are_limited(sandbox: Sandbox) -> None:
    other = await idle(sandbox)
    assert (await python(sandbox, FORKS, limits=Limits(pids=40)))[0] == "True True\n"
    assert (await finish(await sandbox.exec(other, ("true",), {}, None, None, False)))[2] == 0


SPIN = """
import os, threading, time
from concurrent.futures import ProcessPoolExecutor
began = time.monotonic()
pids = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        while time.monotonic() < began + 1.5:
            pass
        os._exit(0)
    pids.append(pid)
used = sum(sum(os.wait4(pid, 0)[2][:2]) for pid in pids)
print(used / (time.monotonic() - began))
"""


async def test_cpu_is_limited(sandbox: Sandbox) -> None:
    exact = "cpu" in (await sandbox.probe()).features
    out, _, _ = await python(sandbox, SPIN, limits=Limits(cpu=300 if exact else 1000))
    assert float(out) < (0.5 if exact else 1.2)


async def test_nobody_leaves_the_cores_that_he_was_given(sandbox: Sandbox) -> None:
    if "cpu" in (await sandbox.probe()).features or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("CPU time is limited by a cgroup, or there is one core only")
    out, _, _ = await python(sandbox, "import os\nprint(len(os.sched_getaffinity(0)))\nos.sched_setaffinity(0, range(os.cpu_count()))",
                             limits=Limits(cpu=1000))
    assert out.startswith("1\n") and "PermissionError" in out


async def test_an_exec_is_within_the_limits(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("sleep 60", limits=Limits(memory=64 << 20, pids=40)))
    await sandbox.start(id)
    async with asyncio.timeout(PATIENCE_S):
        out, _, code = await finish(await sandbox.exec(id, (PYTHON, "-c", GROW), {}, None, None, False))
        assert b"grown" not in out and code in (1, 137)
        out, _, _ = await finish(await sandbox.exec(id, (PYTHON, "-c", FORKS), {}, None, None, False))
    assert out == b"True True\n"


async def test_output_stays_whole_when_the_container_is_killed(sandbox: Sandbox) -> None:
    id = await sandbox.create(spec("i=0; while :; do echo line $i; i=$((i+1)); done"))
    await sandbox.start(id)
    await asyncio.sleep(0.05)
    await sandbox.stop(id, "SIGKILL", 0)
    out, _ = await output(sandbox, id)
    lines = out.decode().split("\n")[:-1]
    assert lines == [f"line {number}" for number in range(len(lines))]
