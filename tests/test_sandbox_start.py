"""The start of a worker and of a reader: whole commands, descriptors, cgroups, and what is closed when it fails."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the sandbox is for Linux", allow_module_level=True)

from firsthand.errors import SandboxError
from firsthand.sandbox import bubblewrap, bwrap_command, memory_cgroup, reader_command, seccomp
from firsthand.sandbox.bubblewrap import WarmWorker
from firsthand.sandbox.memory_cgroup import SLACK_BYTES, MemoryCgroup
from firsthand.sandbox.sandbox_limits import Workspace

NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def open_files() -> set[str]:
    return {f"{each.name} {os.readlink(each)}" for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}  # noqa: PTH115


@pytest.fixture
def given() -> Iterator[list[int]]:
    """Descriptors that are closed at the end."""
    made: list[int] = []
    yield made
    for fd in made:
        os.close(fd)


def content(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read()


def binds(shown: dict[str, str]) -> list[str]:
    """The options that show folders, each below folders that are made first."""
    words: list[str] = []
    for place, folder in shown.items():
        parts = place.strip("/").split("/")[:-1]
        for count in range(len(parts)):
            words += ["--dir", "/" + "/".join(parts[: count + 1])]
        words += ["--ro-bind", folder, place]
    return words


def links() -> list[str]:
    return [
        word
        for name in NAMES
        if Path(f"/{name}").is_symlink()
        for word in ("--symlink", str(Path(f"/{name}").readlink()), f"/{name}")
    ]


DEVICES = [
    "--tmpfs", "/dev", *(word for name in ("null", "zero", "full", "random", "urandom")
                         for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")),
    "--symlink", "/proc/self/fd", "/dev/fd", "--symlink", "fd/0", "/dev/stdin", "--symlink", "fd/1", "/dev/stdout",
    "--symlink", "fd/2", "/dev/stderr", "--symlink", "/tmp/shm", "/dev/shm", "--remount-ro", "/dev",
]  # fmt: skip


def system() -> dict[str, str]:
    """The system's folders and this Python's, as they are here."""
    folders = {f"/{name}": f"/{name}" for name in ("usr", *NAMES, "etc/alternatives")}
    shown = {place: place for place in folders if Path(place).is_dir() and not Path(place).is_symlink()}
    return shown | {str(place): str(folder) for place, folder in bwrap_command.python_folders().items()}


def test_the_whole_command_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[int]) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "bwrap").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    workspace = Workspace(tmp_path / "link", size_bytes=321, files=9, folders=("/root", "/data/x"))
    real, environment = str(tmp_path / "real"), bwrap_command._environment()
    sets = [word for name, value in environment.items() for word in ("--setenv", name, value)]
    release = ["--symlink", "../usr/lib/os-release", "/etc/os-release"] if Path("/usr/lib/os-release").exists() else []
    unshared = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    more = ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv", *sets]
    shown = {**system(), "/packages/0": real, "/packages/1": str(tmp_path), "/base": real}
    for user, who in ((1000, "user"), (0, "root")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        root = bwrap_command.own_id() is not None
        while given:
            os.close(given.pop())
        command = bwrap_command.bwrap_command([tmp_path / "link", tmp_path], workspace, given)
        capabilities = ["CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_MKNOD"] if root else ["CAP_SYS_ADMIN"]
        copied = [f"/etc/{name}" for name in ("passwd", "group", "hosts", "nsswitch.conf")]
        copied += ["/etc/ld.so.cache"] if Path("/etc/ld.so.cache").is_file() else []
        programs = (
            "host_layers",
            "worker",
            "passed_values",
            "told_errors",
            "checker",
            "keeping",
            "write_rules",
            "box_inside",
        )
        copied += [f"/{name}.py" for name in programs]
        at = command.index("--")
        assert command[:at] == [
            f"{tmp_path}/bwrap", "--cap-drop", "ALL",
            *(word for name in capabilities for word in ("--cap-add", name)),
            *([] if root else ["--unshare-user", "--uid", "1000", "--gid", "1000"]), *unshared, *more, *binds(shown),
            *links(), *release, "--perms", "1777", "--size", "321", "--tmpfs", "/testbed", "--dir", "/root",
            "--dir", "/data", "--dir", "/data/x", "--dir", "/testbed",
            *(word for fd, name in zip(given, copied, strict=True) for word in ("--perms", "0644", "--file", str(fd), name)),
            "--dir", "/tmp", "--proc", "/proc", *DEVICES, "--remount-ro", "/", "--chdir", "/",
        ], who  # fmt: skip
        inner = command[at + 1 :]
        settings = json.loads(inner[7])
        assert isinstance(settings["become"], int) is root and settings["path"] == ["/packages/0", "/packages/1"]
        assert settings["workspace"] == ["/testbed", 9, ["/root", "/data/x", "/testbed"], bwrap_command._prefixes()]
        assert inner[8:] == ["root" if root else "user", *shown]
        assert [content(given[place]) for place in (0, 1, 2, 3)] == [
            b"sandbox:x:1000:1000::/tmp/work:/bin/sh\n", b"sandbox:x:1000:\n", b"127.0.0.1 localhost\n::1 localhost\n",
            b"passwd: files\ngroup: files\nhosts: files\n",
        ]  # fmt: skip
        assert [content(fd) for fd in given[4 : -len(programs)]] == [
            Path(name).read_bytes() for name in copied[4 : -len(programs)]
        ], "the cache"
        folder = Path(bubblewrap.__file__).parent / "programs"
        for name, fd in zip(programs, given[-len(programs) :], strict=True):
            assert content(fd) == (folder / f"{name}.py").read_bytes(), name
    plain = bwrap_command.bwrap_command([], None, given)
    assert "--tmpfs" in plain and "/testbed" not in plain and "/base" not in plain and "--size" not in plain
    empty = bwrap_command.bwrap_command([], Workspace(), given)
    assert empty[empty.index("/testbed") - 1] == "--tmpfs" and "/base" not in empty
    assert empty.count("/testbed") == 1, "the workspace alone is no kept folder"


def test_the_whole_command_of_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[int]) -> None:
    (tmp_path / "bwrap").touch(0o755)
    shown = {str(place): str(folder) for place, folder in reader_command._shown().items()}
    monkeypatch.setenv("PATH", str(tmp_path))
    cache = "/etc/ld.so.cache"
    cached = ["--ro-bind", cache, cache] if Path(cache).is_file() else []
    filtered = [] if seccomp.program(platform.machine()) is None else ["--seccomp"]
    command = reader_command._wrapped(["python", "-c", "--", "x"], given)
    assert len(given) == len(filtered) and command == [
        f"{tmp_path}/bwrap", "--cap-drop", "ALL", "--unshare-user-try", "--unshare-pid", "--unshare-net", "--unshare-ipc",
        "--unshare-uts", "--unshare-cgroup-try", "--hostname", "reader", *binds(shown), *links(), *cached,
        *([*filtered, str(given[0])] if filtered else []), "--proc", "/proc", *DEVICES, "--remount-ro", "/", "--chdir", "/",
        "--", "python", "-c", "--", "x",
    ]  # fmt: skip
    places = list(shown)
    assert places[: len(system())] == list(system())
    for folder in (Path(sys.prefix), *reader_command._packages(), Path(bubblewrap.__file__).parents[1]):
        assert any(folder.is_relative_to(place) for place in places), folder
    for number, place in enumerate(places):
        assert not any(Path(place).is_relative_to(other) for other in places[:number]) or place in system(), place
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert reader_command._wrapped(["x"], given)[0] == "bwrap"
    monkeypatch.setattr(sys, "prefix", str(Path.home()))
    with pytest.raises(
        SandboxError, match=r"^Python is installed in .*, which cannot be shown: use one in a folder of its own$"
    ):
        reader_command._shown()


def test_a_reader_is_wrapped_only_where_a_program_ends_well_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bwrap"
    before = open_files()
    try:
        for script, found in (('echo "$@" > {log}; env >> {log}', True), ("exit 1", False), (None, False)):
            if script is None:
                fake.unlink()
            else:
                fake.write_text("#!/bin/sh\n" + script.format(log=tmp_path / "log"))
                fake.chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}")
            reader_command.can_wrap.cache_clear()
            assert reader_command.can_wrap() is found
            command = reader_command.reader_command(["prog", "a"], kept := [])
            assert command[-2:] == ["prog", "a"] and (len(command) == 2) is not found
            assert (command[0] == str(fake)) is found and bool(kept) is found
            for fd in kept:
                os.close(fd)
        told = (tmp_path / "log").read_text()
        assert told.splitlines()[0].endswith(f"-- {sys.executable} -I -S -c ") and "HOME=" not in told
        monkeypatch.setattr(sys, "platform", "darwin")
        fake.write_text("#!/bin/sh\n")
        fake.chmod(0o755)
        reader_command.can_wrap.cache_clear()
        assert not reader_command.can_wrap() and open_files() == before
    finally:
        reader_command.can_wrap.cache_clear()


# -- a worker --


BWRAP = """#!/bin/sh
for word; do printf '%s\\n' "$word"; done > {home}/words
/bin/cat /proc/$$/environ > {home}/environ
/bin/ls /proc/$$/fd | /usr/bin/wc -l > {home}/descriptors
echo "first
  why  " >&2
