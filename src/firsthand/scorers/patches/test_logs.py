"""Reads each test's result from a runner's log: pytest, Django's runner and unittest, sympy's `bin/test`.

Test names are SWE-bench's, derived as its harness does: from a pytest line the word after the status, from a Django line the
text before `...`. One thing differs on purpose: if a log gives a test two results, the worse one counts, since a program
under test can print a line that says PASSED, but cannot retract the line that says FAILED.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from firsthand.errors import unknown

Results = dict[str, str]
"""Test -> PASSED, XFAIL, SKIPPED, FAILED or ERROR."""
GOOD = ("PASSED", "XFAIL")
_WORSE = ("PASSED", "XFAIL", "SKIPPED", "ERROR", "FAILED")
_STATUS = "PASSED|FAILED|SKIPPED|ERROR|XFAIL"
_STATUS_FIRST = re.compile(rf"({_STATUS})\s+(\S+)")
_NAME_FIRST = re.compile(rf"(\S+)\s+({_STATUS})(?:\s|$)")
_SUBTEST = re.compile(r"(?:^|\s)SUB(FAIL|FAILED|XFAIL)(?=[\s\[(]|$)")
"""A subtest's result; pytest 9 says PASSED of a unittest method whose subtests fail. Its description is before or behind."""
_PYTEST_NAME = re.compile(r"(?<!\S)\S{1,1000}?\.py::\S+")
_COLOUR = re.compile(r"\x1b?\[\d+(?:;\d+)*m|[\x01-\x08\x0b-\x1f]")
_PYTEST_SUMMARY = re.compile(r"=+ short test summary info =+\s*$")
_METHOD = re.compile(r"\w+ \([\w.]+\)")
_NOT_LOADED = re.compile(r"(\S+) \((?:unittest\.loader\.)?_FailedTest[\w.]*\)|setUp(?:Class|Module) \(([\w.]+)\)")
"""The name by which unittest reports a module that it could not import, or a class or module that it could not set up."""
_SYMPY_FAILED = re.compile(r"^_+ (\S+\.py:\S+) _+$", re.MULTILINE)
_UNITTEST_SUMMARY = re.compile(r"={70}$|Ran \d+ tests? in ")
_PYTEST_COUNTS = re.compile(
    r"(?:=+ )?(?:tests finished: )?((?:\d{1,9} [a-z ]+, )*\d{1,9} [a-z ]+,?|no tests ran) in \d[\d.]* ?s"
)
_UNITTEST_COUNTS = re.compile(r"(?:OK|FAILED|NO TESTS RAN)(?: \(([a-z ]+=.*)\))?$")
_FAILURES = re.compile(r"FAILED|\d (?:subtests )?(?:failed|error|exception)")
_SKIPS = re.compile(r"(\d{1,9}) skipped|skipped=(\d{1,9})")
_DJANGO_ENDS = {"ok": "PASSED", "OK": "PASSED", "FAIL": "FAILED", "ERROR": "ERROR", "expected failure": "XFAIL"}


def read_log(log: str, parser: str) -> Results:
    """Return each test's result, by the named parser: `pytest`, `django`, `unittest`, `sympy`, or SWE-bench's names
    (`parse_log_django` and so on)."""
    name = parser.removeprefix("parse_log_")
    if name not in PARSERS:
        raise unknown("log parser", name, PARSERS, see="python -m pydoc firsthand.scorers.patches.test_logs")
    return PARSERS[name](log)


def _pytest(log: str) -> Results:
    """Parse lines `PASSED file::test` of the summary that `-rA` prints, and `file::test PASSED` of `-v`."""
    found: list[tuple[str, str]] = []
    parts: list[tuple[str, str]] = []
    summary_at = None
    for line in log.split("\n"):
        line = _COLOUR.sub("", line)
        if summary_at is None and _PYTEST_SUMMARY.match(line):
            summary_at = len(found)
        if part := _SUBTEST.search(line):
            status = "XFAIL" if part[1] == "XFAIL" else "FAILED"
            parts += [(name, status) for name in _PYTEST_NAME.findall(line)]
        elif first := _STATUS_FIRST.match(line):
            if not (first[1] == "SKIPPED" and re.match(r"\[\d+\]", first[2])):
                found.append((first[2], first[1]))
        elif second := _NAME_FIRST.match(line):
            found.append((second[1], second[2]))
    broken = {
        name for name, status in found if status == "ERROR" and name.endswith(".py")
    }  # the file could not be imported
    summary = [] if summary_at is None else [each for each in found[summary_at:] if each[1] in ("FAILED", "ERROR")]
    results = _worst([*found, *parts], settled=_is_whole_pytest_name, summary=[*summary, *parts])
    for name in results:
        if name.partition("::")[0] in broken:
            results[name] = "ERROR"
    return results


