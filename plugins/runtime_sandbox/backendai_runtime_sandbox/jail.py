"""The jail in Python, for nodes without a C compiler: the same plans as for ``native/jail.c``, which says what each step is for.

Whatever it needs is imported before the new root hides the library, and little is, since every start pays for it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import termios
from collections.abc import Callable, Iterator
from typing import NoReturn

X86 = platform.machine() == "x86_64"
CLONE, PIVOT_ROOT, CAPSET = (56, 155, 126) if X86 else (220, 41, 91)
OPENAT2, MOUNT_SETATTR = 437, 442
BIND, PRIVATE, DETACH, NOSUID, NOEXEC = 0x5000, 0x44000, 2, 2, 8  # the first two with MS_REC
RECURSIVE, EMPTY_PATH, IN_ROOT = 0x8000, 0x1000, 0x10
PDEATHSIG, DUMPABLE, SECCOMP, BOUNDING_DROP, NO_NEW_PRIVS = 1, 4, 22, 24, 38
PASS_FD, BUFFER = 3, 65536
PARENT, NEW_NS, NEW_USER, NEW_NET = 0x8000, 0x20000, 0x10000000, 0x40000000  # of clone
EVERY = signal.valid_signals()

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


class Failed(Exception):
    """A step failed; the text says which, on what and why."""

    def __init__(self, status: int, step: str, what: str, error: int) -> None:
        super().__init__(f"{step} {what}: {os.strerror(error)}\n")
        self.status = status


def need(result: int, step: str, what: str) -> int:
    """Return *result* of a call of libc unless it tells of an error."""
    if result < 0:
        raise Failed(125, step, what, ctypes.get_errno())
    return result


def call(number: int, *arguments: int | bytes) -> int:
    return int(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def words(fd: int) -> Iterator[str]:
    """Give the words of a plan."""
    data = b""
    while piece := os.pread(fd, BUFFER, len(data)):
        data += piece
    return (os.fsdecode(word) for word in data.split(b"\0")[:-1])


def put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


class Jail:
    """Carries out one plan. lifeline: a pipe that ends when our parent does."""

    def __init__(self, plan: Iterator[str], lifeline: int = -1) -> None:
        self.plan = plan
        self.lifeline = lifeline
        self.root = -1
        self.filter = b""
        self.env: dict[str, str] = {}
        self.doors: list[int] = []

    def follow(self) -> NoReturn:
        """Do one operation after another; the last becomes the command."""
        steps: dict[str, tuple[int, Callable[..., object]]] = {
            "group": (1, self.group), "enter": (0, self.enter), "unshare": (1, self.unshare), "rlimit": (3, self.rlimit),
            "cpus": (1, self.cpus),
            "root": (5, self.take_root), "bind": (3, self.bind), "mount": (4, self.mount), "folder": (1, self.folder),
            "hostname": (1, socket.sethostname), "loopback": (0, self.loopback), "pivot": (0, self.pivot), "symlink": (2, self.symlink),
            "readonly": (1, self.readonly), "seccomp": (1, self.load), "join": (4, self.join), "groups": (1, self.groups),
            "user": (2, self.become), "bound": (0, self.bound), "env": (1, self.setenv), "workdir": (1, os.chdir),
            "terminal": (2, self.terminal), "dial": (1, self.dial)}
        for name in self.plan:
            if name == "exec":
                self.execute(list(self.plan))
            count, step = steps[name]
            given = [next(self.plan) for _ in range(count)]
            try:
                step(*given)
            except OSError as error:
                word = {"workdir": "chdir"}.get(name, name)
                raise Failed(111 if name == "dial" else 125, word, given[0] if given else "", error.errno or 0) from error
        raise Failed(125, "read", "plan", 22)

    def group(self, path: str) -> None:
        self.doors.append(os.open(path, os.O_WRONLY))

    def enter(self) -> None:
        for fd in self.doors:
            os.write(fd, b"0")
            os.close(fd)

    def rlimit(self, number: str, soft: str, hard: str) -> None:
        try:
            resource.setrlimit(int(number), (int(soft), int(hard)))
        except (ValueError, OSError):
            pass  # an ordinary user may not raise a hard limit, and the lower one holds

    def cpus(self, listed: str) -> None:
        os.sched_setaffinity(0, map(int, listed.split(",")))

    def unshare(self, flags: str) -> None:
        need(libc.unshare(int(flags)), "unshare", "namespace")

    def inside(self, path: str) -> int:
        how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, IN_ROOT)
        return call(OPENAT2, self.root, os.fsencode(path), how, len(how))

    def place(self, path: str, folder: bool) -> int:
        """Open a place in the new root, made together with the folders on its way where it is not there."""
        fd, parts = self.inside(path), path.split("/")[1:]
        for depth in range(1, len(parts) + 1) if fd < 0 else ():
            part, above = "/" + "/".join(parts[:depth]), "/" + "/".join(parts[:depth - 1])
            if (fd := self.inside(part)) < 0:
                parent = need(self.inside(above), "make", part)
                if folder or depth < len(parts):
                    os.mkdir(parts[depth - 1], 0o755, dir_fd=parent)
                else:
                    os.close(os.open(parts[depth - 1], os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o644, dir_fd=parent))
                os.close(parent)
                fd = self.inside(part)
        return need(fd, "place", path)

    def protect(self, fd: int, how: int, attributes: int, path: str) -> None:
        change = struct.pack("QQQQ", attributes, 0, 0, 0)
        need(call(MOUNT_SETATTR, fd, b"", EMPTY_PATH | how, change, len(change)), "protect", path)

    def mount_in(self, source: str, path: str, type: str, flags: int, options: str, attributes: int) -> None:
        fd = self.place(path, bool(type) or stat.S_ISDIR(os.stat(source).st_mode))  # noqa: PTH116  # pathlib costs a start 5 ms
        link = f"/proc/self/fd/{fd}".encode()
        need(libc.mount(os.fsencode(source), link, type.encode() or None, flags, options.encode()), "mount", path)
        os.close(fd)
        if attributes:
            fd = need(self.inside(path), "mount", path)
            self.protect(fd, RECURSIVE, attributes, path)
            os.close(fd)

    def take_root(self, source: str, type: str, options: str, folder: str, attributes: str) -> None:
        need(libc.mount(None, b"/", None, PRIVATE, None), "mount", "private")
        flags = 0 if type else BIND
        need(libc.mount(os.fsencode(source), os.fsencode(folder), type.encode() or None, flags, os.fsencode(options)), "mount", "/")
        self.root = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        self.protect(self.root, RECURSIVE, int(attributes), "/")

    def bind(self, source: str, path: str, attributes: str) -> None:
        self.mount_in(source, path, "", BIND, "", int(attributes))

    def mount(self, type: str, path: str, options: str, attributes: str) -> None:
        self.mount_in(type, path, type, NOSUID | (NOEXEC if type == "proc" else 0), options, int(attributes))

    def folder(self, path: str) -> None:
        os.close(self.place(path, True))

    def symlink(self, text: str, path: str) -> None:
        folder, _, name = path.rpartition("/")
        fd = self.place(folder or "/", True)
        try:
            os.symlink(text, name, dir_fd=fd)
        except FileExistsError:
            pass  # the image has it
        os.close(fd)

    def readonly(self, path: str) -> None:
        self.protect(self.root, 0, 1, path)

    def loopback(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, 0x8914, struct.pack("16sH22x", b"lo", 0x41))  # SIOCSIFFLAGS; IFF_UP and IFF_RUNNING

    def pivot(self) -> None:
        os.fchdir(self.root)
        need(call(PIVOT_ROOT, b".", b"."), "pivot", "/")
        need(libc.umount2(b".", DETACH), "pivot", "/")
        os.chdir("/")

    def load(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        self.filter = os.read(fd, BUFFER)
        os.close(fd)

    def groups(self, listed: str) -> None:
        os.setgroups([int(word) for word in listed.split(",") if word])

    def become(self, uid: str, gid: str) -> None:
        capability = 0
        while libc.prctl(BOUNDING_DROP, capability, 0, 0, 0) == 0:
            capability += 1
        os.setresgid(int(gid), int(gid), int(gid))
        os.setresuid(int(uid), int(uid), int(uid))
        need(call(CAPSET, struct.pack("Ii", 0x20080522, 0), bytes(24)), "drop", "capabilities")
        need(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "set", "no_new_privs")

    def bound(self) -> None:
        libc.prctl(PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if waits(self.lifeline, 0, 0):
            os._exit(137)

    def setenv(self, pair: str) -> None:
        name, _, value = pair.partition("=")
        self.env[name] = value

    def join(self, pid: str, shim: str, namespaces: str, stay: str) -> None:
        libc.prctl(DUMPABLE, 0, 0, 0, 0)
        target, about = os.pidfd_open(int(pid)), os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        if os.read(about, 4096).rpartition(b")")[2].split()[1].decode() != shim:
            raise Failed(125, "join", "container", 3)
        os.close(about)
        need(libc.setns(target, int(namespaces)), "join", "container")
        os.close(target)
        if stay == "0":
            return
        here, there = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_SETMASK, EVERY)
        if child := os.fork():
            os.close(here)
            stand_for(child)
        os.close(there)
        self.lifeline = here
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminal(self, rows: str, columns: str) -> None:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK
        slave = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)  # TIOCGPTPEER
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))
        hand_out(master)
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(slave, fd)

    def dial(self, port: str) -> NoReturn:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
            one.connect(("127.0.0.1", int(port)))
            hand_out(one.fileno())
        os._exit(0)

    def execute(self, argv: list[str]) -> NoReturn:
        for number in EVERY - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.close_range(3, ctypes.c_uint(0xFFFFFFFF), 4)  # CLOSE_RANGE_CLOEXEC
        code = ctypes.create_string_buffer(self.filter, len(self.filter))
        program = struct.pack("H6xP", len(self.filter) // 8, ctypes.addressof(code))
        if self.filter:
            need(libc.prctl(SECCOMP, 2, program, 0, 0), "seccomp", "filter")
        try:
            os.execvpe(argv[0], argv, self.env)
        except OSError as error:
            raise Failed(127 if error.errno == 2 else 126, "exec", argv[0], error.errno or 0) from error


def waits(fd: int, events: int, timeout: float | None) -> bool:
    """Tell whether something waits on *fd*, or its other end is closed."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout))


def hand_out(fd: int) -> None:
    with socket.socket(fileno=os.dup(PASS_FD)) as ours:
        socket.send_fds(ours, [b"\0"], [fd])


def code_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def silence(*fds: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)


def stand_for(child: int) -> NoReturn:
    """Wait for *child* in its stead: pass signals on and end as it ends."""
    silence(0, 1, 2, PASS_FD)
    while True:
        got = signal.sigwait(EVERY)
        if got != signal.SIGCHLD:
            os.kill(child, got)
        elif (ended := os.waitpid(child, os.WNOHANG))[0]:
            os._exit(code_of(ended[1]))
