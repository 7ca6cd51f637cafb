"""RULER's folder of data reaches the tasks that need it: essays around needles, words beyond the package's, questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import refused
from firsthand.benchmarks.long_context import ruler_counting, ruler_sample
from firsthand.benchmarks.long_context.haystack import NOISE
from firsthand.benchmarks.long_context.ruler_needles import NEEDLES
from firsthand.benchmarks.ruler import parse_tasks, ruler
from firsthand.errors import DataError
from firsthand.task import Task

HOTPOT = [
    {"question": f"Who is person {n}?", "answer": f"name {n}",
     "context": [[f"T{n}.{d}", ["One. ", f"Two {n}."]] for d in range(10)]}
    for n in range(4)
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with essays, questions and words, and a package wonderwords of thirty words."""
    site = tmp_path / "site" / "wonderwords"
    (site / "assets").mkdir(parents=True)
    (site / "__init__.py").touch()
    for kind in ("noun", "adjective", "verb"):
        (site / "assets" / f"{kind}list.txt").write_text("".join(f"{kind}{n}\n" for n in range(10)))
    folder = tmp_path / "mine"
    folder.mkdir()
    essays = " ".join(f"Essay sentence {n}." for n in range(400))
    (folder / "PaulGrahamEssays.json").write_text(json.dumps({"text": essays}))
    (folder / "hotpotqa.json").write_text(json.dumps(HOTPOT))
    (folder / "english_words.json").write_text(json.dumps({str(n): f"english{n}" for n in range(3000)}))
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wonderwords", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    kept = [ruler_sample.word_list, ruler_counting._wonderwords, ruler_counting._english]
    for each in kept:
        each.cache_clear()
    yield folder
    for each in kept:
        each.cache_clear()


def first(name: str, length: int, **options: Any) -> Task:
    [task] = ruler(tasks=name, lengths=str(length), samples=1, **options).tasks(0)
    return task


@pytest.mark.parametrize("name", NEEDLES)
def test_needles_of_essays_lie_in_the_essays_that_were_found(name: str, data: Path) -> None:
    of_essays = NEEDLES[name].haystack == "essay"
    text = first(name, 600, data=str(data)).context or ""
    assert ("Essay sentence 7." in text) is of_essays
    assert (NOISE in text) is (name == "niah_single_1")
    noise = first(name, 600, data=str(data), protocol="base-noise").context or ""
    assert "Essay" not in noise and (NOISE in noise) is (NEEDLES[name].haystack != "needle")
    chat = first(name, 600, data=str(data), protocol="chat").prompt
    assert ("Essay sentence 7." in chat) is of_essays
    if of_essays:
        told = refused(DataError, ruler, tasks=name, lengths="600", samples=1, data=str(data.parent / "site"))
        assert told.startswith(f"no essays of Paul Graham in {str(data.parent / 'site')!r}: ")


def test_essays_are_told_in_the_protocol_and_noise_where_there_are_none(data: Path, tmp_path: Path) -> None:
    made = ruler(tasks="niah_single_2,qa_2", lengths="600", samples=2, data=str(data))
    assert "2 tasks, 2 samples each, lengths 600 in " in made.protocol
    assert "; essays of Paul Graham, PaulGrahamEssays.json, 1,200 words; " in made.protocol
    assert "hotpotqa.json" in made.protocol
    for name in ("niah_single_1", "vt", "fwe"):
        bare = ruler(tasks=name, lengths="600", samples=1, data=str(tmp_path / "none"))
        assert "; noise; " in bare.protocol and "Paul Graham," not in bare.protocol
    [one, two] = ruler(tasks="qa_2", lengths="600", samples=2, data=str(data)).tasks(0)
    assert (one.secret["answers"], two.secret["answers"]) == (["name 0"], ["name 1"])
    assert (one.metadata["group"], one.metadata["stratum"], one.metadata["length"]) == ("qa_2", "qa_2 600", 600)
    assert one.id == "qa_2-600-000" and two.id == "qa_2-600-001" and one.metadata["tokens"] <= 600


def test_common_words_beyond_the_packages_are_those_of_the_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = first("cwe", 2000, data=str(data))
    answers = task.secret["answers"]
    assert len(answers) == 10 and all(answer.startswith("english") for answer in answers)
    text = (task.context or "").split("english", 1)
    assert "noun" in text[0], "the worked example has few enough words for the package's"
    few = first("cwe", 960, data=str(data))
    assert not [answer for answer in few.secret["answers"] if answer.startswith("english")]
    told = refused(DataError, first, "cwe", 2000)
    assert told.endswith(
        "different words at this length, and wonderwords has 30: give data=FOLDER with english_words.json of NVIDIA/RULER, "
        "or shorter lengths"
    )
    assert refused(DataError, first, "cwe", 2000, data=str(tmp_path / "none")) == told
    other = tmp_path / "other"
    (other / "longctx").mkdir(parents=True)
    (other / "longctx" / "english_words.json").write_text(json.dumps([f"listed{n}" for n in range(9)]))
    path = other / "longctx" / "english_words.json"
    assert refused(DataError, first, "cwe", 2000, data=str(other)) == (
        f"{path} is not a JSON object of words: fetch it from NVIDIA/RULER again"
    )
    monkeypatch.setenv("FIRSTHAND_DATA", str(data))
    assert first("cwe", 2000) == task
    assert refused(DataError, first, "cwe", 2000, data=str(other)).startswith(str(path)), "what is given comes first"


def test_tasks_stand_in_rulers_order_and_once(data: Path) -> None:
    assert parse_tasks("vt,niah, niah_single_1 ,qa") == (*NEEDLES, "vt", "qa_1", "qa_2")
    assert parse_tasks("generated") == (*NEEDLES, "vt", "cwe", "fwe") and parse_tasks("all")[-3:] == (
        "fwe",
        "qa_1",
        "qa_2",
    )
    made = ruler(tasks="fwe,vt", lengths="1k-2k", samples=2).tasks(0)
    assert [task.id for task in made] == [
        f"{name}-{length}-00{at}" for length in (1024, 2048) for name in ("vt", "fwe") for at in (0, 1)
    ]
