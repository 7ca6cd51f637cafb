"""Parts of an arena's votes, each on a small case: columns of files, styles, tickets, groups, battles and tasks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.arena.battle_table import BattleTable, _coded, _recoded
from firsthand.arena.blind_battles import BlindBattle, battles_of, prompt_task, shown_text, vote
from firsthand.arena.blind_reasks import REASK, to_reask
from firsthand.arena.connectivity import comparable_groups
from firsthand.arena.judge_votes import judge_vote
from firsthand.arena.run_votes import votes_of_runs
from firsthand.arena.vote_files import (
    _answers,
    _distinct,
    _from_flags,
    _from_winner,
    _name,
    _style_counts,
    _style_differences,
    holds_votes,
    read_votes,
    scaled_differences,
)
from firsthand.arena.vote_requests import MAX_TICKET_CHARS, _opened, _sealed, shown_battle, vote_of_request
from firsthand.arena.vote_writing import vote_rows, write_votes
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import DataError
from firsthand.message import assistant, user
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.trace import Failure, Node
from test_arena_votes import Votes, refusal, trace

WHEN = "2026-01-02T03:04:05+00:00"


def row(**columns: Any) -> TableRow:
    return TableRow(columns, "v.jsonl, line 7")


def test_the_columns_of_a_row_are_read_or_refused_with_its_place() -> None:
    assert _name(row(model_a=" x "), "model_a") == "x"
    for name in (None, "", " \t", 5):
        said = refusal(_name, row(model_a=name, model_b="y"), "model_a", kind=DataError)
        assert said == f"v.jsonl, line 7: model_a is {name!r}: give the model's name"
    meant = {"model_a": "a", "model_b": "b", "tie (bothbad)": "both_bad", "bothbad": "both_bad"}
    for winner in (*meant, "a", "b", "tie", "both_bad"):
        assert _from_winner(row(winner=winner)) == meant.get(winner, winner)
    for winner in ("A", "", None, "c", ["a"]):
        assert refusal(_from_winner, row(winner=winner), kind=DataError) == (
            f"v.jsonl, line 7: the winner is {winner!r}: one of model_a, model_b, a, b, tie, both_bad, tie (bothbad), "
            "bothbad was expected"
        )

    def flags(a: Any, b: Any, tie: Any) -> TableRow:
        return row(winner_model_a=a, winner_model_b=b, winner_tie=tie)

    for given, chosen in (
        ((1, 0, 0), "model_a"), (("0", "1.0", False), "model_b"), ((0.0, "False", True), "tie"),
        (("1", "0.0", 0), "model_a"),
    ):  # fmt: skip
        assert _from_flags(flags(*given)) == chosen
    for given in ((0, 0, 0), (1, 1, 0), (1, 0, 2), (1, 0, None), ("true", 0, 0)):
        shown = dict(zip(("model_a", "model_b", "tie"), map(str, given), strict=True))
        assert refusal(_from_flags, flags(*given), kind=DataError) == (
            f"v.jsonl, line 7: exactly one of winner_model_a, winner_model_b and winner_tie must be 1, not {shown}"
        )


def test_rows_that_repeat_another_are_left_out_where_the_table_has_ids() -> None:
    def distinct(rows: list[TableRow]) -> list[TableRow]:
        return _distinct(rows, lambda _: "a")

    one, two, three = row(id="q", model_a="x"), row(model_a="x", id="q"), row(id="r", model_a="y")
    assert distinct([one, three, two]) == [two, three], "the place of the first, whatever the order of columns"
    for voter in ("judge", "voter", "user_id", "evaluation_session_id", "annotator"):
        for time in ("timestamp", "tstamp", "when", "time", "created_at"):
            assert len(distinct([row(**{voter: 1, time: 2}) for _ in range(2)])) == 1
    for name in ("question_id", "instruction_idx", "question", "prompt", "judge", "timestamp"):
        assert len(distinct([row(**{name: 1}), row(**{name: 1})])) == 2
    assert distinct([row(model_a="x"), row(model_a="x")]) == [row(model_a="x"), row(model_a="x")]


def test_names_are_read_as_they_were_before_they_were_written_for_a_spreadsheet(tmp_path: Path) -> None:
    names = ["@cf/meta/llama", "-x", "'y", "'", "\u00a0=z", "plain"]
    attempts = [trace(str(at), name) for at, name in enumerate(names)]
    votes = [Preference("q", "0", str(at), "a", "=ann" if at % 2 else "+bob") for at in range(1, 6)]
    run: Any = Votes("r1", attempts, *votes)
    for suffix in ("csv", "jsonl"):
        write_votes(run, tmp_path / f"v.{suffix}")
        battles = read_votes(tmp_path / f"v.{suffix}").battles
        assert set(battles.models) == {name.strip() for name in names} and battles.voters.tolist() == [0, 1, 0, 1, 0]
    (tmp_path / "v.csv").rename(tmp_path / "w.CSV")
    assert set(read_votes(tmp_path / "w.CSV").battles.models) == {name.strip() for name in names}
    (tmp_path / "one.JSON").write_text(json.dumps({"model_a": "x", "model_b": "y"}))
    assert not holds_votes(tmp_path / "one.JSON")
    kept = tmp_path / "k.jsonl"
    kept.write_text(json.dumps({"model_a": "'=x", "model_b": " y ", "winner": "a"}))
    assert read_votes(kept).battles.models == ("'=x", "y"), (
        "what JSON holds is no cell, and blanks are no part of a name"
    )
    kept.write_text(json.dumps({"model_a": "x", "model_b": "x ", "winner": "a"}))
    assert refusal(read_votes, kept, kind=DataError) == (
        f"{kept}, line 1: a battle of 'x' against itself: give two different models"
    )


def test_the_style_of_both_answers_is_found_in_the_first_columns_that_tell_it() -> None:
    said = [{"role": "user", "content": "# no"}, {"role": "assistant", "content": "# é\n**b** **c**"}]
    talked = {
        "conversation_a": [*said, {"role": "assistant", "content": "- x"}],
        "conversation_b": "* one\n1. two\n\n__u__",
    }
    about = {
        "sum_assistant_a_tokens": 40, "sum_assistant_b_tokens": 50, "header_count_a": {"h1": 2, "h2": 1},
        "header_count_b": {"h1": 0}, "list_count_a": {"ordered": 4, "unordered": 1}, "list_count_b": {},
        "bold_count_a": {"**": 3}, "bold_count_b": {"**": 1, "__": 5},
    }  # fmt: skip
    for columns, style, counts in (
        ({"len_a": 3, "len_b": "4", "len_1": 8, "len_2": 9, "length_a": 1, "length_b": 2}, "length", (3.0, 4.0)),
        ({"len_a": 3, "len_1": 8, "len_2": 9, "length_a": 1, "length_b": 2}, "length", (8.0, 9.0)),
        ({"len_2": 9, "length_a": 1, "length_b": 2}, "length", (1.0, 2.0)),
        ({"len_a": 3, "len_b": 4, "conv_metadata": about}, "headers", (3.0, 0.0)),
        ({"conv_metadata": about, **talked}, "length", (40.0, 50.0)),
        ({"conv_metadata": about}, "lists", (5.0, 0.0)),
        ({"conv_metadata": about}, "bold", (3.0, 6.0)),
        (talked, "length", (19.0, 19.0)),
        (talked, "headers", (1.0, 0.0)),
        (talked, "lists", (1.0, 2.0)),
        (talked, "bold", (2.0, 1.0)),
        ({"len_a": 0, "len_b": 0}, "length", (0.0, 0.0)),
    ):
        assert _style_counts(row(**columns), style) == counts, (columns, style)
    for columns, style in (
        ({"len_a": -1, "len_b": 2}, "length"), ({"len_a": 2, "len_b": -1}, "length"),
        ({"len_a": -1, "len_b": -1}, "length"), ({"len_a": math.nan, "len_b": 3}, "length"),
        ({"len_a": 1e308, "len_b": 1e308}, "length"), ({"len_a": 1, "len_b": 10**400}, "length"),
        ({"len_a": 1, "len_b": math.inf}, "length"), ({"len_a": 1}, "length"),
        ({"len_a": None, "len_b": 2}, "length"), ({"len_a": 1, "len_b": 2}, "bold"), ({"conversation_a": ""}, "lists"),
        ({"len_a": 3, "len_b": math.nan}, "length"), ({"conv_metadata": {"header_count_a": {"h1": "x"}}}, "headers"),
    ):  # fmt: skip
        assert refusal(_style_counts, row(**columns), style, kind=DataError) == (
            f"v.jsonl, line 7: nothing tells the {style} of both answers: len_a and len_b, conv_metadata, or conversation_a "
            "and conversation_b were expected"
        )
    assert _answers(talked["conversation_a"]) == "# é\n**b** **c**\n- x" and _answers("as it is") == "as it is"
    assert _answers(None) == _answers([5, {"role": "assistant", "content": 3}, {"content": "x"}]) == ""
    rows, path = [row(len_a=3, len_b=1), row(len_a=0, len_b=0), row(len_a=1, len_b=4)], Path("v.jsonl")
    raw = np.array([0.5, 0, -0.6])
    assert _style_differences(rows, "length", path) == pytest.approx(raw / raw.std())
    assert refusal(_style_differences, rows, "charm", path) == "style is 'charm': give length, headers, lists, bold"
    assert refusal(_style_differences, rows[1:2] * 3, "length", path) == (
        "the answers of v.jsonl never differ in length: leave it out of style"
    )
    pairs = np.array([[3.0, 1], [0, 0], [1, 4]])
    assert scaled_differences(pairs, "they", "bold") == pytest.approx(list(raw / raw.std()))
    for pairs in (np.ones((3, 2)), np.zeros((2, 2)), np.zeros((0, 2))):
        assert refusal(scaled_differences, pairs, "they", "bold") == "they never differ in bold: leave it out of style"


def test_a_json_file_of_one_object_holds_no_votes(tmp_path: Path) -> None:
    votes = [{"model_a": "x", "model_b": "y", "more": 1}]
    for name, text, found in (
        ("a.json", "\n" * 62 + json.dumps(votes[0]), False),
        ("b.json", json.dumps(votes), True),
        ("c.csv", "model_a,model_b\nx,y\n", True),
        ("d.csv", "model_a,winner\nx,y\n", False),
        ("e.tsv", "generator_1\tgenerator_2\tpreference\nx\ty\t1\n", True),
        ("f.csv", "generator_1,model_b,preference\nx,y,1\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert holds_votes(tmp_path / name) is found, name
    assert "{" not in refusal(holds_votes, tmp_path / "none.json", kind=DataError)


def test_texts_are_coded_in_order_of_appearance_and_recoded_where_codes_are_known() -> None:
    codes: defaultdict[str, int] = defaultdict(lambda: len(codes), {"x": 0, "y": 1})
    assert _coded(["z", "y", "z", "w"], codes).tolist() == [2, 1, 2, 3] and dict(codes) == {
        "x": 0,
        "y": 1,
        "z": 2,
        "w": 3,
    }
    assert _coded(np.array(["w", "q"]), codes).tolist() == [3, 4]
    places = np.array([1, 0, 2, 1], np.int64)
    same = _recoded(places, ["x", "y", "z"], codes)
    assert same.tolist() == [1, 0, 2, 1] and same.dtype == np.int32
    other = _recoded(places, ["w", "x", "new"], codes)
    assert other.tolist() == [0, 3, 5, 0] and other.dtype == np.int32
    assert _recoded(np.zeros(0, np.int64), [], codes).tolist() == []


def test_battles_are_cut_and_counted_whole() -> None:
    columns = (list("xyzx"), list("yzxz"), ["a", "tie", "b", "both_bad"])
    made = BattleTable.from_columns(
        *columns, voters=list("uvuw"), questions=list("pqqr"), covariates={"l": [1, 2, 3, 4.0]}
    )
    assert made.wins.tolist() == [[0, 1, 1.5], [0, 0, 0.5], [0.5, 0.5, 0]]
    assert made.ties.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]] and made.games.tolist() == [3, 2, 3]
    part = made.where(np.array([True, False, True, True]))
    assert (part.models, part.covariate_names, len(part)) == (("x", "y", "z"), ("l",), 3)
    assert (part.a.tolist(), part.b.tolist(), part.outcome.tolist()) == ([0, 2, 0], [1, 0, 2], [0, 2, 1])
    assert (part.voters.tolist(), part.questions.tolist(), part.covariates.tolist()) == (
        [0, 0, 2],
        [0, 1, 2],
        [[1], [3], [4]],
    )
    bare = BattleTable.from_columns(*columns).where(np.zeros(4, bool))
    assert (bare.voters, bare.questions, bare.covariates, len(bare), bare.games.tolist()) == (
        None,
        None,
        None,
        0,
        [0, 0, 0],
    )


def test_groups_are_found_by_pairs_and_by_battles_alike() -> None:
    def table(*rows: str, **more: Any) -> BattleTable:
        return BattleTable.from_columns(*zip(*(each.split() for each in rows), strict=True), **more)

    rows = ["x y a", "z y b", "y z b", "w v tie", "x z a"]  # y and z beat each other, x lost to none, w and v tied
    expected = [("z", "y"), ("w", "v"), ("x",)]
    assert comparable_groups(table(*rows)) == expected  # five battles, 25 pairs
    assert comparable_groups(table(*rows * 5)) == expected  # as many battles as pairs
    assert comparable_groups(table("b a a", "a c a", "c b b", models=("d", "c"))) == [("d",), ("c",), ("b",), ("a",)]
    assert comparable_groups(table("b a a", "a c a", "b c b")) == [("b", "a", "c")], "b beat a, a beat c, c beat b"
    assert comparable_groups(table("b z tie", "a y tie", models="ayzb")) == [("a", "y"), ("z", "b")]
    assert comparable_groups(table("a b tie", "y z tie", models="ayzb")) == [("a", "b"), ("y", "z")], (
        "by the first of each"
    )


# -- battles --


def test_a_battle_tells_the_failure_of_its_first_attempt_and_shows_what_was_written() -> None:
    fine, failed = trace("1", "x", "yes"), trace("2", "y", None, error=Failure("Gone", "no answer"))
    late = trace("3", "z", None, error=Failure("Late", "too late"))
    task = Task("t", "p?")
    assert BlindBattle(task, fine, fine).failure == ""
    assert BlindBattle(task, fine, failed).failure == "B failed: no answer"
    assert BlindBattle(task, late, failed).failure == "A failed: too late"
    nodes = (Node(None, user("q")), Node(0, assistant("first")), Node(1, assistant("last")), Node(2, user("thanks")))
    assert shown_text(trace("1", "x", "42", nodes=nodes)) == "last"
    assert shown_text(trace("1", "x", "42", nodes=(*nodes, Node(3, assistant(" \n"))))) == "42"
    assert shown_text(trace("1", "x", "42", nodes=nodes[:1])) == "42" and shown_text(trace("1", "x", None)) == ""
    made = prompt_task(" é? ")
    assert made == Task(hashlib.sha256(" é? ".encode()).hexdigest()[:16], " é? ")
    assert prompt_task("\ud800").id == hashlib.sha256(b"\xed\xa0\x80").hexdigest()[:16]
    assert refusal(prompt_task, " \n") == "the prompt is empty: write a question"


class Kept(Votes):
    """A run that keeps votes in a list."""

    def add_preference(self, preference: Preference) -> None:
        self._votes.append(preference)


def test_a_vote_is_kept_with_its_facts_and_void_where_an_answer_names_itself() -> None:
    battle = BlindBattle(Task("t7", "Who?"), trace("1", "ann", "I am Qwen"), trace("2", "bob", "me", model="smollm2"))
    named = BlindBattle(battle.task, trace("3", "ann", "By Alibaba", model="qwen3"), battle.b)
    run: Any = Kept("r", [])
    one = vote(run, battle, "b", by="v", dwell_s=0.0005, reasons=("r2", "r1"), more={"dwell_s": 9, "x": 1})
    two = vote(run, named, "tie", by="w", dwell_s=2.34567)
    digest = hashlib.sha256(b"Who?").hexdigest()
    assert run.preferences() == [one, two]
    assert one == Preference("t7", "1", "2", "b", "v", one.when, one.detail) and (one.when or "").endswith("+00:00")
    assert one.detail == {"prompt_sha256": digest, "dwell_s": 9, "void": "", "x": 1, "reasons": ["r2", "r1"]}
    assert two == Preference("t7", "3", "2", "tie", "w", two.when, two.detail)
    assert two.detail == {"prompt_sha256": digest, "dwell_s": 2.346, "void": "A names itself: alibaba"}


@pytest.mark.parametrize(
    ("replies", "winner", "orders"),
    [
        (("[[A]]", "[[B]]"), "a", ["a", "a"]), (("[[B]]", "[[A]]"), "b", ["b", "b"]),
        (("[[C]]", "[[C]]"), "tie", ["tie", "tie"]),
        (("[[B]]", "[[B]]"), "tie", ["b", "a"]), (("[[C]]", "[[A]]"), "tie", ["tie", "b"]),
        (("B is right.\n[[B]]", "[[A]]: it is complete"), "b", ["b", "b"]),
    ],
)  # fmt: skip
def test_a_judge_s_two_verdicts_are_one_vote(replies: tuple[str, str], winner: str, orders: list[str]) -> None:
    battle, run = BlindBattle(Task("t", "p?"), trace("1", "ann", "left"), trace("2", "bob", None)), Kept("r", [])
    judge = Scripted(list(replies), name="scripted:j")
    kept = asyncio.run(judge_vote(run, battle, judge))  # type: ignore[arg-type]
    assert kept is not None and run.preferences() == [kept]
    assert (kept.winner, kept.by, kept.a, kept.b) == (winner, f"judge:{judge.name}", "1", "2")
    assert kept.detail is not None and kept.detail["orders"] == orders
    assert kept.detail["consistent"] is (orders[0] == orders[1]) and kept.detail["dwell_s"] == 0.0
    first, second = (each.prompt[0].text for each in judge.asked)
    assert first.endswith("[Question]\np?\n\n[Answer of A]\nleft\n\n[Answer of B]\n")
    assert second.endswith("[Question]\np?\n\n[Answer of A]\n\n\n[Answer of B]\nleft")
    assert {(each.sampling.seed, each.sampling.max_tokens, each.sampling.temperature) for each in judge.asked} == {
        (0, 400, 0)
    }


def test_a_judge_without_a_verdict_in_either_order_keeps_nothing() -> None:
    battle, run = BlindBattle(Task("t", "p?"), trace("1", "ann", "left"), trace("2", "bob", "right")), Kept("r", [])
    for replies in (["A", "B", "[[B]]"], ["[[B]]", "[[D]] [A]", ""]):
        assert asyncio.run(judge_vote(run, battle, Scripted(replies))) is None  # type: ignore[arg-type]
    assert run.preferences() == []


def test_votes_of_one_agent_against_itself_are_lost_in_a_run_and_skipped_among_runs() -> None:
    attempts = [trace("1", "x", "a b"), trace("2", "y", "c"), trace("3", "x", "d")]
    votes = [Preference("q2", "2", "1", "tie", "ann"), Preference("q1", "1", "2", "b", "bob", None, {"void": ""})]
    again = Preference("q1", "2", "1", "b", "bob", None, {REASK: "bob|1|2"})
    void = Preference("q1", "3", "2", "b", "ann", None, {"void": "why"})
    run: Any = Votes("r9", attempts, *votes, again, void, void)
    for table, left_out in ((battles_of(run, ["x"])), ((found := votes_of_runs([run])).battles, found.void)):
        assert (len(table), left_out) == (2, 2) and [table.models[at] for at in table.a] == ["y", "x"]
        assert table.outcome.tolist() == [1, 2] and table.voters.tolist() == [0, 1] == table.questions.tolist()
    assert battles_of(run, ["x"])[0].models == ("x", "y") and found.battles.models == ("y", "x")
    assert (found.duplicates, found.filtered, found.battles.covariates) == (0, 0, None)
    same: Any = Votes("r9", attempts, *votes, Preference("q", "1", "3", "a", "ann"))
    assert len(votes_of_runs([same]).battles) == 2
    assert refusal(battles_of, same) == (
        "1 votes of run r9 name attempts that it does not hold: is the run a part of another?"
    )


def test_a_voter_is_asked_again_about_an_early_vote_of_their_own() -> None:
    own = [Preference("t", f"{at}", f"{at}'", "a", "ann") for at in range(7)]
    other = Preference("t", "0", "0'", "a", "bob")
    asked = Preference("t", "0'", "0", "b", "ann", None, {REASK: "ann|0|0'"})
    assert to_reask([*own, other, asked], "ann", Random(1)) is own[1], (
        "seven less the last five, and one was asked again"
    )
    assert to_reask([*own[:6], other], "ann", Random(1)) is own[0] and to_reask(own[:5], "ann", Random(1)) is None
    assert (
        to_reask([*own, other], "bob", Random(1)) is None and to_reask([*own, other], "bob", Random(1), wait=0) is other
    )


# -- requests and files that are written --


def test_a_ticket_opens_with_its_own_key_alone() -> None:
    body = {"voter": "é", "at": 1.5, "a": "1"}
    text = b'{"a": "1", "at": 1.5, "voter": "\\u00e9"}'
    sealed = base64.urlsafe_b64encode(hmac.new(b"k", text, hashlib.sha256).digest() + text).decode()
    assert _sealed(body, b"k") == sealed and _opened(sealed, b"k") == body
    assert _opened(_sealed({"x": "y" * 3000}, b"k"), b"k") == {"x": "y" * 3000}
    long = _sealed({"x": "y" * (MAX_TICKET_CHARS // 4 * 3 - 32 - 9)}, b"k")
    assert len(long) == MAX_TICKET_CHARS and len(_opened(long, b"k")["x"]) == 3031
    for ticket, key in (
        (sealed, b"l"),
        (_sealed({"x": "y" * 3032}, b"k"), b"k"),
        ("é", b"k"),
        (None, b"k"),
        ("a", b"k"),
    ):
        assert refusal(_opened, ticket, key) == "the ticket is not one of this arena: ask for a new battle"
    battle = BlindBattle(Task("t", "p"), trace("2", "x", None), trace("1", "y", "r"))
    shown = shown_battle(battle, b"k", voter="v", now_s=7.0006)
    assert _opened(shown.pop("ticket"), b"k") == {"task": "t", "a": "2", "b": "1", "voter": "v", "at": 7.001}
    assert shown == {"prompt": "p", "a": "", "b": "r"}
    for body in ([], None, {"ticket": sealed, "winner": "a", "more": 1}, {"winner": "a"}):
        said = refusal(vote_of_request, body, b"k", voter="v", now_s=9, past=[], past_day=0)
        assert said == "a vote is an object with ticket and winner"


def test_votes_that_count_are_written_in_both_layouts(tmp_path: Path) -> None:
    attempts = [trace("1", "x"), trace("2", "=y"), trace("3", "x")]
    votes = [
        Preference("q2", "2", "1", "both_bad", "ann", WHEN), Preference("q1", "1", "2", "b", "é"),
        Preference("q1", "3", "2", "a", "ann", None, {"void": "B names itself: y"}),
        Preference("q2", "1", "2", "tie", "ann", None, {REASK: "ann|1|2"}), Preference("q3", "3", "2", "tie", "bob"),
    ]  # fmt: skip
    run: Any = Votes("r5", attempts, *votes)
    ids = [row["id"] for row in vote_rows(run)]
    questions = [("arena/q2", "=y", "x"), ("arena/q1", "x", "=y"), ("arena/q3", "x", "=y")]
    base = [(id, *rest) for id, rest in zip(ids, questions, strict=True)]
    ends = [("ann", WHEN), ("é", ""), ("bob", "")]
    names = ("id", "question_id", "model_a", "model_b", "winner", "judge", "timestamp")
    arena = [
        dict(zip(names, (*one, winner, *end), strict=True))
        for one, winner, end in zip(base, ("both_bad", "model_b", "tie"), ends, strict=True)
    ]
    assert vote_rows(run) == arena
    names = [
        "id",
        "question_id",
        "model_a",
        "model_b",
        "winner_model_a",
        "winner_model_b",
        "winner_tie",
        "judge",
        "timestamp",
    ]
    flags = [
        dict(zip(names, (*one, *each, *end), strict=True))
        for one, each, end in zip(base, ((0, 0, 1), (0, 1, 0), (0, 0, 1)), ends, strict=True)
    ]
    assert vote_rows(run, "55k") == flags
    assert write_votes(run, tmp_path / "v.jsonl", "55k") == 3
    lines = (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == flags and "é" in lines[1]
    assert write_votes(run, tmp_path / "v.csv") == 3
    assert (tmp_path / "v.csv").read_bytes().decode() == (
        "id,question_id,model_a,model_b,winner,judge,timestamp\n"
        f"{ids[0]},arena/q2,'=y,x,both_bad,ann,2026-01-02T03:04:05+00:00\n{ids[1]},arena/q1,x,'=y,model_b,é,\n"
        f"{ids[2]},arena/q3,x,'=y,tie,bob,\n"
    )
    first = (tmp_path / "v.csv").read_bytes()
    for name in ("v.csv", "v.jsonl"):  # written again, and over a longer file
        (tmp_path / name).write_bytes(first * 9)
        assert write_votes(run, tmp_path / name) == 3
    assert (tmp_path / "v.csv").read_bytes() == first
    assert [json.loads(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()] == vote_rows(run)
    assert refusal(write_votes, run, tmp_path / "v.txt").endswith(
        "v.txt ends in .txt: votes are written as .csv or .jsonl"
    )
    assert refusal(write_votes, run, tmp_path / "v").endswith("v ends in nothing: votes are written as .csv or .jsonl")
    none: Any = Votes("r6", attempts, votes[2], votes[3])
    assert refusal(write_votes, none, tmp_path / "n.csv") == (
        "run r6 holds no votes that count: `firsthand arena MODEL MODEL` makes some"
    )
    assert not (tmp_path / "n.csv").exists()
    assert refusal(write_votes, run, tmp_path / "no" / "v.csv").endswith(
        "v.csv cannot be written: No such file or directory"
    )
    for lost in (Preference("q", "1", "9", "a", "z"), Preference("q", "9", "1", "a", "z")):
        assert refusal(vote_rows, Votes("r7", attempts, lost)) == (
            "a vote of run r7 names an attempt that it does not hold: is it a part of another?"
        )
