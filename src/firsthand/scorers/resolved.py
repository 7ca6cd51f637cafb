"""Scores whether a patch resolves an issue: applies it to the commit, adds the hidden tests, and runs them.

Resolved means that all tests that failed now pass, and all that passed still do (Jimenez et al., 2024), by the record's own
script and the test names in its log. The tests run in the same process as the code under test, so that code can print
anything. Five checks guard against a patch that tests nothing and prints success:

- the log begins after our own setup and ends with the test command, so there are no markers to imitate;
- the worse of two results for a test counts (`patches/test_logs.py`), and a test file that fails to import passes nothing;
- a canary lies among the tests: one test that must pass and one that must fail, under unpredictable names. Skipping tests,
  ending the process early or making everything pass loses one of the two, and the exit status must report a failure;
- where the record tells how many tests the reference patch leaves skipped (`SKIPS`), the runner may not count more of them;
- where no canary can be added (a whole suite, an unknown runner), the exit status must agree with the log: 0 with the
  runner's own count of failures, any other with a failed test in it.

A program that inspects the canary at run time can still deceive, as it can wherever tests run in the process they test.
"""

from __future__ import annotations

import importlib.util
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError, DataError
from firsthand.sandbox.git_repository import commit_alone
from firsthand.sandbox.repository_workspace import ROOT, ContainerPlace, SandboxPlace, Workplace, container_engine
from firsthand.sandbox.sandbox import joined_streams
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.patches.applied_patch import PatchRefused, apply_patch
from firsthand.scorers.patches.hidden_files import ARCHIVE
from firsthand.scorers.patches.patch import find_patch, read_patch
from firsthand.scorers.patches.test_logs import GOOD, Results, failures_told, kept, passed, read_log, skips_told
from firsthand.task import Task
from firsthand.trace import Score, Trace

START, END = ": '>>>>> Start Test Output'", ": '>>>>> End Test Output'"
"""Lines of a record's script that enclose its test command."""
COMMANDS = RunLimits(
    wall_s=120, cpu_s=120, memory_bytes=2 * 2**30, processes=512, open_files=1024, file_bytes=2**28, scratch_bytes=2**28,
    scratch_files=20_000,
)  # fmt: skip
"""Limits on one command of an agent."""


@dataclass(frozen=True)
class TaskWorkplaces:
    """Opens the workplaces in which software tasks are attempted and scored."""

    folder: Path = field(default_factory=Path)
    """Folder that a record's `repo` is relative to."""
    packages: tuple[str, ...] = ()
    """Folders of Python packages that sandboxed commands may import; the default is pytest's own folder."""
    network: bool = False
    """True: containers have a network; the sandbox never has."""
    test_s: float = 1800.0
    """Time limit of one task's tests, in seconds."""
    engine: str = ""
    """Program that runs containers: docker, podman or an absolute path; empty means the first of the two that is found."""

    def __post_init__(self) -> None:
        if self.engine not in ("", "docker", "podman") and not Path(self.engine).is_absolute():
            raise ConfigError(
                f"engine is {self.engine[:80]!r}: give docker, podman, or the absolute path of such a program"
            )

    def ready(self, task: Task) -> None:
        """SandboxError if the task needs a container, and nothing here runs one."""
        if task.metadata.get("image") and not self.engine:
            container_engine()

    async def open(self, task: Task) -> Workplace:
        """Open a workplace at the task's commit: a container of its image if it names one, otherwise the sandbox."""
        image = str(task.metadata.get("image") or "")
        if image:
            place: ContainerPlace | SandboxPlace = ContainerPlace(
                image, network=self.network, limits=self.limits, engine=self.engine
            )
        else:
            base = commit_alone(self.repository(task), str(task.metadata["base_commit"]))
            place = SandboxPlace(base, packages=self.packages or _with_pytest(), limits=COMMANDS)
        try:
            await place.open()
        except BaseException:
            await place.close()
            raise
        return place

    def repository(self, task: Task) -> Path:
        """Return the task's local repository; DataError if there is none."""
        name = str(task.metadata["repo"])
        found = self.folder / Path(name).expanduser()
        if not found.exists():
            raise DataError(
                f"task {task.id} names no image, and its repo {name!r} is not in {str(self.folder)!r}: clone it there"
            )
        return found

    @property
    def limits(self) -> RunLimits:
        """Return the resource limits of the tests."""
        return RunLimits(
            wall_s=self.test_s, cpu_s=self.test_s, memory_bytes=4 * 2**30, processes=512, open_files=1024, file_bytes=2**28,
            scratch_bytes=2**29, scratch_files=50_000, output_bytes=32 * 2**20,
        )  # fmt: skip


