"""Two answers side by side: what differs is marked word by word, and nothing a model wrote gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.cli import main
from firsthand.runs.pairing import compare
from firsthand.runs.store import Run, create
from firsthand.show.answer_diff import (
    _WORD,
    MAX_CHARS,
    MAX_SAMPLES,
    DiffSide,
    PairBudget,
    Sample,
    page,
    samples,
    terminal_text,
    word_difference,
)
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=y>{{ 777*777 }}\x1b[2J\u202e[red]\ud800 &lt;"


def answer(run: Run, task: str, value: float | None, text: str | None, *, epoch: int = 0) -> None:
    error = Failure("ModelError", HOSTILE) if value is None else None
    scores = () if value is None else (Score("exact", value),)
    key = f"{task}-{epoch}"
    run.append(
        Trace(key, "sums", task, {"name": "ada"}, epoch, 0, "", 1.0, answer=text, scores=scores, error=error)
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    """Worse, better, the same, worse by an error, and a hostile one."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    a, b = create(tmp_path, {}, "a"), create(tmp_path, {}, "b")
    for run in (a, b):
        run.add_agent("ada", {"name": "ada"})
        run.add_tasks("sums", [Task(f"t{n}", f"What is {n} + {n}?") for n in range(4)] + [Task("evil", HOSTILE)])
    for run, values in ((a, (1.0, 0.0, 1.0, 1.0)), (b, (0.0, 1.0, 1.0, None))):
        for number, value in enumerate(values):
            answer(run, f"t{number}", value, f"The answer is {number * 2 if value else 99}, I think.")
    answer(a, "evil", 1.0, "nothing")
    answer(b, "evil", 0.0, HOSTILE)
    return a, b


@pytest.mark.slow
@given(st.text(), st.text())
@settings(max_examples=50, deadline=None)
def test_the_pieces_give_back_both_answers(a: str, b: str) -> None:
    pieces = word_difference(a, b, PairBudget())
    assert "".join(text for kind, text in pieces if kind != "added") == a
    assert "".join(text for kind, text in pieces if kind != "removed") == b


def test_words_are_the_unit() -> None:
    assert word_difference("It is 41, surely.", "It is 42, surely.", PairBudget()) == [
        ("same", "It is "), ("removed", "41"), ("added", "42"), ("same", ", surely."),
    ]  # fmt: skip


def notes(a: str, b: str) -> list[str]:
    return [text for kind, text in word_difference(a, b, PairBudget()) if kind == "note"]


def test_what_is_not_compared_is_said_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "a " * 1000
    assert notes(words, words) == notes("x" * 20_000, "") == []
    assert notes(words + "b", words) == notes(words, words + "b") == notes("x" * 20_001, "") == notes("", "x" * 20_001)
    assert notes(words + "b", words) == ["[only the beginning was compared: what follows is left out]"]
    monkeypatch.setattr("firsthand.show.answer_diff.MAX_WORD_PAIRS", 100)
    (note,) = notes("a b " * 10, "a a b " * 8)
    assert note == "[too long to be compared to the end: the rest is marked as different]"


def test_a_note_stands_below_both_columns_once() -> None:
    side = DiffSide("id", "1", "a " * 1000 + "b", "")
    sample = Sample("sums", "t", 0, "?", "same", side, side)
    lines = terminal_text(sample, 80, PairBudget()).plain.split("\n")
    assert [at for at, line in enumerate(lines) if "only the beginning" in line] == [len(lines) - 2]
    html = page("a against b", [sample], [])
    assert html.count("only the beginning was compared") == 1 and html.index("only the beginning") > html.rindex(
        "</pre>"
    )


def test_samples_are_those_that_were_asked_for_worst_first(runs: tuple[Run, Run]) -> None:
    found = compare(*runs, error_value=0.0)
    listed = {only: [s.task_id for s in samples(found, *runs, only)] for only in ("changed", "worse", "better", "all")}
    assert listed["worse"] == ["evil", "t0", "t3"] and listed["better"] == ["t1"]
    assert listed["changed"] == ["evil", "t0", "t3", "t1"] and listed["all"] == [*listed["changed"], "t2"]
    broken = next(s for s in samples(found, *runs, "worse") if s.task_id == "t3")
    assert (broken.a.score, broken.b.score) == ("1", "-") and broken.b.error.startswith("ModelError: ")
    assert broken.prompt == "What is 3 + 3?"


def test_of_several_attempts_those_that_scored_differently_are_shown(runs: tuple[Run, Run]) -> None:
    a, b = runs
    for run, value in ((a, 0.0), (b, 1.0)):
        answer(run, "t2", value, "again", epoch=1)
    [sample] = [s for s in samples(compare(a, b), a, b, "better") if s.task_id == "t2"]
    assert (sample.epoch, sample.a.score, sample.b.score) == (1, "0", "1")


