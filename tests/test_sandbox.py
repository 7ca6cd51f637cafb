# ruff: noqa: E501
"""The sandbox as its users see it: what a run gives, cancelling and closing, what is refused, and the two tools."""

import asyncio
import gc
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, SandboxError, ToolError
from firsthand.sandbox import seccomp
from firsthand.sandbox.bubblewrap import SandboxRun, WarmWorker
from firsthand.sandbox.container import Container
from firsthand.sandbox.memory_cgroup import SLACK_BYTES, MemoryCgroup
from firsthand.sandbox.sandbox import Sandbox, available, outcome_of
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.tools.python import python, shortened, unfenced
from firsthand.tools.shell import shell
from namespaces import WHY_NOT
from ordinary_user import SOURCE, as_nobody, interpreter

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
LIMITS = RunLimits(wall_s=5.0)


@pytest.fixture(scope="module")
def box():
    with Sandbox(LIMITS, workers=2) as sandbox:
        yield sandbox


def run(box, code, **options):
    return asyncio.run(box.python(code, **options))


def gone(pid):
    return not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.slow
@needs_bwrap
def test_a_run_gives_what_the_interpreter_gives(box):
    outcome = run(box, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)")
    assert (outcome.ended, outcome.exit_status, outcome.stdout, outcome.stderr) == ("error", 3, "out\n", "err\n")
    assert outcome.tier == "bubblewrap" and not outcome.ok
    assert 0 < outcome.cpu_s < 5 and 0 < outcome.wall_s < 5 and 2**20 < outcome.peak_bytes < 2**28
    assert (
        run(box, "print(__name__, input(), open('a/b.txt').read())", stdin="in\n", files={"a/b.txt": "é"}).stdout
        == "__main__ in é\n"
    )
    assert run(box, "import sys; sys.exit('why')").stderr == "why\n"


@needs_bwrap
def test_a_pool_of_threads_has_room_in_the_address_space(box):
    answer = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

def f(numbers):
    together = Barrier(len(numbers), timeout=5)  # no thread ends before all have begun
    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(lambda n: (bytearray(1000), together.wait(), n * n)[2], numbers))