@dataclass(frozen=True)
class HiddenTests:
    """The hidden part of a software task: its tests."""

    base_commit: str
    test_patch: str
    eval_script: str
    log_parser: str
    fail_only: bool = False
    reference: str = ""
    """The reference patch, if the record has one: what it makes, another patch may make."""

    @staticmethod
    def of(task: Task) -> HiddenTests:
        """Return a task's tests."""
        secret = task.secret
        kind = str(secret.get("eval_type") or "pass_and_fail")
        patch, script, parser = (str(secret[key]) for key in ("test_patch", "eval_script", "log_parser"))
        return HiddenTests(
            str(task.metadata["base_commit"]),
            patch,
            script,
            parser,
            kind == "fail_only",
            str(secret.get("patch") or ""),
        )


@dataclass(frozen=True)
class TestRun:
    """Result of running the tests."""

    results: Results
    exit_status: int | None
    ended: str
    applied_with: str
    """`git apply`, or the laxer command that accepted the patch where git did not."""
    doubt: str
    """Reason not to trust the log; empty if it is trusted."""
    wall_s: float
    tier: str
    log: str
    machinery: tuple[str, ...] = ()
    """Files of the patch that decide how the tests run."""
    skips: int | None = None
    """Tests that the runner counts as skipped; None if its log tells no counts."""

    __test__ = False


def _with_pytest() -> tuple[str, ...]:
    """Return the folder that pytest is installed in, if it is."""
    found = importlib.util.find_spec("pytest")
    return (str(Path(found.origin).parent.parent),) if found is not None and found.origin else ()


def resolved(places: TaskWorkplaces) -> Scorer:
    """Return the scorer: 1 if the patch, the environment's final diff or the one in the answer, resolves the issue."""

    async def resolved(task: Task, trace: Trace) -> Score:
        state = trace.final_state
        patch = str(state["diff"]) if "diff" in state else find_patch(trace.answer or "")
        if not patch.strip():
            return Score("resolved", 0.0, {"reason": str(state.get("problem") or "there is no patch")})
        try:
            read_patch(patch)
        except DataError as error:
            return Score("resolved", 0.0, {"reason": str(error), "applied": False})
        place = await places.open(task)
        try:
            run = await run_tests(place, patch, HiddenTests.of(task), places.limits)
        except PatchRefused as error:
            return Score("resolved", 0.0, {"reason": str(error), "applied": False})
        finally:
            await place.close()
        return verdict(run, task.secret)

    setattr(resolved, "max_wait_s", None)  # noqa: B010  its tests run for as long as `places` allow
    return resolved


def verdict(run: TestRun, secret: Mapping[str, Any]) -> Score:
    """Score a run of the tests: 1 if all that must pass did, and the log is trusted."""
    fail_only = secret.get("eval_type") == "fail_only"
    to_fix, to_keep = list(secret["FAIL_TO_PASS"]), list(secret["PASS_TO_PASS"])
    xfailed = secret.get("XFAIL")
    unfixed = [name for name in to_fix if not passed(name, run.results, fail_only=fail_only, xfailed=xfailed)]
    broken = [name for name in to_keep if not kept(name, run.results, fail_only=fail_only, xfailed=xfailed)]
    finished = run.ended in ("done", "error")
    skipping = _skips_more(run.skips, secret.get("SKIPS"))
    good = finished and not unfixed and not broken and not run.doubt and not skipping
    detail: dict[str, Any] = {
        "applied": True,
        "applied_with": run.applied_with,
        "fail_to_pass": [len(to_fix) - len(unfixed), len(to_fix)],
        "pass_to_pass": [len(to_keep) - len(broken), len(to_keep)],
        "exit_status": run.exit_status,
        "wall_s": round(run.wall_s, 3),
        "tier": run.tier,
    }
    if not good:
        reasons = {
            f"the tests were ended: {run.ended}": not finished,
            run.doubt: bool(run.doubt),
            skipping: bool(skipping) and finished,
            f"{len(unfixed)} of {len(to_fix)} tests still fail": bool(unfixed),
            f"{len(broken)} of {len(to_keep)} tests are broken": bool(broken),
        }
        detail["reason"] = "; ".join(reason for reason, applies in reasons.items() if applies)
        detail |= {"still_failing": unfixed[:20], "broken": broken[:20], "log_end": run.log[-2000:]}
    unexpected = [name for name in [*to_fix, *to_keep] if run.results.get(name) in ("XFAIL", "SKIPPED")]
    if unexpected and xfailed is None:
        detail["skipped_or_xfailed"] = unexpected[:20]
    if run.machinery:
        detail["changes_test_machinery"] = list(run.machinery)[:20]
    return Score("resolved", float(good), detail)


