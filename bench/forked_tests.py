"""Runs tests against one changed source after another, each in a fork of a process that has collected the whole suite.

A `Checkout` is a copy of this one with such a process. For each change the changed file is written into the copy, where
other processes that tests start read it; then the process forks, the functions that are already imported get the changed
code, and the given tests run up to the first failure. So a change costs its tests and no imports. What cannot be changed in
place (a class, a constant, a kernel that numba has compiled) is tried in a fresh process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FRESH_FILES = 12
"""Test files that a fresh process collects."""
NEEDS_FRESH = 71
"""The exit status of a fork that cannot make a change in place."""
Fate = Literal["caught", "lives", "no end", "not reached", "its test fails"]


class Edit(NamedTuple):
    """The bytes from `begin` to `end` of a file below src/firsthand become `new`."""

    file: str
    begin: int
    end: int
    new: str


class Ended(NamedTuple):
    """How tests ended: None as `passed` if a limit ended them; the tests that failed."""

    passed: bool | None
    failed: list[str]


class Checkout:
    """A copy of this checkout, in which changes are tried one at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "checkout"
        shutil.copytree(ROOT, self.path, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv", "site"))
        own = {
            "PYTHONPATH": f"{self.path / 'src'}:{self.path / 'bench'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._environment = {"FIRSTHAND_DATA": str(ROOT.parent / "shared" / "data"), **os.environ, **own}
        self._process: subprocess.Popen[str] | None = None
        self._sound: dict[str, bool] = {}

    def fate(
        self, edit: Edit, tests: Sequence[str], *, cpu_s: float, in_place: bool = True, slow: bool = False
    ) -> Fate:
        """What becomes of a change before these tests; those that fail without any change are left out."""
        remaining = list(tests)
        while remaining:
            ended = self._forked(edit, remaining, cpu_s) if in_place else None
            if ended is None:
                ended = self._fresh(edit, remaining, cpu_s, slow)
            if ended.passed is not False:
                return "lives" if ended.passed else "no end"
            if not ended.failed:  # the tests could not be collected
                return "caught" if self._fresh(None, remaining, cpu_s, slow).passed is True else "its test fails"
            if self._is_sound(ended.failed[0], slow):
                return "caught"
            if ended.failed[0] not in remaining:  # one of a file
                return "its test fails"
            remaining.remove(ended.failed[0])
        return "its test fails" if tests else "not reached"

    def _is_sound(self, test: str, slow: bool) -> bool:
        """Whether a test passes without any change; one that fails anyway says nothing."""
        if test not in self._sound:
            ended = self._forked(None, [test], 200.0)  # None for a slow test
            self._sound[test] = (ended or self._fresh(None, [test], 200.0, slow)).passed is True
        return self._sound[test]

    def _forked(self, edit: Edit | None, tests: Sequence[str], cpu_s: float) -> Ended | None:
        """How tests end in a fork; None if it cannot make the change, or knows none of the tests."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self.path)], cwd=self.path, env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self._read()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"edit": edit, "tests": tests, "cpu_s": cpu_s}) + "\n")
        self._process.stdin.flush()
        told = self._read()
        return None if told is None else Ended(told["passed"], told["failed"])

    def _read(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the tests could not be collected")
        return json.loads(line)

    def _fresh(self, edit: Edit | None, tests: Sequence[str], cpu_s: float, slow: bool) -> Ended:
        """How tests end in a process of their own."""
        files = list(dict.fromkeys(each.split("::")[0] for each in tests))[:FRESH_FILES]
        chosen = [each for each in tests if each.split("::")[0] in files]
        marks = ["-m", "not weights"] if slow else []
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-rfE", "-p", "no:cacheprovider", *marks, *chosen]
        with Written(self.path, edit), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as kernels:
            compiles = edit is not None and edit.file.startswith("kernels/")
            environment = {**self._environment, **({"XDG_CACHE_HOME": kernels} if compiles else {})}
            process = subprocess.Popen(
                command, cwd=self.path, env=environment, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (int(cpu_s) + 10, int(cpu_s) + 15))
            try:
                out, _ = process.communicate(timeout=60 + 3 * cpu_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return Ended(None, [])
        if process.returncode < 0:
            return Ended(None, [])
        failed = [each.split(" - ")[0] for each in re.findall(r"^(?:FAILED|ERROR) (.+)$", out, re.MULTILINE)]
        # 2 and 4: the changed file cannot be imported, which is no fault of the test files
        return Ended(process.returncode in (0, 5), failed if process.returncode == 1 else [])

    def close(self) -> None:
        """End the process and delete the copy."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()


class Written:
    """A context in which a file of a checkout is changed; afterwards it is as it was, its time too."""

    def __init__(self, checkout: Path, edit: Edit | None) -> None:
        self._edit, self._path = edit, checkout / "src" / "firsthand" / (edit.file if edit else "")

    def __enter__(self) -> tuple[bytes, bytes]:
        if self._edit is None:
            return b"", b""
        self._old, self._stat = self._path.read_bytes(), self._path.stat()
        new = self._old[: self._edit.begin] + self._edit.new.encode() + self._old[self._edit.end :]
        self._path.write_bytes(new)
        return self._old, new

    def __exit__(self, *error: object) -> None:
        if self._edit is not None:
            self._path.write_bytes(self._old)
            os.utime(self._path, ns=(self._stat.st_atime_ns, self._stat.st_mtime_ns))


class ForksPlugin:
    """Answers requests, a line of JSON each, where pytest would run the tests that it has collected."""

    def __init__(self, checkout: Path, requests: Any, replies: Any) -> None:
        self._checkout, self._requests, self._replies = checkout, requests, replies
        self._functions: dict[str, list[types.FunctionType]] = defaultdict(list)

    def pytest_runtestloop(self, session: Any) -> bool:
        """The tests were collected."""
        items = {item.nodeid: item for item in session.items}
        by_file: dict[str, list[Any]] = defaultdict(list)
        for item in session.items:
            by_file[item.nodeid.split("::")[0]].append(item)
        gc.unfreeze()  # what conftest.py froze is not listed
        for each in gc.get_objects():
            if isinstance(each, types.FunctionType):
                self._functions[each.__code__.co_filename].append(each)
        gc.freeze()
        self._say({"tests": len(items)})
        for line in self._requests:
            asked = json.loads(line)
            named = (([items[name]] if name in items else by_file.get(name, [])) for name in asked["tests"])
            chosen = list({id(item): item for some in named for item in some}.values())
            edit = Edit(*asked["edit"]) if asked["edit"] else None
            self._say(self._forked(edit, chosen, asked["cpu_s"]) if chosen else None)
        return True

    def _say(self, told: Any) -> None:
        self._replies.write(json.dumps(told) + "\n")
        self._replies.flush()

    def _forked(self, edit: Edit | None, chosen: list[Any], cpu_s: float) -> dict[str, Any] | None:
        with Written(self._checkout, edit) as (old, new), tempfile.TemporaryFile("w+") as failures:
            pid = os.fork()
            if pid == 0:
                status = 70
                try:
                    os.setpgid(0, 0)
                    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
                    made = edit is None or self._make(edit.file, old, new)
                    status = run_items(chosen, failures) if made else NEEDS_FRESH
                finally:
                    os._exit(status)
            code = waited(pid, 60 + 3 * cpu_s)
            failures.seek(0)
            failed = failures.read().split("\n")[:-1]
        if code == NEEDS_FRESH:
            return None
        return {"passed": code == 0 if code in (0, 1) else None, "failed": failed}

    def _make(self, file: str, old: bytes, new: bytes) -> bool:
        """Make a change in the modules of this process; False if more than the code of functions changed."""
        module = "firsthand." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        if module not in sys.modules:
            try:
                importlib.import_module(module)  # from the changed file
            except Exception:
                os._exit(1)  # a test that imports it would fail
            return True
        name = str(self._checkout / "src" / "firsthand" / file)
        before, after = (compile(source, name, "exec", dont_inherit=True) for source in (old, new))
        if not same_outside(before, after):
            return False
        codes = list(zip(code_within(before), code_within(after), strict=False))
        if any(was.co_qualname != now.co_qualname for was, now in codes):
            return False
        changed = {(was.co_qualname, was.co_firstlineno): now for was, now in codes}
        made = False
        for each in self._functions[name]:
            now = changed.get((each.__code__.co_qualname, each.__code__.co_firstlineno))
            if now is not None and len(now.co_freevars) == len(each.__code__.co_freevars):
                each.__code__, made = now, True
        return made


def run_items(chosen: list[Any], failures: Any) -> int:
    """Run collected tests up to the first failure, whose name is written; 1 if one fails."""

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failures.write(report.nodeid + "\n")
                failures.flush()

    chosen[0].config.pluginmanager.register(Watch(), "watch")
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if failures.tell():
            return 1
    return 0


def waited(pid: int, timeout_s: float) -> int | None:
    """The exit status of a child, and nothing of its group is left; None after the time, below 0 after a signal."""
    end = time.monotonic() + timeout_s
    status = None
    while status is None and time.monotonic() < end:
        done, waited_for = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(waited_for) if done else None
        time.sleep(0.0 if done else 0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
    return status


def code_within(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a module, class or function and all code in it, in the order of the source."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from code_within(each)


def same_outside(before: types.CodeType, after: types.CodeType) -> bool:
    """True if two compiled modules differ in the bodies of functions alone, and not in classes, constants or defaults."""
    if before.co_code != after.co_code or before.co_names != after.co_names:
        return False
    if len(before.co_consts) != len(after.co_consts):
        return False
    for was, now in zip(before.co_consts, after.co_consts, strict=True):
        if not isinstance(was, types.CodeType) or not isinstance(now, types.CodeType):
            if repr(was) != repr(now):
                return False
        elif not was.co_flags & NEWLOCALS and not same_outside(was, now):
            return False
    return True


NEWLOCALS = 0x2
"""The flag of code that is a function's and not a class's."""


def serve(checkout: Path) -> None:
    """Collect the tests of a checkout and answer requests on standard input."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open("r+") as nowhere:
        for number in range(3):
            os.dup2(nowhere.fileno(), number)
    plugin = ForksPlugin(checkout, requests, replies)
    pytest.main(["-q", "-n0", "-p", "no:cacheprovider", "-o", "filterwarnings="], plugins=[plugin])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