"""
    outcome = asyncio.run(box.check(answer, "assert f(range(48)) == [n * n for n in range(48)]"))
    assert outcome.ok, outcome.stderr


def test_a_shells_programs_have_the_signals_that_python_ignores(box):
    ignored = int(asyncio.run(box.shell("grep SigIgn /proc/self/status")).stdout.split()[1], 16)
    assert [each for each in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (each - 1) & 1] == []
    assert asyncio.run(box.shell("yes | head -n 1")).stdout == "y\n"


@needs_bwrap
def test_the_streams_can_be_opened_by_their_names_and_output_only_written(box):
    outcome = asyncio.run(box.shell("cat /dev/stdin > /dev/stdout; echo err > /dev/stderr", stdin="in"))
    assert (outcome.stdout, outcome.stderr) == ("in", "err\n")
    if os.geteuid() == 0:
        assert "PermissionError" in run(box, "open('/dev/stdout', 'rb')").stderr


@needs_bwrap
def test_a_traceback_shows_only_the_code_that_was_given(box):
    outcome = run(box, "def f():\n    return 1 / 0\n\nf()")
    marked = "    ~^^\n" if sys.version_info >= (3, 13) else ""
    assert outcome.stderr == (
        f'Traceback (most recent call last):\n  File "<python>", line 4, in <module>\n    f()\n{marked}'
        '  File "<python>", line 2, in f\n    return 1 / 0\n           ~~^~~\nZeroDivisionError: division by zero\n'
    )
    assert run(box, "x = (").stderr.startswith('  File "<python>", line 1\n')


@pytest.mark.slow
@needs_bwrap
def test_the_processor_and_memory_of_a_run_are_measured(box):
    outcome = run(
        box,
        "import time\nbegan = time.process_time()\nwhile time.process_time() - began < 0.2: pass\nx = bytearray(100 * 2**20)",
    )
    assert 0.2 <= outcome.cpu_s < 5 and outcome.peak_bytes > 100 * 2**20


@needs_bwrap
def test_a_long_request_and_long_input_arrive_whole(box):
    code = "import sys\nx = '" + "é" * 500_000 + "'\nprint(len(x), len(sys.stdin.read()))"
    assert run(box, code, stdin="b" * 3_000_000).stdout == "500000 3000000\n"


@needs_bwrap
def test_a_cell_prints_the_value_of_its_last_expression(box):
    assert run(box, "x = [1]\nprint(x)\nx * 2", cell=True).stdout == "[1]\n[1, 1]\n"
    assert (
        run(box, "None", cell=True).stdout
        == run(box, "x = 1", cell=True).stdout
        == run(box, "", cell=True).stdout
        == ""
    )


@needs_bwrap
@pytest.mark.parametrize("cell", [False, True])
def test_a_program_may_end_itself_by_exit_and_ask_for_help_as_in_the_interpreter(box, cell):
    for name in ("exit", "quit"):
        ended = run(box, f"print('a')\n{name}()", cell=cell)
        assert (ended.ok, ended.stdout, ended.stderr) == (True, "a\n", "")
        failed = run(box, f"def f():\n    {name}('why')\nf()\nprint('b')", cell=cell)
        assert (failed.exit_status, failed.stdout, failed.stderr) == (1, "", "why\n")
        assert run(box, f"{name}(3)\n1", cell=cell).exit_status == 3
        assert run(box, f"print({name})", cell=cell).stdout == f"Use {name}() or Ctrl-D (i.e. EOF) to exit\n"
    helped = run(box, "def f():\n    'What f does.'\nhelp(f)", cell=cell)
    assert helped.ok and "What f does." in helped.stdout
    assert run(box, "exit = 5\nprint(exit)", cell=cell).stdout == "5\n", "a name of its own"


@needs_bwrap
def test_an_answer_that_is_tested_has_no_exit(box):
    outcome = asyncio.run(box.check("def f(): exit()", "f()"))
    assert not outcome.ok and "NameError: name 'exit' is not defined" in outcome.stderr
    assert "NameError: name 'help' is not defined" in run(box, "help", ours=True).stderr


@pytest.mark.slow
@needs_bwrap
def test_each_call_costs_little_and_many_go_on_together(box):
    async def many():
        return await asyncio.gather(*[box.python(f"print({i})") for i in range(20)])

    assert [outcome.stdout for outcome in asyncio.run(many())] == [f"{i}\n" for i in range(20)]
    assert len(box._pool.idle) <= 2


@needs_bwrap
def test_the_event_loop_stays_free_and_a_cancelled_run_is_killed(box):
    async def cancelled():
        running = asyncio.create_task(box.python("import os, time\nos.fork()\ntime.sleep(60)"))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())  # which the code inside would not let end for a minute, nor its limit for 5 s
    assert not box._pool.running and run(box, "print(1)").ok


@pytest.mark.slow
@needs_bwrap
def test_runs_that_are_stopped_before_they_begin_do_not_wear_a_worker_out(tmp_path):
    worker = WarmWorker()
    for _ in range(150):
        stopped = SandboxRun("python", "print(1)", LIMITS)
        stopped.stop()
        with pytest.raises(SandboxError, match="closed"):
            outcome_of(worker.run(stopped), stopped, "bubblewrap")
    assert worker.run(SandboxRun("python", "print(1)", LIMITS)).stdout == b"1\n"
    worker.close()


@pytest.mark.slow
@needs_bwrap
def test_closing_while_code_runs_ends_it_and_leaves_no_process():
    sandbox = Sandbox(LIMITS, workers=1)
    run(sandbox, "pass")
    (worker,) = sandbox._pool.idle
    errors = []

    def go():
        try:
            run(sandbox, "import time; time.sleep(60)", limits=RunLimits(wall_s=30))
        except SandboxError as error:
            errors.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    while not sandbox._pool.running:
        time.sleep(0.01)
    time.sleep(0.05)
    sandbox.close()
    thread.join()
    assert "closed" in str(errors[0]) and gone(worker.pid)
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        run(sandbox, "pass")


@pytest.mark.slow
@needs_bwrap
def test_a_forgotten_sandbox_leaves_no_process():
    sandbox = Sandbox(LIMITS, workers=1)
    run(sandbox, "pass")
    pid = sandbox._pool.idle[0].pid
    del sandbox
    gc.collect()
    assert gone(pid)


@pytest.mark.slow
@needs_bwrap
def test_folders_of_packages_can_be_imported_and_not_written(tmp_path):
    (tmp_path / "mine.py").write_text("value = 42")
    tmp_path.chmod(0o755)
    with Sandbox(LIMITS, workers=1, packages=[tmp_path]) as sandbox:
        assert run(sandbox, "import mine; print(mine.value)").stdout == "42\n"
        assert "Read-only" in run(sandbox, "open('/packages/0/x', 'w')").stderr
    with pytest.raises(ConfigError, match="no folder"):
        Sandbox(packages=[tmp_path / "absent"])


@pytest.mark.slow
@needs_bwrap
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_works_for_an_ordinary_user():
    python = interpreter()
    if python is None:
        pytest.skip("no Python that nobody can run")
    code = (
        "import asyncio, os\nfrom firsthand.sandbox.sandbox import Sandbox\n"
        "with Sandbox(workers=1) as box:\n    print(os.getuid(), asyncio.run(box.python('import os; print(os.getuid(), os.getpid())')))\n"
    )
    done = as_nobody([python, "-c", code])
    assert done.stdout.startswith("65534 ") and "stdout='1000 2\\n'" in done.stdout, done.stderr


@pytest.mark.slow
@needs_bwrap
def test_a_fork_of_this_process_gets_workers_of_its_own():
    code = (
        "import asyncio, os\nfrom firsthand.sandbox.sandbox import shared_sandbox\n"
        "go = lambda: asyncio.run(shared_sandbox().python('print(1)')).stdout\n"
        "assert go() == '1\\n'\nif os.fork() == 0:\n    ok = go() == '1\\n'\n    shared_sandbox().close()\n    os._exit(0 if ok else 1)\n"
        "assert os.wait()[1] == 0 and go() == '1\\n'\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_a_sandbox_nothing_is_run_and_the_error_says_what_to_install(tmp_path):
    code = "from firsthand.sandbox.sandbox import Sandbox\nSandbox()"
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": SOURCE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "apt install bubblewrap" in done.stderr and "SandboxError" in done.stderr


@needs_bwrap
def test_a_bubblewrap_that_is_forbidden_says_so(tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    code = "import asyncio\nfrom firsthand.sandbox.sandbox import Sandbox\nasyncio.run(Sandbox().python('print(1)'))"
    environment = os.environ | {"PATH": str(tmp_path), "PYTHONPATH": SOURCE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "does not start here: bwrap: setting up uid map: Permission denied" in done.stderr and not done.stdout


@needs_bwrap
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "a\0b"])
def test_a_file_outside_the_folder_is_refused(name):
    with Sandbox() as sandbox, pytest.raises(ConfigError, match="inside the folder"):
        run(sandbox, "pass", files={name: "x"})


def test_limits_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="wall_s is 0"):
        RunLimits(wall_s=0)
    with pytest.raises(ConfigError, match="64 MiB"):
        RunLimits(memory_bytes=2**20)


def test_the_filter_is_a_program_of_whole_instructions_whose_jumps_stay_inside():
    import struct

    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine)
        assert code is not None and len(code) % 8 == 0
        instructions = list(struct.iter_unpack("=HBBI", code))
        assert len(instructions) < 4096 and instructions[-1] == (0x06, 0, 0, 0x7FFF0000)
        for at, (opcode, if_true, if_false, _) in enumerate(instructions):
            assert opcode == 0x20 or opcode == 0x06 or at + 1 + max(if_true, if_false) < len(instructions)
    assert seccomp.program("riscv64") is None


def filtered(machine: str, number: int, *arguments: int) -> int | str:
    """The error that the filter gives a call, 0 for a call that is done nothing about, or "allowed": by a small interpreter."""
    import struct

    code = list(struct.iter_unpack("=HBBI", seccomp.program(machine) or b""))
    words = struct.pack("=II8x6Q", number, seccomp._ARCHITECTURES[machine][0], *arguments, *[0] * (6 - len(arguments)))
    at, value = 0, 0
    while True:
        opcode, if_true, if_false, word = code[at]
        at += 1
        if opcode == 0x06:
            return "allowed" if word == 0x7FFF0000 else word - 0x00050000
        if opcode == 0x20:
            (value,) = struct.unpack_from("=I", words, word)
        else:
            value &= word if opcode == 0x54 else 0xFFFFFFFF
            passes = {0x54: True, 0x15: value == word, 0x35: value >= word, 0x45: bool(value & word)}[opcode]
            at += if_true if passes else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_gives_every_call_its_own_answer(machine):
    column = seccomp._ARCHITECTURES[machine][1]
    known = {}
    for table, error in ((seccomp._REFUSED, 1), (seccomp._ABSENT, 38), (seccomp._IGNORED, 0)):
        known |= {places[column]: error for places in table.values()}
    by_argument = {name: places[column] for name, places in seccomp._BY_ARGUMENT.items()}
    for number in [*range(451), *range(451, 600), 0x40000000, 0x40000000 + 101]:
        if number not in by_argument.values():
            assert filtered(machine, number) == (38 if number > 450 else known.get(number, "allowed")), number
    huge, null, one = 0x40000, 0, 1 << 32  # the last is a pointer whose lower half is 0
    for name, arguments, answer in [
        ("clone", (17,), "allowed"), ("clone", (0x10000000 | 17,), 1), ("clone3", (), 38),
        ("socket", (2, 1, 0), "allowed"), ("socket", (16,), 97), ("socket", (1, 5, 0), "allowed"), ("socket", (10, 0x80802, 17), "allowed"), ("socket", (2, 1, 132), 93),
        ("socket", (2, 5, 0), 93), ("socket", (2, 3, 1), 93), ("socket", (2, 1, 262), 93), ("socket", (38, 5), 97), ("socket", (2, 1, 6), "allowed"),
        ("setsockopt", (3, 1, 26), 1), ("setsockopt", (3, 1, 51), 1), ("setsockopt", (3, 1, 8), 0), ("setsockopt", (3, 6, 8), "allowed"),
        ("setsockopt", (3, 1, 2), "allowed"), ("ioctl", (0, 0x5412), 1), ("ioctl", (0, 0x5401), "allowed"),
        ("fcntl", (3, 1026), 22), ("fcntl", (3, 1024), 22), ("fcntl", (3, 6), "allowed"),
        ("prlimit64", (1, 7, one, 0), 1), ("prlimit64", (0, 7, one, 0), "allowed"), ("prlimit64", (0, 4, one, 0), 0),
        ("prlimit64", (0, 4, 8, 0), 0), ("prlimit64", (0, 4, null, 8), "allowed"), ("setrlimit", (4, 8), 0), ("setrlimit", (7, 8), "allowed"),
        ("setpriority", (0, 1, 5), 1), ("setpriority", (2, 0, 5), 1), ("setpriority", (0, 0, 5), "allowed"),
        ("ioprio_set", (1, 1, 0), 1), ("ioprio_set", (3, 0, 0), 1), ("ioprio_set", (1, 0, 0), "allowed"),
        ("sched_setscheduler", (1, 5), 1), ("sched_setaffinity", (0, 8), "allowed"), ("sched_setattr", (1,), 1), ("sched_setparam", (1,), 1),
        ("mmap", (0, 4096, 3, 0x22), "allowed"), ("mmap", (0, 4096, 3, 0x22 | huge), 1), ("prctl", (62,), 22), ("prctl", (15,), "allowed"),
    ]:  # fmt: skip
        assert filtered(machine, by_argument[name], *arguments) == answer, (name, arguments)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the headers of another architecture")
def test_the_numbers_of_the_filter_are_those_of_the_kernels_headers():
    headers = {0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), 1: Path("/usr/include/asm-generic/unistd.h")}
    for column, header in headers.items():
        if not header.is_file():
            pytest.skip("the kernel's headers are not installed")
        numbers = {n: int(v) for n, v in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
        for table in (seccomp._REFUSED, seccomp._ABSENT, seccomp._IGNORED, seccomp._BY_ARGUMENT):
            for name, places in table.items():
                assert places[column] == numbers.get(name), name


def test_both_versions_of_the_cgroup_files_are_read_and_written(tmp_path):
    """Version 2 by stand-ins for its files: no kernel that the suite has run on offers its memory controller."""
    files = {
        1: (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        ),
        2: (
            "memory.max",
            "memory.current",
            "memory.events",
            "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 1\n",
        ),
    }
    for version, (limit, usage, events, told) in files.items():
        for name, text in ((limit, "max"), (usage, "1000\n"), (events, told)):
            (tmp_path / name).write_text(text)
        cgroup = MemoryCgroup(tmp_path, version)
        cgroup.allow(5000)
        assert int((tmp_path / limit).read_text()) == 6000 + SLACK_BYTES and cgroup.kills() == 3
        (tmp_path / usage).write_text("9000")  # a run has left 8,000 bytes in caches: the next one has no more for it
        cgroup.allow(5000)
        assert int((tmp_path / limit).read_text()) == 6000 + SLACK_BYTES
        (tmp_path / usage).write_text(str(2**30))
        cgroup.allow(5000)
        assert int((tmp_path / limit).read_text()) == 2**30 + 5000 + SLACK_BYTES
        assert str(tmp_path / "cgroup.procs") in cgroup.entering(["true"])


def test_the_table_of_attacks_names_tests_that_exist():
    text = Path(__file__).parents[1].joinpath("docs/security.md").read_text()
    section = text.partition("\n## The sandbox\n")[2].partition("\n## ")[0]
    files = {"a": "test_sandbox_attacks.py", "b": "test_sandbox_between_runs.py", "s": "test_sandbox.py"}
    cells = [line.rsplit("|", 2)[1] for line in section.splitlines() if line.startswith("| ") and line.count("|") == 4]
    named = [
        (kind, name)
        for cell in cells
        for kind, names in re.findall(r"\b([abs]) (`[^|]+)", cell)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert len(named) > 20
    assert not [(kind, name) for kind, name in named if name not in (Path(__file__).parent / files[kind]).read_text()]


FAKE_DOCKER = """#!{python}
import os, sys
arguments = sys.argv[1:]
open({log!r}, "a").write(" ".join(arguments[:2]) + "\\n")
if arguments[0] != "run":
    sys.exit(0)
