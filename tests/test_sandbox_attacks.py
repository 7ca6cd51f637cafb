# ruff: noqa: E501
"""Escapes that are tried on the sandbox, and what must hold after each: it was contained, and the machine is as it was.

An attack prints ESCAPED where it gets through and `held` where it is refused. After every one the worker has no process left
but its own, no file of the attack exists outside, and the next run starts fresh and ends normally.
"""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from firsthand.sandbox.memory_cgroup import open_cgroup
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from namespaces import WHY_NOT

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

MARK = f"attack-{os.getpid()}"
LIMITS = RunLimits(wall_s=5.0, cpu_s=3.0, memory_bytes=256 * 2**20, output_bytes=200_000)
BRIEF = RunLimits(wall_s=0.3, memory_bytes=256 * 2**20)
TOOLS = """
import ctypes, errno, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def refused(action, *kinds):
    try:
        result = action()
    except kinds or (OSError,) as error:
        print("held", type(error).__name__, error)
        return True
    print("ESCAPED", result)
def call(*args):
    result = libc.syscall(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


@pytest.fixture(scope="module")
def target():
    """Things of the host that attacks go for."""
    tcp = socket.create_server(("127.0.0.1", 0))
    abstract, named = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    folder = Path(tempfile.mkdtemp(prefix=MARK))
    abstract.bind(f"\0{MARK}")
    named.bind(str(folder / "socket"))
    for server in (abstract, named):
        server.listen()
    (folder / "secret").write_text("the host's secret")
    os.environ["FIRSTHAND_TEST_SECRET"] = "the environment's secret"
    yield {
        "PORT": tcp.getsockname()[1],
        "ABSTRACT": MARK,
        "NAMED": str(folder / "socket"),
        "SECRET": str(folder / "secret"),
        "PID": os.getpid(),
        "HOME": str(Path.home()),
        "CHECKOUT": str(Path(__file__).parents[1]),
        "MARK": MARK,
    }
    del os.environ["FIRSTHAND_TEST_SECRET"]
    for server in (tcp, abstract, named):
        server.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def box(target):
    with Sandbox(LIMITS, workers=1) as sandbox:
        assert run(sandbox, "pass").ok  # its worker is warm, whichever test comes first
        yield sandbox


def run(box, code, limits=LIMITS, **options):
    return asyncio.run(box.python(code, limits=limits, **options))


def descendants(root):
    """The processes below `root` that are not zombies, by pid."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            parents[int(process.name)] = int(parent)
    found, frontier = set(), {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def assert_healthy(box):
    """The worker is warm with nothing but itself (two of bwrap and the zygote), and a new run sees a new world."""
    (worker,) = box._pool.idle
    assert worker.alive
    deadline = time.monotonic() + 30  # the supervisor leaves after it has reported
    while len(descendants(worker.pid)) > 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(descendants(worker.pid)) == 2
    folders = [Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/var/tmp"), Path.cwd(), Path.home()]
    assert not [path for folder in folders if folder.is_dir() for path in folder.glob(f"*escaped-{MARK}*")]
    fresh = run(box, "import os; print(os.listdir(), sorted(os.listdir('/tmp')), os.listdir('/tmp/shm'))")
    assert (fresh.ended, fresh.stdout) == ("done", "[] ['shm', 'work'] []\n")


RESOURCES = {
    "fork_bomb": """
children = 0
try:
    while children < 10_000:
        if os.fork() == 0:
            time.sleep(60)
        children += 1
    print("ESCAPED", children)
except BlockingIOError:
    print("held" if children < 70 else "ESCAPED", children)
""",
    "thread_bomb": """
import threading
threads = 0
try:
    while threads < 10_000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        threads += 1
    print("ESCAPED", threads)
except RuntimeError:
    print("held", threads, flush=True)
    os._exit(0)
""",
    "memory_mapped": "import mmap; refused(lambda: mmap.mmap(-1, 10 * 2**30))",
    "memory_memfd": "refused(lambda: os.memfd_create('x'))",
    "memory_secret": "refused(lambda: call(447, 0))",
    "memory_in_scratch": """
def fill():
    for number in range(10):
        with open(f"/tmp/{number}", "wb") as file:
            for _ in range(25):
                file.write(bytes(2**20))
refused(fill)
""",
    "memory_in_dev_shm": """
def fill():
    for number in range(10):
        with open(f"/dev/shm/{number}", "wb") as file:
            for _ in range(25):
                file.write(bytes(2**20))
refused(fill)
""",
    "one_huge_file": "refused(lambda: open('big', 'wb').truncate(2**40))",
    "sparse_file": """
def grow():
    with open("sparse", "wb") as file:
        file.seek(2**40)
        file.write(b"x")
        file.flush()
refused(grow)
""",
    "many_small_files": """
def many():
    for number in range(100_000):
        os.close(os.open(f"f{number}", os.O_CREAT))
refused(many)
""",
    "many_folders": """
def many():
    for number in range(100_000):
        os.mkdir(f"d{number}")
refused(many)
""",
    "pipes_full_of_data": """
def fill():
    for _ in range(10_000):
        _, writing = os.pipe()
        os.write(writing, bytes(65536))
refused(fill)
""",
    "sockets_full_of_data": """
def fill():
    kept = []
    for _ in range(10_000):
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        kept[-1][0].send(bytes(100_000))
refused(fill)
""",
    "locked_memory": """
refused(lambda: call(149, 0x10000, 0))
import mmap
memory = mmap.mmap(-1, 2**20)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
refused(lambda: call(149, ctypes.c_ulong(address), ctypes.c_ulong(2**20)))
""",
    "raised_limits": """
import resource
for name in ("AS", "NPROC", "FSIZE", "CPU", "NOFILE", "SIGPENDING"):
    refused(lambda: resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (2**40, 2**40)), ValueError, OSError)
""",
    "real_time_priority": "refused(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))",
}

PROCESSES = {
    "signals_to_the_group": """
if os.fork() == 0:
    time.sleep(60)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
print("held", os.wait())
""",
    "signals_to_everyone": """
if os.fork() == 0:
    time.sleep(60)
os.kill(-1, signal.SIGKILL)
print("held", os.wait())
""",
    "signals_to_init": """
for number in set(range(1, 65)) - {32, 33}:
    os.kill(1, number)
time.sleep(0.05)
print("held", os.path.exists("/proc/1/stat"))
""",
    "signals_to_the_host": """
for pid in {PID}, 0x7FFFFFFF:
    refused(lambda: os.kill(pid, 9))
""",
    "signals_to_the_zygote": """
reached = []
for pid in range(3, 400):
    try:
        os.kill(pid, 0)
        reached.append(pid)
    except OSError:
        pass
print("ESCAPED" if reached else "held", reached)
""",
    "limits_of_init": "refused(lambda: call(302, 1, 0, ctypes.byref((ctypes.c_ulong * 2)(1, 1)), 0))",
    "daemon_that_outlives_the_run": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        time.sleep(60)
        open("/tmp/escaped-{MARK}", "w")
    os._exit(0)
os.wait()
print("held")
""",
    "daemon_that_keeps_the_pipes": """
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
print("held", flush=True)
os._exit(0)
""",
    "deaf_to_every_signal": """
for number in set(range(1, 65)) - {9, 19, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    while True:
        time.sleep(1)
print("held")
""",
    "zombies": """
for _ in range(40):
    if os.fork() == 0:
        os._exit(0)
time.sleep(0.05)
print("held")
""",
    "orphans_for_init": """
for _ in range(30):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
print("held")
""",
    "stopped_processes": """
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.02)
print("held")
""",
}

LOOKING = {
    "memory_of_init": "refused(lambda: open('/proc/1/mem', 'rb').read(1))",
    "environment_of_init": "refused(lambda: open('/proc/1/environ', 'rb').read())",
    "descriptors_of_init": "refused(lambda: os.listdir('/proc/1/fd'))",
    "root_of_init": "refused(lambda: os.listdir('/proc/1/root'))",
    "folder_of_init": "refused(lambda: os.listdir('/proc/1/cwd/'))",
    "processes_of_the_host": "print('ESCAPED' if {p for p in os.listdir('/proc') if p.isdigit()} - {'1', '2'} else 'held')",
    "ptrace": "refused(lambda: call(101, 16, 1, 0, 0))",
    "ptrace_seize_a_child": """
child = os.fork()
if child == 0:
    time.sleep(60)
refused(lambda: call(101, 0x4206, child, 0, 0))
""",
    "process_vm_readv": "refused(lambda: call(310, 1, 0, 0, 0, 0, 0))",
    "pidfd_getfd": "refused(lambda: call(438, os.pidfd_open(1), 0, 0))",
    "inherited_descriptors": """
extra = [fd for fd in range(3, 4096) if os.path.lexists(f"/proc/self/fd/{fd}")]
print("ESCAPED" if extra else "held", extra)
""",
    "environment_secrets": """
everything = repr(dict(os.environ)) + open("/proc/self/environ").read()
print("ESCAPED" if "secret" in everything.lower() or "TOKEN" in everything else "held", everything)
""",
    "memory_of_the_run_before": """
found, wanted = False, bytes(reversed(b"sihtrebmemer"))
for line in open("/proc/self/maps"):
    span, mode = line.split()[:2]
    if "[v" in line or "r" not in mode:
        continue
    low, high = (int(each, 16) for each in span.split("-"))
    with open("/proc/self/mem", "rb", 0) as memory:
        memory.seek(low)
        found |= memory.read(high - low).count(wanted + b"-of-the-run-before") > 0
print("ESCAPED" if found else "held")
""",
    "kernel_memory": "for name in ('kcore', 'kmsg', 'kpageflags'): refused(lambda: open(f'/proc/{name}', 'rb').read(1))",
    "what_the_host_was_started_with": """
told = [name for name in ("cmdline", "interrupts", "kallsyms", "diskstats", "sys/kernel/random/boot_id") if open(f"/proc/{name}").read()]
print("ESCAPED" if told else "held", told)
""",
    "kernel_log": "refused(lambda: call(103, 3, 0, 0))",
}

FILES = {
    "shadow": "refused(lambda: open('/etc/shadow').read())",
    "home": """
seen = [folder for folder, _, files in os.walk({HOME!r}) if files and not folder.startswith(sys.base_prefix)]
print("ESCAPED" if seen else "held", seen[:5])
""",
    "ssh_keys": "refused(lambda: os.listdir(os.path.join({HOME!r}, '.ssh')))",
    "checkout": "refused(lambda: os.listdir({CHECKOUT!r}))",
    "a_file_of_the_host": "refused(lambda: open({SECRET!r}).read())",
    "symlink_out": """
os.symlink("/etc/shadow", "link")
os.symlink({SECRET!r}, "other")
refused(lambda: open("link").read())
refused(lambda: open("other").read())
""",
    "symlink_through_proc": """
for way in ("/proc/self/root", "/proc/self/cwd/../../..", "/proc/1/root", "/proc/2/root", "/dev/fd/../root"):
    refused(lambda: open(way + {SECRET!r}).read())
""",
    "hardlink_to_what_is_read_only": """
refused(lambda: os.link("/usr/bin/env", "/tmp/env"))
refused(lambda: os.link("/worker.py", "/tmp/worker.py"))
""",
    "writing_to_the_system": """
for path in ("/usr/x", "/etc/passwd", "/worker.py", "/x", "/dev/x", "/root/x", "/bin/sh", sys.base_prefix + "/x"):
    refused(lambda: open(path, "a"))
""",
    "writing_to_sys_and_proc": """
paths = ("/sys/kernel/uevent_helper", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
         "/proc/sys/vm/drop_caches", "/proc/sys/kernel/pid_max", "/proc/sys/net/ipv4/ip_forward", "/proc/1/oom_score_adj")
for path in paths:
    refused(lambda: os.write(os.open(path, os.O_WRONLY), b"1"))
""",
    "lowering_the_oom_score": "refused(lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000'))",
    "being_spared_when_memory_is_out": """
try:
    known = call(444, 0, 0, 1) >= 2  # Landlock, with its second version
except OSError:
    known = False
if known:
    for name in ("oom_score_adj", "comm", "mem", "clear_refs"):
        refused(lambda: os.open(f"/proc/self/{name}", os.O_WRONLY))
print("held", open("/proc/self/oom_score_adj").read())
""",
    "devices": """
for name in ("mem", "kmsg", "kvm", "sda", "vda", "tty", "ptmx", "fuse", "net/tun", "vsock", "loop-control"):
    refused(lambda: open(f"/dev/{name}", "rb").read(1))
""",
    "making_a_device": """
import stat
refused(lambda: os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3)))
""",
    "set_user_id_programs": """
import shutil, subprocess
shutil.copy("/usr/bin/id", "id")
os.chmod("id", 0o6755)
ids = subprocess.run(["./id", "-u"], capture_output=True, text=True).stdout.strip()
sudo = subprocess.run("su -c id root || mount -t tmpfs x /tmp && echo mounted", shell=True, capture_output=True, text=True)
print("held" if ids in ("1000", "") and "uid=0" not in sudo.stdout and "mounted" not in sudo.stdout else "ESCAPED", ids, sudo)
""",
    "chroot": "refused(lambda: os.chroot('/tmp'))",
    "handles": "refused(lambda: call(304, 0, 0, 0))",
}

NETWORK = {
    "a_service_on_loopback": "refused(lambda: socket.create_connection(('127.0.0.1', {PORT}), 1))",
    "the_internet": "refused(lambda: socket.create_connection(('1.1.1.1', 443), 1))",
    "ipv6": """
refused(lambda: socket.create_connection(("2606:4700:4700::1111", 443), 1))
refused(lambda: socket.create_connection(("::1", {PORT}), 1))
""",
    "udp": "refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53)))",
    "multicast": "refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.251', 5353)))",
    "cloud_metadata": "refused(lambda: socket.create_connection(('169.254.169.254', 80), 1))",
    "dns": "refused(lambda: socket.getaddrinfo('example.com', 443))",
    "raw_sockets": "refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
    "packet_sockets": "refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))",
    "netlink": "refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))",
    "vsock_to_the_hypervisor": "refused(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))",
    "kernel_crypto_sockets": "refused(lambda: socket.socket(38, socket.SOCK_SEQPACKET))",
    "abstract_unix_socket": "refused(lambda: socket.socket(socket.AF_UNIX).connect('\\0' + {ABSTRACT!r}))",
    "named_unix_socket": "refused(lambda: socket.socket(socket.AF_UNIX).connect({NAMED!r}))",
    "docker_socket": "refused(lambda: socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock'))",
    "interfaces": """
names = [line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line]
print("held" if names == ["lo"] else "ESCAPED", names)
""",
}

KERNEL = {
    "unshare": "for flag in (0x10000000, 0x20000, 0x40000000): refused(lambda: call(272, flag))",
    "clone_into_namespaces": "refused(lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))",
    "clone3_into_namespaces": "refused(lambda: call(435, ctypes.byref((ctypes.c_ulong * 11)(0x10000000)), 88))",
    "setns": "refused(lambda: call(308, os.open('/proc/self/ns/user', os.O_RDONLY), 0))",
    "mount": """
refused(lambda: call(165, b"tmpfs", b"/tmp", b"tmpfs", 0, 0))
refused(lambda: call(166, b"/tmp", 2))
refused(lambda: call(430, b"tmpfs", 0))
refused(lambda: call(428, -100, b"/", 1))
""",
    "pivot_root": "refused(lambda: call(155, b'/tmp', b'/tmp'))",
    "becoming_root": "refused(lambda: os.setuid(0)); refused(lambda: os.setresgid(0, 0, 0)); refused(lambda: os.setgroups([0]))",
    "capabilities": """
text = open("/proc/self/status").read()
sets = [line.split()[1] for line in text.splitlines() if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb"))]
print("held" if sets == ["0" * 16] * 4 and "NoNewPrivs:\\t1" in text and "Seccomp:\\t2" in text else "ESCAPED", text)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
refused(lambda: call(126, header, (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)))
""",
    "keyrings": "refused(lambda: call(250, 0, -3, 1)); refused(lambda: call(248, b'user', b'x', b'y', 1, -3))",
    "bpf": "refused(lambda: call(321, 0, 0, 0))",
    "perf": "refused(lambda: call(298, 0, 0, -1, -1, 0))",
    "userfaultfd": "refused(lambda: call(323, 0))",
    "io_uring": "refused(lambda: call(425, 1, (ctypes.c_char * 120)()))",
    "pipes_of_huge_pages": "refused(lambda: call(278, 1, ctypes.create_string_buffer(16), 1, 0))",
    "asynchronous_contexts": "refused(lambda: call(206, 64, ctypes.byref(ctypes.c_ulong(0))))",
    "watching_the_hosts_files": "refused(lambda: call(294, 0))",
    "modules": "refused(lambda: call(313, 0, b'', 0)); refused(lambda: call(175, 0, 0, b''))",
    "kexec_and_reboot": "refused(lambda: call(246, 0, 0, 0, 0)); refused(lambda: call(169, 0xFEE1DEAD, 672274793, 0x1234567, 0))",
    "clocks": """
refused(lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
refused(lambda: call(164, ctypes.byref((ctypes.c_long * 2)(0, 0)), 0))
refused(lambda: call(159, (ctypes.c_char * 208)()))
""",
    "hostname": "refused(lambda: socket.sethostname('x'))",
    "typing_into_a_terminal": "import fcntl; refused(lambda: fcntl.ioctl(0, 0x5412, b'x'))",
    "address_space_layout": "refused(lambda: call(135, 0x0040000))",
    "swap_and_quotas": "refused(lambda: call(167, b'/tmp/x', 0)); refused(lambda: call(179, 0, 0, 0, 0)); refused(lambda: call(163, 0))",
    "sysv_ipc": "refused(lambda: call(29, 1, 4096, 0o1666)); refused(lambda: call(68, 1, 0o1666)); refused(lambda: call(64, 1, 1, 0o1666))",
    "posix_queues": "refused(lambda: call(240, b'queue', 0o102, 0o600, 0))",
    "priority_of_init": """
for way in (lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)), lambda: os.sched_setaffinity(1, [0]),
            lambda: os.setpriority(os.PRIO_PROCESS, 1, 19), lambda: os.setpriority(os.PRIO_USER, 0, 19), lambda: call(251, 1, 1, 3 << 13),
            lambda: call(314, 1, ctypes.create_string_buffer(48), 0)):
    refused(way)
""",
    "pages_set_aside_for_others": "import mmap; refused(lambda: mmap.mmap(-1, 2**21, flags=0x40022), PermissionError)",
    "a_core_for_oneself": "refused(lambda: call(157, 62, 1, 0, 0, 0))",
    "namespaces_of_namespaces": """
import fcntl
for name in ("user", "pid"):
    refused(lambda: fcntl.ioctl(os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0xB702))
for name in ("mnt", "net", "user", "pid", "ipc"):
    refused(lambda: call(308, os.open(f"/proc/self/ns/{name}", os.O_RDONLY), 0))
refused(lambda: call(308, os.pidfd_open(1), 0x20000000))
""",
    "calls_newer_than_the_filter": "for number in (451, 457, 458, 467, 470): refused(lambda: call(number, 0, 0, 0, 0, 0))",
    "network_administration": """
import fcntl, struct
refused(lambda: fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack("16sh", b"lo", 0)))
for path in ("tcp_rmem", "ip_unprivileged_port_start", "ping_group_range"):
    refused(lambda: os.open(f"/proc/sys/net/ipv4/{path}", os.O_WRONLY))
