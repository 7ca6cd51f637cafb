"""Nothing passes between runs, workers and the host by the ways that isolation by namespaces leaves open.

Each test has one run do something that the next one, one of another worker, or the host could notice.
"""

import asyncio
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firsthand.sandbox.box import Box
from firsthand.sandbox.bwrap_command import NOBODY, OWN_IDS
from firsthand.sandbox.memory_cgroup import open_cgroup
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from namespaces import NO_OVERLAY, WHY_NOT
from ordinary_user import SOURCE, as_nobody, interpreter

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
needs_overlay = pytest.mark.skipif(NO_OVERLAY is not None, reason=str(NO_OVERLAY))
ROOT = os.geteuid() == 0
LIMITS = RunLimits(wall_s=10.0, memory_bytes=256 * 2**20)


@pytest.fixture(scope="module")
def box():
    with Sandbox(LIMITS, workers=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def two_workers():
    with Sandbox(LIMITS, workers=2) as sandbox:
        yield sandbox


def said(box, code, **options):
    outcome = asyncio.run(box.python(code, **options))
    assert outcome.ok, outcome
    return outcome.stdout


def while_it_holds(box, holding, then):
    """What `await then()` gives while a run of one worker has done `holding` and waits."""
    name = f"holds-{os.getpid() % 10**6}"
    code = f"import ctypes, os, time\n{holding}\nctypes.CDLL(None).prctl(15, {name.encode()!r})\ntime.sleep(60)"

    async def both():
        first = asyncio.create_task(box.python(code, limits=RunLimits(wall_s=60)))
        try:
            while not any(is_named(process, name) for process in Path("/proc").glob("[0-9]*")):
                assert not first.done(), first.result()
                await asyncio.sleep(0.005)
            return await then()
        finally:
            first.cancel()
            await asyncio.wait([first])

    return asyncio.run(both())


def is_named(process, name):
    try:
        return (process / "comm").read_text().strip() == name
    except OSError:
        return False


TRAFFIC = """
import socket, threading
server = socket.create_server(("127.0.0.1", 4711))
client = socket.create_connection(("127.0.0.1", 4711))
client.sendall(b"x" * 1000)
accepted, _ = server.accept()
print(len(accepted.recv(1000)))
client.close()  # the one who closes first keeps the port in TIME_WAIT
accepted.close()
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"y", receiver.getsockname())
print(receiver.recv(10))
"""
COUNTERS = """
import socket
lines = open("/proc/net/snmp").read().splitlines()
counted = dict(zip(*[line.split() for line in lines if line.startswith("Tcp:")])) | dict(zip(*[line.split() for line in lines if line.startswith("Udp:")]))
print([counted[name] for name in ("ActiveOpens", "InSegs", "InDatagrams")], len(open("/proc/net/tcp").read().splitlines()))
print([line.split()[:3] for line in open("/proc/net/dev") if "lo:" in line])
"""  # noqa: E501


def test_a_run_talks_to_itself_and_its_counters_and_ports_are_not_seen_by_the_next(box):
    assert said(box, TRAFFIC + COUNTERS).splitlines()[2] != "['0', '0', '0'] 1"
    counters, interface = said(box, COUNTERS).splitlines()
    assert counters == "['0', '0', '0'] 1" and interface == "[['lo:', '0', '0']]"


PLACES = ["/usr/bin/env", "/usr/lib", "/etc/alternatives", *(["/dev/null", "/dev/urandom"] if ROOT else [])]


@pytest.mark.slow
@needs_overlay
@pytest.mark.parametrize("path", [place for place in PLACES if Path(place).exists()])
def test_a_lock_on_a_file_of_the_host_reaches_neither_the_host_nor_another_worker(two_workers, path):
    taking = f"import fcntl, os\nfcntl.flock(os.open({path!r}, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"

    async def then():
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return await two_workers.python(taking + "print('free')")
        finally:
            os.close(fd)

    outcome = while_it_holds(two_workers, taking, then)
    assert (outcome.ok, outcome.stdout) == (True, "free\n"), outcome


def test_times_and_locks_of_the_hosts_null_device_are_out_of_reach(box):
    code = """
import os
for what in ("/dev/null", 0):
    try:
        os.utime(what)
        print(what, os.path.samestat(os.stat(what), os.stat("/dev/null")))
    except OSError as error:
        print(what, error.errno)
open("/dev/null", "w").write("x")
"""
    before = Path("/dev/null").stat().st_mtime_ns
    assert "/dev/null 30" in said(box, code) and "0 True" not in said(box, code)
    assert Path("/dev/null").stat().st_mtime_ns == before


@needs_overlay
def test_no_mount_names_a_folder_of_the_host(tmp_path):
    for folder in (tmp_path / "packages", tmp_path / "base"):
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "seen.py").write_text("value = 42")
    tmp_path.chmod(0o755)
    code = """
import seen
print(open("/base/seen.py").read(), seen.value)
print("".join(open(f"/proc/self/{name}").read() for name in ("mountinfo", "mounts", "mountstats", "maps", "cgroup")))
"""
    with Sandbox(LIMITS, packages=[tmp_path / "packages"], workspace=Workspace(base=tmp_path / "base")) as sandbox:
        text = said(sandbox, code)
    assert text.startswith("value = 42 42\n")
    assert not [line for line in text.splitlines() if str(tmp_path) in line or SOURCE in line or tmp_path.name in line]