if "--refuse" in {refuse!r}:
    sys.stderr.write("docker: no such image\\n")
    sys.exit(125)
at = arguments.index("-c")
source = arguments[at + 1].replace('"/tmp/', '"{tmp}/')
os.execv({python!r}, [{python!r}, "-I", "-c", source, arguments[at + 2]])
"""


def container(tmp_path, refuse=""):
    """A Container over a program that takes docker's place and runs what it is given, without any isolation."""
    inside = tmp_path / "inside"
    inside.mkdir()
    fake = tmp_path / "docker"
    fake.write_text(FAKE_DOCKER.format(python=sys.executable, log=str(tmp_path / "log"), tmp=inside, refuse=refuse))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    return Container(docker=str(fake))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the program inside is for Linux")
@pytest.mark.parametrize(
    ("kind", "code", "ended", "status", "stdout"),
    [
        ("python", "print(input())", "done", 0, "in\n"),
        ("cell", "6 * 7", "done", 0, "42\n"),
        ("shell", "cat; exit 4", "error", 4, "in"),
        ("python", "import os; os.kill(os.getpid(), 9)", "killed", -9, ""),
        ("python", "import time; time.sleep(60)", "timeout", None, ""),
        ("python", "while True: print('x' * 1000)", "output", None, None),
    ],
)
def test_a_container_tells_how_a_run_ended(tmp_path, kind, code, ended, status, stdout):
    run = SandboxRun(kind, code, RunLimits(wall_s=0.5, output_bytes=10_000, memory_bytes=2**30), stdin="in")
    outcome = outcome_of(container(tmp_path).run(run), run, "docker")
    assert (outcome.ended, outcome.exit_status, outcome.tier) == (ended, status, "docker")
    assert len(outcome.stdout) == 10_000 if stdout is None else outcome.stdout == stdout
    assert (tmp_path / "log").read_text().split()[:2] == ["run", "--rm"] and "rm --force" in (
        tmp_path / "log"
    ).read_text()