""",
    "calls_by_the_x32_numbers": "refused(lambda: call(0x40000000 + 101, 0, 0, 0, 0))",
}

ENDINGS = {
    "anonymous_memory": ("memory", "kept = []\nwhile True: kept.append(bytearray(2**22))"),
    "memory_of_many_processes": (
        "memory",
        "for _ in range(8):\n    if os.fork() == 0:\n        kept = b'x' * (90 * 2**20)\n        time.sleep(60)\ntime.sleep(60)",
    ),
    "shared_memory_of_many_processes": (
        "memory",
        "import mmap\nfor _ in range(8):\n    if os.fork() == 0:\n        kept = mmap.mmap(-1, 90 * 2**20)\n"
        "        kept.write(b'x' * 2**20 * 60)\n        kept.write(b'x' * 2**20 * 30)\n        time.sleep(60)\ntime.sleep(60)",
    ),
    "flood_on_stdout": ("output", "while True: os.write(1, b'x' * 65536)"),
    "flood_on_stderr": ("output", "while True: os.write(2, b'x' * 65536)"),
    "flood_from_a_daemon": (
        "output",
        "if os.fork() == 0:\n    os.setsid()\n    while True: os.write(1, b'x' * 65536)\ntime.sleep(60)",
    ),
    "abort": ("killed", "os.abort()"),
    "null_pointer": ("killed", "ctypes.string_at(0)"),
    "stack_overflow": (
        "killed" if sys.version_info < (3, 12) else "error",  # Python 3.12 counts what C calls
        "sys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
    ),
    "calls_of_the_32_bit_machine": (
        "killed",
        "import mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
    ),
    "suicide": ("killed", "os.kill(os.getpid(), signal.SIGKILL)"),
    "deep_recursion": ("error", "def f(): return f()\nf()"),
    "huge_traceback": (
        "error",
        "error = None\nfor _ in range(5000):\n    error = ValueError('x' * 10, error)\nraise error",
    ),
    "exception_that_fights_back": (
        "error",
        "class E(Exception):\n    def __str__(self): os._exit\n    __repr__ = __str__\n    def __del__(self): 1 / 0\nraise E",
    ),
    "exit_with_everything_closed": ("done", "for fd in range(3): os.close(fd)"),
    "closed_stdout": ("error", "print('lost', flush=True)\nsys.stdout.close()\nprint('x')"),
    "error_at_exit": ("done", "import atexit\natexit.register(lambda: 1 / 0)"),
    "compile_bomb": ("memory", "-" * 200_000 + "1"),
}

STATE = {
    "files": (
        "open('left', 'w'); open('/tmp/left', 'w'); open('/dev/shm/left', 'w')",
        "print(os.path.exists('left') or os.path.exists('/tmp/left') or os.path.exists('/dev/shm/left'))",
    ),
    "environment": (
        "os.environ['LEFT'] = '1'; os.putenv('LEFT', '1')",
        "print('LEFT' in os.environ or os.getenv('LEFT'))",
    ),
    "modules": (
        "import json, builtins, math; sys.modules['left'] = json; json.left = 1; builtins.left = 1; math.pi = 3",
        "import json, builtins, math; print('left' in sys.modules or hasattr(json, 'left') or hasattr(builtins, 'left') or math.pi == 3)",
    ),
    "shared_memory": (
        "from multiprocessing.shared_memory import SharedMemory as S\nS('left', True, 100)\nos._exit(0)",
        "from multiprocessing.shared_memory import SharedMemory as S\nrefused(lambda: S('left'))\nprint(False)",
    ),
    "abstract_sockets": (
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen()\nif os.fork() == 0: time.sleep(60)",
        "refused(lambda: socket.socket(socket.AF_UNIX).connect('\\0left'))\nprint(False)",
    ),
    "loopback_services": (
        "s = socket.create_server(('127.0.0.1', 4242))\nif os.fork() == 0: time.sleep(60)",
        "refused(lambda: socket.create_connection(('127.0.0.1', 4242), 1))\nprint(False)",
    ),
    "signals_and_limits": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN); import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))",
        "import resource; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN or resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 10)",
    ),
    "folder_and_umask": ("os.chdir('/'); os.umask(0o777)", "print(os.getcwd() == '/' or os.umask(0) == 0o777)"),
    "randomness": (
        "import random; print(random.random()); open('left', 'w')",
        "import random; print(random.random() == -1)",
    ),
}

REFUSED = {
    f"{room}-{name}": code
    for room, attacks in {
        "resources": RESOURCES, "processes": PROCESSES, "looking": LOOKING, "files": FILES, "network": NETWORK, "kernel": KERNEL,
    }.items()
    for name, code in attacks.items()
}  # fmt: skip
X86_ONLY = ("call(",)  # numbers of system calls are those of x86_64


def armed(code, target):
    for name, value in target.items():
        code = code.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
    return TOOLS + code


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(box, target, name):
    code = REFUSED[name]
    if any(sign in code for sign in X86_ONLY) and os.uname().machine != "x86_64":
        pytest.skip("the numbers of these system calls are those of x86_64")
    if name == "looking-memory_of_the_run_before":
        run(
            box,
            "remember = 'remember" + "this-of-the-run-before'; print(remember)",
            files={"a": "rememberthis-of-the-run-before"},
        )
    outcome = run(box, armed(code, target))
    assert "ESCAPED" not in outcome.stdout, outcome
    assert "held" in outcome.stdout, outcome
    assert_healthy(box)


@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends_as_it_should(box, name):
    ended, code = ENDINGS[name]
    outcome = run(box, (TOOLS if name != "compile_bomb" else "") + code)
    assert outcome.ended == ended, outcome
    assert len(outcome.stdout) <= LIMITS.output_bytes and len(outcome.stderr) <= LIMITS.output_bytes
    assert_healthy(box)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(10**6)",
        "while True: pass",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "import atexit\natexit.register(time.sleep, 10**6)",
        "import threading\nthreading.Thread(target=time.sleep, args=(10**6,)).start()",
        "if os.fork() == 0:\n    time.sleep(10**6)\nos.wait()",
        "while True:\n    try: time.sleep(10**6)\n    except BaseException: pass",
        "time.time = time.monotonic = lambda: 0\nwhile True: pass",
    ],
    ids=["sleep", "spin", "blocked_signals", "at_exit", "thread", "child", "catches_all", "clock_tricks"],
)
def test_its_time_is_up(box, code):
    outcome = run(box, TOOLS + code, BRIEF)
    assert outcome.ended == "timeout"  # and not after hours: the longest of them would sleep for eleven days
    assert_healthy(box)


@pytest.mark.slow
def test_a_processor_hog_that_is_deaf_to_sigxcpu_is_killed(box):
    limits = RunLimits(wall_s=20, cpu_s=1)
    outcome = run(box, TOOLS + "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", limits)
    assert outcome.ended == "timeout" and outcome.exit_status == -9
    assert_healthy(box)


@pytest.mark.parametrize("name", STATE)
def test_the_next_run_does_not_see(box, name):
    first, second = STATE[name]
    assert run(box, TOOLS + first).ended == "done"
    outcome = run(box, TOOLS + second)
    assert outcome.stdout.splitlines()[-1] in ("False", "None") and "ESCAPED" not in outcome.stdout, outcome
    assert_healthy(box)


def test_output_that_is_no_text_comes_as_text(box):
    outcome = run(box, "import os; os.write(1, b'\\xff\\xfe\\x00ok\\x1b[2J'); print(chr(0xD800))")
    assert outcome.ended == "done" and "ok" in outcome.stdout and "\\ud800" in outcome.stdout
    assert_healthy(box)


def test_a_report_cannot_be_forged(box):
    code = """
