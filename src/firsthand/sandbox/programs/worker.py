"""The program that runs inside the sandbox: a warm Python that forks a fresh process for each run. Standard library only.

Four kinds of process, each forked from the one before, so that what is untrusted can reach nothing that is trusted:

    zygote      waits for runs; never sees what they hold, so nothing of one run is left in the memory of the next
    supervisor  one for each run, in a user namespace of its own: watches clock, memory and the caller, and reports
    init        process 1 of the run's own pid namespace: gives it fresh /tmp and /proc; when it ends, all in there ends
    run         the untrusted code: no capabilities, a seccomp filter, limits on everything, no descriptor above 2

The run cannot see the first two (they are outside its pid namespace) and cannot look into init (which is not dumpable).
"""

from __future__ import annotations

import ast
import atexit
import builtins
import ctypes
import errno
import fcntl
import gc
import io
import json
import linecache
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from _sitebuiltins import Quitter, _Helper
from contextlib import suppress
from typing import Any, NoReturn

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _BIND = 2, 4, 8, 4096
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SET_INTERFACE_FLAGS, _UP, _RUNNING = 0x8914, 1, 64
_HEADER = struct.Struct("!I")
_ENDED = struct.Struct("=iid")  # wait status, peak KiB of the largest process, seconds of processor time
POLL_S = 0.02
LOOK_CPU_S = 0.5
"""Processor time that one count of shared pages may take: more means so many mappings that they are the code's excess."""
CROWD = 16
"""A run with more processes than this, and than cores, gets the lowest priority: a fork bomb of 256 delays us by 30 s."""
PASSES = 8
"""Scans of /proc for new processes of a crowd, at most: where processes are short-lived, each scan finds new ones."""
HOME = "/tmp/work"
BUFFER_BYTES = 2**18
"""The most that the kernel holds for a TCP connection of the run, in each direction."""
HIDDEN = ("cmdline", "interrupts", "kallsyms", "diskstats", "sys/kernel/random/boot_id")
"""Files of /proc that tell about the host alone: how and when it was started, its kernel, its keyboard and disks."""
PENDING = 512
"""Queued signals and timers of a run, which the kernel also counts for all that its user does."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(config: dict[str, Any]) -> None:
    """Serve runs until the caller closes the control socket."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    become(config["become"])
    workspace = config["workspace"]
    preload(box=bool(workspace and workspace[2]))
    if workspace and workspace[2]:
        sys.modules["keeping"].make(workspace[0], workspace[2])
    config["writable"] = []
    if sys.modules["write_rules"].supported():
        config["writable"] = ["/tmp", "/dev", *([workspace[0], *workspace[2]] if workspace else [])]
    gc.collect()
    gc.freeze()
    gc.disable()
    control.send(b"ready")
    os.dup2(0, 2)  # nobody reads errors any more: what a supervisor has to say, it reports
    while True:
        message, fds, _flags, _from = socket.recv_fds(control, 16, 4)
        if not message:
            return
        supervisor = os.fork()
        if supervisor == 0:
            control.close()
            supervise(config, *fds)
        for fd in fds:
            os.close(fd)
        os.waitpid(supervisor, 0)


def become(user: int | None) -> None:
    """Mount a /proc that is wholly visible, which root's bubblewrap does not leave, and stop being root."""
    if user is not None:
        mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        drop_capabilities()
    prctl(_SET_DUMPABLE, 1)
    prctl(_SET_NO_NEW_PRIVS, 1)


def preload(box: bool) -> None:
    """Import what most code imports, once for all runs, and what a Box runs before each command."""
    import collections  # noqa: F401
    import itertools  # noqa: F401

    sys.path.insert(0, "/")
    import checker  # type: ignore[import-not-found]  # noqa: F401
    import keeping  # type: ignore[import-not-found]  # noqa: F401
    import write_rules  # type: ignore[import-not-found]  # noqa: F401

    if box:
        import box_inside  # type: ignore[import-not-found]  # noqa: F401

    del sys.path[0]


# -- the supervisor --


def supervise(config: dict[str, Any], job_fd: int, *streams: int) -> NoReturn:
    """Carry out one run, send the caller one JSON report, and end. When the caller shuts its end of the socket: stop."""
    job = socket.socket(fileno=job_fd)
    try:
        report = supervised(config, job, streams)
    except BaseException as error:
        report = {"broken": f"{type(error).__name__}: {error}"}
    try:
        job.sendall(json.dumps(report).encode())
    finally:
        os._exit(0)