@needs_overlay
@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
def test_a_folder_with_another_file_system_inside_is_shown_whole(tmp_path):
    """An overlay shows one file system alone, so such a folder stays as it is mounted."""
    script = f"""
import asyncio, subprocess, sys
sys.path.insert(0, {SOURCE!r})
from firsthand.sandbox.sandbox import Sandbox
folder = {str(tmp_path)!r}
subprocess.run(["mount", "-t", "tmpfs", "inner", folder + "/inner"], check=True)
open(folder + "/inner/deep.py", "w").write("value = 42")
with Sandbox(packages=[folder], workers=1) as box:
    print(asyncio.run(box.python("import inner.deep; print(inner.deep.value)")).stdout)
"""
    (tmp_path / "inner").mkdir()
    tmp_path.chmod(0o755)
    command = ["unshare", "--mount", *([] if ROOT else ["--map-root-user"]), sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "42\n\n", done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
def test_the_root_of_a_namespace_without_other_users_has_a_sandbox_too():
    script = f"""
import asyncio, os, sys
sys.path.insert(0, {SOURCE!r})
from firsthand.sandbox.sandbox import Sandbox
with Sandbox(workers=1) as box:
    print(os.getuid(), asyncio.run(box.python("import os; print(os.getuid())")).stdout)
"""
    done = subprocess.run(["unshare", "--map-root-user", sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "0 1000\n\n", done.stderr


@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="only root can give up a capability")
def test_root_without_the_capability_to_make_devices_has_a_sandbox_too():
    script = f"""
import asyncio, sys
sys.path.insert(0, {SOURCE!r})
from firsthand.sandbox.sandbox import Sandbox
with Sandbox(workers=1) as box:
    print(asyncio.run(box.shell("echo x > /dev/null && head -c 2 /dev/zero | wc -c; touch /dev/null")))
"""
    drop = ["setpriv", "--bounding-set", "-mknod", "--inh-caps", "-mknod"]
    done = subprocess.run([*drop, sys.executable, "-c", script], capture_output=True, text=True)
    assert "stdout='2\\n'" in done.stdout and "Read-only file system" in done.stdout, (done.stdout, done.stderr)


@pytest.mark.skipif(not ROOT, reason="only root can become many users")
def test_each_worker_of_root_is_a_user_of_its_own(two_workers):
    mapped = "print(open('/proc/self/uid_map').read().split()[1], open('/proc/self/gid_map').read().split()[1])"

    async def then():
        return await two_workers.python(mapped)

    users = [while_it_holds(two_workers, "pass", then).stdout.split() for _ in range(2)]
    seen = {user for pair in users for user in pair}
    whole = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()] == [["0", "0", "4294967295"]]
    assert seen <= {str(NOBODY)} if not whole else all(int(user) in OWN_IDS for user in seen)
    with Sandbox(LIMITS, workers=1) as other:
        assert not whole or not seen & set(said(other, mapped).split())


QUEUED = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 60))
queued = 0
while queued < 5000 and libc.sigqueue(os.getpid(), 40, ctypes.c_void_p(0)) == 0:
    queued += 1
timers, timer = 0, ctypes.c_void_p()
while timers < 5000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0:
    timers += 1
print(queued, timers)
"""


def test_queued_signals_and_timers_of_a_run_are_bounded_and_leave_the_others_theirs(two_workers):
    async def then():
        return await two_workers.python(QUEUED)

    queued, timers = while_it_holds(two_workers, QUEUED, then).stdout.split()
    assert 500 <= int(queued) <= 512 and int(timers) == 0


CRASHES = """
import os, resource, signal
print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
for soft in (None, 0, 1):
    if os.fork() == 0:
        if soft is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (soft, 1))
        os.execv("/bin/sh", ["sh", "-c", "grep 'Max core' /proc/self/limits; kill -SEGV $$"])
    print(os.WCOREDUMP(os.wait()[1]), flush=True)
"""


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="no core may be written here at all")
def test_a_crash_starts_no_handler_of_the_host(box):
    """A limit of 0 stops no program that core_pattern names: 1 does, and a run can change it neither up nor down."""
    first, *others = said(box, CRASHES).splitlines()
    assert first == "(1, 1)" and [line.split()[-3:-1] for line in others[::2]] == [["1", "1"]] * 3
    assert others[1::2] == ["False"] * 3


FILLED = """
import socket
server = socket.create_server(("127.0.0.1", 5000))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
sent = 0
for end, option in ((accepted, socket.SO_RCVBUF), (client, socket.SO_SNDBUF)):
    end.setsockopt(socket.SOL_SOCKET, option, 2**30)
client.setblocking(False)
try:
    while True:
        sent += client.send(bytes(65536))