def _is_whole_pytest_name(name: str) -> bool:
    """True if the name stands for one test only. Parameters with spaces are cut at the space, so it may stand for many."""
    return "::" in name and ("[" not in name or name.endswith("]"))


def _pytest_options(log: str) -> Results:
    """Parse as `_pytest`; a parameter that is a path is known by its last part."""

    def plain(name: str) -> str:
        main, bracket, rest = name.partition("[")
        option, closed, _ = rest.rpartition("]")
        if not (bracket and closed and option.startswith("/")) or option.startswith("//") or "*" in option:
            return name
        return f"{main}[/{option.rsplit('/', 1)[-1]}]"

    return {plain(name): status for name, status in _pytest(log).items()}


def _matplotlib(log: str) -> Results:
    """Parse as `_pytest`, with mouse buttons by number as in the records."""
    return _pytest(log.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3"))


def _unittest(log: str) -> Results:
    """Parse lines `test (module.Class) ... ok` of unittest's and Django's runner; a test's docstring replaces its name."""
    found: list[tuple[str, str]] = []
    summary: list[tuple[str, str]] = []
    late: list[tuple[str, str]] = []
    running, failed, begun, over = None, "", 0, False
    for whole_line in log.split("\n"):
        line = whole_line.strip()
        if "--version is equivalent to version" in line:
            found.append(("--version is equivalent to version", "PASSED"))
        if line.startswith(("FAIL: ", "ERROR: ", "UNEXPECTED SUCCESS: ")):
            failed, test = "ERROR" if line[0] == "E" else "FAILED", line.partition(": ")[2]
            found.append(((test.split() or [""])[0], failed))
            if _NOT_LOADED.fullmatch(test):
                found.append((test, failed))
            if whole := _METHOD.match(test):
                summary.append((whole[0], failed))
            continue
        over = over or _UNITTEST_SUMMARY.match(line) is not None
        if failed:  # below the name of a failed test is its docstring, if it has one
            summary.append((line, failed))
            failed = ""
        name, dots, end = line.partition(" ... ")
        if dots and end.startswith("skipped"):
            found.append((name, "SKIPPED"))
            if whole := _METHOD.match(name):  # `test (module.Class) (i=1)`: a subtest was skipped
                late.append((whole[0], "SKIPPED"))
        name, dots, end = line.rpartition(" ... ")
        if dots and end.strip() in _DJANGO_ENDS:
            if line.startswith("Applying sites.0002_alter_domain_unique..."):
                name = name.split("...", 1)[-1].strip()
            found.append((name, _DJANGO_ENDS[end.strip()]))
            running = name if found[-1][1] in GOOD else None  # a test may print this line and fail after it
            begun = len(late)
        elif dots:
            running, begun = line.split(" ... ")[0], len(late)
        elif running is None:
            continue
        elif end := _late_end(whole_line.rstrip() if over else line, whole=over):  # tracebacks may end like this
            late.append((running, end))
        elif line.endswith("ok") and not over:  # the test went on, so that it was its own text that looked like an end
            del late[begun:]
        if dots or running is None:
            continue
        if line.startswith("ok"):  # it printed something before it passed, or this line itself
            found.append((running, "PASSED"))
        elif line in ("FAIL", "ERROR"):
            found.append((running, _DJANGO_ENDS[line]))
            running = None
    return _worst(found, settled=lambda name: _METHOD.fullmatch(name) is not None, summary=[*summary, *late])


def _sympy(log: str) -> Results:
    """Parse lines `test_name ok`, `test_name F` and `test_name E` of `bin/test --verbose`."""
    sections = _SYMPY_FAILED.findall(log)
    found = [(name, "FAILED") for name in sections]
    ends = {"ok": "PASSED", "F": "FAILED", "E": "ERROR"}
    for line in log.split("\n"):
        words = line.split()
        if words and words[-1] in ("[OK]", "[FAIL]"):  # the file's own verdict, on the line of its last test
            words.pop()
        if len(words) > 1 and words[0].startswith("test_") and words[-1] in ends:
            found.append((words[0], ends[words[-1]]))
    summary = [(name.rpartition(":")[2], "FAILED") for name in sections]
    return _worst(found, settled=lambda name: True, summary=summary)


def _worst(
    found: Iterable[tuple[str, str]], *, settled: Callable[[str], bool], summary: Iterable[tuple[str, str]] = ()
) -> Results:
    """Return the worst of several results per test; the last one for a name that several tests may have.

    A failure in the runner's own summary counts against every name that was found, whatever was printed for it.
    """
    results: Results = {}
    for name, status in found:
        if name in results and settled(name):
            status = max(status, results[name], key=_WORSE.index)
        results[name] = status
    for name, status in summary:
        if name in results:
            results[name] = max(status, results[name], key=_WORSE.index)
    return results


def skips_told(log: str) -> int | None:
    """Return how many tests a runner counts as skipped, in all its runs; None if it tells no counts.

    The lines of single tests may be hidden behind printed ones, or name no test (pytest's `SKIPPED [1] file:line`). A
    program can print more counts, but cannot retract the runner's.
    """
    skips = [sum(int(one or other) for one, other in _SKIPS.findall(counts)) for counts in _counts(log)]
    return sum(skips) if skips else None


def failures_told(log: str) -> bool | None:
    """Return whether a runner counts failures or errors in its last run; None if it tells no counts.

    A passing test may print or log lines that look like the failure of a test, and counts of a run of its own.
    """
    *_, last = [None, *_counts(log)]
    return None if last is None else _FAILURES.search(last) is not None


def _counts(log: str) -> Iterator[str]:
    """Yield each line in which a runner counts the tests of a run, without colours and what stands around it."""
    for line in log.split("\n"):
        line = _COLOUR.sub("", line).strip()
        if ends := _PYTEST_COUNTS.match(line) or _UNITTEST_COUNTS.match(line):
            yield ends[0]


PARSERS: Mapping[str, Callable[[str], Results]] = {
    **dict.fromkeys(("pytest", "astropy", "flask", "scikit", "seaborn", "sphinx", "xarray"), _pytest),
    **dict.fromkeys(("requests", "pylint"), _pytest_options),
    "matplotlib": _matplotlib,
    "django": _unittest,
    "unittest": _unittest,
    "sympy": _sympy,
}
"""Parsers of SWE-bench's 12 repositories, and those for the user's own records."""


def passed(test: str, results: Results, *, fail_only: bool = False, xfailed: Collection[str] | None = None) -> bool:
    """Return whether a test that must pass did. With `fail_only`, a log lists failures alone, and no entry is a pass.

    `xfailed` are the tests that the reference patch leaves as expected failures, where a record tells them: of others, an
    expected failure is none that was expected.
    """
    if fail_only:
        return results.get(test) not in ("FAILED", "ERROR") and not _was_not_loaded(test, results)
    status = results.get(test)
    return status in GOOD and (status != "XFAIL" or xfailed is None or test in xfailed)


def kept(test: str, results: Results, *, fail_only: bool = False, xfailed: Collection[str] | None = None) -> bool:
    """Return whether a test that passed before still does; a skipped test counts as kept, as in SWE-bench's harness.

    Where a record tells its expected failures, all others have passed with its reference patch, so that none is skipped.
    """
    if passed(test, results, fail_only=fail_only, xfailed=xfailed):
        return True
    return results.get(test) == "SKIPPED" and xfailed is None


def _was_not_loaded(test: str, results: Results) -> bool:
    """Return whether the log says that a test's file, module or class could not be loaded or set up."""
    _, bracket, place = test.rstrip(")").partition(" (")
    for name, status in results.items():
        if status != "ERROR":
            continue
        if name.endswith(".py") and test.startswith(f"{name}::"):
            return True
        broken = _NOT_LOADED.fullmatch(name)
        if broken is None:
            continue
        module = broken[1] or broken[2]
        # unittest names a module by its last part alone if it was given by name; a test's docstring tells no module
        if not bracket or f".{module}." in f".{place}.":
            return True
    return False


def _late_end(line: str, *, whole: bool) -> str:
    """The status of an end that unittest writes if the test has printed something, or "".

    It stands on a line of its own (`whole`), or behind a program's text.
    """
    for quote in "'\"":
        begun = line.find(f"skipped {quote}")
        if (begun == 0 if whole else begun >= 0) and line.endswith(quote) and len(line) > begun + len("skipped '"):
            return "SKIPPED"
    for said, status in (("unexpected success", "FAILED"), ("expected failure", "XFAIL")):
        if line == said if whole else line.endswith(said):
            return status
    return ""