def supervised(config: dict[str, Any], job: socket.socket, streams: tuple[int, ...]) -> dict[str, Any]:
    """The report of one run."""
    request = json.loads(receive(job))
    began = time.monotonic()
    enter_user_namespace()
    told, tell = os.pipe()
    init = os.fork()
    if init == 0:
        become_init(config, request, streams, tell)
    for fd in (*streams, tell):
        os.close(fd)
    report = watch(job, told, init, request["limits"], began, config.get("workspace"))
    return report | {"wall_s": time.monotonic() - began}


def enter_user_namespace() -> None:
    """A user namespace for the run, in which this user is the only one, and a pid namespace for its children."""
    uid, gid = os.getuid(), os.getgid()
    check(_libc.unshare(_NEWUSER | _NEWPID), "unshare user and pid namespaces")
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        write(f"/proc/self/{name}", text)


def watch(
    job: socket.socket, told: int, init: int, limits: dict[str, Any], began: float, workspace: list[Any] | None
) -> dict[str, Any]:
    """The end of the run: by itself, or killed here for its time, its memory, or because the caller is gone."""
    poll = select.poll()
    poll.register(job, select.POLLIN)
    poll.register(told, select.POLLIN)
    ours = {1, os.getppid(), os.getpid(), init}
    killed, peak = None, 0
    most = max(workspace[1], files_in(workspace[0])) if workspace else 0  # what is too full already may be emptied
    while True:
        left_s = limits["wall_s"] - (time.monotonic() - began)
        ready = {fd for fd, _ in poll.poll(max(0.0, 1000 * min(left_s, POLL_S)))}
        if told in ready:
            break
        memory = memory_of(ours, limits["memory_bytes"])
        peak = max(peak, memory)
        if job.fileno() in ready:
            killed = "stopped"
        elif left_s <= 0:
            killed = "timeout"
        elif memory > limits["memory_bytes"] or (workspace and files_in(workspace[0]) > most):
            killed = "memory"  # files take the kernel's, however small they are
        if killed:
            os.kill(init, signal.SIGKILL)
            break
    _, status, usage = os.wait4(init, 0)  # returns when the last process of the namespace is gone
    report = {"killed": killed, "status": None, "cpu_s": usage.ru_utime + usage.ru_stime}
    words = os.read(told, 4096) if killed is None else b""
    if len(words) == _ENDED.size:
        report["status"], largest_kib, report["cpu_s"] = _ENDED.unpack(words)
        peak = max(peak, 1024 * largest_kib)
    elif killed is None and status == signal.SIGKILL:
        report["killed"] = "memory"  # nobody can kill init but we and the kernel, which does it for lack of memory
    elif words.startswith(b"MemoryError"):
        report["killed"] = "memory"  # the files that the run was given are more than its scratch folder holds
    elif killed is None:
        report["broken"] = words.decode(errors="replace") or f"init ended with wait status {status}"
    return report | {"peak_bytes": max(peak, 1024 * usage.ru_maxrss)}


def memory_of(ours: set[int], enough: int) -> int:
    """Bytes that the processes of the run hold. Shared pages are counted once, by asking closer, if the sum is too much.

    A crowd of processes is given the lowest priority first, or this one would not have its turn before the run's time is up.
    """
    pids = processes_but(ours)
    if len(pids) > max(CROWD, os.cpu_count() or 1):
        pids = give_way(pids, ours)
    total = sum(fields(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) for pid in pids)
    if total <= enough:
        return total
    shares, began = 0, time.thread_time()
    for pid in pids:
        shares += fields(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) or fields(
            f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")
        )
        if time.thread_time() - began > LOOK_CPU_S:
            return total
    return shares


def processes_but(ours: set[int]) -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in ours]


def give_way(pids: list[str], ours: set[int]) -> list[str]:
    """Give processes the lowest priority, which what they fork inherits and none may raise; returns those that are left."""
    lowered: set[str] = set()
    for _ in range(PASSES):
        new = [pid for pid in pids if pid not in lowered]
        if not new:
            break
        for pid in new:
            with suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, int(pid), 19)
                os.sched_setscheduler(int(pid), os.SCHED_IDLE, os.sched_param(0))
        lowered.update(new)
        pids = processes_but(ours)  # with those that others have forked meanwhile
    return pids


