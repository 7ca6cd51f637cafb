"""All that a run sees of its place, in one look: user, processes, limits, mounts, network, files, and the interpreter."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import SandboxError
from firsthand.sandbox.bubblewrap import SandboxRun, WarmWorker
from firsthand.sandbox.bwrap_command import _environment
from firsthand.sandbox.programs import worker as worker_program
from firsthand.sandbox.programs import write_rules
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from namespaces import WHY_NOT

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

LIMITS = RunLimits(
    wall_s=9.0,
    cpu_s=2.5,
    memory_bytes=300 * 2**20,
    processes=20,
    open_files=40,
    file_bytes=10**6,
    scratch_bytes=2**20,
    scratch_files=50,
    output_bytes=100_000,
)
LOOK = """
import fcntl, gc, json, os, resource, signal, socket, struct, sys

def tried(path):
    try:
        with open(path) as file:
            return file.read(50)
    except OSError as error:
        return error.strerror

def written(path):
    try:
        with open(path, "w") as file:
            return file.write("x")
    except OSError as error:
        return error.strerror

status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status"))
mounts = [line.split() for line in open("/proc/self/mountinfo")]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    flags = struct.unpack("=16sH14x", fcntl.ioctl(any_socket, 0x8913, struct.pack("=16sH14x", b"lo", 0)))[1]
files = {}
for folder, _, names in os.walk("."):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            files[os.path.join(folder, name)] = file.read().hex()
print(json.dumps({
    "ids": [os.getuid(), os.getgid(), os.getgroups(), os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0)],
    "place": [os.getcwd(), sorted(os.listdir("/proc/self/fd"), key=int), sorted(os.listdir("/tmp"))],
    "modes": [oct(os.stat(path).st_mode) for path in ("/tmp", "/tmp/shm", "/tmp/work")],
    "environment": {name: value for name, value in os.environ.items() if name != "PWD"},
    "status": {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk")},
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in (
        "AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "SIGPENDING", "MSGQUEUE", "MEMLOCK")},
    "oom": tried("/proc/self/oom_score_adj"),
    "hidden": [tried("/proc/" + name) for name in (
        "cmdline", "interrupts", "kallsyms", "diskstats", "sys/kernel/random/boot_id")],
    "scratch": [
        [each[5], sorted(part for part in each[-1].split(",") if part[:3] not in ("uid", "gid"))]
        for each in mounts if each[4] == "/tmp"],
    "proc": [each[5] for each in mounts if each[4] == "/proc"][-1],
    "maps": [tried("/proc/self/" + name).split()[::2] for name in ("uid_map", "gid_map")] + [tried("/proc/self/setgroups")],
    "init": [tried("/proc/1/environ"), os.path.exists("/proc/3")],
    "network": [flags & 0x49, [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:]],
    "buffers": [tried("/proc/sys/net/ipv4/" + name).split() for name in ("tcp_rmem", "tcp_wmem")],
    "files": files,
    "python": [sys.argv, sys.path[0], "/" in sys.path, gc.isenabled(), gc.get_freeze_count() > 0, __name__],
    "stdin": sys.stdin.read(),
    "streams": [
        [each.encoding, each.errors, each.line_buffering, each is kept, each.fileno()] for each, kept in (
            (sys.stdin, sys.__stdin__), (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))],
    "main": [sys.modules["__main__"].__dict__ is globals(), __builtins__ is __import__("builtins")],
    "writes": [written(path) for path in (
        "/dev/null", "/dev/shm/x", "/tmp/work/x", "/tmp/x", "/x", "/dev/x", "/proc/self/comm")],
    "devices": {name: os.readlink("/dev/" + name) if os.path.islink("/dev/" + name)
                else [os.major(os.stat("/dev/" + name).st_rdev), os.minor(os.stat("/dev/" + name).st_rdev),
                      oct(os.stat("/dev/" + name).st_mode)] for name in os.listdir("/dev")},
    "system": sorted({each[4] for each in mounts if "rw" in each[5].split(",")}),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "modules": [name for name in ("checker", "keeping", "write_rules", "box_inside") if name in sys.modules],
    "spaces": {name: os.readlink("/proc/self/ns/" + name) for name in ("ipc", "mnt", "net", "pid", "user", "uts")},
}))
"""


SPACES = ("ipc", "mnt", "net", "pid", "user")
READ_ONLY = "Read-only file system"


def looked(run: SandboxRun, worker: WarmWorker) -> dict[str, Any]:
    report = worker.run(run)
    assert report.stderr == b"" and not report.flooded and report.body["killed"] is None
    found: dict[str, Any] = json.loads(report.stdout)
    return found


def below(pid: int) -> list[Path]:
    """The folders in /proc of all processes below one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [place for child in map(int, children) for place in (Path(f"/proc/{child}"), *below(child))]


def descriptors(worker: WarmWorker) -> list[int]:
    """The numbers of open files of all processes of a worker; none of those that may not be looked at."""
    return [len(list(folder.glob("fd/*"))) for folder in below(worker.pid)]


def link(process: Path, name: str) -> str:
    """A namespace of a process; "" if it may not be looked at."""
    try:
        return str((process / "ns" / name).readlink())
    except OSError:
        return ""


def most(name: str, soft: int, hard: int) -> list[int]:
    """A limit, or what is lower on this machine already."""
    here = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
    return [each if here == resource.RLIM_INFINITY else min(each, here) for each in (soft, hard)]


def test_a_run_sees_a_machine_of_its_own_with_the_limits_that_it_was_given() -> None:
    groups = os.getgroups()
    with suppress(PermissionError):  # an ordinary user keeps those it has
        os.setgroups([4242])
    try:
        worker = WarmWorker()
    finally:
        with suppress(PermissionError):
            os.setgroups(groups)
    try:
        outer = [link(below(worker.pid)[-1], name) for name in SPACES]
        run = SandboxRun("python", LOOK, LIMITS, "in\udcff", {"a/b.txt": "é", "c": "\udcff"}, "<named>")
        found = looked(run, worker)
        again = looked(SandboxRun("python", LOOK, LIMITS, "in", name="<named>"), worker)
    finally:
        worker.close()
    assert worker._process.returncode == 0, "it has left by itself"
    assert list(found["spaces"]) == [*SPACES, "uts"]
    for name, inner in zip(SPACES, outer, strict=True):
        assert found["spaces"][name] != inner, f"the worker's {name} is not the run's"
    for name, place in found.pop("spaces").items():
        assert place != str(Path(f"/proc/self/ns/{name}").readlink()), name
    no_capability = "0000000000000000"
    assert found == {
        "ids": [1000, 1000, [], 2, 1, 2, 2] if os.geteuid() == 0 else [1000, 1000, found["ids"][2], 2, 1, 2, 2],
        "place": ["/tmp/work", ["0", "1", "2", "3"], ["shm", "work"]],
        "modes": ["0o40755", "0o40700", "0o40700"],
        "environment": _environment(),
        "status": {
            "CapInh": no_capability, "CapPrm": no_capability, "CapEff": no_capability, "CapAmb": no_capability,
            "NoNewPrivs": "1", "Seccomp": "2", "SigBlk": "0000000000000000",
        },
        "limits": {
            "AS": most("AS", 300 * 2**20, 300 * 2**20), "CPU": most("CPU", 3, 4), "FSIZE": most("FSIZE", 10**6, 10**6),
            "NOFILE": most("NOFILE", 40, 40), "NPROC": most("NPROC", 22, 22), "CORE": most("CORE", 1, 1),
            "SIGPENDING": most("SIGPENDING", 512, 512), "MSGQUEUE": [0, 0], "MEMLOCK": [0, 0],
        },
        "oom": "1000\n",
        "hidden": ["", "", "", "", ""],
        "scratch": [["rw,nosuid,nodev,relatime", ["mode=755", "nr_inodes=54", "rw", "size=1024k"]]],
        "proc": "rw,nosuid,nodev,noexec,relatime",
        "maps": [["1000", "1"], ["1000", "1"], "deny\n"],
        "init": ["Permission denied", False],
        "network": [0x49, ["lo"]],
        "buffers": [["4096", "262144", "262144"], ["4096", "262144", "262144"]],
        "files": {"./a/b.txt": "c3a9", "./c": "ff"},
        "python": [["<named>"], "/tmp/work", False, True, True, "__main__"],
        "stdin": "in\ufffd",
        "streams": [
            ["utf-8", "replace", False, True, 0], ["utf-8", "backslashreplace", False, True, 1],
            ["utf-8", "backslashreplace", True, True, 2],
        ],
        "main": [True, True],
        "writes": [1, 1, 1, 1, READ_ONLY, READ_ONLY, "Permission denied" if write_rules.supported() else 1],
        "devices": {
            "null": [1, 3, "0o20666"], "zero": [1, 5, "0o20666"], "full": [1, 7, "0o20666"], "random": [1, 8, "0o20666"],
            "urandom": [1, 9, "0o20666"], "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
            "shm": "/tmp/shm",
        },
        "system": ["/proc", "/tmp"],
        "interrupt": True,
        "modules": ["checker", "keeping", "write_rules"],
    }  # fmt: skip
    assert again["files"] == {} and again["place"] == found["place"] and again["ids"] == found["ids"]


@pytest.mark.slow
def test_the_report_of_a_run_has_its_own_time_memory_and_status() -> None:
    worker = WarmWorker()
    try:
        limits, short = RunLimits(wall_s=20), RunLimits(wall_s=0.1)
        held = descriptors(worker)
        code = "import os, time\nheld = b'x' * (40 << 20)\nuntil = time.process_time() + 0.05\n"
        code += "while time.process_time() < until: pass\nos._exit(7)"
        body = worker.run(SandboxRun("python", code, limits)).body
        assert (body["killed"], body["status"]) == (None, 7 << 8) and set(body) == {
            "killed", "status", "cpu_s", "peak_bytes", "wall_s",
        }  # fmt: skip
        assert 0.05 <= body["cpu_s"] < 0.5 and 0.05 < body["wall_s"] < 10
        assert 40 << 20 < body["peak_bytes"] < 120 << 20, "the pages that it shares with the zygote are not its own"
        kernel = "import os, resource\nown = lambda: resource.getrusage(resource.RUSAGE_SELF)\n"
        kernel += (
            "while own().ru_stime < 0.05: [os.stat('/') for _ in range(1000)]\nprint(own().ru_utime + own().ru_stime)"
        )
        report = worker.run(SandboxRun("python", kernel, limits))
        assert 0.05 <= float(report.stdout) <= report.body["cpu_s"] < 1, "time in the kernel counts too"
        both = "import os, time\nchild = os.fork()\nheld = b'x' * (40 << 20)\ntime.sleep(0.2)\n"
        both += "child and os.waitpid(child, 0)"
        together = worker.run(SandboxRun("python", both, limits)).body["peak_bytes"]
        assert 80 << 20 < together < 200 << 20, "what two processes hold at a time counts together"
        body = worker.run(SandboxRun("python", "import time; time.sleep(9)", short)).body
        assert (
            (body["killed"], body["status"]) == ("timeout", None) and 0.1 <= body["wall_s"] < 5 and body["cpu_s"] < 0.3
        )
        body = worker.run(SandboxRun("python", "import os; os.kill(os.getpid(), 15)", limits)).body
        assert (body["killed"], body["status"]) == (None, 15)
        body = worker.run(SandboxRun("python", "1", limits, folder="/nowhere"))
        assert (body.body["status"], body.stdout) == (126 << 8, b"") and body.stderr == (
            b"the sandbox could not start this: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'\n"
        )
        body = worker.run(SandboxRun("shell", "echo $$ $PYTHONPATH; grep SigIgn /proc/self/status; exit 3", limits))
        assert (body.stdout, body.body["status"]) == (b"2\nSigIgn:\t0000000000000000\n", 3 << 8)
        orphan = "sh -c 'sleep 0.01 &'; kill -INT 1; sleep 0.06; exit 4"  # init reaps it before the run has ended
        assert worker.run(SandboxRun("shell", orphan, limits)).body["status"] == 4 << 8, "not an orphan's"
        for number in range(3):
            report = worker.run(SandboxRun("python", f"import os; os.write({1 + number % 2}, b'x' * 3)", limits))
            assert len(report.stdout + report.stderr) == 3
        until = time.monotonic() + 5
        while descriptors(worker) != held and time.monotonic() < until:  # the last supervisor is about to end
            time.sleep(0.005)
        assert descriptors(worker) == held != [], "no descriptor and no child is left"
        if os.geteuid() == 0:
            assert {str((below(worker.pid)[-1] / f"fd/{n}").readlink()) for n in (0, 2)} == {"/dev/null"}
        with pytest.raises(SandboxError) as told:
            worker.run(SandboxRun("python", "1", limits, files={"a": "x", "a/b": "y"}))
        why = "FileExistsError: [Errno 17] File exists: '/tmp/work/a'"
        assert str(told.value) == f"the sandbox could not be set up: {why}" and not worker.alive
    finally:
        worker.close()


@pytest.mark.slow
def test_packages_and_kept_folders_are_where_each_kind_of_run_looks_for_them(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "first"), (two, "second")):
        folder.mkdir()
        (folder / f"{name}.py").write_text(f"x = {name!r}")
    tmp_path.chmod(0o755)
    workspace = Workspace(one, size_bytes=2**21, files=60, folders=("/root", "/tmp"))
    shows = "import os, sys, json; print(json.dumps([os.getcwd(), sys.path[:3], 'box_inside' in sys.modules]))"
    spaces = "; print(os.statvfs('/testbed').f_blocks * os.statvfs('/testbed').f_frsize, os.path.exists('/tmp/work'))"

    writes = "echo 1 >x; echo 2 >/root/kept; echo 3 >/tmp/y"  # `touch` says nothing of a file that it may not write
    adds = "echo 4 >>/root/kept; cat /root/kept; ls /root /testbed /tmp"

    async def main() -> list[Any]:
        async with Sandbox(LIMITS, packages=[one, two], workspace=workspace) as box:
            outcomes = [
                await box.python(shows), await box.python(shows, ours=True), await box.python("import os" + spaces),
                await box.shell(f"pwd; echo $PYTHONPATH; ls /base; {writes}; ls -ld /root | cut -c1-10"),
                await box.shell(f"cat x /root/kept /tmp/y; {adds}; python3 -c 'import second; print(second.x)'"),
            ]  # fmt: skip
            return [(each.stderr, each.stdout) for each in outcomes]

    seen = asyncio.run(main())
    assert [json.loads(seen[0][1]), json.loads(seen[1][1])] == [
        ["/", ["/tmp/work", "/packages/0", "/packages/1"], True],
        ["/", ["/packages/0", "/packages/1", json.loads(seen[1][1])[1][2]], True],
    ]
    assert seen[2] == ("", f"{2**21} False\n"), "where /tmp is kept, the scratch folder is not seen"
    assert seen[3] == ("", "/testbed\n/packages/0:/packages/1\nfirst.py\ndrwx------\n")
    assert seen[4][0] == "" and seen[4][1].endswith("second\n") and seen[4][1].split() == [
        "1", "2", "3", "2", "4", "/root:", "kept", "/testbed:", "x", "/tmp:", "shm", "y", "second",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_program_of_the_worker_is_started_for_a_container_with_its_path_and_signals(tmp_path: Path) -> None:
    """`once` in this machine, with another folder in place of /tmp."""
    (tmp_path / "in").mkdir()
    source = Path(worker_program.__file__).read_text().replace('"/tmp/', f'"{tmp_path}/in/')

    def once(kind: str, code: str, path: list[str], stdin: str = "", **limits: Any) -> tuple[int, str, str]:
        for name in ("shm", "work/c/d", "work/c", "work"):
            place = tmp_path / "in" / name
            if place.is_file():
                place.unlink()
            elif place.is_dir():
                place.rmdir()
        given = {
            "wall_s": 20,
            "cpu_s": 20,
            "memory_bytes": 2**32,
            "file_bytes": 10**6,
            "open_files": 60,
            "processes": 10**6,
        }
        request = {
            "kind": kind,
            "code": code,
            "name": "<n>",
            "files": {"c/d": "\udcfe"},
            "limits": given | limits,
        }
        command = [sys.executable, "-I", "-S", "-c", source, json.dumps({"once": True, "path": path})]
        body = json.dumps(request).encode()  # what the run reads on its own comes behind it
        sent = len(body).to_bytes(4, "big") + body + stdin.encode()
        done = subprocess.run(command, input=sent, capture_output=True, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    home = f"{tmp_path}/in/work"
    code = (
        "import os, sys, resource; print(os.getcwd(), sys.argv, sys.path[:3], os.getsid(0) == os.getpid(), "
        "open('c/d', 'rb').read(), sys.stdin.read(), sorted(map(int, os.listdir('/proc/self/fd')))[:3], "
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0]); sys.exit(130)"
    )
    seen = f"{home} ['<n>'] ['{home}', '/p', '/q'] True b'\\xfe' é\udcff"[:-1]
    status, said, errors = once("python", code, ["/p", "/q"], "é")
    assert (status, said, errors) == (130, f"{seen} [0, 1, 2] 60\n", "")
    shell = once("shell", "pwd; echo $PYTHONPATH; cat; kill -TERM $$", ["/p", "/q"], "x" * 100_000)
    assert shell == (128 + 15, f"{home}\n/p:/q\n" + "x" * 100_000, "")
    assert once("shell", "exec <&-; echo $#; sleep 0.05", [], "x" * 300_000) == (0, "0\n", ""), "it need not read"
    late = once("shell", "echo a; sleep 90; echo b", [], wall_s=0.1)  # `sleep` holds stdout open until it is killed too
    assert late == (124, "a\n", "")
