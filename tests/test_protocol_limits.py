"""Protocols, votes, references and rows at their limits: what is filled, shown, read and left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_rows import refused, written
from firsthand.benchmarks import bfcl, math500
from firsthand.benchmarks.protocols import competition, protocol, vote_sets
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.protocols.vote_sets import AnswerPair, VoteProtocol
from firsthand.benchmarks.sources.xlsx_rows import _column
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.parts.judge_protocols import judge_protocol, show


def test_a_template_is_filled_with_as_many_characters_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_FILLED_CHARS", 1234)
    fields = {"a": "x" * 617, "b": "y"}
    assert protocol.fill("{a}-{a}", fields) == f"{fields['a']}-{fields['a']}"
    told = "the template '{a}{a}{b}' becomes longer than 1,234 characters: name fewer fields"
    assert refused(ConfigError, protocol.fill, "{a}{a}{b}", fields) == told


def test_an_items_own_answer_stands_before_the_letter_of_its_choice() -> None:
    item = Item("i", {"question": "Q"}, ("a", "b"), 1, secret={"answer": "own", "x": 2})
    for chosen in (Protocol("p", continuation=None, chat=True), Protocol("p")):
        assert protocol.make_task(item, chosen).secret == {"gold": 1, "answer": "own", "x": 2}
    asked = Item("i", {"question": "all", "answer": "z"}, question="alone", target="t")
    task = protocol.make_task(asked, Protocol("p", query="{question}?", continuation=None))
    assert (task.prompt, task.context) == ("alone", "all?") and task.secret == {}
    assert protocol.answered(asked, Protocol("p", query="{question}?", continuation=None)) == "all? t"


def test_a_judge_that_explains_first_is_not_asked_for_a_letter() -> None:
    pair = AnswerPair("p", "Q", "one", "two", ("A",), {})
    fields = {"question": "Q", "answer_a": "one", "answer_b": "two"}
    for name, explains in (("mt-bench-pair-v2", True), ("pairwise", False)):
        judge = judge_protocol(name)
        shown = show(judge, fields, max_chars=vote_sets.MAX_CHARS)
        assert judge.reasoning is explains and judge.ask
        parts = [shown.system, shown.text, *([] if explains else [judge.ask])]
        assert vote_sets._task(pair, VoteProtocol("r", name)).prompt == "\n\n".join(part for part in parts if part)


def test_references_of_mathematics_are_in_the_last_box_however_long_the_solution(tmp_path: Path) -> None:
    solution = f"\\boxed{{1}} {'so ' * 200}\\boxed{{\\frac{{2}}{{3}}}}."
    assert competition.solved({"solution": solution}, "w") == "\\frac{2}{3}"
    assert refused(DataError, competition.solved, {"solution": "2"}, "w") == "w: the solution has no \\boxed{}"
    assert competition.stated({"answer": 0}, "w") == "0" and competition.stated({"answer": " x"}, "w") == " x"
    for value in (True, 1.5, None, " "):
        assert refused(DataError, competition.stated, {"answer": value}, "w").startswith("w: the field 'answer' holds ")
    row = {"problem": "P", "answer": "2", "subject": 5, "type": "other", "level": 3, "more": 1}
    written(tmp_path / "math500.jsonl", row, {**row, "subject": ""})
    first, second = math500.math500(data=str(tmp_path)).tasks(0)
    assert first.metadata == {"level": 3, "subject": 5, "type": "other", "stratum": "5"}
    assert second.metadata == {"level": 3, "subject": "", "type": "other"} and second.id == "test-0001"


def test_columns_are_numbered_by_their_letters_and_never_go_back() -> None:
    found = [_column(*given) for given in (("A7", 2), ("C7", 0), ("AA1", 0), ("", 4), ("c1", 1), ("ABC1", 9))]
    assert found == [2, 2, 26, 4, 1, 730]


def test_dialogues_among_questions_are_left_out_and_the_rest_is_asked(tmp_path: Path) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}

    def asked(id: str, *roles: str) -> dict[str, object]:
        return {"id": id, "question": [[{"role": role, "content": role} for role in roles]], "function": [function]}

    rows = (asked("a", "user", "assistant", "user"), asked("b", "system", "user"), asked("c", "user"))
    written(tmp_path / "BFCL_v4_live_irrelevance.json", *rows)
    made = bfcl.bfcl(data=str(tmp_path), category="live_irrelevance")
    assert [task.id for task in made.tasks(0)] == ["b", "c"]
    assert made.options["data"] == "the leaderboard's files, 2 items (live_irrelevance 2), each counted once"
    assert made.tasks(0)[1].secret["calls"]["kind"] == "none" and made.tasks(0)[1].conversation == ()
    assert [message.text for message in made.tasks(0)[0].conversation] == ["system"]
