"""Your own software tasks: records in SWE-bench's format over local repositories, and `from_commit`, which makes a record.

`from_commit` takes a commit's changes to test files as the hidden tests and the rest as the reference patch. It runs the
tests before and after the patch, in the sandbox, to find which go from failing to passing and which must keep passing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.swe.swe_tasks import (
    SweProtocol,
    check,
    default_command,
    make_script,
    read_records,
    swe_benchmark,
)
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.sandbox.git_repository import commit_alone, expect_ordinary_files, git
from firsthand.scorers.patches.applied_patch import TEST_FOLDERS
from firsthand.scorers.patches.test_logs import GOOD
from firsthand.scorers.resolved import HiddenTests, TaskWorkplaces, TestRun, run_tests
from firsthand.system import interruption
from firsthand.system.given_data import held
from firsthand.task import Task

PROTOCOLS = {
    "agent": SweProtocol("none: your own tasks, for an agent that works in the repository"),
    "oracle": SweProtocol("none: your own tasks; the prompt shows the files that the reference patch changes"),
}
_TEST_NAME = re.compile(r"test_.*\.py|.*_tests?\.py|tests?\.py|conftest\.py")


def swe_records(
    *,
    protocol: str = "",
    data: str = "",
    repos: str = "",
    packages: tuple[str, ...] = (),
    network: bool = False,
    test_s: float = 1800.0,
    engine: str = "",
) -> Benchmark:
    """Return the benchmark over the records in the file `data` (.jsonl, .json or .parquet), or a folder's only such file.

    A record's `repo` is a repository or bundle relative to the file, or to `repos`. Tests run in the sandbox and import from
    `packages` (folders such as a site-packages), or in a container if a record names an `image`.
    """
    path = _only_file(data)
    records = read_records(path, path.name)
    places = TaskWorkplaces(
        folder=Path(repos).expanduser() if repos else records.folder,
        packages=tuple(str(Path(each).expanduser().resolve()) for each in packages),
        network=network,
        test_s=test_s,
        engine=engine,
    )
    description = "Your own software tasks, in SWE-bench's format."
    licence = "that of the repositories"
    return swe_benchmark(
        "swe_records", records, protocol=protocol, description=description, places=places, licence=licence
    )


def from_commit(
    repo: str | Path,
    commit: str,
    *,
    problem: str = "",
    test_cmd: str = "",
    log_parser: str = "pytest",
    packages: Sequence[str] = (),
    repeats: int = 2,
    test_s: float = 600.0,
) -> Json:
    """Return the record of a commit that fixes something and tests it: a row for a JSONL file.

    Args:
        repo: The repository.
        commit: The commit, with one parent.
        problem: The issue's text; empty means the commit's message (check that it does not give the answer away).
        test_cmd: One line that runs the changed tests; empty means pytest over those files.
        log_parser: The parser of its output.
        packages: Folders of Python packages that the tests may import.
        repeats: Times the tests are run; a test whose results differ is left out.
        test_s: Time limit of one run, in seconds.

    Raises:
        DataError: If the commit has no tests, changes nothing else, or makes no failing test pass.
    """
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}: give 1 or more")
    path = Path(repo).expanduser().resolve()
    expect_ordinary_files(path)
    digest = _full_hash(path, commit)
    with tempfile.TemporaryDirectory(prefix="firsthand-") as folder:
        parent, message, patch, test_patch = _split(path, digest, Path(folder, "pair"))
    command = test_cmd or default_command(test_patch)
    row: Json = {
        "instance_id": f"{re.sub(r'[^A-Za-z0-9]+', '-', path.stem).strip('-') or 'repo'}-{digest[:12]}",
        "repo": str(path),
        "base_commit": parent,
        "problem_statement": problem or message,
        "patch": patch,
        "test_patch": test_patch,
        "eval_script": make_script(command, parent, test_patch),
        "log_parser": log_parser,
        "eval_type": "pass_and_fail",
    }
    places = TaskWorkplaces(folder=Path("/"), packages=tuple(packages), test_s=test_s)
    sorted_tests = interruption.run(_sort_tests(row, places, repeats))
    return check(row | sorted_tests, f"commit {digest[:12]}") | {"test_cmd": command}


async def _sort_tests(row: Json, places: TaskWorkplaces, repeats: int) -> Json:
    """Return the record's fields on tests: which the patch makes pass, which pass with and without it, which are expected
    failures, and how many are skipped, if every log tells it."""
    task = Task("record", "", metadata={key: row[key] for key in ("repo", "base_commit")}, secret=row)

    async def results(patch: str) -> list[TestRun]:
        runs = []
        for _ in range(repeats):
            place = await places.open(task)
            try:
                runs.append(await run_tests(place, patch, HiddenTests.of(task), places.limits))
            finally:
                await place.close()
        return runs

    before, after = await results(""), await results(row["patch"])
    last = after[-1]
    if last.ended not in ("done", "error") or last.doubt:
        raise DataError(
            f"the tests with the reference patch give no result: {last.doubt or last.ended}; the log ends "
            f"{last.log[-500:]!r}"
        )
    passing = [name for name in last.results if all(run.results.get(name) in GOOD for run in after)]
    steady = [name for name in passing if len({run.results.get(name) in GOOD for run in before}) == 1]
    to_fix = [name for name in steady if before[0].results.get(name) not in GOOD]
    if not to_fix:
        raise DataError(
            f"no test fails before the patch and passes after it ({len(passing)} pass): does the command run the tests that "
            f"the commit changes? The log ends {last.log[-500:]!r}"
        )
    xfailed = [name for name in steady if any(run.results.get(name) == "XFAIL" for run in after)]
    skips = [run.skips for run in after if run.skips is not None]
    told = {"SKIPS": max(skips)} if len(skips) == len(after) else {}
    to_keep = [name for name in steady if name not in to_fix]
    return {"FAIL_TO_PASS": to_fix, "PASS_TO_PASS": to_keep, "XFAIL": xfailed, **told}


def is_test(path: str) -> bool:
    """Return whether a file belongs to the tests, by its name or a folder in its path."""
    *folders, name = PurePosixPath(path).parts
    return any(folder in TEST_FOLDERS for folder in folders) or _TEST_NAME.fullmatch(name) is not None


def _split(path: Path, digest: str, pair: Path) -> tuple[str, str, str, str]:
    """Return a commit's parent, its message, and its patch in two parts: without the tests, and the tests."""
    commit_alone(path, digest)  # raises clear errors: no repository, no such commit
    git("init", "--quiet", "--bare", "--template=", str(pair))
    source = path
    if path.is_file():
        source = pair.with_name("whole")
        git("init", "--quiet", "--bare", "--template=", str(source))
        git("fetch", "--quiet", "--no-tags", str(path), "+refs/*:refs/bundled/*", folder=source)
    git("fetch", "--quiet", "--depth=2", "--no-tags", source.as_uri(), digest, folder=pair, watched=pair)
    parents = git("log", "-1", "--format=%P", digest, folder=pair).decode().split()
    if len(parents) != 1:
        raise DataError(f"the commit {digest[:12]} has {len(parents)} parents: give a commit with one parent")
    message = git("log", "-1", "--format=%B", digest, folder=pair).decode("utf-8", "replace").strip()
    names = git("diff", "--name-only", "-z", "--no-renames", parents[0], digest, folder=pair).decode("utf-8", "replace")
    changed = [name for name in names.split("\0") if name]
    tests, rest = [name for name in changed if is_test(name)], [name for name in changed if not is_test(name)]
    if not tests or not rest:
        what = "no test" if not tests else "nothing but tests"
        raise DataError(f"the commit {digest[:12]} changes {what}: a fix together with its tests was expected")
    words = ("diff", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", parents[0], digest, "--")

    def patch_of(part: list[str]) -> str:
        names = [f":(literal){name}" for name in part]
        return git(*words, *names, folder=pair).decode("utf-8", "replace")

    return parents[0], message, patch_of(rest), patch_of(tests)


def _full_hash(path: Path, commit: str) -> str:
    """Return the full hash of a commit name in the user's repository."""
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        return commit
    if not path.is_dir() or not re.fullmatch(r"[\w./~^@-]{1,200}", commit) or commit.startswith("-"):
        raise DataError(f"the commit is {commit[:80]!r}: give all 40 digits of its hash, or a name in a working copy")
    folder = path / ".git" if (path / ".git").exists() else path
    return (
        git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}", folder=folder)
        .decode()
        .strip()
    )


def _only_file(data: str) -> Path:
    """Return the file, or a folder's only file of records."""
    if not data:
        raise ConfigError("swe_records needs data=FILE: a .jsonl or .parquet file in SWE-bench's format")
    path = Path(data).expanduser()
    if path.is_file():
        return path
    found = sorted(each for each in path.glob("*") if each.suffix in (".jsonl", ".parquet", ".json"))
    if len(found) != 1:
        raise DataError(f"data is {data!r}, which holds {len(found)} files of records: name one")
    return held(found[0], path)
