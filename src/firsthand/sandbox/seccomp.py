"""A seccomp filter for what runs in the sandbox: a small BPF program that refuses the system calls that untrusted code needs
only to attack the kernel or to look into other processes.

It is the second wall: namespaces and dropped capabilities come first. Made by hand, since it is short: a list of numbers per
architecture, and a few calls whose arguments decide. Tested on x86_64; the numbers of
aarch64 are those of the kernel's generic table.
"""

from __future__ import annotations

import errno
import struct

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWUSER, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP and NEWNS."""
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)
"""TIOCSTI, TIOCLINUX, TIOCSETD: typing into a terminal, and changing what reads it."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET and AF_INET6, which the network namespace confines. AF_VSOCK and others are not confined by it."""

_BY_ARGUMENT = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "ioctl": (16, 29),
    "prlimit64": (302, 261),
}
_ABSENT = {  # ENOSYS: programs that would use these fall back to something else
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "mq_open": (240, 180),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "msgget": (68, 186), "msgctl": (71, 187),
    "vmsplice": (278, 75), "io_setup": (206, 0), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}  # fmt: skip
_REFUSED = {  # EPERM
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "delete_module": (176, 106),
    "finit_module": (313, 273), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "vhangup": (153, 58), "fanotify_init": (300, 262), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "mbind": (237, 235), "set_mempolicy": (238, 237), "sethostname": (170, 161),
    "setdomainname": (171, 162), "lookup_dcookie": (212, 18),
}  # fmt: skip


def program(machine: str) -> bytes | None:
    """The filter as an array of `struct sock_filter`, or None for an architecture whose numbers we do not have."""
    if machine not in _ARCHITECTURES:
        return None
    architecture, column = _ARCHITECTURES[machine]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        code += _when(_AT_LEAST, _X32, errno.ENOSYS)
    for table, error in ((_REFUSED, errno.EPERM), (_ABSENT, errno.ENOSYS)):
        for places in table.values():
            if (number := places[column]) is not None:
                code += _when(_EQUAL, number, error)
    for name, numbers in _BY_ARGUMENT.items():
        check = _argument_check(name)
        code += [_instruction(_EQUAL, numbers[column], 0, len(check)), *check]
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _argument_check(name: str) -> list[bytes]:
    """BPF instructions that check one call's arguments. Each ends in a return, so the accumulator may be overwritten."""
    if name == "clone3":  # its flags lie in memory, where a filter cannot look; the C library falls back to clone
        return [_instruction(_RETURN, _ERRNO | errno.ENOSYS)]
    if name == "clone":
        code = [_instruction(_LOAD, _argument(0)), *_when(_ANY_BIT, _NEW_NAMESPACES, errno.EPERM)]
    elif name == "ioctl":
        code = [_instruction(_LOAD, _argument(1))]
        for request in _TERMINAL_REQUESTS:
            code += _when(_EQUAL, request, errno.EPERM)
    elif name == "prlimit64":  # of oneself only: init has the same user
        return [
            _instruction(_LOAD, _argument(0)),
            _instruction(_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _ERRNO | errno.EPERM),
            _instruction(_RETURN, _ALLOW),
        ]
    else:
        code = [_instruction(_LOAD, _argument(0))]
        for family in _FAMILIES:
            code += [_instruction(_EQUAL, family, 0, 1), _instruction(_RETURN, _ALLOW)]
        return [*code, _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT)]
    return [*code, _instruction(_RETURN, _ALLOW)]


def _when(test: int, value: int, error: int) -> list[bytes]:
    """The call fails with `error` if the accumulator passes the test."""
    return [_instruction(test, value, 0, 1), _instruction(_RETURN, _ERRNO | error)]


def _argument(index: int) -> int:
    """The offset of an argument's low half in `struct seccomp_data`, on a little-endian machine."""
    return 16 + 8 * index


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