def _skips_more(skips: int | None, expected: int | None) -> str:
    """Return the reason why a run skips more tests than with the reference patch; "" if it does not, or nobody knows."""
    if expected is None or (skips is not None and skips <= expected):
        return ""
    told = "does not tell how many tests were skipped" if skips is None else f"counts {skips} as skipped"
    return f"the log {told}: at most {expected} were expected, as with the reference patch"


async def run_tests(place: Workplace, patch: str, tests: HiddenTests, limits: RunLimits) -> TestRun:
    """Apply the patch (none if empty) in a workplace at the commit, without what hides the hidden tests, and run these.

    PatchRefused if the patch does not apply; DataError if the test patch does not apply even to the commit itself.
    """
    setup, command = script_parts(tests.eval_script)
    applied = await apply_patch(
        place, patch, base_commit=tests.base_commit, test_patch=tests.test_patch, reference=tests.reference,
        command=command, limits=COMMANDS,
    )  # fmt: skip
    canary = canary_for(command, tests)
    script = "\n".join(
        [
            "exec 3>&1 >/tmp/work/setup.log 2>&1",
            setup,
            "set +eux",
            f"cd {ROOT}",
            'command -v python >/dev/null || python() { python3 "$@"; }',
            'command -v pytest >/dev/null || pytest() { python3 -m pytest "$@"; }',
            *applied.hidden.placing,
            *(canary.placing if canary else []),
            "exec >&3 2>&1 3>&-",
            canary.command if canary else command,
        ]
    )
    files = {"eval.sh": script + "\n", ARCHIVE: applied.hidden.archive}
    files |= {"canary.py": canary.text} if canary else {}
    outcome = await place.shell("exec bash /tmp/work/eval.sh", files=files, limits=limits)
    log = outcome.stdout
    results = read_log(log, tests.log_parser)
    doubt = (
        _doubt(results, outcome.exit_status, canary, tests.fail_only, failures_told(log))
        if outcome.ended in ("done", "error")
        else ""
    )
    if canary is not None:
        results = {name: status for name, status in results.items() if not canary.owns(name)}
    return TestRun(
        results, outcome.exit_status, outcome.ended, applied.how or "nothing", doubt, outcome.wall_s, outcome.tier,
        joined_streams(outcome.stdout, outcome.stderr), applied.machinery, skips_told(log),
    )  # fmt: skip


def script_parts(eval_script: str) -> tuple[str, str]:
    """Split a record's script into setup and test command; DataError if its markers are missing."""
    lines = eval_script.split("\n")
    ends = [at for at, line in enumerate(lines) if line.strip() == END]
    starts = [at for at, line in enumerate(lines[: ends[-1]]) if line.strip() == START] if ends else []
    if not starts or not "".join(lines[starts[-1] + 1 : ends[-1]]).strip():
        raise DataError(f"the eval_script holds no test command between the lines {START} and {END}")
    return "\n".join(lines[: starts[-1]]), "\n".join(lines[starts[-1] + 1 : ends[-1]])