def fields(path: str, names: tuple[bytes, ...]) -> int:
    """The sum of some lines `Name: 12 kB` of a file of /proc in bytes; 0 if the process is gone or does not let us look."""
    try:
        with open(path, "rb") as file:
            return sum(1024 * int(line.split()[1]) for line in file if line.startswith(names))
    except (OSError, ValueError):
        return 0


def files_in(folder: str) -> int:
    """The number of files and folders of the file system mounted there."""
    found = os.statvfs(folder)
    return found.f_files - found.f_ffree


def receive(job: socket.socket) -> bytes:
    """The request: its length, then itself."""
    (length,) = _HEADER.unpack(exactly(job, _HEADER.size))
    return exactly(job, length)


def exactly(job: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = job.recv(count - len(received))
        if not chunk:
            raise EOFError("the caller went away")
        received += chunk
    return bytes(received)


# -- init --


def become_init(config: dict[str, Any], request: dict[str, Any], streams: tuple[int, ...], tell: int) -> NoReturn:
    """Process 1 of the run's namespaces: make the private folders, start the run, reap what it leaves, say how it ended."""
    try:
        prctl(_SET_DUMPABLE, 0)
        prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        # Process 1 is deaf to signals from inside, but for those it has a handler for.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        limits = request["limits"]
        check(_libc.unshare(_NEWNS | _NEWIPC | _NEWNET), "unshare mount, ipc and network namespaces")
        size = f"size={limits['scratch_bytes']},nr_inodes={limits['scratch_files'] + 4},mode=755"
        mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, size)
        mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        for name in HIDDEN:
            mount("/dev/null", f"/proc/{name}", "none", _BIND)
        open_network()
        make_scratch(request["files"])
        if config.get("workspace") and config["workspace"][2]:
            sys.modules["keeping"].show(mount, *config["workspace"][::2], config["workspace"][3])
        run = os.fork()
        if run == 0:
            become_run(config, request, streams)
        drop_capabilities()
        for fd in streams:
            os.close(fd)
        while True:
            pid, status = os.wait()
            if pid == run:
                break
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(tell, _ENDED.pack(status, children.ru_maxrss, children.ru_utime + children.ru_stime))
        os._exit(0)
    except BaseException as error:
        words = f"{type(error).__name__}: {error}".encode()[:4000]
        if isinstance(error, MemoryError):
            with suppress(OSError):
                os.write(streams[2], words + b"\n")
        os.write(tell, words)
        os._exit(1)


def open_network() -> None:
    """Let the run's processes reach each other over its own network, where nothing else is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("=16sH14x", b"lo", _UP | _RUNNING))
    for name in ("tcp_rmem", "tcp_wmem"):  # a connection's buffers are counted for the host, and could be 6 MB each
        write(f"/proc/sys/net/ipv4/{name}", f"4096 {BUFFER_BYTES} {BUFFER_BYTES}")


def make_scratch(files: dict[str, str]) -> None:
    """Make the run's folders and write its files; MemoryError if they do not fit, which is the run's own failure."""
    try:
        write_files(files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise MemoryError(f"the files of the run do not fit into its scratch folder: {error.strerror}") from None
        raise


def write_files(files: dict[str, str]) -> None:
    os.mkdir("/tmp/shm", 0o700)  # /dev/shm leads here
    os.mkdir(HOME, 0o700)
    for name, text in files.items():
        path = os.path.join(HOME, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(as_bytes(text))


def as_bytes(text: str) -> bytes:
    """The bytes that the text stands for. A lone surrogate that stands for none becomes bytes that are no UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    check(done, f"mount {kind} on {target}")


