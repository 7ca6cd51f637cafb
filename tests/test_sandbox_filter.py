"""The seccomp filter by its parts: single instructions, and the answer to each call by its arguments."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from firsthand.sandbox import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x50000


def said(code: list[bytes], number: int, architecture: int, *arguments: int) -> tuple[int, int]:
    """The word that a BPF program returns for a call, and the number of instructions that it took."""
    data = struct.pack("=II8x6Q", number, architecture, *arguments, *[0] * (6 - len(arguments)))
    at = taken = value = 0
    while True:
        opcode, if_true, if_false, word = struct.unpack("=HBBI", code[at])
        at, taken = at + 1, taken + 1
        if opcode == 0x06:  # BPF_RET | BPF_K
            return word, taken
        if opcode == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (value,) = struct.unpack_from("=I", data, word)
        elif opcode == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            value &= word
        else:
            passes = {0x15: value == word, 0x35: value >= word, 0x45: bool(value & word)}[opcode]
            at += if_true if passes else if_false


def test_an_instruction_is_a_struct_of_the_kernel_and_an_argument_is_at_its_offset() -> None:
    assert seccomp._instruction(0x15, 0x01020304, 5, 6) == struct.pack("=HBBI", 0x15, 5, 6, 0x01020304)
    assert seccomp._instruction(0x06, 7) == b"\x06\0\0\0\x07\0\0\0"
    assert [seccomp._argument(index) for index in (0, 1, 3, 5)] == [16, 24, 40, 56]
    one = seccomp._instruction
    assert seccomp._when(0x35, 451, 38) == [one(0x35, 451, 0, 1), one(0x06, ERRNO | 38)]
    assert seccomp._if_argument(2, 0x45, [8, 1], 22) == [
        one(0x20, 32), one(0x45, 8, 0, 1), one(0x06, ERRNO | 22), one(0x45, 1, 0, 1), one(0x06, ERRNO | 22),
    ]  # fmt: skip
    assert seccomp._unless_argument(1, (4, 9, 2), 93) == [
        one(0x20, 24), one(0x15, 4, 3, 0), one(0x15, 9, 2, 0), one(0x15, 2, 1, 0), one(0x06, ERRNO | 93),
    ]  # fmt: skip
    assert seccomp._unless_argument(0, (4,), 1, 0xF) == [
        one(0x20, 16), one(0x54, 0xF), one(0x15, 4, 1, 0), one(0x06, ERRNO | 1),
    ]  # fmt: skip


def test_each_call_is_answered_by_its_own_argument() -> None:
    permitted, refused, invalid = "allowed", errno.EPERM, errno.EINVAL
    high = 1 << 32  # the low half is 0
    table: dict[str, list[tuple[tuple[int, ...], Any]]] = {
        "clone3": [((), errno.ENOSYS), ((1, 2), errno.ENOSYS)],
        "clone": [
            ((0x11,), permitted), ((0x11, 0x10000000), permitted), ((0x3D0F00,), permitted), ((0x80000000,), permitted),
            *(((flag | 0x11,), refused) for flag in (  # user, pid, net, ipc, uts, cgroup, mount
                0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x00020000)),
        ],
        "ioctl": [
            ((0, 0x5412), refused), ((0, 0x541C), refused), ((0, 0x5423), refused), ((0x5412, 0x5413), permitted),
            ((0, 0x5411), permitted), ((0, 0x5422), permitted), ((0, 0x8913, 0x5412), permitted),
        ],
        "fcntl": [
            ((3, 1024), invalid), ((3, 1026), invalid), ((3, 1025), permitted), ((1024, 3, 1026), permitted),
            ((3, 1033), permitted),
        ],
        "mmap": [
            ((0, 4096, 3, 0x40022), refused), ((0, 4096, 3, 0x20022), permitted), ((0, 0x40000, 0x40000, 2), permitted),
            ((0x40000, 1, 3, 2, 0x40000), permitted),
        ],
        "prctl": [((62,), invalid), ((61, 62), permitted), ((63,), permitted), ((0,), permitted)],
        "setpriority": [
            ((0, 1, 5), refused), ((2, 0, 5), refused), ((2, 7, 5), refused), ((1, 0, 1), permitted), ((3, 2, 1), permitted),
        ],
        "ioprio_set": [
            ((1, 1, 0), refused), ((3, 0, 0), refused), ((2, 0, 1), permitted), ((1, 3, 3), permitted),
        ],
        "sched_setparam": [((1, 9), refused), ((0, 1), permitted), ((2, 1), permitted)],
        "sched_setscheduler": [((1, 0), refused), ((0, 1), permitted), ((2, 1, 1), permitted)],
        "sched_setaffinity": [((1, 8), refused), ((0, 1), permitted)],
        "sched_setattr": [((1, 8), refused), ((0, 1), permitted)],
        "setrlimit": [((4, 9), 0), ((3, 4), permitted), ((5, 4), permitted)],
        "prlimit64": [
            ((1, 7), refused), ((2, 4, 8), refused), ((1, 4, 0), refused), ((0, 7, 8), permitted), ((0, 4, 0, 9), permitted),
            ((0, 4, 8), 0), ((0, 4, high), 0), ((0, 4, high | 8), 0), ((0, 3, high), permitted), ((0, 5, 8), permitted),
        ],
        "setsockopt": [
            *(((3, 1, option, 9), refused) for option in (26, 50, 51, 52)),
            *(((3, 1, option, 9), 0) for option in (7, 8)),
            *(((3, 1, option, 26), permitted) for option in (6, 9, 25, 27, 49, 53)),
            *(((1, level, 26), permitted) for level in (0, 2, 6, 41)), ((3, 6, 8), permitted),
        ],
        "socket": [
            *(((1, kind, protocol), permitted) for kind in (1, 2, 3, 5) for protocol in (0, 1, 99)),
            *(((domain, kind, protocol), permitted)
              for domain in (2, 10) for kind in (1, 2, 0x80001, 0x801, 0x80802) for protocol in (0, 6, 17)),
            *(((domain, kind, 0), errno.EPROTONOSUPPORT) for domain in (2, 10) for kind in (0, 3, 4, 5, 0x10, 0x80003)),
            *(((domain, 1, protocol), errno.EPROTONOSUPPORT)
              for domain in (2, 10) for protocol in (1, 2, 5, 7, 16, 18, 132, 262)),
            *(((domain, 1, 0), errno.EAFNOSUPPORT) for domain in (0, 3, 9, 11, 16, 17, 38, 40)),
        ],
    }  # fmt: skip
    assert set(table) == set(seccomp._BY_ARGUMENT)
    for name, cases in table.items():
        code = seccomp._argument_check(name)
        for arguments, answer in cases:
            word, _ = said(code, 0, 0, *arguments)
            assert word == (ALLOW if answer == "allowed" else ERRNO | answer), (name, arguments)


@pytest.mark.parametrize(
    ("machine", "mine", "other"), [("x86_64", 0xC000003E, 0xC00000B7), ("aarch64", 0xC00000B7, 0xC000003E)]
)
def test_calls_of_another_architecture_end_the_process_and_few_instructions_decide(
    machine: str, mine: int, other: int
) -> None:
    whole = seccomp.program(machine)
    assert whole is not None
    code = [whole[at : at + 8] for at in range(0, len(whole), 8)]
    column = {"x86_64": 0, "aarch64": 1}[machine]
    assert said(code, 0, other) == (KILL, 3) and said(code, 451, other) == (KILL, 3)
    for name, error in (("ptrace", errno.EPERM), ("setdomainname", errno.EPERM), ("lookup_dcookie", errno.EPERM)):
        assert said(code, seccomp._REFUSED[name][column], mine)[0] == ERRNO | error, name
    for name in ("memfd_create", "vmsplice", "io_uring_register", "semctl"):
        word, taken = said(code, seccomp._ABSENT[name][column] or 0, mine)
        assert word == ERRNO | errno.ENOSYS and taken < 40, name
    assert [said(code, seccomp._IGNORED[name][column], mine)[0] for name in ("sync", "syncfs")] == [ERRNO, ERRNO]
    assert (said(code, 450, mine)[0], said(code, 451, mine), said(code, 2**32 - 1, mine)) == (
        ALLOW, (ERRNO | errno.ENOSYS, 5), (ERRNO | errno.ENOSYS, 5),
    )  # fmt: skip
    socket_call = seccomp._BY_ARGUMENT["socket"][column]
    assert said(code, socket_call, mine, 16)[0] == ERRNO | errno.EAFNOSUPPORT
    assert said(code, socket_call, mine, 1)[0] == ALLOW
    known = [places[column] for table in (seccomp._REFUSED, seccomp._ABSENT, seccomp._IGNORED, seccomp._BY_ARGUMENT)
             for places in table.values()]  # fmt: skip
    blocks = -(-len({each for each in known if each is not None}) // 8)
    assert max(said(code, number, mine)[1] for number in range(451)) <= 5 + blocks + 8 + 30
    assert seccomp.program("i686") is None and seccomp.program("") is None