import json, os, struct
report = json.dumps({"killed": None, "status": 0, "cpu_s": 0, "wall_s": 0, "peak_bytes": 0}).encode()
for fd in range(0, 300):
    for words in (report, struct.pack("=iid", 0, 0, 0.0), b"ready"):
        try:
            os.write(fd, words)
        except OSError:
            pass
os._exit(7)
"""
    outcome = run(box, code)
    assert (outcome.ended, outcome.exit_status) == ("error", 7)
    assert_healthy(box)


@pytest.mark.slow
def test_runs_that_go_on_together_do_not_see_each_other(target):
    code = TOOLS + (
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0meeting'); s.listen(); t = socket.create_server(('127.0.0.1', 4243))\n"
        "open('/tmp/meeting', 'x'); open('/dev/shm/meeting', 'x'); time.sleep(0.3)\n"
        "print(sorted(p for p in os.listdir('/proc') if p.isdigit()))"
    )

    async def both(box):
        return await asyncio.gather(box.python(code), box.python(code))

    with Sandbox(LIMITS, workers=2) as box:
        for outcome in asyncio.run(both(box)):
            assert outcome.stdout == "['1', '2']\n", outcome


def test_a_worker_killed_in_the_middle_is_told_and_replaced(box):
    from firsthand.errors import SandboxError

    assert_healthy(box)
    (worker,) = box._pool.idle
    while len(descendants(worker.pid)) > 2:  # the supervisor of the run before leaves after it has reported
        time.sleep(0.01)
    zygote = max(descendants(worker.pid))  # as it was forked last

    def kill_it_in_the_middle():
        while len(descendants(worker.pid)) < 5:
            time.sleep(0.01)
        os.kill(zygote, 9)

    threading.Thread(target=kill_it_in_the_middle).start()
    with pytest.raises(SandboxError, match="worker"):
        run(box, "import time; time.sleep(4)")
    assert not worker.alive and not descendants(worker.pid)
    assert run(box, "print(1)").ok
    assert_healthy(box)


def test_nothing_survives_the_death_of_the_one_who_opened_it(tmp_path):
    import subprocess

    script = (
        "import asyncio\nfrom firsthand.sandbox.sandbox import Sandbox\nbox = Sandbox(workers=1)\n"
        "asyncio.run(box.python('print(1)'))\nprint(box._pool.idle[0].pid, flush=True)\n"
        "asyncio.run(box.python('import os, time\\nos.fork()\\ntime.sleep(60)'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    deadline = time.monotonic() + 60
    while len(everyone := descendants(worker)) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(everyone) >= 6
    process.kill()
    process.wait()
    process.stdout.close()
    alive = everyone | {worker}
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if state(pid) not in ("Z", None)}
    assert not alive


def state(pid):
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


CGROUP = open_cgroup()
if CGROUP is not None:
    CGROUP.close()
needs_cgroup = pytest.mark.skipif(CGROUP is None, reason="no memory cgroup can be made here")
UNMAPPED = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
size = 32 << 20
for _ in range(48):  # 1.5 GB of shared pages, of which one in each piece stays mapped
    at = libc.mmap(None, size, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, 0)
    ctypes.memset(at, 1, size)
    libc.munmap(at + 4096, size - 4096)
print("held")
"""


@pytest.mark.slow
@needs_cgroup
def test_memory_that_nobody_maps_counts_too():
    with Sandbox(RunLimits(memory_bytes=128 * 2**20, wall_s=20, cpu_s=20), workers=1) as sandbox:
        outcome = asyncio.run(sandbox.python(UNMAPPED))
        assert outcome.ended == "memory" and "held" not in outcome.stdout, outcome
        assert asyncio.run(sandbox.python("print(len(bytearray(50 << 20)))")).ok  # the next run has all of its own


@needs_cgroup
def test_a_closed_sandbox_leaves_no_cgroup():
    with Sandbox(workers=1) as sandbox:
        assert asyncio.run(sandbox.python("print(1)")).ok
        (worker,) = sandbox._pool.idle
        folder = worker._cgroup.folder
        assert folder.is_dir() and (folder / "cgroup.procs").read_text()
    assert not folder.exists()
