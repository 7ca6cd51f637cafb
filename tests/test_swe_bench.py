"""Software tasks, whole: real git, real tests in the sandbox, a scripted agent, `firsthand run`, and patches that cheat."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import swe_local
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.swe.parquet_rows import parquet_rows
from firsthand.context import Context
from firsthand.errors import ConfigError, DataError, MissingExtra, SandboxError, UnknownName
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.store import open_run
from firsthand.scorers.resolved import HiddenTests, TaskWorkplaces, canary_for, script_parts
from firsthand.task import Task
from firsthand.trace import Score, Trace
from namespaces import WHY_NOT
from run_process import held, start
from swe_local import FULL_NAME, GOOD, HEAD, adds, make_record, write

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
DATA = Path(os.environ.get("FIRSTHAND_DATA", "/work/shared/data"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a record, and a home of its own."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    write(tmp_path, make_record(tmp_path))
    return tmp_path


async def answering(task: Task, ctx: Context, *, text: str = "") -> str:
    return text


def judged(folder: Path, patch: str, **changes: Any) -> Score:
    """The score of a patch that is given as an answer."""
    benchmark = replace(catalog.benchmark(f"swe_records:data={folder / 'tasks.jsonl'}"), environment=None)
    trace = attempted(benchmark, answering, text=patch, **changes)
    assert trace.error is None
    return trace.scores[0]


def attempted(benchmark: Benchmark, pattern: Callable[..., Any], **options: Any) -> Trace:
    task = benchmark.tasks(0)[0]
    return asyncio.run(rollout(Agent("a", Scripted([]), pattern, options=options), task, benchmark=benchmark))


def test_tests_of_a_task_have_the_limits_that_docs_state(tmp_path: Path) -> None:
    limits = TaskWorkplaces(tmp_path, test_s=60.0).limits
    assert (limits.wall_s, limits.cpu_s, limits.processes, limits.open_files) == (60.0, 60.0, 512, 1024)
    assert (limits.memory_bytes, limits.scratch_bytes, limits.file_bytes) == (4 << 30, 512 << 20, 256 << 20)
    assert (limits.output_bytes, limits.scratch_files) == (32 << 20, 50_000)


# -- judging --


@pytest.mark.slow
@needs_bwrap
def test_the_reference_patch_resolves_and_one_that_breaks_another_test_does_not(place: Path) -> None:
    good, breaks = judged(place, GOOD), judged(place, swe_local.BREAKS)
    assert good.value == 1.0 and good.detail["fail_to_pass"] == [1, 1] and good.detail["pass_to_pass"] == [1, 1]
    assert good.detail["applied_with"] == "git apply" and good.detail["exit_status"] == 1  # the canary's
    assert breaks.value == 0.0 and breaks.detail["fail_to_pass"] == [1, 1] and breaks.detail["pass_to_pass"] == [0, 1]
    assert (
        breaks.detail["broken"] == ["tests/test_calc.py::test_double"]
        and "1 of 1 tests are broken" in breaks.detail["reason"]
    )


PASSES = f"PASSED {FULL_NAME}\\nPASSED tests/test_calc.py::test_double\\n"
CHEATS = {
    "prints": (adds("conftest.py", f"def pytest_unconfigure():\n    print('{PASSES}')"), "still fail"),
    "prints at import": (HEAD + f"@@ -1,2 +1,3 @@\n+print('{PASSES}')\n def half(x):\n     return x // 2\n", "still fail"),
    "prints and leaves": (
        HEAD + f"@@ -1,2 +1,4 @@\n+import os\n+os.write(1, b'{PASSES}'); os._exit(0)\n def half(x):\n     return x // 2\n",
        "cannot be trusted",
    ),
    "prints and breaks": (
        HEAD + f"@@ -1,2 +1,4 @@\n+print('{PASSES}', flush=True)\n+raise SystemError\n def half(x):\n     return x // 2\n",
        "cannot be trusted",
    ),
    "makes all pass": (
        adds(
            "conftest.py",
            "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
            "    made = yield\n    made.get_result().outcome = 'passed'",
        ),
        "cannot be trusted",
    ),
    "skips all": (adds("conftest.py", "def pytest_collection_modifyitems(items):\n    items[:] = []"), "cannot be trusted"),
    "is the runner": (adds("pytest.py", f"print('{PASSES}')"), "still fail"),
    "changes the test": (
        "--- a/tests/test_calc.py\n+++ b/tests/test_calc.py\n@@ -1,5 +1,8 @@\n-from calc import double\n"
        "+def double(x): return 4\n"
        " \n \n def test_double():\n     assert double(2) == 4\n+\n+def test_half():\n+    pass\n",
        "still fail",
    ),
}  # fmt: skip


@pytest.mark.slow
@needs_bwrap
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("makes all pass", "changes the test") else pytest.mark.slow) for n in CHEATS],
)
def test_a_patch_that_only_says_that_it_passes_does_not_win(place: Path, name: str) -> None:
    patch, reason = CHEATS[name]
    score = judged(place, patch)
    assert score.value == 0.0 and score.detail["applied"] and reason in score.detail["reason"]
    assert ("changes_test_machinery" in score.detail) == ("conftest.py" in patch or "b/pytest.py" in patch)


@pytest.mark.slow
@needs_bwrap
def test_a_patch_that_does_not_apply_or_is_hostile_scores_zero_with_its_reason(place: Path) -> None:
    for patch, reason in (
        ("", "no patch"),
        (GOOD.replace("return x // 2", "return y // 2"), "does not apply"),
        (adds("../out.py", "x"), "leads out"),
        (adds("tests", "x"), "does not apply|in the way"),
    ):
        score = judged(place, patch)
        assert score.value == 0.0 and re.search(reason, score.detail["reason"]), score.detail


@needs_bwrap
@pytest.mark.slow
def test_tests_that_hang_or_flood_are_ended(place: Path) -> None:
    hangs = HEAD + "@@ -1,2 +1,3 @@\n+while True: pass\n def half(x):\n     return x // 2\n"
    floods = hangs.replace("while True: pass", "while True: __import__('os').write(2, b'x' * 100000)")
    record = json.loads((place / "tasks.jsonl").read_text())
    write(place, {**record, "test_cmd": swe_local.COMMAND + " --capture=no"})
    for patch, ended in ((hangs, "timeout"), (floods, "output")):
        benchmark = catalog.benchmark(f"swe_records:data={place / 'tasks.jsonl'}:test-s=4")
        trace = attempted(replace(benchmark, environment=None), answering, text=patch)
        assert trace.scores[0].value == 0.0 and f"the tests were ended: {ended}" in trace.scores[0].detail["reason"]


@needs_bwrap
@pytest.mark.slow
def test_unittest_is_understood_and_has_a_canary_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    tests = "import unittest, calc\n\nclass T(unittest.TestCase):\n    def test_half(self):\n"
    tests += "        self.assertEqual(calc.half(3), 1.5)"
    for command, name in (
        ("python -m unittest -v tests.test_unit", "test_half (tests.test_unit.T.test_half)"),
        ("python -m unittest -v tests/test_unit.py", "test_half (tests.test_unit.T.test_half)"),
        ("python -m unittest discover -v -s tests -t .", "test_half (tests.test_unit.T.test_half)"),
    ):
        folder = tmp_path / str(len(command))
        record = make_record(folder, test_cmd=command, log_parser="unittest", FAIL_TO_PASS=[name], PASS_TO_PASS=[])
        write(folder, {**record, "test_patch": adds("tests/__init__.py", "#") + adds("tests/test_unit.py", tests)})
        assert judged(folder, GOOD).value == 1.0
        hides = adds("unittest.py", f"print('{name} ... ok')")
        hidden = judged(folder, hides)
        assert hidden.value == 0.0 and hidden.detail["changes_test_machinery"] == ["unittest.py"], "it is removed"


@pytest.mark.slow
@needs_bwrap
def test_a_test_patch_that_does_not_fit_is_an_error_and_no_zero(place: Path) -> None:
    record = json.loads((place / "tasks.jsonl").read_text())
    write(
        place,
        {**record, "test_patch": record["test_patch"].replace("from calc import double", "from cold import double")},
    )
    score = judged(place, GOOD)
    assert "test patch does not apply to the commit" in (score.failure or "")


# -- working in the repository --


@pytest.mark.slow
@needs_bwrap
def test_an_agents_tools_work_on_a_copy_of_one_commit_and_the_diff_is_what_it_leaves(place: Path) -> None:
    said: dict[str, str] = {}

    async def working(task: Task, ctx: Context) -> str:
        async def call(name: str, **arguments: str) -> str:
            result = await ctx.call(ToolCall("1", name, arguments))
            said[f"{name} {list(arguments.values())[:1]}"] = result.content
            return result.content

        assert task.secret == {} and "half(3) gives 1" in task.prompt and GOOD not in str(task)
        assert (await call("shell", command="git log --all --format=%s; cat tests/test_calc.py")).count("\n") == 5
        assert "2\t    return x // 2" in await call("view", path="calc/__init__.py")
        assert await call("view", path=".") == ".git/\ncalc/\ntests/"
        assert "not inside" in await call("view", path="../etc/passwd")
        assert "occurs 0 times" in await call("edit", path="calc/__init__.py", old="x /// 2", new="")
        assert "has been edited" in await call("edit", path="calc/__init__.py", old="x // 2", new="x / 2")
        assert "written: 6" in await call("create", path="new/ü.py", text="x = 1\n")
        assert "there already" in await call("create", path="new/ü.py", text="")
        assert "[exit status 3]" in await call("shell", command="exit 3")
        assert len(await call("shell", command="head -c 500000 /dev/zero | tr '\\0' x")) < 9000
        # what a hostile agent leaves: links, binary files, a nested repository, and a .git that runs things
        await call("shell", command="ln -s /etc/passwd link; head -c 99 /dev/zero > data.bin; git init -q inner; "
                   "(cd inner; git -c user.name=a -c user.email=b commit -q --allow-empty -m x); "
                   "printf '#!/bin/sh\\ntouch /testbed/RAN\\n' > .git/m; chmod +x .git/m; git config core.fsmonitor .git/m; "
                   "echo '*.py filter=x' > .gitattributes; git config filter.x.clean 'touch /testbed/RAN'")  # fmt: skip
        assert await call("submit") == (
            "submitted: 3 files changed; left out: data.bin (binary), inner (no ordinary file), link (no ordinary file). "
            "Give your final answer now."
        )
        assert "has been submitted" in await call("shell", command="rm -rf .")
        return "done"

    trace = attempted(catalog.benchmark(f"swe_records:data={place / 'tasks.jsonl'}"), working)
    assert trace.error is None, said
    assert trace.scores[0].value == 1.0 and trace.final_state["submitted"] is True
    diff = trace.final_state["diff"]
    assert "+    return x / 2" in diff and "+++ b/new/ü.py" in diff and "RAN" not in diff and "Subproject" not in diff


@needs_bwrap
@pytest.mark.slow
def test_an_agent_that_ruins_its_copy_or_fills_it_loses_only_its_own_attempt(place: Path) -> None:
    async def ruining(task: Task, ctx: Context, *, command: str) -> str:
        return (await ctx.call(ToolCall("1", "shell", {"command": command}))).content

    benchmark = catalog.benchmark(f"swe_records:data={place / 'tasks.jsonl'}")
    emptied = attempted(benchmark, ruining, command="rm -rf .git * .??*")
    assert (
        emptied.error is None and "deleted file mode" in emptied.final_state["diff"] and emptied.scores[0].value == 0.0
    )
    filled = attempted(benchmark, ruining, command="python3 -c 'i = 0\nwhile 1: open(str(i), \"w\"); i += 1'")
    assert filled.error is None and "too many files" in (filled.answer or "")
    closed = attempted(
        benchmark, ruining, command="chmod 000 calc; rm .git/HEAD; chmod 000 /testbed || chmod 000 tests"
    )
    assert closed.error is None and closed.scores[0].value == 0.0
    hung = attempted(benchmark, ruining, command="kill -9 -1; setsid sleep 1000 & echo there")
    assert hung.error is None and "there" in (hung.answer or "")


# -- through the command --

SCRIPT = {
    "gives 1": {
        "tool_calls": [{"name": "edit", "arguments": {"path": "calc/__init__.py", "old": "x // 2", "new": "x / 2"}}]
    },
    "has been edited": {
        "tool_calls": [{"name": "shell", "arguments": {"command": "sleep 0.3; date +%N; echo tested"}}]
    },
    "tested": {"tool_calls": [{"name": "submit", "arguments": {}}]},
    "submitted:": "The answer is done.",
}


@needs_bwrap
@pytest.mark.slow
def test_a_run_that_is_killed_is_resumed_with_the_same_conversation(place: Path) -> None:
    (place / "script.json").write_text(json.dumps(SCRIPT))
    words = [
        "swe_records:data=tasks.jsonl",
        "--model",
        "scripted:script.json",
        "--pattern",
        "react:native=true:max-steps=6",
    ]
    first = start(place, *words)
    began = time.monotonic()
    while held(place, "effects") < 4:  # two replies, the edit, and the shell's result: its time is in the conversation
        assert first.poll() is None and time.monotonic() - began < 60
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = start(place, "--resume")
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, "")
    with open_run("last", place / "home") as found:
        (trace,) = found.traces()
        shown = [call for call in trace.calls if call.kind == "tool"]
        asked = found.database.read("SELECT request, count(*) FROM effects GROUP BY effect, request")
    assert trace.scores[0].value == 1.0 and trace.final_state["submitted"] and trace.answer == "done"
    assert shown[0].replayed and [call.detail["name"] for call in shown] == ["edit", "shell", "submit"]
    assert len(asked) == 7 and all(count == 1 for _, count in asked)  # no reply was asked for twice
    assert "1.0" in out


# -- records --


def test_a_task_hides_what_judges_it_and_shows_the_rest(place: Path) -> None:
    task = catalog.benchmark(f"swe_records:data={place}").tasks(0)[0]
    assert set(task.secret) == {
        "patch",
        "test_patch",
        "FAIL_TO_PASS",
        "PASS_TO_PASS",
        "eval_script",
        "log_parser",
        "eval_type",
    }
    assert task.secret["FAIL_TO_PASS"] == [FULL_NAME] and set(task.metadata) == {
        "repo",
        "base_commit",
        "image",
        "cluster",
    }
    assert "test_half" not in str(task.public())


def test_the_oracle_protocol_shows_the_files_that_the_reference_patch_changes(place: Path) -> None:
    benchmark = catalog.benchmark(f"swe_records@oracle:data={place}")
    task = benchmark.tasks(0)[0]
    assert benchmark.environment is None and benchmark.name == "swe_records@oracle"
    assert (
        "[start of calc/__init__.py]\n1 def half(x):\n2     return x // 2\n" in task.prompt
        and "test_half" not in task.prompt
    )
    write(place, {**make_record(place / "again"), "repo": "nowhere/else"})
    with pytest.raises(DataError, match="needs the files of nowhere/else: give repos=FOLDER"):
        catalog.benchmark(f"swe_records@oracle:data={place}")


WRONG = {
    "no id": ({"instance_id": None}, "the field 'instance_id'"),
    "an id that is a path": ({"instance_id": "../x"}, "has characters besides"),
    "a branch for a commit": ({"base_commit": "main"}, "all 40 digits"),
    "names that are no list": ({"FAIL_TO_PASS": "test_x"}, "FAIL_TO_PASS must be a list"),
    "deep names": ({"PASS_TO_PASS": "[" * 100_000}, "PASS_TO_PASS must be a list"),
    "nothing to fix": ({"FAIL_TO_PASS": "[]"}, "nothing to resolve"),
    "a test patch that is none": ({"test_patch": "hello"}, "test_patch: the patch names no file"),
    "a link in the patch": ({"patch": "diff --git a/l b/l\nnew file mode 120000\n"}, "patch: .*symbolic link"),
    "a parser there is not": ({"log_parser": "parse_log_cobol"}, "log_parser is 'parse_log_cobol'"),
    "a script without marks": ({"eval_script": "pytest\n"}, "no test command between"),
    "an old record": ({"environment_setup_commit": "x", "test_cmd": None}, "use the records of SWE-bench 5"),
    "two commands": ({"test_cmd": "a\nb"}, "one line was expected"),
    "another type": ({"eval_type": "maybe"}, "eval_type is 'maybe'"),
    "an image that is a number": ({"image": 3}, "'image' holds '3'"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_named_with_its_line(place: Path, name: str) -> None:
    changes, reason = WRONG[name]
    record = json.loads((place / "tasks.jsonl").read_text())
    write(place, record, {**record, "instance_id": "calc-2", **changes})
    with pytest.raises(DataError, match=rf"(?s)tasks\.jsonl, line 2: .*{reason}"):
        catalog.benchmark(f"swe_records:data={place}")


def test_files_that_hold_no_records_are_errors(place: Path) -> None:
    record = (place / "tasks.jsonl").read_text()
    (place / "tasks.jsonl").write_text(record + record)
    with pytest.raises(DataError, match=r"line 2: the instance_id 'calc-1' came before, at .*line 1"):
        catalog.benchmark(f"swe_records:data={place}")
    (place / "tasks.jsonl").write_text(record[:-30])
    with pytest.raises(DataError, match="is the file cut short"):
        catalog.benchmark(f"swe_records:data={place}")
    (place / "other.jsonl").write_text(record)
    with pytest.raises(DataError, match="holds 2 files of records: name one"):
        catalog.benchmark(f"swe_records:data={place}")
    with pytest.raises(ConfigError, match="needs data=FILE"):
        catalog.benchmark("swe_records")
    with pytest.raises(UnknownName, match="did you mean 'oracle'"):
        catalog.benchmark(f"swe_records@oracl:data={place / 'other.jsonl'}")


@pytest.mark.slow
def test_parquet_needs_pyarrow_and_a_whole_file(place: Path) -> None:
    (place / "tasks.parquet").write_bytes(b"PAR1 and no more")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(MissingExtra, match=r"pip install 'firsthand\[swe\]'"):
            catalog.benchmark(f"swe_records:data={place / 'tasks.parquet'}")
        return
    with pytest.raises(DataError, match="not a complete Parquet file"):
        catalog.benchmark(f"swe_records:data={place / 'tasks.parquet'}")
    rows = [{"instance_id": f"i{number}", "XFAIL": [f"t{number}"]} for number in range(19)]  # more than two batches
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), place / "rows.parquet")
    found = parquet_rows((place / "rows.parquet").read_bytes(), place / "rows.parquet")
    assert [row.columns for row in found] == rows
    assert [row.where for row in found] == [f"{place / 'rows.parquet'}, row {number}" for number in range(1, 20)]
    text = pyarrow.array(["y" * 2000] * 150_000)  # stored once, and 300 MB in rows
    pyarrow.parquet.write_table(pyarrow.table({"instance_id": text}), place / "tasks.parquet")
    assert (place / "tasks.parquet").stat().st_size < 200_000
    with pytest.raises(DataError, match="unpacks to more than 256 MiB"):
        catalog.benchmark(f"swe_records:data={place / 'tasks.parquet'}")


def test_a_repository_that_is_not_there_and_an_image_without_docker_are_told(place: Path) -> None:
    record = json.loads((place / "tasks.jsonl").read_text())
    for changes, error, reason in (
        ({"repo": "elsewhere"}, DataError, "its repo 'elsewhere' is not in"),
        ({"image": "x/y:latest"}, SandboxError, r"does not start|neither docker nor podman"),
    ):
        write(place, {**record, **changes})
        benchmark = catalog.benchmark(f"swe_records:data={place / 'tasks.jsonl'}:engine=/no/such/docker")
        with pytest.raises(error, match=reason):
            asyncio.run(TaskWorkplaces(folder=place, engine="/no/such/docker").open(benchmark.tasks(0)[0]))


def test_a_canary_is_put_only_where_the_runner_takes_it() -> None:
    tests = HiddenTests("0" * 40, adds("tests/test_calc.py", "x"), "", "pytest")
    for command, added in (
        ("pytest -rA tests/test_calc.py", True),
        ("X=1 python -m pytest -rA tests/test_calc.py", True),
        ("tox --current-env -epy39 -v -- tests/test_calc.py", True),
        ("python -m unittest -v tests.test_calc", True),
        ("bin/test -C --verbose tests/test_calc.py", True),
        ("./tests/runtests.py --verbosity 2 calc", False),
        ("pytest -rA", False),
        ("pytest 'unfinished", False),
    ):
        canary = canary_for(command, tests)
        assert (canary is not None) == added, command
        assert canary is None or (canary.path.startswith("tests/test_z") and canary.command.startswith(command))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("swe_bench_verified", 500), ("swe_bench_lite", 300)])
def test_the_official_records_are_read_whole(name: str, count: int) -> None:
    pytest.importorskip("pyarrow")
    if not (DATA / "swe").is_dir():
        pytest.skip("the data is not here")
    tasks = catalog.benchmark(f"{name}:data={DATA}").tasks(0)
    assert len(tasks) == count and all(task.metadata["image"].startswith("swebench/") for task in tasks)
    without = []
    for task in tasks:
        _, command = script_parts(task.secret["eval_script"])
        assert command.strip() and not task.public().secret
        if canary_for(command, HiddenTests.of(task)) is None:
            without.append(task.id)
    assert len(without) < count // 50, without


def test_a_canary_of_djangos_is_a_package_of_its_own() -> None:
    tests = HiddenTests("0" * 40, adds("tests/shop/tests.py", "x"), "", "django")
    canary = canary_for("./tests/runtests.py --verbosity 2 --settings=test_sqlite shop.tests", tests)
    assert canary is not None and canary.path.startswith("tests/z") and canary.path.endswith("/tests.py")
    assert canary.command.endswith(f" {canary.path.split('/')[1]}") and "__init__" in canary.placing[0]
    assert (
        canary_for("./tests/runtests.py --verbosity 2 --parallel 1", tests) is None
    )  # the whole suite: it would be one
