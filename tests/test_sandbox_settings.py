"""What a worker is told and sees: its user, its Python, its environment, its cgroup, and when its supervisor ends a run."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the sandbox is for Linux", allow_module_level=True)

import socket

from firsthand.errors import ConfigError, SandboxError
from firsthand.sandbox import bwrap_command, memory_cgroup, reader_command
from firsthand.sandbox.programs import inside, worker
from firsthand.sandbox.sandbox import site_packages
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace


def reading(monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Let files of /proc/self have these texts."""
    real = Path.read_text

    def read_text(self: Path, *given: Any, **more: Any) -> str:
        if str(self.parent) == "/proc/self" and self.name in texts:
            return texts[self.name]
        return real(self, *given, **more)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_worker_of_root_gets_a_user_id_that_its_namespace_has(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = "         0          0 4294967295\n", "0 100000 65535\n"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for uids, gids, expected in (
        (wide, wide, "own"), (narrow, narrow, 65534), (wide, narrow, 65534), (narrow, wide, 65534),
        ("0 0 65534\n", wide, None), (wide, "0 0 1\n1 100000 65533\n", None), ("0 1000 1\n", "0 1000 1\n", None),
        ("0 0 1\n65534 7 1\n", narrow, 65534), ("65535 0 1000\n", narrow, None),
    ):  # fmt: skip
        reading(monkeypatch, uid_map=uids, gid_map=gids)
        found = bwrap_command.own_id()
        if expected == "own":
            assert found in bwrap_command.OWN_IDS and found != bwrap_command.own_id()
        else:
            assert found == expected, (uids, gids)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bwrap_command.own_id() is None


def test_this_python_is_shown_where_it_is_installed_and_nothing_that_holds_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shown(prefix: str) -> Any:
        monkeypatch.setattr(sys, "base_prefix", prefix)
        return bwrap_command.python_folders(), bwrap_command._prefixes(), bwrap_command._environment()["PATH"]

    system = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    for prefix in ("/usr", "/usr/local"):
        assert shown(prefix) == ({}, [], f"{prefix}/bin:{system}")
    opt, nix = Path("/opt/py-none"), Path("/nix/store/x-python")
    assert shown(str(opt)) == ({opt: opt}, [str(opt)], f"{opt}/bin:{system}")
    assert shown(str(nix))[0] == {nix: nix, Path("/nix/store"): Path("/nix/store")}
    for prefix in ("/", str(Path.home()), "/tmp/py"):
        with pytest.raises(
            SandboxError, match=f"^Python is installed in {prefix}, which cannot be shown: use one from"
        ):
            shown(prefix)
    monkeypatch.undo()
    assert bwrap_command._environment() == {
        "PATH": f"{sys.base_prefix}/bin:{system}", "HOME": "/tmp/work", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC",
        "USER": "sandbox", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip
    folders = bwrap_command.system_folders()
    assert all(place == folder and place.is_dir() and not place.is_symlink() for place, folder in folders.items())
    assert Path("/usr") in folders and Path("/etc") not in folders and Path("/home") not in folders


def test_a_worker_is_told_its_user_its_packages_and_its_workspace(tmp_path: Path) -> None:
    workspace = Workspace(files=7, folders=("/root", "/root", "/a"))
    command = bwrap_command._worker(5, [tmp_path, tmp_path], workspace, ["/usr", "/packages/0"])
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert command[:7] == [
        f"{sys.base_prefix}/bin/python{version}", "-I", "-S", "-B", "-X", "utf8", "/host_layers.py"
    ]  # fmt: skip
    settings = json.loads(command[7])
    assert settings.pop("seccomp") and settings == {
        "become": 5, "path": ["/packages/0", "/packages/1"],
        "workspace": ["/testbed", 7, ["/root", "/a", "/testbed"], bwrap_command._prefixes()],
    }  # fmt: skip
    assert command[8:] == ["root", "/usr", "/packages/0"]
    plain = bwrap_command._worker(None, [], None, [])
    assert plain[8:] == ["user"] and json.loads(plain[7])["workspace"] is None
    assert json.loads(bwrap_command._worker(0, [], Workspace(), [])[7])["workspace"][2] == []
    copies = bwrap_command._copies()
    assert copies["/etc/passwd"] == b"sandbox:x:1000:1000::/tmp/work:/bin/sh\n"
    assert copies["/etc/hosts"] == b"127.0.0.1 localhost\n::1 localhost\n"
    assert copies["/worker.py"] == Path(worker.__file__).read_bytes() and "/inside.py" not in copies
    handle = bwrap_command.held_open(b"text")
    try:
        assert os.read(handle, 9) == b"text" and not os.get_inheritable(handle)
    finally:
        os.close(handle)
    names = [str(each) for each in reader_command._packages()]
    assert names and all(Path(each).is_dir() for each in names)
    assert reader_command.import_path().split(os.pathsep)[1:] == names
    assert reader_command.reader_command(["a", "b"], []) == ["a", "b"] or reader_command.can_wrap()


def test_a_cgroup_is_made_below_our_own_or_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    root = memory_cgroup.ROOT
    for text, expected in (
        ("5:cpu,memory:/a/b\n3:cpuset:/x\n0::/c/d\n", [("memory/a/b", 1), ("c/d", 2), ("c", 2)]),
        ("0::/\n", [("", 2)]), ("4:memory_other:/x\n", []), ("1:name=x:/a:b\n2:memory:/a:b\n", [("memory/a:b", 1)]),
        ("0::/top\n", [("top", 2), ("", 2)]), ("", []),
    ):  # fmt: skip
        reading(monkeypatch, cgroup=text)
        assert memory_cgroup._parents() == [(root / place, version) for place, version in expected], text


def test_limits_are_refused_from_nothing_on() -> None:
    for name in ("wall_s", "cpu_s", "processes", "open_files", "file_bytes", "scratch_bytes", "output_bytes"):
        for value in (0, -1, float("nan")):
            with pytest.raises(ConfigError, match=f"^{name} is {value}: give a number above 0$"):
                RunLimits(**{name: value})
        assert getattr(RunLimits(**{name: 1}), name) == 1
    least = 64 * 2**20
    assert RunLimits(memory_bytes=least).memory_bytes == least
    with pytest.raises(
        ConfigError, match=f"^memory_bytes is {least - 1}: Python itself needs 64 MiB of address space$"
    ):
        RunLimits(memory_bytes=least - 1)
    assert Workspace(folders=("/root", "/var/tmp", "/usrx", "/etcetera")).folders[2] == "/usrx"
    assert (Workspace(size_bytes=1).size_bytes, Workspace(files=1).files) == (1, 1)


# -- the supervisor --


def watched(monkeypatch: pytest.MonkeyPatch, counts: list[int], limit: int, **limits: Any) -> tuple[Any, int]:
    """The end of a run that sleeps, in a workspace that has so many files each time it is looked at, and the looks."""
    asked: list[int] = []

    def files_in(folder: str) -> int:
        assert folder == "/testbed"
        asked.append(counts.pop(0) if len(counts) > 1 else counts[0])
        return asked[-1]

    monkeypatch.setattr(worker, "files_in", files_in)
    monkeypatch.setattr(worker, "give_way", lambda pids, ours: pids)  # here they are all processes of this machine
    job, theirs = socket.socketpair()
    told, tell = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(told)
        time.sleep(20)
        os._exit(0)
    os.close(tell)
    try:
        given = {"wall_s": 20.0, "memory_bytes": 1 << 50} | limits
        report = worker.watch(job, told, init, given, time.monotonic(), ["/testbed", limit, []])
    finally:
        job.close()
        theirs.close()
        os.close(told)
    return report["killed"], len(asked)


@pytest.mark.slow
def test_a_run_that_makes_more_files_than_a_workspace_has_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, [2, 4, 5, 6], 5) == ("memory", 4)
    assert watched(monkeypatch, [5], 5, wall_s=0.05)[0] == "timeout"
    assert watched(monkeypatch, [9, 9, 8], 5, wall_s=0.05)[0] == "timeout", "what is too full already may be emptied"
    assert watched(monkeypatch, [9, 9, 10], 5) == ("memory", 3)


def test_shared_pages_are_counted_once_where_the_sum_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    anon, pss = (b"RssAnon:", b"RssShmem:"), (b"Pss_Anon:", b"Pss_Shmem:")
    held = {
        ("/proc/10/status", anon): 100, ("/proc/11/status", anon): 70, ("/proc/12/status", anon): 9,
        ("/proc/10/smaps_rollup", pss): 60, ("/proc/11/smaps_rollup", pss): 30, ("/proc/12/smaps_rollup", pss): 0,
        ("/proc/1/status", anon): 10_000,
    }  # fmt: skip
    looks: list[str] = []

    def fields(path: str, names: tuple[bytes, ...]) -> int:
        looks.append(path)
        return held[path, names]

    monkeypatch.setattr(worker, "fields", fields)
    monkeypatch.setattr(os, "listdir", lambda folder: ["1", "10", "self", "11", "12", "13"])
    assert worker.memory_of({1, 13}, 179) == 179 and len(looks) == 3, "as much as is allowed"
    assert worker.memory_of({1, 13}, 178) == 60 + 30 + 9, "who does not let us look is counted whole"
    monkeypatch.setattr(worker, "LOOK_CPU_S", -1.0)
    assert worker.memory_of({1, 13}, 178) == 179, "it took too long to look closer"


def test_a_crowd_of_processes_gets_the_lowest_priority_and_no_process_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered: list[tuple[str, int]] = []

    def setpriority(which: int, pid: int, level: int) -> None:
        lowered.append(("nice", pid))
        assert (which, level) == (os.PRIO_PROCESS, 19)
        if pid == 3:
            raise ProcessLookupError

    def idle(pid: int, policy: int, param: os.sched_param) -> None:
        lowered.append(("idle", pid))
        assert (policy, param.sched_priority) == (os.SCHED_IDLE, 0)

    def counted(cores: int | None, *looks: range) -> list[tuple[str, int]]:
        """What was lowered, where each look at /proc finds the next processes, and the last ones from then on."""
        lowered.clear()
        left = list(looks)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "listdir", lambda folder: ["self", *map(str, left.pop(0) if left[1:] else left[0])])
        assert worker.memory_of({1, 2}, 10**6) == len([pid for pid in left[0] if pid > 2])
        return lowered

    def both(pids: range) -> list[tuple[str, int]]:
        return [(kind, pid) for pid in pids for kind in ("nice", "idle") if (kind, pid) != ("idle", 3)]

    monkeypatch.setattr(os, "setpriority", setpriority)
    monkeypatch.setattr(os, "sched_setscheduler", idle)
    monkeypatch.setattr(worker, "fields", lambda path, names: 1)
    assert counted(2, range(1, 19)) == [] and counted(2, range(1, 20)) == both(range(3, 20)) == counted(
        None, range(1, 20)
    )
    assert counted(24, range(1, 27)) == [] and len(counted(24, range(1, 28))) == 49
    assert counted(2, range(1, 20), range(1, 25), range(10, 30)) == both(range(3, 30)), (
        "those forked meanwhile, once each"
    )
    many = [range(20 * turn, 20 * turn + 20) for turn in range(1, 30)]
    assert len(counted(2, *many)) == 2 * 20 * 8, "processes that are never the same hold nothing up"


