"""Paths that begin with ~: data, repositories and settings that lie in the user's home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmark import Benchmark
from firsthand.benchmarks import (
    agentbench_hh,
    agentbench_kg,
    agentbench_os,
    agentbench_wb,
    bbh,
    beir,
    bfcl,
    bfcl_multi_turn,
    kv_retrieval,
    locomo,
    longmemeval,
    lost_in_middle,
    nested_kv,
    swe_bench_lite,
    swe_bench_verified,
    swe_records,
)
from firsthand.benchmarks.concerns.scenario_files import load_scenarios
from firsthand.benchmarks.long_context import haystack, lengths, ruler_counting, ruler_qa
from firsthand.benchmarks.mteb import sentence_pairs
from firsthand.benchmarks.protocols.tau_bench import tau_benchmark
from firsthand.benchmarks.retrieval_sets.set_folder import set_folder
from firsthand.benchmarks.sources import datasets, tot_data
from firsthand.benchmarks.swe import swe_tasks
from firsthand.benchmarks.swe.swe_environment import Checkout
from firsthand.errors import ConfigError, DataError, FirsthandError
from firsthand.patterns.parts.constitution import load_constitution
from firsthand.retrieval.documents.folder_files import FolderFilter, expect_files
from firsthand.sandbox.sandbox import PACKAGES, shared_packages
from firsthand.scorers.resolved import TaskWorkplaces
from firsthand.system.home import data_home
from firsthand.task import Task
from swe_local import GOOD


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a folder `d` and nothing in it; the current folder is another."""
    (tmp_path / "home" / "d").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "kept"))
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    return tmp_path / "home"


