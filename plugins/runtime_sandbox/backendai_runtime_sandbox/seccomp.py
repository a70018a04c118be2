"""The system call filter: a classic BPF program, built here from a list.

Everything is allowed but what reaches around the other walls or into seldom-tested kernel code. What the list does not know, because it
is newer than the list, is answered as on an older kernel.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

LAST_KNOWN = 462  # mseal; the numbers above 424 are the same on every machine
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
NAMESPACES = 0x7E020000  # CLONE_NEWNS and the others that clone takes
NEW_TIME = 0x80  # CLONE_NEWTIME, for unshare
AF_ALG, AF_VSOCK = 38, 40
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

_COMMON = {  # the same number everywhere
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "quotactl_fd": 443,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Numbers of one machine. refused: calls that fail with EPERM. The others are looked at with their arguments."""

    audit: int
    refused: tuple[int, ...]
    clone: int
    clone3: int
    unshare: int
    socket: int
    ioctl: int
    sched_setaffinity: int


_X86_64 = Machine(
    audit=0xC000003E, clone=56, clone3=435, unshare=272, socket=41, ioctl=16, sched_setaffinity=203,
    refused=(
        165, 166, 155, 161,  # mount umount2 pivot_root chroot
        167, 168, 169, 163, 179,  # swapon swapoff reboot acct quotactl
        175, 176, 313, 174, 177, 178,  # init_module delete_module finit_module and the old ones
        246, 320,  # kexec_load kexec_file_load
        248, 249, 250,  # add_key request_key keyctl
        298, 321, 323, 312,  # perf_event_open bpf userfaultfd kcmp
        308, 304, 103,  # setns open_by_handle_at syslog
        164, 227, 159, 305,  # settimeofday clock_settime adjtimex clock_adjtime
        172, 173, 156,  # iopl ioperm _sysctl
        212, 180, 134, 136, 139, 153,  # lookup_dcookie nfsservctl uselib ustat sysfs vhangup
        256, 279,  # migrate_pages move_pages
        300, 301, 170, 171,  # fanotify_init fanotify_mark sethostname setdomainname
        *_COMMON.values(),
    ))
_AARCH64 = Machine(
    audit=0xC00000B7, clone=220, clone3=435, unshare=97, socket=198, ioctl=29, sched_setaffinity=122,
    refused=(
        40, 39, 41, 51, 224, 225, 142, 89, 60, 105, 106, 273, 104, 294, 217, 218, 219, 241, 280, 282, 272, 268, 265, 116, 170, 112, 171,
        266, 18, 42, 58, 238, 239, 262, 263, 161, 162, *_COMMON.values(),  # in the order above, without what this machine never had
    ))
MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def program(machine: Machine, pinned: bool) -> bytes:
    """Return the filter as an array of ``struct sock_filter``. pinned: the processes may not leave the cores that they were given."""
    refused = sorted({*machine.refused, *((machine.sched_setaffinity,) if pinned else ())})
    eperm, enosys = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, enosys), (_LOAD, 0, 0, _NUMBER)]
    code += _answer(_JUMP_GREATER, LAST_KNOWN, enosys)  # so are those of the x32 machine
    code += _answer(_JUMP_EQUAL, machine.clone3, enosys)  # its flags are out of sight; every libc falls back to clone
    for number in refused:
        code += _answer(_JUMP_EQUAL, number, eperm)
    code += _argument(machine.clone, 0, (_JUMP_BITS, NAMESPACES), eperm)
    code += _argument(machine.unshare, 0, (_JUMP_BITS, NAMESPACES | NEW_TIME), eperm)
    for family in (AF_ALG, AF_VSOCK):
        code += _argument(machine.socket, 0, (_JUMP_EQUAL, family), _ERRNO | errno.EAFNOSUPPORT)
    for request in (TIOCSTI, TIOCLINUX):
        code += _argument(machine.ioctl, 1, (_JUMP_EQUAL, request), eperm)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def _answer(jump: int, value: int, result: int) -> Sequence[tuple[int, int, int, int]]:
    return ((jump, 0, 1, value), (_RETURN, 0, 0, result))


def _argument(number: int, index: int, test: tuple[int, int], result: int) -> Sequence[tuple[int, int, int, int]]:
    """Answer *result* when the low half of an argument of call *number* passes *test*."""
    jump, value = test
    return ((_JUMP_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * index), (jump, 0, 1, value), (_RETURN, 0, 0, result),
            (_LOAD, 0, 0, _NUMBER))