@dataclass(frozen=True)
class Canary:
    """Two tests added to the others: one that must pass, and one that must fail."""

    path: str
    text: str
    command: str
    passing: str
    failing: str

    @property
    def placing(self) -> tuple[str, ...]:
        """Return the commands that install the canary file; a new folder becomes a package."""
        folder, path = (shlex.quote(str(each)) for each in (PurePosixPath(self.path).parent, self.path))
        return (
            f"[ -d {folder} ] || {{ mkdir -p {folder}; : > {folder}/__init__.py; }}",
            f"cp /tmp/work/canary.py {path}",
        )

    def lost(self, results: Results) -> bool:
        """True unless the log reports both tests as expected."""
        ends = {_last_name(name): status for name, status in results.items() if self.owns(name)}
        return ends.get(self.passing) not in GOOD or ends.get(self.failing) not in ("FAILED", "ERROR")

    def owns(self, name: str) -> bool:
        """True if a test of that name is one of the two."""
        return _last_name(name) in (self.passing, self.failing)


def _last_name(name: str) -> str:
    """Return the bare function or method name in a pytest, unittest or sympy test name."""
    return name.partition(" ")[0].rpartition(":")[2]


def canary_for(command: str, tests: HiddenTests) -> Canary | None:
    """Return the canary for a test command, with the extended command; None for a runner that cannot take one."""
    *before, last = command.strip().split("\n")
    try:
        words = shlex.split(last)
    except ValueError:
        return None
    files = [change.after for change in read_patch(tests.test_patch) if change.after and change.after.endswith(".py")]
    runner = _runner(words)
    named = [file for file in files if file in words or file.removesuffix(".py").replace("/", ".") in words]
    mark, passing, failing = (secrets.token_hex(6) for _ in range(3))
    passing, failing = f"test_{passing}", f"test_{failing}"
    functions = f"def {passing}():\n    pass\n\n\ndef {failing}():\n    assert False\n"
    methods = (
        f"import unittest\n\n\nclass Test{mark}(unittest.TestCase):\n    def {passing}(self):\n        pass\n\n"
        f"    def {failing}(self):\n        self.fail()\n"
    )
    apps = {file.split("/")[1] for file in files if file.startswith("tests/")}
    if runner == "django" and words[-1].partition(".")[0] in apps:
        path, added, text = f"tests/z{mark}/tests.py", f"z{mark}", methods
    elif runner in ("pytest", "sympy") and named:
        path = added = str(PurePosixPath(named[0]).with_name(f"test_z{mark}.py"))
        text = functions
    elif runner == "unittest" and files and (named or "discover" in words):
        path, text = str(PurePosixPath((named or files)[0]).with_name(f"test_z{mark}.py")), methods
        by_path = bool(named) and named[0] in words
        added = "" if not named else path if by_path else path.removesuffix(".py").replace("/", ".")
    else:
        return None
    whole = f"{last} {shlex.quote(added)}" if added else last
    return Canary(path, text, "\n".join([*before, whole]), passing, failing)


def _runner(words: Sequence[str]) -> str:
    """Return the test runner that a command calls: pytest, unittest, django, sympy, or "" for another."""
    if any(word in ("pytest", "py.test") for word in words) or (words[:1] == ["tox"] and "--" in words):
        return "pytest"
    if "unittest" in words:
        return "unittest"
    if any(word.endswith("tests/runtests.py") for word in words):
        return "django"
    return "sympy" if "bin/test" in words else ""


def _doubt(
    results: Results,
    exit_status: int | None,
    canary: Canary | None,
    fail_only: bool = False,
    counted: bool | None = None,
) -> str:
    """Return the reason not to trust the log; "" if it is trusted.

    `counted` tells whether the runner counts failures, None if it counts nothing: then any line that looks like one counts.
    """
    if canary is not None and canary.lost(results):
        return "the log cannot be trusted: it does not report the two canary tests as one passed and one failed"
    failed = canary is not None or any(status in ("FAILED", "ERROR") for status in results.values())
    if exit_status == 0 and (canary is not None or (failed if counted is None else counted)):
        return "the log cannot be trusted: the exit status is 0, and a test failed"
    if (results or fail_only) and not failed and exit_status != 0:
        return f"the log cannot be trusted: the exit status is {exit_status}, and it names no failed test"
    return ""