def test_a_container_that_cannot_start_is_an_error_and_its_command_is_confined(tmp_path):
    with pytest.raises(SandboxError, match="no such image"):
        container(tmp_path, "--refuse").run(SandboxRun("python", "1", LIMITS))
    command = " ".join(Container(gvisor=True, packages=[tmp_path]).command(SandboxRun("python", "1", LIMITS), "name"))
    for part in ("--runtime runsc", "--network none", "--read-only", "--cap-drop ALL", "no-new-privileges",
                 "--user 65534:65534", "--pids-limit 66", f"--memory {LIMITS.memory_bytes}", f"{tmp_path}:/packages/0:ro"):  # fmt: skip
        assert part in command


@needs_bwrap
def test_bubblewrap_is_the_first_choice():
    assert available() == "bubblewrap"


@pytest.mark.slow
@needs_bwrap
def test_a_worker_serves_runs_one_after_the_other_and_closes_once():
    worker = WarmWorker()
    for number in range(3):
        assert worker.run(SandboxRun("python", f"print({number})", LIMITS)).stdout == f"{number}\n".encode()
    worker.close()
    worker.close()
    assert gone(worker.pid)
    with pytest.raises(SandboxError, match="died"):
        worker.run(SandboxRun("python", "1", LIMITS))


@pytest.mark.slow
@needs_bwrap
def test_the_python_tool_answers_like_a_notebook_cell():
    tool = catalog.tool("python")
    assert tool is python and tool.effect == "read" and list(tool.spec.parameters["properties"]) == ["code"]

    async def answers():
        assert await tool({"code": "print('a')\n6 * 7"}) == "a\n42"
        assert await tool({"code": "```python\nx = 1\n```"}) == "(no output)"
        with pytest.raises(ToolError, match=r'File "<python>", line 2, in f\n'):
            await tool({"code": "def f():\n    return 1 / 0\nf()"})
        with pytest.raises(ToolError, match="exit status 3"):
            await tool({"code": "raise SystemExit(3)"})
        with pytest.raises(ToolError, match="printed too much"):
            await tool({"code": "while True: print('x' * 1000)"})
        with pytest.raises(ToolError, match="signal 9"):
            await tool({"code": "import os; os.kill(os.getpid(), 9)"})
        assert len(await tool({"code": "print('x' * 100_000)"})) < 9_000

    asyncio.run(answers())