def test_the_terminal_shows_both_and_is_not_steered(runs: tuple[Run, Run], capsys: Any) -> None:
    a, b = runs
    assert main(["compare", a.id, b.id, "--diff", "--only", "worse"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"The answer is \[-0-\], I think\. +│ The answer is \{\+99\+\}, I think\.", out)
    assert "\x1b" not in out and "\u202e" not in out and "\\x1b[2J" in out and "[red]" in out
    assert "b has no score: ModelError" in out and "sums/t1" not in out.split("evil  epoch")[1]
    assert main(["compare", a.id, b.id, "--diff", "--limit", "1"]) == 0
    assert "there are more" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(runs: tuple[Run, Run], width: int) -> None:
    from rich.cells import cell_len

    answer(runs[1], "t0", 0.0, "漢字" * 200 + " a" * 100 + "b" * 300)
    for sample in samples(compare(*runs), *runs, "all"):
        lines = terminal_text(sample, width, PairBudget()).plain.split("\n")
        assert all(cell_len(line) <= width for line in lines if "│" in line)
        assert any("│" in line for line in lines)


INERT = (
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "del", "ins", "input", "label", "section",
    "details", "summary", "pre", "div", "span",
)  # fmt: skip


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_inert_whatever_was_answered(runs: tuple[Run, Run], tmp_path: Path, capsys: Any) -> None:
    a, b = runs
    path = tmp_path / "diff.html"
    assert main(["compare", a.id, b.id, "--html", str(path), "--only", "all", "--json"]) == 0
    html = path.read_text(encoding="utf-8")
    seen = Tags()
    seen.feed(html)
    tags = {tag for tag, _ in seen.tags}
    assert tags <= {*INERT}
    assert not any(
        name.startswith("on") or name in ("src", "href", "style") for _, attrs in seen.tags for name in attrs
    )
    assert "<script>alert(1)</script>" in seen.text and "{{ 777*777 }}" in seen.text and "603729" not in seen.text
    assert "\\u202e" in seen.text and "\\u001b" in seen.text and not {"\u202e", "\x1b"} & set(html)
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert style and policy is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "url(" not in style[1] and "@import" not in style[1]
    assert seen.text.count("What is") == 4 and next(a for t, a in seen.tags if t == "section") == {"class": "worse"}
    assert "3 worse, 1 better, 1 same" in " ".join(seen.text.split())


@pytest.mark.parametrize(
    ("text", "words", "is_cut"),
    [
        ("a " * 1000, 2000, False), ("a " * 1000 + "b", 2000, True),  # words, of which each space is one
        ("x" * MAX_CHARS, 1, False), ("x" * (MAX_CHARS + 1), 1, True), ("é", 1, False), (None, 0, False),
    ],
)  # fmt: skip
def test_an_answer_that_is_cut_says_so_and_no_other(
    text: str | None, words: int, is_cut: bool, runs: tuple[Run, Run]
) -> None:
    a, b = runs
    answer(a, "cut", 1.0, text)
    answer(b, "cut", 0.0, "other")
    side = next(each.a for each in samples(compare(a, b), a, b) if each.task_id == "cut")
    shown = side.text.removesuffix(" …")
    assert (shown != side.text) == is_cut and len(_WORD.findall(shown)) == words and (text or "").startswith(shown)


@pytest.mark.slow
def test_the_page_is_bounded(runs: tuple[Run, Run], tmp_path: Path) -> None:
    side = DiffSide("id", "1", "word " * 50, "")
    many = [Sample("sums", f"t{n}", 0, "?", "worse", side, side) for n in range(MAX_SAMPLES + 3)]
    html = page("a against b", many, [("worse", len(many))])
    assert html.count("<section") == MAX_SAMPLES and "3 more samples are left out" in html
    a, b = runs
    answer(b, "t0", 0.0, "x y " * 100_000)
    path = tmp_path / "big.html"
    assert main(["compare", a.id, b.id, "--html", str(path)]) == 0
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize(("most", "sections", "told"), [(3, 3, True), (4, 4, True), (5, 5, False)])
def test_a_page_of_too_many_samples_says_that_some_are_left_out(
    runs: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, sections: int, told: bool
) -> None:
    for module in ("firsthand.commands.compare", "firsthand.show.answer_diff"):
        monkeypatch.setattr(f"{module}.MAX_SAMPLES", most)
    path = tmp_path / "some.html"
    assert main(["compare", runs[0].id, runs[1].id, "--html", str(path), "--only", "all", "--json"]) == 0
    html = path.read_text(encoding="utf-8")
    assert (html.count("<section"), "left out" in html) == (sections, told)


def test_a_file_that_cannot_be_written_is_a_sentence(runs: tuple[Run, Run], tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", runs[0].id, runs[1].id, "--html", str(tmp_path / "no" / "x.html"), "--json"]) == 2
    assert "cannot write" in capsys.readouterr().err
