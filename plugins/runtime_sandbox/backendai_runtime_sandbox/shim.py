"""The shim in Python, for nodes without a C compiler: the same files as ``native/shim.c`` writes, more memory, a slower start."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from backendai_runtime_sandbox.jail import (
    BUFFER,
    CLONE,
    EVERY,
    NEW_NET,
    NEW_NS,
    NEW_USER,
    PARENT,
    PDEATHSIG,
    PRIVATE,
    Failed,
    Jail,
    call,
    code_of,
    libc,
    need,
    put,
    silence,
    waits,
    words,
)


def record(name: str, line: str) -> None:
    """Put a line into a file of the folder, whole or not at all. A full disk may be emptied: ten minutes."""
    for _ in range(600):
        try:
            fd = os.open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.write(fd, line.encode())
            os.close(fd)
            os.rename(f"{name}.tmp", name)  # noqa: PTH104  # as above
        except FileNotFoundError:
            return  # the folder was deleted
        except OSError:
            time.sleep(1)
        else:
            return


def oom_kills(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY)
        found = os.read(fd, BUFFER).partition(b"oom_kill ")[2].split()
        os.close(fd)
    except OSError:
        return 0
    return int(found[0]) if found else 0


def move(source: int, stream: int, log: int, limit: int) -> bool:
    """Move what is in a pipe to the log; return False at its end."""
    data = os.read(source, BUFFER)
    before = os.lseek(log, 0, os.SEEK_END)
    while data and before <= limit:
        try:
            frame = struct.pack("<B3xI", stream, len(data)) + data
            if os.write(log, frame) == len(frame):
                break
        except OSError:
            pass  # a full disk holds the container up, as a full pipe does
        os.ftruncate(log, before)
        time.sleep(1)
    return bool(data)


def let_out(program: str, pid: int, as_root: bool) -> int:
    """Give the container's network a way out; return the pipe that keeps it open, or -1."""
    (ready, is_ready), (life, keep) = os.pipe(), os.pipe()
    if not os.fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.prctl(PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if as_root and (libc.unshare(NEW_NS) or libc.mount(None, b"/", None, PRIVATE, None)):
            os._exit(127)  # what it unmounts for its own sandbox would be gone from the node, too
        said = os.open("slirp4netns", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        for fd in (is_ready, life):
            os.set_inheritable(fd, True)
        os.execv(program, [
            program, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-seccomp", "--ready-fd", str(is_ready),
            "--exit-fd", str(life), str(pid), "tap0", *(("--enable-sandbox",) if as_root else ())])
    os.close(is_ready)
    os.close(life)
    return keep if os.read(ready, 1) else -1


def watch(pid: int, pipes: dict[int, int], log: int, limit: int) -> int:
    """Copy the output to the log until the container has ended and the pipes are empty; return its wait status."""
    end, poll, status = os.pidfd_open(pid), select.poll(), None
    for fd in (*pipes, end):
        poll.register(fd, select.POLLIN)
    while status is None or any(waits(fd, select.POLLIN, 0) for fd in pipes):
        for fd, _ in poll.poll(0 if status is not None else None):
            if fd == end:
                status = os.waitpid(pid, 0)[1]
                poll.unregister(end)
            elif not move(fd, pipes[fd], log, limit):
                poll.unregister(fd)
                del pipes[fd]
    return status


def map_users(pid: int, uids: str, gids: str) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", uids), ("gid_map", gids)):
        put(f"/proc/{pid}/{name}", text)


def connect_to(script: str, child: int, complain_to: int) -> None:
    """Connect a container, from within the network that holds its session together."""
    if not (shell := os.fork()):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(complain_to, 2)
        os.execv("/bin/sh", ["sh", "-c", script, "sh", str(child)])
    if os.waitpid(shell, 0)[1]:
        os.kill(child, signal.SIGKILL)
        raise Failed(125, "connect", "network", 103)


def join_network(holder: int, inode: int, uids: str) -> None:
    """Enter the network namespace of *holder*, and its user namespace where it has one of its own."""
    try:
        space = os.pidfd_open(holder)
        same = os.stat(f"/proc/{holder}/ns/net").st_ino == inode  # noqa: PTH116  # pathlib costs a start 5 ms
    except OSError as error:
        raise Failed(125, "join", "network", error.errno or 0) from error
    if not same:
        raise Failed(125, "join", "network", 3)
    need(libc.setns(space, NEW_NET | (NEW_USER if uids else 0)), "join", "network")


def begin_in(net: str, flags: int, uids: str, gids: str, complain_to: int) -> int:
    """Clone a first process in a session's network: somebody else goes in there and clones it, as our child. Return 0 in it."""
    here, there = os.pipe()
    if not os.fork():
        try:
            pid = guide(net, flags, uids, gids, complain_to)
        except BaseException as error:
            failed = error
            complain(complain_to, lambda: again(failed))
        if pid:
            os.write(there, str(pid).encode())
            os._exit(0)
        return 0
    os.close(there)
    told = os.read(here, BUFFER)
    if not told:
        os._exit(125)  # it has said why
    return int(told)


def guide(net: str, flags: int, uids: str, gids: str, complain_to: int) -> int:
    """Go into the network, clone and connect; return the pid, and 0 in the one that was cloned."""
    holder, inode, script = net.split(" ", 2)
    if holder != "0":
        join_network(int(holder), int(inode), uids)
    if not (pid := need(call(CLONE, flags | PARENT | signal.SIGCHLD, 0, 0, 0, 0), "clone", "namespaces")):
        return 0
    if uids:
        map_users(pid, uids, gids)
    if script:
        connect_to(script, pid, complain_to)
    return pid


def again(error: BaseException) -> NoReturn:
    raise error


def look_after(plan: Iterator[str], ready: int) -> None:
    """Be the shim of one container; say on *ready* whether it runs."""
    (first, _, net), limit = next(plan).partition(" "), int(next(plan))
    flags = int(first)
    uids, gids, oom, slirp = (next(plan) for _ in range(4))
    signal.pthread_sigmask(signal.SIG_SETMASK, EVERY)
    log = os.open("log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    (out, to_out), (err, to_err), (said, say), (lifeline, go) = (os.pipe() for _ in range(4))
    pid = begin_in(net, flags, uids, gids, ready) if net else call(CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os.close(go)
        libc.prctl(PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.read(lifeline, 1)
        os.setsid()
        os.dup2(to_out, 1)
        os.dup2(to_err, 2)
        complain(say, lambda: Jail(plan, lifeline).follow())
    need(pid, "clone", "namespaces")
    for fd in (to_out, to_err, say, lifeline):
        os.close(fd)
    if uids and not net:
        map_users(pid, uids, gids)
    if slirp and let_out(slirp, pid, not uids) < 0:
        os.kill(pid, signal.SIGKILL)
        os.write(ready, f"slirp4netns {slirp}: it did not start\n".encode())
        return
    os.write(go, b"\0")
    if complaint := os.read(said, BUFFER):
        os.write(ready, complaint)
        return
    record("running", f"{pid} {time.time():.3f}\n")
    os.write(ready, b"ok")
    os.close(ready)
    code = code_of(watch(pid, {out: 1, err: 2}, log, limit))
    record("exit", f"{code} {oom_kills(oom) if oom else 0} {time.time():.3f}\n")


def complain(where: int, work: Callable[[], None]) -> NoReturn:
    """Do *work* and end; say on *where* what went wrong."""
    status, text = 0, ""
    try:
        work()
    except Failed as failed:
        status, text = failed.status, str(failed)
    except OSError as error:
        status, text = 125, f"shim {error.filename or 'call'}: {error.strerror}\n"
    except BaseException as error:  # whatever it is, it must be told and not travel up into the other process's code
        status, text = 125, f"shim defect: {error!r}\n"
    if text:
        os.write(where, text.encode())
    os._exit(status)


def detach(folder: str, work: Callable[[int], None]) -> None:
    """Leave a process behind that holds the folder's lock and does *work*, and wait for its word."""
    os.chdir(folder)
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        text = b""
        while piece := os.read(ready, BUFFER):
            text += piece
        if text != b"ok":
            os.write(2, text or b"shim: it died\n")
            os._exit(125)
        return
    os.close(ready)
    os.setsid()
    silence(0, 1, 2)
    complain(tell, lambda: locked(tell, work))


def locked(tell: int, work: Callable[[int], None]) -> None:
    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(tell, b"ok")  # it runs already
        return
    work(tell)


def hold(tell: int, uids: str, gids: str) -> None:
    """Keep a network namespace for a session, until killed."""
    need(libc.unshare(NEW_NET | (NEW_USER if uids else 0)), "clone", "namespaces")
    if uids:
        map_users(os.getpid(), uids, gids)
    Jail(iter(())).loopback()
    os.write(tell, b"ok")
    os.close(tell)
    while True:
        signal.pause()


def begin(tell: int) -> None:
    if os.access("exit", os.F_OK):
        os.write(tell, b"ok")  # it has run already
        return
    plan = os.open("plan", os.O_RDONLY)
    look_after(words(plan), tell)


def main(verb: str, what: str, *more: str) -> None:
    """Be ``run FOLDER``, ``do FD`` or ``hold FOLDER UIDS GIDS``."""
    os.umask(0o022)
    roles: dict[str, Callable[[], None]] = {
        "run": lambda: detach(what, begin), "do": lambda: Jail(words(int(what))).follow(),
        "hold": lambda: detach(what, lambda tell: hold(tell, *more))}
    complain(2, roles[verb])
