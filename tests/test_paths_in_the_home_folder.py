"""Paths of benchmarks, runs and repositories that begin with `~`: they are in the user's home folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.benchmarks import (
    agentbench_kg,
    agentbench_os,
    bfcl,
    cranfield,
    kv_retrieval,
    reading_questions,
    swe_records,
)
from firsthand.benchmarks.long_context import haystack, lengths, ruler_counting, ruler_qa
from firsthand.benchmarks.mteb import sentence_pairs
from firsthand.benchmarks.retrieval_sets.set_folder import set_folder
from firsthand.benchmarks.sources import datasets, tot_data
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.runs import run_names, store
from firsthand.scorers.resolved import TaskWorkplaces
from firsthand.task import Task

OWN_READERS = (
    "agentbench_hh:data", "agentbench_os:data", "agentbench_wb:data", "bbh:data", "beir:folder", "bfcl_multi_turn:data",
    "gsm8k:data", "joint_alignment:folder", "locomo:data", "longmemeval:data", "lost_in_middle:data",
    "lost_in_middle@oracle:data", "miniwob:data", "nested_kv:data", "ruler:data", "tau_airline:data", "xstest:data",
)  # fmt: skip
"""One benchmark for each reader that names the folder it looked into."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    return tmp_path


def test_a_benchmark_looks_for_its_data_in_the_home_folder(home: Path) -> None:
    for option in OWN_READERS:
        with pytest.raises(DataError) as none:
            next(iter(catalog.benchmark(f"{option}=~/none").tasks(0)))
        assert str(home / "none") in str(none.value) and "~" not in str(none.value), option
    (home / "games" / "json_2.1.1" / "valid_unseen").mkdir(parents=True)
    with pytest.raises(DataError, match=f"^{home / 'none'} cannot be read"):
        catalog.benchmark("agentbench_hh:data=~/games:lists=~/none")


def test_files_in_the_home_folder_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    d, more = home / "d", len(ruler_counting.word_pool(1)) + 2
    for name, text in {
        "24.csv": "é",
        "kv-retrieval-1_keys.jsonl": json.dumps({"ordered_kv_records": [["k", "v"]], "key": "k", "value": "v"}),
        "2012.MSRpar.test.tsv": "1\ta\tb",
        "BFCL_v4_simple.json": "",
        "records.jsonl": "{}",
        "PaulGrahamEssays.json": json.dumps({"text": "one two " * haystack.MIN_WORDS}),
        f"longctx/{ruler_counting.ENGLISH_WORDS}": json.dumps({str(each): f"w{each}" for each in range(more)}),
        "one.jsonl": '{"a": 1}\n',
        "cranfield/x": "",
        "docs/a.md": "# A\n\nnothing like it",
    }.items():
        (d / name).parent.mkdir(parents=True, exist_ok=True)
        (d / name).write_text(text)
    source = datasets.Source("one.jsonl", 1, "", "", "", "", dict)

    def check(data: str) -> None:
        paper, words = tot_data.find(("24.csv",), "", data), haystack.essays(data, "")
        assert paper is not None and paper.text == "é"
        assert words.words[:3] == ("one", "two", "one")
        rows = kv_retrieval._rows(1, data)
        assert rows is not None and rows.path == d / "kv-retrieval-1_keys.jsonl"
        assert bfcl._folder(data) == d
        assert len(ruler_counting.word_pool(more - 1, data)) == more
        assert datasets.load(source, data).path == datasets.located("one.jsonl", data) == d / "one.jsonl"
        assert set_folder("cranfield", data) == d / "cranfield"
        with pytest.raises(DataError, match=f"^there is no dev.json in {d} or its "):
            agentbench_kg._records("dev", "", data)
        with pytest.raises(DataError, match=f"'{d}' has neither "):
            ruler_qa.read_question_set("qa_2", data)

    check("~/d")
    monkeypatch.setenv("FIRSTHAND_DATA", "~/d")
    check("")
    for folder in ("data", "scripts"):
        (d / "os_interaction" / folder).mkdir(parents=True)
    for data in ("", "~/d", "~/d/os_interaction"):
        assert agentbench_os._folder(data) == d / "os_interaction"
    assert sentence_pairs._beside("~/d", 2012, "MSRpar") == d / "2012.MSRpar.test.tsv"
    assert swe_records._only_file("~/d/records.jsonl") == d / "records.jsonl"
    with pytest.raises(DataError, match=str(d / "none.nt")):
        agentbench_kg._graph("~/d/none.nt")
    assert cranfield.set_folder("cranfield", "~/d/cranfield") == d / "cranfield"
    (d / "none.gguf").touch()
    with pytest.raises(Exception, match=str(d / "none.gguf")):
        lengths.meter("~/d/none.gguf")
    with pytest.raises(ConfigError, match=r"^count is '~/x.gguf', and there is no such file"):
        lengths.meter("~/x.gguf")
    assert [each.text for each in reading_questions.corpus(docs="~/d/docs") if each.id.startswith("docs/")] == [
        "# A\n\nnothing like it"
    ]
    with pytest.raises(DataError, match=r"docs/.* no longer"):
        reading_questions.reading_questions(docs="~/d/docs")


def test_runs_and_clones_in_the_home_folder_are_found(home: Path) -> None:
    store.create(home / "else", {}, "x", command=[], at=home / "one").close()
    for ref in ("~/one", f"~/one/{store.DATABASE}", str(home / "one")):
        assert run_names.find_run(ref, home / "no") == home / "one", ref
    with pytest.raises(UnknownName, match=f"^'{home}/two' is not the folder of a run"):
        run_names.find_run("~/two", home / "no")
    places = TaskWorkplaces(folder=home / "clones")
    (home / "clones" / "a").mkdir(parents=True)
    for repo, found in (("~/one", home / "one"), ("a", home / "clones" / "a")):
        assert places.repository(Task("t", "", metadata={"repo": repo})) == found
