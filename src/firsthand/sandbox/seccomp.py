"""A seccomp filter for what runs in the sandbox: a small BPF program that refuses the system calls that untrusted code needs
only to attack the kernel or to look into other processes.

It is the second wall: namespaces and dropped capabilities come first. Made by hand, since it is short: a list of numbers per
architecture, and a few calls whose arguments decide. Tested on x86_64; the numbers of
aarch64 are those of the kernel's generic table.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWUSER, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP and NEWNS."""
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)
"""TIOCSTI, TIOCLINUX, TIOCSETD: typing into a terminal, and changing what reads it."""
_UNIX, _INTERNET = 1, (2, 10)
"""AF_UNIX, AF_INET and AF_INET6, which the network namespace confines. AF_VSOCK and others are not confined by it."""
_SOCKET_TYPES, _TYPE_MASK, _PROTOCOLS = (1, 2), 0xF, (0, 6, 17)
"""TCP and UDP: for any other protocol the kernel would ask the host for a module, outside all limits of the run."""
_SOL_SOCKET, _BUFFER_SIZES, _FILTERS = 1, (7, 8), (26, 50, 51, 52)
"""SO_SNDBUF and SO_RCVBUF, whose memory is the host's, stay as they are; so does the host's room for compiled filters."""
_LEASE, _NOTIFY = 1024, 1026
"""F_SETLEASE and F_NOTIFY: making others wait for a file, and watching a folder without inotify."""
_INIT, _WHOLE_USER = 1, {"setpriority": 2, "ioprio_set": 3}
"""Process 1, whose priority decides how soon a run ends, and PRIO_USER and IOPRIO_WHO_USER, which include it."""
_CORE = 4
"""RLIMIT_CORE, which must stay 1: a limit of 0 does not keep a crash from a program that `core_pattern` names."""
_HUGE_PAGES = 0x40000
"""MAP_HUGETLB: pages that the host has set aside for others, which no limit here counts."""
_OWN_CORES = 62
"""PR_SCHED_CORE: keeping everybody else off the second thread of a processor."""
_BLOCK = 8
"""Numbers that are compared one after the other; the kernel walks the whole filter for each call when it is installed."""
_NEWER = 451
"""The first number of calls since Linux 6.5, which this list does not know; the C library falls back to older ones."""

_BY_ARGUMENT = {
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "setsockopt": (54, 208),
    "ioctl": (16, 29), "fcntl": (72, 25),
    "prlimit64": (302, 261), "setrlimit": (160, 164), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "mmap": (9, 222), "prctl": (157, 167),
}  # fmt: skip
_IGNORED = {"sync": (162, 81), "syncfs": (306, 267)}
"""Nothing is done and success is reported: all files of a run are in memory, and the host's disks are not its own."""
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
    bodies: dict[int | None, list[bytes]] = {}
    for name, numbers in _BY_ARGUMENT.items():
        bodies[numbers[column]] = _argument_check(name)
    for table, error in ((_REFUSED, errno.EPERM), (_ABSENT, errno.ENOSYS), (_IGNORED, 0)):
        bodies |= {places[column]: [_instruction(_RETURN, _ERRNO | error)] for places in table.values()}
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *_when(_AT_LEAST, _NEWER, errno.ENOSYS),  # on x86_64 also those of the x32 numbers
    ]
    known = sorted(number for number in bodies if number is not None)
    for start in range(0, len(known), _BLOCK):
        block = []
        for number in known[start : start + _BLOCK]:
            block += [_instruction(_EQUAL, number, 0, len(bodies[number])), *bodies[number]]
        block += [_instruction(_RETURN, _ALLOW)]
        for later in known[start + _BLOCK : start + _BLOCK + 1]:
            code += [_instruction(_AT_LEAST, later, len(block), 0)]
        code += block
    return b"".join(code)


