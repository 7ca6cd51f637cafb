"""A user's own files that change between two parts of one run, or between two scorings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.own_files import files_of, own_files, version_of
from firsthand.experiment.settings import RunSettings
from firsthand.runs import store
from firsthand.trace import Score

Cli = Callable[..., tuple[int, str, str]]

BENCHMARK = """
from firsthand import Benchmark, Task
from helper import right
def sc(task, trace):
    return right(trace)
def bm():
    return Benchmark("bm", lambda seed: [Task(f"t{i}", f"q{i}") for i in range(2)], scorers=(sc,))
"""
PATTERN = """
from pathlib import Path
async def pat(task, ctx):
    if task.id == "t1" and Path("broken").exists():
        raise ValueError("broken")
    return "A"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("bm.py").write_text(BENCHMARK)
    Path("helper.py").write_text("def right(trace): return 1.0\n")
    Path("pat.py").write_text(PATTERN)
    Path("broken").touch()
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> str:
    """A run with one attempt and one that failed."""
    with made().run() as opened:
        assert len(opened.done(errors=False)) == 1
        return opened.id


def made(**more: Any) -> Experiment:
    return Experiment.from_settings(
        RunSettings(("bm.py",), ("scripted:echo",), pattern=("pat.py",), tools=("none",), **more)
    )


def resumed(run: str) -> tuple[list[str], int]:
    told: list[str] = []
    with made().resume(run, redo_errors=True, on_notice=told.append) as opened:
        return told, len(opened.done(errors=False))


def test_an_unchanged_run_goes_on_without_a_word(run: str) -> None:
    Path("broken").unlink()
    assert resumed(run) == ([], 2)


def test_a_changed_pattern_is_told_of(run: str) -> None:
    Path("broken").unlink()
    Path("pat.py").write_text(PATTERN + "# mended\n")
    told = (
        f"pat.py (pattern) has changed since {run} was begun, and 1 attempt that it keeps may be of the version before"
    )
    assert resumed(run) == ([f"{told}: a new run has one version"], 2)


@pytest.mark.parametrize("file", ["bm.py", "helper.py"])
def test_a_changed_scorer_is_refused(run: str, file: str) -> None:
    Path("broken").unlink()
    before = Path(file).read_text()
    Path(file).write_text(before.replace("return right", "return 1 - right").replace("return 1.0", "return 0.0"))
    with pytest.raises(ConfigError, match=f"^{file} makes tasks or scores of {run} and has changed since") as error:
        resumed(run)
    assert f"firsthand score {run} --with" in str(error.value)
    Path(file).write_text(before)
    assert resumed(run) == ([], 2)
    Path(file).write_text(before + "# new\n")
    assert resumed(run) == ([], 2), "nothing is left to attempt"


def test_a_run_that_kept_no_files_goes_on(home: Path) -> None:
    for files in (None, {"benchmark": {}}, {"benchmark": "x", "pattern": {"other.py": "0"}}):
        with store.create(home, made().config(), "older", files=files) as older:  # type: ignore[arg-type]
            assert len(made().resume(older).done()) == 2


def test_a_benchmark_that_is_named_in_python_is_looked_at(home: Path) -> None:
    from firsthand import Agent
    from firsthand.patterns.direct import direct
    from firsthand.providers.scripted import Scripted

    agent = Agent("a", Scripted(["A"] * 9), direct)
    with Experiment([agent], "bm.py").create() as begun:
        Path("bm.py").write_text(BENCHMARK + "# new\n")
        with pytest.raises(ConfigError, match=r"^bm\.py makes tasks or scores"):
            Experiment([agent], "bm.py").resume(begun)


def test_the_files_of_names_with_options() -> None:
    digest = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("bm.py", "helper.py", "pat.py")}
    with_helper = {name: digest[name] for name in ("bm.py", "helper.py")}
    assert files_of("bm.py:bm") == files_of("helm_metrics:of=bm.py;level=1:items=3") == with_helper
    assert files_of("self_consistency(pat.py:pat:depth=1):samples=3") == {"pat.py": digest["pat.py"]}
    Path("mine.toml").write_text('data = "d.csv"\nscorer = ["exact", "bm.py:sc"]\n')
    assert files_of("mine.toml").keys() == {"mine.toml", "bm.py", "helper.py"}
    Path("mine.toml").write_text('scorer = "pat.py"\n')
    assert files_of("mine.toml").keys() == {"mine.toml", "pat.py"}
    for plain in ("arithmetic:levels=1", "none", "no.py", "mcp:a(b", "", "a\0.py"):
        assert files_of(plain) == {} and version_of(plain) == ""
    named = {"benchmark": ("bm.py",), "memory": "pat.py", "model": ("bm.py",), "guard": None}
    assert own_files(named) == {"benchmark": with_helper, "memory": {"pat.py": digest["pat.py"]}}


def test_modules_in_the_same_folder_are_followed() -> None:
    Path("pkg/deep").mkdir(parents=True)
    for name, text in {
        "pkg/__init__.py": "", "pkg/a.py": "import top", "pkg/deep/__init__.py": "", "pkg/deep/b.py": "(",
        "top.py": "import one, pkg.deep.b as b", "one.py": "import json\nfrom pkg import a",
    }.items():  # fmt: skip
        Path(name).write_text(text)
    assert files_of("one.py").keys() == {
        "one.py", "top.py", "pkg/__init__.py", "pkg/a.py", "pkg/deep/__init__.py", "pkg/deep/b.py"}  # fmt: skip


def test_a_changed_scorer_scores_anew(run: str, home: Path, cli: Cli) -> None:
    def scored(value: float, *more: str) -> tuple[int, int, float]:
        Path("sc.py").write_text(f"def late(task, trace): return {value}\n")
        code, out, told = cli("score", run, "--with", "sc.py:late", "--json", *more)
        assert code == 0, told
        body = json.loads(out)
        return body["scored"], body["kept"], 2 * body["boards"][0]["rows"][0]["score"]["value"]  # one of two

    assert scored(1.0) == (1, 0, 1.0)
    assert scored(1.0) == (0, 1, 1.0)
    Path("sc.py").write_text("def late(task, trace): return 0.25\n")
    code, _, told = cli("score", run, "--with", "sc.py:late", "--agent", "pat.py")
    said = f"the file of sc.py:late has changed since it scored {run}: score all attempts anew, without --agent"
    assert code == 1 and said in " ".join(told.split())
    assert scored(0.25) == (1, 0, 0.25)
    assert scored(0.25, "--agent", "pat.py") == (0, 1, 0.25)
    with store.open_run(run, home) as opened:
        assert opened.score_names()["late"] == f"sc.py:late, file {version_of('sc.py')}"
        trace = next(iter(opened.traces()))
        for other in ("sc.py:sd", "sc.py:latex, file 1", "sc.py", "c.py:late, file 1"):
            with pytest.raises(StoreError, match=r"already, given by sc\.py:late, file"):
                opened.add_score(trace, 1, "late", other, Score("late", 1.0))
        opened.add_score(trace, 1, "late", "sc.py:late", Score("late", 1.0))
        assert list(opened.scored("late", "sc.py:late, file 1")) == [(trace.place, 1)], (
            "words without a version are any"
        )
    Path("sc.py").write_text("def late(task, trace): return 0.5\ndef other(task, trace): return 0.5\n")
    code, _, told = cli("score", run, "--with", "sc.py:other", "--as", "late")
    assert code != 0 and "given by sc.py:late" in told
