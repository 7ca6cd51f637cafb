"""The `bwrap` command that starts a worker: its namespaces, and all that it sees of the machine.

The host's folders are shown read-only. `programs/host_layers.py` then puts a layer of the worker's own over each, so that a
lock on a file reaches nobody else, and no path of the host stands in the worker's list of mounts.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from firsthand.errors import SandboxError
from firsthand.sandbox import seccomp
from firsthand.sandbox.sandbox_limits import Workspace

WORKSPACE = "/testbed"
NOBODY = 65534
OWN_IDS = range(1_879_048_192, 2_147_352_576)
"""User ids that systemd and Linux distributions leave unused; as root, each worker gets one."""
_PROGRAMS = Path(__file__).parent / "programs"
_ROOT_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_MKNOD")
_ETC = {
    "passwd": b"sandbox:x:1000:1000::/tmp/work:/bin/sh\n",
    "group": b"sandbox:x:1000:\n",
    "hosts": b"127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
}


def bwrap_command(packages: Sequence[Path], workspace: Workspace | None, given: list[int]) -> list[str]:
    """The whole command; `given` receives the descriptors that it reads, to be passed on and closed."""
    user = own_id()
    command = [shutil.which("bwrap") or "bwrap", "--cap-drop", "ALL"]
    # As root there is no user namespace here: the worker becomes another user, so that its processes are counted.
    for capability in _ROOT_CAPABILITIES if user is not None else ("CAP_SYS_ADMIN",):
        command += ["--cap-add", capability]
    command += [] if user is not None else ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    shown = {**system_folders(), **python_folders()}
    shown |= {Path(f"/packages/{number}"): package.resolve() for number, package in enumerate(packages)}
    if workspace is not None and workspace.base is not None:
        shown[Path("/base")] = workspace.base.resolve()
    for place, folder in shown.items():
        command += [*parents_of(place), "--ro-bind", str(folder), str(place)]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (path := Path("/", name)).is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
    if Path("/usr/lib/os-release").exists():
        command += ["--symlink", "../usr/lib/os-release", "/etc/os-release"]
    if workspace is not None:
        command += ["--perms", "1777", "--size", str(workspace.size_bytes), "--tmpfs", WORKSPACE]
        for name in kept(workspace):
            command += [*parents_of(Path(name)), "--dir", name]
    for name, content in _copies().items():
        given.append(held_open(content))
        command += ["--perms", "0644", "--file", str(given[-1]), name]
    command += ["--dir", "/tmp", "--proc", "/proc", *devices(), "--remount-ro", "/", "--chdir", "/"]
    return [*command, "--", *_worker(user, packages, workspace, list(map(str, shown)))]


def _worker(user: int | None, packages: Sequence[Path], workspace: Workspace | None, layers: list[str]) -> list[str]:
    """The command inside: the worker's settings, who it is, and the folders that it covers with layers of its own."""
    filter_code = seccomp.program(platform.machine())
    settings = {
        "become": user,
        "seccomp": (filter_code or b"").hex(),
        "path": [f"/packages/{number}" for number in range(len(packages))],
        "workspace": None if workspace is None else [WORKSPACE, workspace.files, kept(workspace), _prefixes()],
    }
    who = "user" if user is None else "root"
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return [str(python), "-I", "-S", "-B", "-X", "utf8", "/host_layers.py", json.dumps(settings), who, *layers]


def own_id() -> int | None:
    """As root a user id that no other worker has, since the kernel counts much by user; nobody's where ids are few.

    None where we cannot become anybody else: as an ordinary user, or as the root of a namespace without other users.
    """
    if os.geteuid() != 0:
        return None
    maps = [Path("/proc/self", name).read_text().splitlines() for name in ("uid_map", "gid_map")]
    for wanted in (secrets.choice(OWN_IDS), NOBODY):
        spans = [[tuple(map(int, line.split())) for line in lines] for lines in maps]
        if all(any(first <= wanted < first + count for first, _, count in each) for each in spans):
            return wanted
    return None


def kept(workspace: Workspace) -> list[str]:
    """The folders that are kept at their own places, the workspace's own among them; none if it is that one alone."""
    return list(dict.fromkeys([*workspace.folders, WORKSPACE])) if workspace.folders else []


def _environment() -> dict[str, str]:
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    return {
        "PATH": f"{sys.base_prefix}/bin:{path}",
        "HOME": "/tmp/work",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "USER": "sandbox",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # or each thread takes 64 MiB of the run's address space, of which it uses little
    }


def system_folders() -> dict[Path, Path]:
    """Folders of the system's programs and libraries, each by the place where it is shown."""
    names = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc/alternatives")
    places = [Path("/", name) for name in names]
    return {place: place for place in places if place.is_dir() and not place.is_symlink()}


def python_folders() -> dict[Path, Path]:
    """This Python's own installation, where it is not part of the system. A virtual environment stays outside."""
    prefix = Path(sys.base_prefix).resolve()
    if prefix == Path("/usr") or Path("/usr") in prefix.parents:
        return {}
    if prefix in (Path("/"), Path.home()) or Path("/tmp") in prefix.parents:
        raise SandboxError(
            f"Python is installed in {prefix}, which cannot be shown: use one from /usr or a folder of its own"
        )
    shown = {prefix: prefix, Path(sys.base_prefix): prefix}
    return shown | ({Path("/nix/store"): Path("/nix/store")} if str(prefix).startswith("/nix/") else {})


def _prefixes() -> list[str]:
    """The folders where this Python is installed, outside the system's."""
    places = {str(Path(sys.base_prefix).resolve()), sys.base_prefix}
    return sorted(place for place in places if Path("/usr") not in (Path(place), *Path(place).parents))


def parents_of(place: Path) -> list[str]:
    """The bwrap options that make the folders above a path; those that bwrap makes by itself are closed to other users."""
    return [part for parent in reversed(place.parents[:-1]) for part in ("--dir", str(parent))]


def _copies() -> dict[str, bytes]:
    """Files that are copied into the sandbox: its own, and the linker's cache."""
    copies = {f"/etc/{name}": content for name, content in _ETC.items()}
    if (cache := Path("/etc/ld.so.cache")).is_file():
        copies[str(cache)] = cache.read_bytes()
    names = (
        "host_layers.py",
        "worker.py",
        "passed_values.py",
        "told_errors.py",
        "checker.py",
        "keeping.py",
        "write_rules.py",
        "box_inside.py",
    )
    return copies | {f"/{name}": (_PROGRAMS / name).read_bytes() for name in names}


def held_open(content: bytes) -> int:
    """A descriptor from which the content is read."""
    memory = os.memfd_create("given", os.MFD_CLOEXEC)
    with open(memory, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def devices() -> list[str]:
    """No terminal, no disks, no shared memory but the run's own."""
    binds = ["--tmpfs", "/dev"]
    for name in ("null", "zero", "full", "random", "urandom"):
        binds += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    links = {"/proc/self/fd": "fd", "fd/0": "stdin", "fd/1": "stdout", "fd/2": "stderr", "/tmp/shm": "shm"}
    for target, name in links.items():
        binds += ["--symlink", target, f"/dev/{name}"]
    return [*binds, "--remount-ro", "/dev"]