# -- the program in a repository --


def test_a_page_of_a_file_has_the_lines_that_fit_and_counts_the_rest(tmp_path: Path) -> None:
    root = os.path.realpath(tmp_path)

    def view(path: str, start: int = 1, lines: int = 9, most: int = 99_999) -> str:
        return inside.do_view(root, path, start, lines, most)

    def problem(work: Any, *given: Any) -> str:
        with pytest.raises(inside.Problem) as error:
            work(*given)
        return str(error.value)

    (tmp_path / "f").write_text("a\nb\nc")
    assert view("f") == "     1\ta\n     2\tb\n     3\tc" and view("f", 2, 1) == "     2\tb\n[1 more lines]"
    assert (
        view("f", 3, 1) == "     3\tc" and view("f", 4) == "(there are 3 lines)" and view(f"{root}/f", 3) == "     3\tc"
    )
    (tmp_path / "wide").write_text("\n".join(["x" * 6_992] * 3))  # each line counts 7,000
    assert view("wide").count("\t") == 2 and view("wide").endswith("x\n[1 more lines]")
    (tmp_path / "wide").write_text("\n".join(["x" * 6_992, "x" * 6_993]))
    assert view("wide").count("\t") == 1 and view("wide", 2).count("x") == 2_000
    (tmp_path / "one").write_text("y" * 20_000)
    assert view("one") == f"     1\t{'y' * 2_000}", "the first line is shown, cut"
    assert problem(view, "one", 1, 9, 19_999) == "'one' has 20000 bytes: at most 19999 can be read"
    assert view("one", 1, 9, 20_000).startswith("     1\ty")
    (tmp_path / "many").mkdir()
    assert view("many") == "(the folder is empty)"
    for n in range(501):
        (tmp_path / "many" / f"{n:03}").touch()
    assert view("many").splitlines()[-2:] == ["499", "[and 1 more]"]
    (tmp_path / "many" / "500").unlink()
    assert view("many").splitlines()[-1] == "499"
    assert view(".").splitlines() == ["f", "many/", "one", "wide"] == view(root).splitlines()
    (tmp_path.parent / f"{tmp_path.name}x").mkdir()
    (tmp_path / "out").symlink_to("..")
    for path in (f"{root}x", "..", "out", "out/x", "/"):
        assert problem(view, path) == f"{path!r} is not inside {root}: give a path relative to it"
    assert problem(inside.do_edit, root, "f", "", "x", 99) == (
        "old occurs 0 times in 'f': read the file again, and give text from it"
    )
    (tmp_path / "f").write_bytes(b"a\r\nb a")
    assert problem(inside.do_edit, root, "f", "a", "x", 99) == (
        "old occurs 2 times in 'f': give more of the text around it"
    )
    assert inside.do_edit(root, "f", "b", "ä\n", 99) == "f has been edited"
    assert (tmp_path / "f").read_bytes() == b"a\r\n\xc3\xa4\n a", "line ends are as they were"
    assert inside.do_create(root, "new/deep/g", "é\n") == "new/deep/g has been written: 2 characters"
    for path in ("f", "new", "new/deep/g"):
        assert problem(inside.do_create, root, path, "x") == f"{path!r} is there already: edit it"
    assert problem(inside.git, "no-such-word").startswith("git no-such-word: git: 'no-such-word' is not a git command")