except BlockingIOError:
    print(sent)
"""


def test_what_a_connection_holds_is_bounded(box):
    """Thirteen megabytes for each connection, which no limit counted, and which the host's own connections then lacked."""
    assert 2**16 < int(said(box, FILLED)) < 2**20


def test_the_hosts_modules_and_its_room_for_compiled_filters_are_out_of_reach(box):
    code = """
import ctypes, socket, struct
for kind in ((2, 1, 132), (2, 5, 0), (10, 2, 136), (2, 1, 262)):  # SCTP, any sequenced packets, UDP-Lite, MPTCP
    try:
        socket.socket(*kind)
        print("opened")
    except OSError as error:
        print(error.errno)
accept_all = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 2**32 - 1), 8)
try:
    socket.socket().setsockopt(1, 26, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(accept_all)))
    print("attached")
except OSError as error:
    print(error.errno)
"""
    assert said(box, code).split() == ["93"] * 4 + ["1"]


def test_watching_and_leasing_files_is_refused(box):
    code = """
import fcntl, os
open("mine", "w").close()
for path, command in (("/usr/bin", 1026), ("/tmp", 1026), ("mine", 1024)):
    try:
        fcntl.fcntl(os.open(path, os.O_RDONLY), command, 1 if command == 1026 else 0)
        print("done")
    except OSError as error:
        print(error.errno)
"""
    assert said(box, code) == "22\n" * 3


@pytest.mark.slow
def test_folders_deeper_than_pythons_stack_are_listed_and_deeper_ones_refused():
    """It was a SandboxError, which is no fault of the code."""
    nest = "import os\nfor _ in range({}): os.mkdir({!r}); os.chdir({!r})"

    async def listed():
        async with Box() as box:
            assert (await box.exec(["python3", "-c", nest.format(1100, "a", "a")])).ok
            assert sum(path.endswith("/a") for path in await box.seen()) == 1100
            assert (await box.exec(["python3", "-c", nest.format(30, "b" * 200, "b" * 200)])).ok
            with pytest.raises(OSError, match="File name too long"):
                await box.seen()

    asyncio.run(listed())


OWN_FILES = """
import os
print(os.stat("/").st_uid == os.getuid(), os.access("/", os.W_OK))
for path in ("/x", "/worker.py", "/etc/passwd", "/packages", "/dev/x"):
    try:
        os.open(path, os.O_WRONLY | os.O_CREAT)
        print("written", path)
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.slow
def test_what_belongs_to_an_ordinary_user_inside_the_sandbox_cannot_be_written(box):
    """The root of such a sandbox belongs to the very user that the code runs as: only its mount keeps the code out."""
    if ROOT:
        python = interpreter()
        if python is None:
            pytest.skip("no Python that nobody can run")
        script = f"""
import asyncio
from firsthand.sandbox.sandbox import Sandbox
with Sandbox(workers=1) as box:
    print(asyncio.run(box.python({OWN_FILES!r})).stdout)
"""
        done = as_nobody([python, "-c", script])
        text = done.stdout or done.stderr
    else:
        text = said(box, OWN_FILES)
    assert text.split() == ["True", "False", "30", "30", "30", "30", "30"], text


UNMAPPED_BY_A_SMALL_PROGRAM = r"""
import os
try:
    open("/proc/self/oom_score_adj", "w").write("0")
except OSError:
    pass
os.execv("/usr/bin/perl", ["perl", "-e", '''
for (1..400) {
  my $at = syscall(9, 0, 2 << 20, 3, 0x21, -1, 0);  # shared memory, touched, then unmapped but for a page
  syscall(28, $at, 2 << 20, 23);
  syscall(11, $at + 4096, (2 << 20) - 4096);
}
sleep 60;
'''])
"""
CGROUP = open_cgroup()
if CGROUP is not None:
    CGROUP.close()
needs_cgroup_and_perl = pytest.mark.skipif(
    CGROUP is None or not Path("/usr/bin/perl").exists() or os.uname().machine != "x86_64",
    reason="needs a memory cgroup, and perl on x86_64",
)


@pytest.mark.slow
@needs_cgroup_and_perl
@pytest.mark.parametrize("who", ["the run", "the worker"])
def test_a_small_program_that_fills_the_memory_limit_fails_alone(who):
    """The kernel killed what was larger, a process of the worker, and the SandboxError ended the whole evaluation."""
    with Sandbox(RunLimits(wall_s=20, memory_bytes=128 * 2**20), workers=1) as sandbox:
        assert said(sandbox, "print(1)") == "1\n"
        if who == "the worker":  # as where nothing keeps a run from lowering its own score
            for pid in descendants(sandbox._pool.idle[0].pid):
                Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
        outcome = asyncio.run(sandbox.python(UNMAPPED_BY_A_SMALL_PROGRAM))
        assert outcome.ended == "memory" and (outcome.exit_status == -9) == (who == "the run"), outcome
        assert said(sandbox, "print(1)") == "1\n"


def descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in children for each in (int(child), *descendants(int(child)))]