@needs_bwrap
def test_the_shell_tool_works_in_a_folder_that_is_thrown_away():
    tool = catalog.tool("shell")
    assert tool is shell and tool.effect == "read"

    async def answers():
        assert await tool({"command": "echo b > x; echo a >> x; sort x; pwd; ls"}) == "a\nb\n/tmp/work\nx"
        assert await tool({"command": "ls; yes | head -2"}) == "y\ny"
        with pytest.raises(ToolError, match="not found"):
            await tool({"command": "nonexistent-program"})

    asyncio.run(answers())


def test_long_output_keeps_both_ends_and_fences_fall_away():
    assert shortened("a" * 100 + "b" * 100, 20) == "a" * 10 + "\n[180 characters left out]\n" + "b" * 10
    assert unfenced("```python\nx\ny\n```") == "x\ny" and unfenced("x = '```'") == "x = '```'"


@needs_bwrap
@pytest.mark.parametrize(
    "command",
    ["echo a\0b", "echo \ud800", f"echo {'x' * 140_000}", ""],
    ids=["a NUL", "a lone surrogate", "too long", "nothing"],
)
def test_a_command_that_cannot_be_run_is_no_success(box, command):
    outcome = asyncio.run(box.shell(command))
    if command:
        assert (outcome.ended, outcome.exit_status) == ("error", 126) and "could not be run" in outcome.stderr, outcome
    else:
        assert outcome.ok