def test_what_inside_a_repository_fails_is_told_as_a_problem() -> None:
    import subprocess

    def told(do: str, **given: Any) -> Any:
        request = json.dumps({"do": do, "with": given})
        done = subprocess.run(
            [sys.executable, "-I", "-S", inside.__file__], input=request, capture_output=True, text=True
        )
        return json.loads(done.stdout)

    assert told("view", root="/none", path="x", start=1, lines=1, most=9) == {
        "problem": "'x' is no file: view the folder to see what is there"
    }
    assert told("create", root="/proc", path="none/x", text="") == {"problem": "No such file or directory"}
    assert told("view", root="/none", path="a\0b", start=1, lines=1, most=9)["problem"].endswith(
        ("embedded null byte", "embedded null character in path")
    )


def test_the_packages_of_a_virtual_environment_are_those_of_this_python_or_it_is_told_whose_they_are(
    tmp_path: Path,
) -> None:
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"

    def refused() -> str:
        with pytest.raises(ConfigError) as told:
            site_packages(tmp_path)
        return str(told.value)

    assert site_packages(tmp_path) == tmp_path and site_packages(tmp_path / "none") == tmp_path / "none"
    (tmp_path / "pyvenv.cfg").mkdir()
    assert site_packages(tmp_path) == tmp_path, "a folder of that name makes no environment"
    (tmp_path / "pyvenv.cfg").rmdir()
    (tmp_path / "pyvenv.cfg").touch()
    said = f"the virtual environment {str(tmp_path)!r} is of {{}}: make one with {mine}, which runs here"
    assert refused() == said.format("none")
    (tmp_path / "lib").mkdir()
    assert refused() == said.format("none")
    for name in ("site-packages", "pypy3.10", "python3.9", "python2.7"):
        (tmp_path / "lib" / name).mkdir()
    assert refused() == said.format("python2.7, python3.9")
    (tmp_path / "lib" / mine).mkdir()
    (tmp_path / "lib" / "python3.9" / "site-packages").mkdir()
    assert refused() == said.format(", ".join(sorted(["python2.7", "python3.9", mine])))
    (tmp_path / "lib" / mine / "site-packages").touch()
    assert refused() == said.format(", ".join(sorted(["python2.7", "python3.9", mine])))
    (tmp_path / "lib" / mine / "site-packages").unlink()
    (tmp_path / "lib" / mine / "site-packages").mkdir()
    assert site_packages(tmp_path) == tmp_path / "lib" / mine / "site-packages"