printf {says} >&0
exec /bin/cat <&0
"""


def test_a_worker_starts_in_its_cgroup_with_no_environment_and_keeps_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bwrap(says: str) -> None:
        (tmp_path / "bwrap").write_text(BWRAP.format(home=tmp_path, says=says))
        (tmp_path / "bwrap").chmod(0o755)

    cgroups: list[MemoryCgroup] = []

    def made() -> MemoryCgroup:
        folder = tmp_path / f"cgroup{len(cgroups)}"
        folder.mkdir()
        cgroups.append(MemoryCgroup(folder, 2))
        return cgroups[-1]

    monkeypatch.setattr(bubblewrap, "open_cgroup", made)
    monkeypatch.setenv("PATH", str(tmp_path))
    bwrap("ready")
    before = open_files()
    worker = WarmWorker([tmp_path], Workspace(size_bytes=77))
    try:
        assert len(open_files() - before) == 2, "the control socket and the errors"
        assert (worker._kept_bytes, worker._cgroup, worker.alive, worker.pid) == (
            77,
            cgroups[0],
            True,
            worker._process.pid,
        )
        procs = tmp_path / "cgroup0" / "cgroup.procs"
        assert procs.read_text() == f"{worker.pid}\n", "it is in there before bubblewrap begins"
        words = (tmp_path / "words").read_text().splitlines()
        assert words[:2] == ["--cap-drop", "ALL"] and words[words.index("--size") + 1] == "77"
        assert words[words.index("/packages/0") - 1] == str(tmp_path.resolve())
        assert {each.partition(b"=")[0] for each in (tmp_path / "environ").read_bytes().split(b"\0") if each} <= {
            b"PWD", b"SHLVL", b"_", b"OLDPWD",
        }  # fmt: skip
        assert int((tmp_path / "descriptors").read_text()) == 3 + words.count("--file") + 1
        procs.unlink()
    finally:
        worker.close()
    assert not (tmp_path / "cgroup0").exists() and open_files() == before and worker._process.returncode is not None
    entering = MemoryCgroup.entering
    for says, script, said in (
        ("no", None, "the bubblewrap sandbox does not start here: first\n  why"),
        ("ready", "none", "bwrap does not start: No such file or directory"),
    ):
        bwrap(says)
        monkeypatch.setattr(
            MemoryCgroup,
            "entering",
            lambda self, command, script=script: [str(tmp_path / script), *command] if script else command,
        )
        with pytest.raises(SandboxError) as error:
            WarmWorker()
        assert str(error.value) == said and open_files() == before
        assert not cgroups[-1].folder.exists(), "its cgroup is removed"
    monkeypatch.setattr(MemoryCgroup, "entering", entering)
    monkeypatch.setattr(sys, "base_prefix", "/")
    with pytest.raises(SandboxError, match=r"^Python is installed in /, which cannot be shown"):
        WarmWorker()
    assert len(cgroups) == 4 and not (tmp_path / "cgroup3").exists() and open_files() == before
    monkeypatch.setattr(bubblewrap, "open_cgroup", lambda: None)
    with pytest.raises(SandboxError, match=r"^Python is installed in /"):
        WarmWorker()
    assert open_files() == before


# -- a cgroup --


def test_a_new_cgroup_has_a_limit_no_swap_and_its_sockets_counted(tmp_path: Path) -> None:
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
             2: ("memory.max", "memory.current", "memory.events")}  # fmt: skip
    for version, (limit, usage, events) in names.items():
        folder = tmp_path / str(version)
        folder.mkdir()
        (folder / usage).write_text("5\n")
        (folder / events).write_text("oom_kill 0\n")
        memory_cgroup._set_up(MemoryCgroup(folder, version))
        assert {file.name: file.read_text() for file in folder.iterdir()} == {
            limit: str(2**40), usage: "5\n", events: "oom_kill 0\n",
            **({"memory.swappiness": "0", "memory.kmem.tcp.limit_in_bytes": str(SLACK_BYTES)} if version == 1
               else {"memory.swap.max": "0"}),
        }  # fmt: skip
        (folder / usage).write_text("none")
        with pytest.raises(ValueError, match="none"):
            memory_cgroup._set_up(MemoryCgroup(folder, version))
        (folder / events).unlink()
        (folder / usage).write_text("5")
        with pytest.raises(FileNotFoundError):
            memory_cgroup._set_up(MemoryCgroup(folder, version))


def test_the_first_place_that_takes_a_cgroup_is_taken_and_what_fails_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Path, int]] = []

    def set_up(cgroup: MemoryCgroup) -> None:
        made.append((cgroup.folder, cgroup.version))
        if cgroup.folder.parent.name == "broken":
            raise ValueError("no number")
        if cgroup.folder.parent.name == "closed":
            raise PermissionError(errno.EACCES, "")

    places = [
        (tmp_path / name, version)
        for name, version in (("none", 1), ("broken", 1), ("closed", 2), ("good", 2), ("x", 1))
    ]
    for folder, _ in places[1:]:
        folder.mkdir()
    (tmp_path / "good" / f"firsthand-{2**22 + 1}-7").mkdir()
    os.utime(tmp_path / "good" / f"firsthand-{2**22 + 1}-7", (5, 5))
    monkeypatch.setattr(memory_cgroup, "_set_up", set_up)
    monkeypatch.setattr(memory_cgroup, "_parents", lambda: places)
    first, second = memory_cgroup.open_cgroup(), memory_cgroup.open_cgroup()
    assert first is not None and second is not None and first.version == second.version == 2
    assert [(folder.parent.name, version) for folder, version in made] == [
        ("broken", 1),
        ("closed", 2),
        ("good", 2),
    ] * 2
    left = {str(each.relative_to(tmp_path)) for each in tmp_path.glob("*/*")}
    assert left == {f"good/{first.folder.name}", f"good/{second.folder.name}"} and len(left) == 2
    head, pid, _ = first.folder.name.split("-")
    assert (head, int(pid)) == ("firsthand", os.getpid())
    monkeypatch.setattr(memory_cgroup, "_parents", lambda: places[:3])
    assert memory_cgroup.open_cgroup() is None
    monkeypatch.setattr(memory_cgroup, "_parents", list)
    assert memory_cgroup.open_cgroup() is None


def test_the_parents_of_a_cgroup_are_looked_up_where_the_system_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(self: Path, *given: Any, **more: Any) -> str:
        assert str(self) == "/proc/self/cgroup"
        raise PermissionError(errno.EACCES, "")

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory_cgroup._parents() == []


# -- what is shown of Python --


def test_a_python_reached_by_a_link_is_shown_at_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(prefix: str) -> tuple[dict[Path, Path], list[str]]:
        monkeypatch.setattr(sys, "base_prefix", prefix)
        return bwrap_command.python_folders(), bwrap_command._prefixes()

    real, link = "/opt/py-none", "/proc/self/root/opt/py-none"  # the link leads to the root
    assert shown(link) == ({Path(real): Path(real), Path(link): Path(real)}, sorted([real, link]))
    assert shown("/proc/self/root/usr/none") == ({}, ["/proc/self/root/usr/none"])
    assert shown("/usrx") == ({Path("/usrx"): Path("/usrx")}, ["/usrx"])
    monkeypatch.setenv("HOME", "/srv/none")
    assert shown("/srv/none/py")[0] == {Path("/srv/none/py"): Path("/srv/none/py")}, "a folder in a home holds less"
    assert Path("/nix/store") in shown("/nix/none")[0] and Path("/nix/store") not in shown("/nixos")[0]
    for prefix in ("/proc/self/root", "/proc/self/root/tmp/none", "/srv/none"):
        real = prefix.removeprefix("/proc/self/root") or "/"
        with pytest.raises(SandboxError, match=f"^Python is installed in {real}, which cannot be shown"):
            shown(prefix)


def test_packages_of_the_user_are_shown_only_where_python_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = reader_command.site
    names = [str(tmp_path / name) for name in ("one", "two", "user")]
    for name in (names[0], names[2]):
        Path(name).mkdir()
    monkeypatch.setattr(site, "getsitepackages", lambda: names[:2])
    monkeypatch.setattr(site, "getusersitepackages", lambda: names[2])
    for enabled, found in ((True, [names[0], names[2]]), (False, names[:1]), (None, names[:1])):
        monkeypatch.setattr(site, "ENABLE_USER_SITE", enabled)
        assert reader_command._packages() == [Path(name) for name in found]
        ours = str(Path(bubblewrap.__file__).parents[2])
        assert reader_command.import_path() == ":".join([ours, *found])
    for prefix in ("/", str(Path.home())):
        monkeypatch.setattr(sys, "prefix", prefix)
        with pytest.raises(SandboxError) as error:
            reader_command._shown()
        assert str(error.value) == (
            f"Python is installed in {prefix}, which cannot be shown: use one in a folder of its own"
        )