@needs_bwrap
def test_text_that_is_no_unicode_reaches_the_code_as_bytes_and_leaks_nothing(box):
    code = "import sys\nprint(sys.stdin.buffer.read())"
    asyncio.run(box.python(code, stdin="warm"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    outcome = asyncio.run(box.python(code, stdin="a\ud800\udc80b"))
    assert outcome.ok and outcome.stdout.startswith("b'a\\xed\\xa0\\x80"), outcome
    assert asyncio.run(box.python(code, stdin="a\udc80b")).stdout == "b'a\\x80b'\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_bwrap
def test_an_answer_that_is_no_unicode_fails_alone(box):
    """It was a SandboxError, which ends a whole run."""
    outcome = asyncio.run(box.check("def f(): return '\ud800'", "assert f() == 1"))
    assert outcome.ended == "error" and "Unicode" in outcome.stderr
    assert asyncio.run(box.check("def f(): return 1", "assert f() == 1")).ok


@needs_bwrap
def test_what_the_code_reads_cannot_be_changed(box):
    code = "import os\ntry: os.write(os.open('/proc/self/fd/0', os.O_RDWR), b'x')\nexcept OSError as e: print(e.errno)"
    assert asyncio.run(box.python(code, stdin="hello")).stdout.strip() in ("1", "13")


@needs_bwrap
@pytest.mark.slow
def test_a_worker_that_does_not_report_is_a_run_that_timed_out_and_is_replaced():
    worker = WarmWorker()
    run = SandboxRun("python", "import time; time.sleep(60)", RunLimits(wall_s=1))
    threading.Timer(0.5, lambda: [os.kill(pid, signal.SIGSTOP) for pid in descendants(worker.pid)]).start()
    report = worker.run(run)
    assert report.body["killed"] == "timeout" and not worker.alive


def descendants(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


@pytest.mark.slow
@needs_bwrap
def test_many_mappings_in_many_processes_are_the_failure_of_the_code_alone():
    """The supervisor counts shared pages by reading every mapping: that took longer than the run may, and the run stopped."""
    code = """
import mmap, os, sys, time
shared = mmap.mmap(-1, 100 << 20)
for page in range(0, 100 << 20, 4096): shared[page] = 1
for _ in range(40):
    if os.fork() == 0:
        kept = []
        try:
            while True:
                kept.append(mmap.mmap(-1, 8192, prot=mmap.PROT_READ if len(kept) % 2 else mmap.PROT_READ | mmap.PROT_WRITE))
                if len(kept) % 2 == 0: kept[-1][0] = 1
        except OSError: pass
        for page in range(0, 100 << 20, 4096): shared[page]
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""
    with Sandbox(RunLimits(wall_s=4, cpu_s=60, processes=64, memory_bytes=2**29), workers=1) as sandbox:
        outcome = asyncio.run(sandbox.python(code))
        assert outcome.ended in ("timeout", "memory", "killed") and outcome.wall_s < 12, outcome
        assert asyncio.run(sandbox.python("print(1)")).stdout == "1\n"