def write(path: str, text: str) -> None:
    """Write a file of the kernel; `open` would take longer than the kernel does."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def prctl(option: int, *values: int) -> None:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    check(_libc.prctl(option, *words), f"prctl {option}")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def drop_capabilities() -> None:
    """Give up every capability of this process, for good."""
    header = struct.pack("=II", 0x20080522, 0)
    check(_libc.capset(header, bytes(24)), "capset")


# -- the run --


def become_run(config: dict[str, Any], request: dict[str, Any], streams: tuple[int, ...]) -> NoReturn:
    """Turn this process into the untrusted code: nothing after `confine` is trusted any more."""
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.closerange(3, 4096)
        os.chdir(request.get("folder") or HOME)
        limit(request["limits"])
        confine(bytes.fromhex(config["seccomp"]), config["writable"])
    except BaseException as error:
        os.write(2, f"the sandbox could not start this: {type(error).__name__}: {error}\n".encode())
        os._exit(126)
    try:
        start(config, request)
    finally:  # never back into what init does
        os._exit(126)


def start(config: dict[str, Any], request: dict[str, Any]) -> NoReturn:
    """Run the request's code in this process, which ends with it."""
    for number in (signal.SIGHUP, signal.SIGQUIT):  # nohup, and a shell's &, leave them ignored
        signal.signal(number, signal.SIG_DFL)
    if request["kind"] == "shell":
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what it starts would too
            signal.signal(number, signal.SIG_DFL)
        if config["path"]:  # what it starts finds the packages too
            os.environ["PYTHONPATH"] = ":".join(config["path"])
        try:
            os.execv("/bin/sh", ["sh", "-c", request["code"]])
        except (OSError, ValueError) as error:  # too long, a NUL or a lone surrogate: nothing has run
            os.write(2, f"the command could not be run: {getattr(error, 'strerror', None) or error}\n".encode())
            os._exit(126)
    run_python(request["code"], request["name"], request["kind"], config["path"])