def put(path: Path, content: Any) -> Path:
    """A file, with its folders; what is no text as a line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content) + "\n", encoding="utf-8")
    return path


def refusal(made: Any) -> str:
    with pytest.raises(FirsthandError) as refused:
        made()
    return str(refused.value)


def _places(made: Benchmark) -> TaskWorkplaces:
    """Where the benchmark opens its tasks."""
    assert made.environment is not None
    environment = made.environment(made.tasks(0)[0])
    assert isinstance(environment, Checkout)
    return environment.places


@pytest.mark.parametrize("by_environment", [False, True], ids=["data", "FIRSTHAND_DATA"])
def test_a_refusal_of_an_empty_data_folder_names_the_folder_of_the_user(
    home: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    data = "~/d"
    if by_environment:
        monkeypatch.setenv("FIRSTHAND_DATA", "~/d")
        data = ""
    for made in (
        lambda: agentbench_kg._records("dev", "", data),
        lambda: agentbench_os._folder(data),
        lambda: lost_in_middle._files(3, (0,), data),
        lambda: lost_in_middle._oracle(data),
        lambda: bbh._folder(data),
        lambda: ruler_qa.read_question_set("qa_1", data),
        lambda: haystack.essays(data, "or none"),
        lambda: tau_benchmark("retail", data, "test", "script", 5, "text"),
    ):
        said = refusal(made)
        assert str(home / "d") in said and "~" not in said


def test_a_refusal_of_data_that_only_an_option_gives_names_the_folder_of_the_user(home: Path) -> None:
    for made in (
        lambda: longmemeval.longmemeval(data="~/d"),
        lambda: locomo.locomo(data="~/d"),
        lambda: nested_kv.nested_kv(keys=140, data="~/d"),
        lambda: agentbench_hh.agentbench_hh(data="~/d"),
        lambda: load_scenarios("~/d"),
    ):
        said = refusal(made)
        assert str(home / "d") in said and "~" not in said
    put(home / "games.json", {"a": ["json_2.1.1/x/game.tw-pddl"]})
    assert refusal(lambda: agentbench_hh.agentbench_hh(data="~/d", lists="~/games.json")) == (
        f"1 of the 1 listed games are missing, such as {home / 'd' / 'json_2.1.1/x/game.tw-pddl'}: fill the folder by "
        "alfworld-download"
    )
    assert agentbench_wb.agentbench_wb(data="~/d").options == {"data": str(home / "d")}
    assert bfcl_multi_turn._folder("~/d") == home / "d" and beir._folder("~/d") == home / "d"


def test_files_in_the_home_are_found_by_an_option_and_by_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = datasets.Source("a/rows.jsonl", 1, "MIT", "", "", "", lambda row: row)
    rows = put(home / "d" / "a" / "rows.jsonl", {"x": 1})
    game = put(home / "d" / "24.csv", "Puzzles\n1 2 3 4\n")
    (home / "d" / "kept_set").mkdir()
    bfcl_file = put(home / "d" / "bfcl" / "BFCL_v4_simple.json", {})
    pairs = {"ordered_kv_records": [["k", "v"], ["l", "w"]], "key": "l", "value": "w"}
    kv = put(home / "d" / "longctx" / "kv-retrieval-2_keys.jsonl", pairs)
    words = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
    put(home / "d" / "longctx" / ruler_counting.ENGLISH_WORDS, dict(enumerate(words)))

    def found(data: str) -> None:
        assert datasets.load(source, data).path == rows == datasets.located("a/rows.jsonl", data)
        paper = tot_data.find(("24.csv",), "24/24.csv", data)
        assert paper is not None and paper.text == game.read_text()
        assert set_folder("kept_set", data) == home / "d" / "kept_set"
        assert bfcl._folder(data) == bfcl_file.parent
        found_pairs = kv_retrieval._rows(2, data)
        assert found_pairs is not None and found_pairs.path == kv
        told = refusal(lambda: ruler_counting.word_pool(1_000_000, data))
        assert told.startswith(f"{home / 'd' / 'longctx' / ruler_counting.ENGLISH_WORDS} holds ")

    found("~/d")
    monkeypatch.setenv("FIRSTHAND_DATA", "~/d")
    found("")
    put(home / "d" / "2016.answer.test.tsv", "")
    assert sentence_pairs._beside("~/d", 2016, "answer") == home / "d" / "2016.answer.test.tsv"
    assert sentence_pairs._beside("~/d", 2016, "headlines") is None


def test_the_clones_of_software_tasks_and_their_packages_may_lie_in_the_home(home: Path) -> None:
    record = {
        "instance_id": "a__b-1", "repo": "a/b", "base_commit": "a" * 40, "problem_statement": "p", "patch": GOOD,
        "test_patch": GOOD, "test_cmd": "true", "FAIL_TO_PASS": ["t"], "PASS_TO_PASS": [], "log_parser": "pytest",
    }  # fmt: skip
    file = put(home / "r" / "records.jsonl", record)
    assert swe_records._only_file("~/r") == file == swe_records._only_file("~/r/records.jsonl")
    for benchmark in (swe_bench_lite.swe_bench_lite, swe_bench_verified.swe_bench_verified, swe_records.swe_records):
        assert _places(benchmark(data="~/r/records.jsonl", repos="~/d")).folder == home / "d"
        assert _places(benchmark(data="~/r/records.jsonl")).folder == home / "r"
    made = swe_records.swe_records(data="~/r", packages=("~/d", "lib"))
    assert _places(made).packages == (str(home / "d"), str(home.parent / "elsewhere" / "lib"))
    said = f"git rev-parse failed: fatal: not a git repository: '{home / 'd'}'"
    assert refusal(lambda: swe_records.from_commit("~/d", "HEAD")) == said
    assert swe_tasks._clones("~/d", Path("/x"))[0] == home / "d"
    task = Task("t", "p", metadata={"repo": "~/d", "base_commit": "a" * 40})
    assert TaskWorkplaces(folder=Path("/x")).repository(task) == home / "d"
    with pytest.raises(DataError, match="clone it there"):
        TaskWorkplaces(folder=home).repository(Task("t", "p", metadata={"repo": "~/none", "base_commit": "a"}))


def test_settings_and_principles_may_lie_in_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home / "p.toml", '[[principle]]\nid = "a"\nrule = "r"\ncritique = "c"\n')
    assert [each.id for each in load_constitution("~/p.toml")] == ["a"]
    monkeypatch.setenv(PACKAGES, f"~/d:/x:{''}:~/e")
    assert shared_packages() == (home / "d", Path("/x"), home / "e")
    monkeypatch.setenv("FIRSTHAND_HOME", "~/kept")
    assert data_home() == home / "kept"
    missing = [
        (lambda: agentbench_kg._graph("~/none.nt"), f"there is no graph at {home / 'none.nt'}: "),
        (lambda: lengths.meter("~/none.gguf"), "count is '~/none.gguf', and there is no such file"),
    ]
    for made, said in missing:
        assert refusal(made).startswith(said)
    (home / "t.gguf").mkdir()
    assert "there is no such file" not in refusal(lambda: lengths.meter("~/t.gguf"))
    put(home / "d" / "a.md", "Alpha.")
    expect_files([Path("~/d")], FolderFilter())
    with pytest.raises(ConfigError, match=r"^no folder or file .*home/none. can be read"):
        expect_files([Path("~/none")], FolderFilter())