def _argument_check(name: str) -> list[bytes]:
    """BPF instructions that check one call's arguments. Each ends in a return, so the accumulator may be overwritten."""
    if name == "clone3":  # its flags lie in memory, where a filter cannot look; the C library falls back to clone
        return [_instruction(_RETURN, _ERRNO | errno.ENOSYS)]
    code: list[bytes] = []
    if name == "clone":
        code += _if_argument(0, _ANY_BIT, [_NEW_NAMESPACES], errno.EPERM)
    elif name == "ioctl":
        code += _if_argument(1, _EQUAL, _TERMINAL_REQUESTS, errno.EPERM)
    elif name == "fcntl":
        code += _if_argument(1, _EQUAL, [_LEASE, _NOTIFY], errno.EINVAL)
    elif name == "mmap":
        code += _if_argument(3, _ANY_BIT, [_HUGE_PAGES], errno.EPERM)
    elif name == "prctl":
        code += _if_argument(0, _EQUAL, [_OWN_CORES], errno.EINVAL)
    elif name in _WHOLE_USER:
        code += _if_argument(1, _EQUAL, [_INIT], errno.EPERM)
        code += _if_argument(0, _EQUAL, [_WHOLE_USER[name]], errno.EPERM)
    elif name.startswith("sched_"):
        code += _if_argument(0, _EQUAL, [_INIT], errno.EPERM)
    elif name == "setrlimit":
        code += _if_argument(0, _EQUAL, [_CORE], 0)
    elif name == "prlimit64":  # of oneself only: init has the same user
        code += [
            _instruction(_LOAD, _argument(0)),
            _instruction(_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _ERRNO | errno.EPERM),
            _instruction(_LOAD, _argument(1)),
            _instruction(_EQUAL, _CORE, 0, 5),
            _instruction(_LOAD, _argument(2)),  # both halves of the pointer to the new limit; null asks for the old one
            _instruction(_EQUAL, 0, 0, 2),
            _instruction(_LOAD, _argument(2) + 4),
            _instruction(_EQUAL, 0, 1, 0),
            _instruction(_RETURN, _ERRNO),
        ]
    elif name == "setsockopt":
        options = _if_argument(2, _EQUAL, _FILTERS, errno.EPERM) + _if_argument(2, _EQUAL, _BUFFER_SIZES, 0)
        code += [_instruction(_LOAD, _argument(1)), _instruction(_EQUAL, _SOL_SOCKET, 0, len(options)), *options]
    else:
        protocols = _unless_argument(1, _SOCKET_TYPES, errno.EPROTONOSUPPORT, _TYPE_MASK)
        protocols += _unless_argument(2, _PROTOCOLS, errno.EPROTONOSUPPORT)
        code += _unless_argument(0, (_UNIX, *_INTERNET), errno.EAFNOSUPPORT)
        code += [_instruction(_EQUAL, _UNIX, len(protocols), 0), *protocols]
    return [*code, _instruction(_RETURN, _ALLOW)]


def _if_argument(index: int, test: int, values: Iterable[int], error: int) -> list[bytes]:
    """The call fails with `error`, or does nothing if that is 0, if the argument passes the test with any of the values."""
    return [_instruction(_LOAD, _argument(index)), *(each for value in values for each in _when(test, value, error))]


def _unless_argument(index: int, values: Sequence[int], error: int, mask: int | None = None) -> list[bytes]:
    """The call fails with `error` unless the argument, or its bits under a mask, is one of the values."""
    tests = [_instruction(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    masked = [] if mask is None else [_instruction(_AND, mask)]
    return [_instruction(_LOAD, _argument(index)), *masked, *tests, _instruction(_RETURN, _ERRNO | error)]


def _when(test: int, value: int, error: int) -> list[bytes]:
    """The call fails with `error` if the accumulator passes the test."""
    return [_instruction(test, value, 0, 1), _instruction(_RETURN, _ERRNO | error)]


def _argument(index: int) -> int:
    """The offset of an argument's low half in `struct seccomp_data`, on a little-endian machine."""
    return 16 + 8 * index


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
