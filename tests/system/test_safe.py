"""What a session cannot do, tried from inside of one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.platform import Platform


@pytest.fixture
def secret() -> Iterator[str]:
    """A mark that only this test knows."""
    yield f"secret-{uuid.uuid4().hex}"


def test_it_is_not_root_and_cannot_become_it(platform: Platform) -> None:
    done = platform.run("id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status")
    status = dict(line.split(":\t") for line in done.text.splitlines()[1:])
    assert done.text.splitlines()[0] != "0"
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


@pytest.mark.parametrize("attempt", [
    "mount -t tmpfs none /mnt", "mount --bind /etc /home/work", "chroot / true", "mknod /tmp/disk b 8 0", "nsenter -t 1 -a true",
    "unshare -m true", "dmesg", "test -w /proc/sys/kernel/panic", "test -w /proc/sysrq-trigger", "hostname changed",
    "su root -c id", "chown 0 /home/work", "grep -q : /etc/shadow", "test -w /sys/fs/cgroup", "cat /proc/1/environ | grep -a PATH=.*venv",
])
def test_it_cannot(platform: Platform, attempt: str) -> None:
    """Each of these would be a way to more than a session has."""
    assert platform.run(f"({attempt}) >/dev/null 2>&1 </dev/null && echo could || echo refused").text == "refused\n"


def test_it_sees_no_process_but_its_own(platform: Platform, name: str, secret: str) -> None:
    platform.detach(f": {secret}; sleep 600", "--name", name)
    platform.wait(name, "running")
    seen = platform.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; ls -d /proc/[0-9]* | wc -l").text
    platform.bai("rm", "--force", name)
    assert secret not in seen
    assert "bai up" not in seen
    assert int(seen.split()[-1]) < 12


def test_it_sees_no_file_of_another_session(platform: Platform, name: str, secret: str) -> None:
    platform.begin("--name", name)
    platform.bai("exec", name, "--", "sh", "-c", f"touch /home/work/{secret} /tmp/{secret}; chmod a+rwx /home/work")
    places = "/home /tmp /var/tmp /run /dev/shm /mnt /srv /var/lib"
    seen = platform.run(f"find {places} -name '{secret}' 2>/dev/null; true", timeout_s=120).text
    platform.bai("rm", "--force", name)
    assert seen == ""


def test_what_it_writes_stays_in_its_own_layer(platform: Platform, secret: str) -> None:
    script = f"for d in / /etc /usr /usr/bin /var /opt /root /home /home/work /tmp /dev/shm; do touch $d/{secret} 2>/dev/null; done; true"
    platform.run(script)
    found = [place for place in ("/", "/etc", "/usr", "/usr/bin", "/var", "/opt", "/root", "/home", "/tmp", "/dev/shm")
             if (Path(place) / secret).exists()]
    assert found == []
    assert platform.run(f"ls /tmp/{secret} /home/work/{secret} /dev/shm/{secret} 2>/dev/null || true").out == b""


def test_it_cannot_exceed_its_memory(platform: Platform) -> None:
    done = platform.run("head -c 300m /dev/zero | tail >/dev/null; echo status $?", "-r", "cpu=1,mem=64m", code=None)
    assert done.code == 137 or "status 137" in done.text or "status 1" in done.text


def test_it_cannot_exceed_its_processes(platform: Platform) -> None:
    done = platform.run("i=0; while [ $i -lt 6000 ]; do sleep 20 & i=$((i+1)); done 2>/dev/null; echo made $(jobs -p | wc -l)",
                        "-r", "cpu=1,mem=1g", code=None, timeout_s=120)
    made = int(done.text.split()[-1]) if "made" in done.text else 0
    assert made <= 4200


def test_it_cannot_exceed_its_cpu(platform: Platform) -> None:
    """A quarter of a core, kept busy for two seconds, gets about half a second of CPU time."""
    agent = platform.rest("GET", "/v1/agents")["items"][0]
    if "cpu" not in agent["features"]:
        pytest.skip(f"the runtime cannot limit cpu here: {agent['missing'].get('cpu')}")
    script = "end=$(($(date +%s)+3)); while [ $(date +%s) -lt $end ]; do :; done; cat /proc/self/stat >/dev/null; times"
    spent = platform.run(script, "-r", "cpu=0.25,mem=64m").text.split()
    seconds = sum(int(part.split("m")[0]) * 60 + float(part.split("m")[1].rstrip("s")) for part in spent)
    assert seconds < 2.0


def test_it_reaches_no_socket_of_the_platform(platform: Platform) -> None:
    port = platform.url.rsplit(":", 1)[1]
    found = platform.run("find / -xdev -type s 2>/dev/null; find /run /var/run /tmp -type s 2>/dev/null; true", timeout_s=120).text
    assert found == ""
    reach = platform.run(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo reached || echo refused").text
    assert reach == "refused\n"


def test_it_finds_no_token_and_none_of_the_platform_s_files(platform: Platform) -> None:
    folder = platform.folder
    seen = platform.run(f"env; cat {folder}/home/.config/*/* {folder}/*.log 2>/dev/null; ls -R {folder} 2>/dev/null; true")
    assert platform.token not in seen.text
    assert "backendai.db" not in seen.text


def test_by_default_it_has_no_network(platform: Platform) -> None:
    links = platform.run("cat /proc/net/dev | tail -n +3 | cut -d: -f1").text.split()
    routes = platform.run("tail -n +2 /proc/net/route | wc -l").text.strip()
    assert links == ["lo"]
    assert routes == "0"