def limit(limits: dict[str, Any]) -> None:
    """Set the limits that a process has."""
    cpu_s = max(1, int(-(-limits["cpu_s"] // 1)))
    for name, soft, hard in (
        ("RLIMIT_AS", limits["memory_bytes"], limits["memory_bytes"]),
        ("RLIMIT_CPU", cpu_s, cpu_s + 1),
        ("RLIMIT_FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("RLIMIT_NOFILE", limits["open_files"], limits["open_files"]),
        ("RLIMIT_NPROC", limits["processes"] + 2, limits["processes"] + 2),  # supervisor and init count too
        ("RLIMIT_CORE", 1, 1),  # 0 stops no program that `core_pattern` names; 1 does, and is too small for a file
        ("RLIMIT_SIGPENDING", PENDING, PENDING),
        ("RLIMIT_MSGQUEUE", 0, 0),
        ("RLIMIT_MEMLOCK", 0, 0),
    ):
        number = getattr(resource, name)
        most = resource.getrlimit(number)[1]  # where that is lower already, it stays
        soft, hard = (each if most == resource.RLIM_INFINITY else min(each, most) for each in (soft, hard))
        resource.setrlimit(number, (soft, hard))


def confine(filter_code: bytes, writable: list[str]) -> None:
    """No capabilities, rules on what may be written, and the filter."""
    drop_capabilities()
    prctl(_SET_DUMPABLE, 1)  # or its own /proc/self would not be its own
    write("/proc/self/oom_score_adj", "1000")  # if the machine runs out of memory, this goes first
    if writable:
        sys.modules["write_rules"].allow_only(writable)
    if filter_code:
        buffer = ctypes.create_string_buffer(filter_code, len(filter_code))
        program = ctypes.create_string_buffer(
            struct.pack("=HxxxxxxQ", len(filter_code) // 8, ctypes.addressof(buffer)), 16
        )
        prctl(_SET_SECCOMP, 2, ctypes.addressof(program))


def run_python(code: str, name: str, kind: str, path: list[str]) -> NoReturn:
    """Run code as `__main__`, as the interpreter would, and end the process."""
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="replace")
    sys.stdout = writer(1)
    sys.stderr = writer(2)
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    # Programs of ours import nothing that an answer can write.
    sys.argv, sys.path = [name], [*([] if kind in ("check", "program") else [HOME]), *path, *sys.path]
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    if kind in ("python", "cell"):  # what `site` adds, which is not imported here; tests of answers have none of it
        ended = {each: Quitter(each, "Ctrl-D (i.e. EOF)") for each in ("exit", "quit")}
        vars(builtins).update(**ended, help=_Helper())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    status = 1
    try:
        status = execute(code, name, module.__dict__, kind)
    finally:
        finish(status)


def writer(fd: int) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=fd == 2)


def execute(code: str, name: str, namespace: dict[str, Any], kind: str) -> int:
    """The exit status of the code; a traceback that shows only its own frames is on stderr if it failed."""
    try:
        if kind == "check":
            checking(code).main()
        elif kind == "cell":
            execute_cell(code, name, namespace)
        else:
            exec(compile(code, name, "exec", dont_inherit=True), namespace)
        return 0
    except SystemExit as leaving:
        return exit_status(leaving.code)
    except BaseException as error:
        complain(error)
        return 1


def checking(code: str) -> Any:
    """The module `checker`: the one that is there already, or inside a container the one whose text was sent."""
    for name, text in json.loads(code or "{}").items():
        sys.modules[name] = module = types.ModuleType(name)
        exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return sys.modules["checker"]


def execute_cell(code: str, name: str, namespace: dict[str, Any]) -> None:
    """Run code and print the value of its last expression, unless that is None."""
    # Not by `ast.parse`, whose frame would be in the traceback.
    tree: Any = compile(code, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    exec(compile(tree, name, "exec", dont_inherit=True), namespace)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), namespace)
        if value is not None:
            print(repr(value))


def exit_status(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def complain(error: BaseException) -> None:
    """The traceback without our frames. What formatting meets (no memory, a hostile __str__) must not hide the error."""
    kind = type(error).__name__
    try:
        trace = error.__traceback__
        ours = (
            globals(),
            *(vars(sys.modules.get(name, builtins)) for name in ("checker", "passed_values", "told_errors")),
        )
        while trace is not None and any(trace.tb_frame.f_globals is each for each in ours):
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace, limit=-20, chain=True))
    except BaseException:
        text = f"{kind}\n"
    try:
        flush("stdout")
        sys.stderr.write(text)
    except BaseException:
        os.write(2, f"{kind}\n".encode())


def finish(status: int) -> NoReturn:
    """End as an interpreter ends: wait for threads, call what was registered, flush; but never return."""
    for name, step in (
        ("threads", threading._shutdown),  # type: ignore[attr-defined]
        ("callbacks", atexit._run_exitfuncs),
        ("stdout", lambda: flush("stdout")),
        ("stderr", lambda: flush("stderr")),
    ):
        try:
            step()
        except BaseException as error:
            try:
                complain(error)
            except BaseException:
                status = status or 1
            status = status or (120 if name == "stdout" else 0)
    for name in ("__stdout__", "__stderr__"):  # those that the code has replaced are flushed too, when they are freed
        with suppress(BaseException):
            flush(name)
    os._exit(status)


def flush(name: str) -> None:
    """Flush a stream of `sys`, unless the code has closed or removed it, as an interpreter does at its end."""
    stream = getattr(sys, name, None)
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


# -- without namespaces of our own, inside a container --


def once(config: dict[str, Any]) -> NoReturn:
    """Carry out one run inside a container, which confines it already. Status 124: timeout.

    The request comes on stdin, and after it what the run reads on its own, such as hidden tests. That is read only when the
    run has been forked, by a process that it cannot look into: no memory that the run inherits ever holds it.
    """
    came: Any = types.SimpleNamespace(recv=lambda count: os.read(0, count))
    request = json.loads(receive(came))
    make_scratch(request["files"])
    reading, writing = os.pipe()
    prctl(_SET_DUMPABLE, 0)
    run = os.fork()
    if run == 0:
        prctl(_SET_DUMPABLE, 1)
        os.setsid()
        os.dup2(reading, 0)
        os.closerange(3, 4096)
        os.chdir(HOME)
        limit(request["limits"])
        start(config, request)
    os.close(reading)
    ended = os.pidfd_open(run)
    threading.Thread(target=feed, args=(writing, sys.stdin.buffer.read()), daemon=True).start()
    if not select.select([ended], [], [], request["limits"]["wall_s"])[0]:
        os.killpg(run, signal.SIGKILL)  # what left the group ends with the container
        os._exit(124)
    code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def feed(writing: int, data: bytes) -> None:
    """Write the run's stdin, for as long as it reads."""
    try:
        with open(writing, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    once(settings) if settings.get("once") else main(settings)
