"""Tables of battles and files of votes, each rule on a small case: layouts, codes, counts, ratings in turn, void votes."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.arena import vote_files
from firsthand.arena.battle_table import BattleTable, _coded, _numbered
from firsthand.arena.blind_battles import BlindBattle, fight, void_reason
from firsthand.arena.blind_reasks import REASK, SelfAgreement, self_agreement
from firsthand.arena.elo import elo
from firsthand.arena.vote_checks import checked_votes, suspect_voters
from firsthand.arena.vote_files import _from_preference, _layout, read_votes, style_count, voter_shares
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import DataError
from firsthand.loop.listener import Piece
from firsthand.message import assistant, user
from firsthand.patterns.reply import reply
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.stats.rater_agreement import cohen_kappa
from firsthand.task import Task
from firsthand.trace import Node
from test_arena_tables import stuffed
from test_arena_votes import refusal, trace


def test_columns_say_which_layout_a_table_of_votes_has() -> None:
    path, flags = Path("v.csv"), {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    pairs = {"model_a": "x", "model_b": "y"}
    generators: dict[str, Any] = {"generator_1": "x", "generator_2": "y", "preference": 1}
    for columns, found in (
        (generators | pairs | {"winner": "a"}, ("generator_1", "generator_2", vote_files._from_preference)),
        (pairs | {"winner": "a"} | flags, ("model_a", "model_b", vote_files._from_winner)),
        (pairs | flags, ("model_a", "model_b", vote_files._from_flags)),
        (generators | {"preference": None}, ("generator_1", "generator_2", vote_files._from_preference)),
    ):
        assert _layout(columns, path) == found
    whole = pairs | flags
    for columns in (pairs, {"model_a": 1, "winner": "a"}, {"model_b": 1, "winner": "a"},
                    *({k: v for k, v in whole.items() if k != name} for name in flags),
                    *({k: v for k, v in generators.items() if k != name} for name in generators)):  # fmt: skip
        assert refusal(_layout, columns, path, kind=DataError) == (
            f"v.csv holds no votes: it has the columns {', '.join(columns)}, and model_a, model_b and winner or "
            "generator_1, generator_2 and preference, were expected"
        )
    for given, verdict in ((1, "a"), ("1.49", "a"), (1.5, "tie"), ("1.51", "b"), (2, "b"), (True, "a")):
        assert _from_preference(TableRow({"preference": given}, "w")) == verdict
    for given in (0.99, 2.01, "x", None, "nan", [1]):
        assert refusal(_from_preference, TableRow({"preference": given}, "v:3"), kind=DataError) == (
            f"v:3: the preference is {given!r}: a number from 1 (first) to 2 (second)"
        )
    counts = {"length": 17, "headers": 2, "lists": 3, "bold": 2}
    text = "# a\n ## b\n###### c\n####### d\n#e\n- x\n + y\n12) z\n1.no\n**b** __c__ ** d"
    assert {style: style_count(text, style) for style in counts} == counts | {"length": len(text)}


def test_a_file_of_votes_is_read_with_the_first_columns_of_voters_and_questions(tmp_path: Path) -> None:
    def read(*rows: dict[str, Any], **options: Any) -> Any:
        path = tmp_path / "v.jsonl"
        path.write_text(
            "".join(json.dumps({"model_a": "x", "model_b": "y", "winner": "a"} | row) + "\n" for row in rows)
        )
        return read_votes(path, **options)

    voters = ("judge", "voter", "user_id", "evaluation_session_id", "annotator")
    for at in range(len(voters)):
        rows = [
            {name: number if place == at else 0 for place, name in enumerate(voters) if place >= at}
            for number in (4, 5, 4)
        ]
        assert read(*rows).battles.voters.tolist() == [0, 1, 0]
    asked = ("question_id", "instruction_idx", "question", "prompt")
    for at in range(len(asked)):
        rows = [
            {name: number if place == at else 0 for place, name in enumerate(asked) if place >= at}
            for number in (4, 5, 6)
        ]
        assert read(*rows).battles.questions.tolist() == [0, 1, 2]
    bare = read({"id": 1}, {"id": 2, "model_a": "z"}, {"id": 2, "model_a": "z"}, {"id": 3, "winner": "tie"})
    assert (bare.battles.voters, bare.battles.questions, bare.battles.covariates) == (None, None, None)
    assert (bare.battles.models, bare.battles.outcome.tolist()) == (("x", "z", "y"), [0, 0, 1])
    assert (bare.duplicates, bare.filtered, bare.void) == (1, 0, 0)
    kept = read({"l": "en", "n": 1}, {"l": "fr", "n": 1}, {"l": "en", "n": 2}, {"l": "en"}, where={"l": "en", "n": "1"})
    assert (len(kept.battles), kept.filtered, kept.duplicates) == (1, 3, 0)
    path = tmp_path / "v.jsonl"
    assert refusal(read, {"l": 1}, where={"m": "1"}) == f"{path} has no column 'm': it has model_a, model_b, winner, l"
    assert refusal(read, {"l": 1}, where={"l": "2"}) == f"no row of {path} has l=2"
    styled = read({"id": 1, "len_a": 3, "len_b": 1}, {"id": 2, "len_a": 1, "len_b": 3}, style=("length",)).battles
    assert styled.covariate_names == ("length",) and styled.covariates.tolist() == [[1.0], [-1.0]]


def test_names_become_numbers_once_and_every_count_is_by_side(tmp_path: Path) -> None:
    columns = (["y", "x", "y", "z"], ["x", "y", "z", "x"], ["model_b", "a", "bothbad", "tie (bothbad)"])
    made = BattleTable.from_columns(*columns, models=iter(["w", "x", "w"]))
    assert (
        made.models == ("w", "x", "y", "z") and made.outcome.tolist() == [2, 0, 1, 1] and made.outcome.dtype == np.int32
    )
    assert (made.a.tolist(), made.b.tolist(), made.a.dtype) == ([2, 1, 2, 3], [1, 2, 3, 1], np.int32)
    counts = np.zeros((3, 4, 4), int)
    for place in ((2, 2, 1), (0, 1, 2), (1, 2, 3), (1, 3, 1)):
        counts[place] += 1
    assert (made.counts == counts).all() and len(made) == 4
    only = made.only(["z", "y"])
    assert (only.models, only.a.tolist(), only.b.tolist(), only.outcome.tolist()) == (("z", "y"), [1], [0], [1])
    assert refusal(made.only, ["y", "q", "r"]) == "no battle names the model 'q': the models are w, x, y, z"
    assert len(made.only([])) == 0 and made.only(iter("xy")).models == ("x", "y")
    numbers, names = _numbered(["b", "a", "b"])
    assert (numbers.tolist(), names) == ([0, 1, 0], ("b", "a")) and _numbered([])[0].tolist() == []
    codes: defaultdict[Any, int] = defaultdict(lambda: len(codes))
    assert _coded(("q", None, "q"), codes).tolist() == [0, 1, 0] and list(codes) == ["q", None]
    for changes, said in (
        ({"questions": ["p"]}, "the column questions has 1 battles and model_a has 4: give equal lengths"),
        ({"voters": ["p"] * 5}, "the column voters has 5 battles and model_a has 4: give equal lengths"),
        ({"covariates": {"l": [1.0]}}, "the column l has 1 battles and model_a has 4: give equal lengths"),
        (
            {"covariates": {"l": [1, 2, 3, 4], "m": [1, 2, np.nan, np.inf]}},
            "the covariate 'm' of battle 3 is nan: give a number",
        ),
    ):
        assert refusal(BattleTable.from_columns, *columns, **changes) == said
    assert refusal(BattleTable.from_columns, ["x", None], ["y", "z"], ["a", "a"]) == (
        "battle 2 has the model None: give the name of each model, as a text"
    )
    assert refusal(BattleTable.from_columns, ["x", "y", "z"], ["y", "z", "z"], ["a"] * 3) == (
        "battle 3 is of 'z' against itself: a battle needs two models"
    )
    assert refusal(BattleTable.from_columns, ["x", "y"], ["y", "z"], ["a", "A"]).startswith(
        "the winner of battle 2 is 'A': give 'a', "
    )


def test_elo_goes_battle_by_battle() -> None:
    battles = BattleTable.from_columns(["x", "y", "x"], ["y", "z", "z"], ["b", "tie", "a"])
    ratings = dict.fromkeys("xyz", 500.0)
    for a, b, score in (("x", "y", 0.0), ("y", "z", 0.5), ("x", "z", 1.0)):
        moved = 32 * (score - 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400)))
        ratings[a] += moved
        ratings[b] -= moved
    assert elo(battles, k=32, start=500.0) == pytest.approx(ratings) and ratings["x"] != ratings["y"] != ratings["z"]
    assert elo(battles.where(np.zeros(3, bool))) == {"x": 1000.0, "y": 1000.0, "z": 1000.0}


def test_a_vote_is_void_where_an_answer_tells_its_own_model() -> None:
    def reason(one: str, two: str, prompt: str = "?", **more: Any) -> str:
        a = trace("1", "ann", one, model="qwen2.5-coder-instruct", **more)
        return void_reason(BlindBattle(Task("t", prompt), a, trace("2", "smollm", two)))

    assert (
        reason("I am QWEN.", "x") == "A names itself: qwen" and reason("by Alibaba", "x") == "A names itself: alibaba"
    )
    assert (
        reason("x", "SmolLM2 here") == "B names itself: smollm"
        and reason("x", "by Hugging Face") == "B names itself: hugging face"
    )
    assert reason("smollm", "qwen") == "" == reason("myqwen", "x") and reason("qwens", "x") == ""
    assert reason("qwen", "smollm", "Who are you, Qwen?") == "A names itself: qwen"
    nodes = (Node(None, user("q")), Node(0, assistant("I am a Qwen")))
    assert (
        reason("42", "x", nodes=nodes) == "A names itself: qwen"
        and reason("qwen", "x", nodes=nodes) == "A names itself: qwen"
    )


def test_each_mark_of_a_style_counts_though_it_says_the_same_as_another() -> None:
    for text, counts in (
        ("", (0, 0, 0, 0)),
        ("**b** **b** __b__ __b__", (23, 0, 0, 4)),
        ("- a\n- a\n* a\n* a\n1. a\n1. a", (25, 0, 6, 0)),
        ("# a\n# a\n## a\n## a", (17, 4, 0, 0)),
        ("#\n######\n#######\n a # b", (23, 2, 0, 0)),
        ("\t+\ta\n  10) b\n-c\n3.d\na - b", (25, 0, 2, 0)),
        ("****\n____\n**a\nb**\n__a*b__ **a_b**", (33, 0, 0, 2)),
    ):
        assert tuple(style_count(text, style) for style in ("length", "headers", "lists", "bold")) == counts, text


def test_agreement_with_oneself_counts_each_repeated_vote() -> None:
    def again(first: Preference, winner: Any, a: str, b: str) -> Preference:
        return Preference("t", a, b, winner, first.by, None, {REASK: "x"})

    one, two, other = (
        Preference("t", "1", "2", winner, by) for winner, by in (("a", "v"), ("both_bad", "w"), ("b", "z"))
    )
    kept = [one, two, other, Preference("t", "1", "2", "b", "v"), again(one, "a", "2", "1"), again(two, "tie", "1", "2"),
            again(Preference("t", "5", "6", "a", "v"), "a", "5", "6")]  # fmt: skip
    first, second = ["a", "tie"], ["b", "tie"]
    assert self_agreement(kept) == SelfAgreement(2, 0.5, cohen_kappa(first, second), 0.5), (
        "the first vote on a battle counts"
    )
    assert self_agreement([]) is None


def test_checks_of_no_votes_leave_none() -> None:
    battles = BattleTable.from_columns(list("xyx"), list("yxy"), list("aab"), voters=list("uuv"))
    none = battles.where(np.zeros(3, bool))
    assert len(checked_votes(none)) == 0 and suspect_voters(none) == [] and len(checked_votes(none, cap=2)) == 0
    # of each only four are left, with which nothing is said of anybody, whatever the votes beyond the cap would tell
    assert checked_votes(stuffed(), cap=4, level=1.0).voters.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2
    assert checked_votes(battles, cap=1).voters.tolist() == [0, 1] and voter_shares(battles) == {0: 2, 1: 1}
    assert len(checked_votes(battles)) == 3


def test_a_fight_keeps_both_attempts_with_its_number_and_seed(tmp_path: Path) -> None:
    heard: list[list[Any]] = [[], []]
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        models = [Scripted([f"{name} says", "again"], name=f"scripted:{name}") for name in ("bob", "ann")]
        agents = [Agent(name, model, reply) for name, model in zip(("bob", "ann"), models, strict=True)]
        task = Task("t5", "q?")
        first = asyncio.run(fight(run, *agents, task, number=3, seed=5, listeners=(heard[0].append, heard[1].append)))
        second = asyncio.run(fight(run, *agents, task, number=4, seed=6))
        kept = [
            (each.agent_name, each.benchmark, each.task_id, each.epoch, each.seed, each.answer) for each in run.traces()
        ]
        assert kept == [
            ("bob", "arena", "t5", 3, 5, "bob says"), ("ann", "arena", "t5", 3, 5, "ann says"),
            ("bob", "arena", "t5", 4, 6, "again"), ("ann", "arena", "t5", 4, 6, "again"),
        ]  # fmt: skip
        assert [trace.id for trace in run.traces()] == [first.a.id, first.b.id, second.a.id, second.b.id]
        assert first.task is task and list(run.tasks()) == [("arena", "t5")]
    told = ["".join(step.text for step in steps if isinstance(step, Piece)) for steps in heard]
    assert told == ["bob says", "ann says"], "each listener hears its own side"
    assert models[0].asked[0].sampling.seed != models[0].asked[1].sampling.seed


def votes_of(tmp_path: Path, *more: dict[str, Any], name: str = "v.jsonl") -> vote_files.VoteFile:
    """The votes of rows that differ in these columns."""
    base = {"model_a": "x", "model_b": "y", "winner": "a"}
    (tmp_path / name).write_text("".join(json.dumps(base | each) + "\n" for each in more))
    return read_votes(tmp_path / name)


def test_a_vote_without_a_voter_or_question_is_nobody_elses(tmp_path: Path) -> None:
    cells: list[Any] = ["ann", "", None, " ", float("nan"), "ann", 0, 0, "None", "1"]
    found = votes_of(tmp_path, *({"voter": each} for each in cells), {})
    voters = found.battles.voters
    assert voters is not None and voters.tolist() == [0, 1, 2, 3, 4, 0, 5, 5, 6, 7, 8] and found.anonymous == 5
    assert found.battles.questions is None
    asked = votes_of(tmp_path, {"question": "q"}, {"question": ""}, {"question": ""}, {"question": "q"})
    assert asked.battles.questions is not None and asked.battles.questions.tolist() == [0, 1, 2, 0]
    assert (asked.battles.voters, asked.anonymous) == (None, 0)
    (tmp_path / "v.csv").write_text("model_a,model_b,winner,voter\nx,y,a,\nx,y,a,ann\nx,y,b,\n")
    read = read_votes(tmp_path / "v.csv")
    assert read.battles.voters is not None and read.battles.voters.tolist() == [0, 1, 2] and read.anonymous == 2


def test_the_voters_column_is_one_that_names_some_in_any_row(tmp_path: Path) -> None:
    later = votes_of(tmp_path, {}, {"judge": "j"}, {"judge": "j"}).battles.voters
    assert later is not None and later.tolist() == [0, 1, 1], "the first row needs no such column"
    empty = votes_of(tmp_path, {"judge": None, "voter": "u"}, {"judge": "", "voter": "u"}).battles.voters
    assert empty is not None and empty.tolist() == [0, 0], "a column that is empty everywhere names nobody"
    assert votes_of(tmp_path, {"judge": None}, {"judge": ""}).battles.voters is None
