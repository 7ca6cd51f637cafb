"""A run's own Python files: an edited scorer is refused on resume, an edited pattern told, and scores name their file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.settings import RunSettings
from firsthand.experiment.source_files import digests_of, files_in
from firsthand.runs import store

BENCHMARK = """
from firsthand.benchmark import Benchmark
from firsthand.task import Task
from firsthand.trace import Score
def mine() -> Benchmark:
    tasks = [Task(str(i), "q", "a") for i in range(4)]
    return Benchmark("mine", lambda seed: tasks, (lambda task, trace: Score("own", 1.0),))
"""
PATTERN = """
async def say(task, ctx) -> str:
    return "one"
"""
SCORER = """
from firsthand.trace import Score
def sc(task, trace):
    return Score("sc", 1.0)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, text in (("mine.py", BENCHMARK), ("say.py", PATTERN), ("sc.py", SCORER)):
        Path(name).write_text(text)
    Path("m.json").write_text("[]")
    settings = RunSettings(benchmarks=("mine.py",), pattern=("say.py",), model=("scripted:m.json",), tools=("none",))
    with Experiment.from_settings(settings).create() as made:
        assert made.about["sources"].keys() == {"benchmark", "pattern"}
        return str(made.path)


def resumed(run: str) -> list[str]:
    told: list[str] = []
    with store.open_run(run, Path("home")) as opened:
        asyncio.run(Experiment.from_run(opened).resume_async(opened, on_notice=told.append))
    return told


def test_a_run_goes_on_with_its_files_and_with_none_that_scores_otherwise(run: str) -> None:
    assert resumed(run) == []
    Path("say.py").write_text(PATTERN + "# mended\n")
    (told,) = resumed(run)
    assert told.startswith("say.py was changed since ") and told.endswith(
        "attempts from here on are of the new pattern"
    )
    Path("mine.py").write_text(BENCHMARK.replace("1.0", "0.0"))
    with pytest.raises(ConfigError, match=r"^mine.py was changed since .* its scores would be of two versions"):
        resumed(run)
    Path("mine.py").write_text(BENCHMARK)
    assert len(resumed(run)) == 1


def test_scores_of_an_edited_scorer_are_not_mixed_with_those_before(run: str, capsys: Any) -> None:
    assert main(["run", "--resume", run]) == 0
    assert main(["score", run, "--with", "sc.py:sc"]) == 0
    assert main(["score", run, "--with", "sc.py:sc"]) == 0
    capsys.readouterr()
    Path("sc.py").write_text(SCORER.replace("1.0", "0.0"))
    assert main(["score", run, "--with", "sc.py:sc"]) == 1
    assert "give the new ones another name, --as NAME" in capsys.readouterr().err
    assert main(["score", run, "--with", "sc.py:sc", "--as", "second"]) == 0


def test_files_are_found_in_names_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py", "c.pyc"):
        Path(name).write_text("x")
    Path("d.py").mkdir()
    texts = ["a.py:f:n=3", "debate:of=(b.py|cot)", "a.py", "c.pyc", "d.py", "gone.py", "cot"]
    assert files_in(texts) == [Path("a.py"), Path("b.py")]
    assert digests_of({"tool": ["none"], "pattern": ["b.py"]}) == {"pattern": {"b.py": "2d711642b726b044"}}
