"""Votes one by one: blind battles, why a vote is void, re-asks, tickets, judges, and the files they are written to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.arena.battle_table import A_WINS, TIE
from firsthand.arena.blind_battles import (
    ARENA,
    BlindBattle,
    battles_of,
    fight,
    prompt_task,
    shown_text,
    void_reason,
    vote,
)
from firsthand.arena.blind_reasks import REASK, SelfAgreement, is_reask, self_agreement, to_reask, vote_key
from firsthand.arena.judge_votes import PROMPT, judge_vote
from firsthand.arena.run_votes import votes_of_runs
from firsthand.arena.vote_files import read_votes, scaled_differences
from firsthand.arena.vote_requests import TicketVote, VoteLimits, shown_battle, vote_of_request
from firsthand.arena.vote_writing import vote_rows, write_votes
from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.patterns.reply import reply
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.stats.rater_agreement import cohen_kappa
from firsthand.task import Task
from firsthand.trace import Failure, Node, Trace
from same_values import same


def refusal(function: Any, *args: Any, kind: type[Exception] = ConfigError, **given: Any) -> str:
    with pytest.raises(kind) as refused:
        function(*args, **given)
    return str(refused.value)


def trace(id: str, agent: str, answer: str | None = "", task: str = "t", **more: Any) -> Trace:
    return Trace(
        id, ARENA, task, {"name": agent, "model": more.pop("model", agent)}, 0, 0, "", 0.0, answer=answer, **more
    )


class Votes:
    """A run's attempts and votes."""

    def __init__(self, id: str, traces: Sequence[Trace], *votes: Preference) -> None:
        self.id, self._traces, self._votes = id, traces, list(votes)

    def traces(self) -> Sequence[Trace]:
        return self._traces

    def rows(self) -> list[Any]:
        return [SimpleNamespace(id=each.id, agent=each.agent_name, benchmark=each.benchmark) for each in self._traces]

    def preferences(self) -> list[Preference]:
        return self._votes


ATTEMPTS = [trace("1", "x", "# a"), trace("2", "y", "bbbbb", "u"), trace("3", "x", "c"), trace("4", "z", "dd")]
KEPT = Preference("t", "1", "2", "a", "ann", "2026-01-02T03:04:05+00:00")
VOID = Preference("t", "3", "2", "b", "bob", None, {"void": "A names itself: x"})
AGAIN = Preference("t", "2", "1", "b", "ann", None, {REASK: "ann|1|2"})
BAD = Preference("u", "4", "3", "both_bad", "bob")


def test_votes_of_runs_are_battles_with_styles_and_without_void_and_repeated_ones() -> None:
    one: Any = Votes("r1", ATTEMPTS[:3], KEPT, VOID, AGAIN, Preference("t", "1", "3", "a", "ann"))
    two: Any = Votes("r2", ATTEMPTS[2:], BAD)
    found = votes_of_runs([one, two], ["length", "headers"])
    battles = found.battles
    assert (battles.models, battles.a.tolist(), battles.b.tolist()) == (("x", "z", "y"), [0, 1], [2, 0])
    assert battles.outcome.tolist() == [A_WINS, TIE] and (found.duplicates, found.filtered, found.void) == (0, 0, 1)
    assert battles.voters.tolist() == [0, 1] == battles.questions.tolist()
    raw = np.array([[(3 - 5) / 8, 1.0], [(2 - 1) / 3, 0.0]])
    assert battles.covariates == pytest.approx(raw / raw.std(0))
    assert refusal(votes_of_runs, [one], ["charm"]) == "style is 'charm': give length, headers, lists, bold"
    assert refusal(votes_of_runs, [one], ["bold"]) == "the answers never differ in bold: leave it out of style"
    assert refusal(scaled_differences, np.array([[1.0, 2.0]] * 9 + [[2.0, 4.0]]), "the answers", "headers") == (
        "the answers differ by the same share each time in headers: leave it out of style"
    )
    lost: Any = Votes("r3", ATTEMPTS[:1], KEPT)
    assert refusal(votes_of_runs, [lost]) == (
        "a vote of run r3 names an attempt that it does not hold: is the run a part of another?"
    )
    table, void = battles_of(one.__class__("r1", ATTEMPTS[:3], KEPT, VOID, AGAIN), ["w"])
    assert (table.models, len(table), void) == (("w", "x", "y"), 1, 1) and table.voters is not None
    assert refusal(battles_of, lost) == (
        "1 votes of run r3 name attempts that it does not hold: is the run a part of another?"
    )


def test_a_void_vote_that_repeats_another_is_counted_nowhere() -> None:
    both = Preference("t", "2", "1", "a", "ann", None, {REASK: "ann|1|2", "void": "A names itself: y"})
    blank = Preference("t", "1", "2", "b", "ann", None, {REASK: "", "void": ""})
    run: Any = Votes("r1", ATTEMPTS, KEPT, both, VOID, blank, AGAIN)
    run.traces = None  # where no style is asked for, no attempt is read
    found = votes_of_runs([run, run])
    assert (found.void, len(found.battles), found.battles.outcome.tolist()) == (2, 4, [0, 2] * 2)
    table, void = battles_of(run)
    assert (void, len(table), table.outcome.tolist()) == (1, 2, [0, 2])
    del run.traces
    assert [row["judge"] for row in vote_rows(run)] == ["ann", "ann"]
    for a, b in (("1", "9"), ("9", "1")):  # a void or a repeated vote may name what is not there
        lost: Any = Votes(
            "r4", ATTEMPTS, *(Preference("t", a, b, "a", "x", None, each.detail) for each in (both, VOID))
        )
        assert votes_of_runs([lost]).void == 1 == battles_of(lost)[1] and not len(votes_of_runs([lost]).battles)
        lost._votes.append(Preference("t", a, b, "a", "x"))
        for function in (votes_of_runs, battles_of):
            assert "that it does not hold" in refusal(function, [lost] if function is votes_of_runs else lost)


def test_a_failed_attempt_of_a_battle_is_kept_in_the_run(tmp_path: Path) -> None:
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        agents = [Agent(name, Scripted(replies), reply) for name, replies in (("ann", []), ("bob", ["b"]), ("eve", []))]
        task = prompt_task("why?")
        battle = asyncio.run(fight(run, *agents[:2], task, number=0, seed=4))
        none = asyncio.run(fight(run, agents[2], agents[0], task, number=1, seed=6))
        kept = {(each.agent_name, each.epoch): each for each in run.traces()}
        assert {key: (each.id, each.seed, each.error is None) for key, each in kept.items()} == {
            ("ann", 0): (battle.a.id, battle.a.seed, False), ("bob", 0): (battle.b.id, battle.b.seed, True),
            ("eve", 1): (none.a.id, none.a.seed, False), ("ann", 1): (none.b.id, none.b.seed, False),
        }  # fmt: skip
        assert battle.a.seed == battle.b.seed != none.a.seed == none.b.seed
        assert battle.failure.startswith("A failed: ") and none.failure.startswith("A failed: ")
        assert [row.agent for row in run.rows()] == ["ann", "bob", "eve", "ann"]


def test_votes_are_written_row_by_row(tmp_path: Path) -> None:
    run: Any = Votes("r1", ATTEMPTS, KEPT, VOID, AGAIN, BAD, Preference("u", "4", "1", "b", "=x"))
    base = [("arena/t", "x", "y"), ("arena/u", "z", "x"), ("arena/u", "z", "x")]
    ids = [row["id"] for row in vote_rows(run)]
    last = [("ann", KEPT.when), ("bob", ""), ("=x", "")]
    winners = ["model_a", "both_bad", "model_b"]
    rows = [
        dict(zip(("id", "question_id", "model_a", "model_b", "winner", "judge", "timestamp"), row, strict=True))
        for row in ((id, *one, won, *two) for id, one, won, two in zip(ids, base, winners, last, strict=True))
    ]
    assert vote_rows(run) == rows
    flags = [(1, 0, 0), (0, 0, 1), (0, 1, 0)]
    names = (
        "id",
        "question_id",
        "model_a",
        "model_b",
        "winner_model_a",
        "winner_model_b",
        "winner_tie",
        "judge",
        "timestamp",
    )
    assert vote_rows(run, "55k") == [
        dict(zip(names, (id, *one, *flag, *two), strict=True))
        for id, one, flag, two in zip(ids, base, flags, last, strict=True)
    ]
    assert write_votes(run, tmp_path / "v.csv") == 3
    assert (tmp_path / "v.csv").read_text().split("\n") == [
        "id,question_id,model_a,model_b,winner,judge,timestamp",
        f"{ids[0]},arena/t,x,y,model_a,ann,{KEPT.when}",
        f"{ids[1]},arena/u,z,x,both_bad,bob,",
        f"{ids[2]},arena/u,z,x,model_b,'=x,",
        "",
    ]
    assert write_votes(run, tmp_path / "v.jsonl", "55k") == 3
    assert [json.loads(line)["winner_tie"] for line in (tmp_path / "v.jsonl").read_text().splitlines()] == [0, 1, 0]
    none: Any = Votes("r2", ATTEMPTS, VOID, AGAIN)
    assert refusal(write_votes, none, tmp_path / "n.csv") == (
        "run r2 holds no votes that count: `firsthand arena MODEL MODEL` makes some"
    )
    path = tmp_path / "none" / "v.csv"
    assert refusal(write_votes, run, path) == f"{path} cannot be written: No such file or directory"
    for name, told in (("v", "nothing"), ("v.tsv", ".tsv")):
        assert refusal(write_votes, run, Path(name)) == f"{name} ends in {told}: votes are written as .csv or .jsonl"
    lost: Any = Votes("r3", ATTEMPTS[:1], KEPT)
    assert "a vote of run r3 names an attempt that it does not hold" in refusal(vote_rows, lost)


def test_a_vote_is_void_where_an_answer_names_its_own_model_and_the_question_does_not() -> None:
    def reason(a: str, b: str, prompt: str = "?", said: str | None = None) -> str:
        nodes = () if said is None else (Node(None, user("q")), Node(0, assistant("old")), Node(1, assistant(said)))
        first = trace("1", "one", a, model="openai:gpt-4o-mini", nodes=nodes)
        return void_reason(BlindBattle(Task("t", prompt), first, trace("2", "two", b, model="Qwen2.5-Instruct")))

    for a, b, prompt, told in (
        ("I am GPT", "hm", "?", "A names itself: gpt"),
        ("by OpenAI", "Qwen", "?", "A names itself: openai"),
        ("hm", "Alibaba made me", "?", "B names itself: alibaba"),
        ("Qwen", "gpt", "?", ""),
        ("xgpt", "an instruct", "?", ""),
        ("gpt", "qwen", "What are GPT and qwen?", ""),
        ("yes", "no", "Are you GPT?", "A names itself: gpt"),
    ):
        assert reason(a, b, prompt) == told
    assert reason("", "", said="GPT-4 here") == "A names itself: gpt" and reason("", "", said="  ") == ""
    assert reason("I am GPT", "", said="hm") == "A names itself: gpt", (
        "in the answer, though its last message is another"
    )
    for agent, answer, told in (
        ({"name": "claude"}, "Anthropic made me", "B names itself: anthropic"), ({"name": "x", "model": 5}, "hm", ""),
        ({"name": "x", "model": "none-7b"}, None, ""),
        ({"name": "claude", "model": "olmo-7b"}, "claude: Olmo", "B names itself: olmo"),
    ):  # fmt: skip
        second = replace(trace("2", "two", answer), agent=agent)
        assert void_reason(BlindBattle(Task("t", "?"), trace("1", "one", "hm"), second)) == told
    spoken = trace(
        "1", "x", "short", nodes=(Node(None, assistant("a")), Node(0, assistant("whole")), Node(1, user("b")))
    )
    assert shown_text(spoken) == "whole" and shown_text(trace("1", "x", "answer")) == "answer"
    assert shown_text(trace("1", "x", None)) == ""
    battle = BlindBattle(Task("t", "?"), trace("1", "x"), trace("2", "y", error=Failure("E", "gone")))
    assert battle.failure == "B failed: gone" and BlindBattle(battle.task, battle.a, battle.a).failure == ""
    assert BlindBattle(battle.task, battle.b, battle.a).failure == "A failed: gone"
    assert prompt_task("q") == Task(hashlib.sha256(b"q").hexdigest()[:16], "q")
    assert refusal(prompt_task, " \n") == "the prompt is empty: write a question"


def test_a_battle_is_kept_before_its_vote_and_the_vote_with_its_facts(tmp_path: Path) -> None:
    heard: list[list[Any]] = [[], []]
    with store.create(tmp_path, {"arena": {}}, "arena") as run:
        agents = [Agent(name, Scripted([f"{name} says"], name=f"scripted:{name}"), reply) for name in ("ann", "bob")]
        task = prompt_task("é?")
        ears = (heard[0].append, heard[1].append)
        battle = asyncio.run(fight(run, *agents, task, number=3, seed=5, listeners=ears))
        assert [each.agent_name for each in (battle.a, battle.b)] == ["ann", "bob"] and battle.task is task
        assert [(each.benchmark, each.epoch, each.answer) for each in run.traces()] == [
            (ARENA, 3, "ann says"),
            (ARENA, 3, "bob says"),
        ]
        assert all(heard) and run.tasks()[ARENA, task.id].prompt == "é?" and battle.a.seed == battle.b.seed
        kept = vote(run, battle, "b", by="human:x", dwell_s=1.23456, reasons=["short"], more={"k": 1})
        plain = vote(run, battle, "tie", by="human:y", dwell_s=2)
        digest = hashlib.sha256("é?".encode()).hexdigest()
        assert run.preferences() == [kept, plain]
        assert (kept.task_id, kept.a, kept.b, kept.winner, kept.by) == (
            task.id,
            battle.a.id,
            battle.b.id,
            "b",
            "human:x",
        )
        base = {"prompt_sha256": digest, "void": ""}
        assert kept.detail == {**base, "dwell_s": 1.235, "k": 1, "reasons": ["short"]} and kept.when is not None
        odd = BlindBattle(prompt_task("\ud800?"), battle.a, battle.b)  # as half of an emoji is, which a page may send
        assert run.preferences() == [kept, plain] and vote(run, odd, "a", by="human:z", dwell_s=0).detail == {
            "prompt_sha256": hashlib.sha256(b"\xed\xa0\x80?").hexdigest(), "dwell_s": 0, "void": "",
        }  # fmt: skip
        assert plain.detail == {**base, "dwell_s": 2}
        judge = Scripted(["No tie.\n[[A]]", "[[b]]"])
        judged = asyncio.run(judge_vote(run, battle, judge, seed=7, max_tokens=9))
        assert judged is not None and (judged.winner, judged.by) == ("a", "judge:scripted")
        assert judged.detail == {**base, "dwell_s": 0.0, "orders": ["a", "a"], "consistent": True}
        straight, turned = (
            PROMPT.format(question="é?", a=f"{a} says", b=f"{b} says") for a, b in (("ann", "bob"), ("bob", "ann"))
        )
        assert [each.prompt[0].text for each in judge.asked] == [straight, turned]
        assert {(each.sampling.seed, each.sampling.max_tokens) for each in judge.asked} == {(7, 9)}
        split = asyncio.run(judge_vote(run, battle, Scripted(["[[A]]", "[[A]]"])))
        assert split is not None and split.winner == "tie"
        assert (split.detail or {})["orders"] == ["a", "b"] and (split.detail or {})["consistent"] is False
        before = len(run.preferences())
        assert (
            asyncio.run(judge_vote(run, battle, Scripted(["[[A]]", "[a]", "so [[A]]"]))) is None
            and len(run.preferences()) == before
        )


def test_a_vote_is_asked_again_once_and_agreement_counts_sides() -> None:
    own = [Preference("t", f"{at}", f"{at}'", "a" if at % 2 else "b", "ann") for at in range(8)]
    others = [Preference("t", "9", "9'", "a", "bob")] * 9
    assert vote_key(Preference("t", "z", "b", "a", "ann")) == "ann|b|z"
    for wait, free in ((5, own[:3]), (0, own), (7, own[:1]), (8, [])):
        drawn = {id(to_reask([*others, *own], "ann", Random(seed), wait=wait)) for seed in range(60)}
        assert drawn == ({id(each) for each in free} or {id(None)})
    again = [Preference("t", f"{at}'", f"{at}", "b", "ann", None, {REASK: vote_key(own[at])}) for at in (0, 1)]
    assert (
        is_reask(again[0])
        and not is_reask(own[0])
        and not is_reask(Preference("t", "a", "b", "a", "x", None, {REASK: ""}))
    )
    assert to_reask([*own, *again], "ann", Random(0)) is own[2] and to_reask(own[:5], "ann", Random(0)) is None
    # own[0] was b, asked again with sides exchanged it is b: for the other answer on the same side; own[1] was a: agreed
    found = self_agreement([*own, *again])
    assert found is not None and (found.pairs, found.agreed, found.first_side) == (2, 0.5, 0.5)
    again = Preference("t", "2", "2'", "both_bad", "ann", None, {REASK: vote_key(own[2])})
    bad = Preference("t", "2", "2'", "tie", "ann")
    assert same(self_agreement([bad, again]), SelfAgreement(1, 1.0, math.nan, 0.0))
    assert self_agreement([again]) is None and self_agreement(own) is None


def test_a_second_verdict_is_read_by_the_sides_it_was_given_on() -> None:
    def pair(name: str, before: str, after: str, turned: bool) -> list[Preference]:
        one = Preference("t", name, f"{name}'", before, "ann")  # type: ignore[arg-type]
        sides = (one.b, one.a) if turned else (one.a, one.b)
        return [one, Preference("t", *sides, after, "ann", None, {REASK: vote_key(one)})]  # type: ignore[arg-type]

    votes = [
        pair("1", "a", "a", True),
        pair("2", "a", "a", False),
        pair("3", "b", "a", True),
        pair("4", "a", "b", False),
    ]
    votes += [pair("5", "b", "a", True), pair("6", "tie", "tie", True), pair("7", "b", "b", True)]
    found = self_agreement([each for both in votes for each in both])
    first, second = ["a", "a", "b", "a", "b", "tie", "b"], ["b", "a", "b", "b", "b", "tie", "a"]
    assert found == SelfAgreement(7, 4 / 7, cohen_kappa(first, second), 2 / 7)


SECRET = b"k" * 32


def test_a_ticket_is_good_for_one_vote_of_its_voter_in_its_time() -> None:
    battle = BlindBattle(Task("t", "p?"), trace("1", "x", "left"), trace("2", "y", None))
    shown = shown_battle(battle, SECRET, voter="v", now_s=100.00049)
    text = json.dumps({"a": "1", "at": 100.0, "b": "2", "task": "t", "voter": "v"}).encode()
    sealed = base64.urlsafe_b64encode(hmac.new(SECRET, text, hashlib.sha256).digest() + text).decode()
    assert shown == {"prompt": "p?", "a": "left", "b": "", "ticket": sealed}

    def voted(
        now_s: float, *, day: int = 0, past: Sequence[Preference] = (), voter: str = "v", **limits: Any
    ) -> TicketVote:
        body = {"ticket": sealed, "winner": "both_bad"}
        allowed = VoteLimits(**limits) if limits else None
        return vote_of_request(body, SECRET, voter=voter, now_s=now_s, past=past, past_day=day, limits=allowed)

    taken = TicketVote("t", "1", "2", "both_bad", "v", 1.0)
    assert voted(101.0) == taken and voted(101.0, day=99) == taken and voted(3700.0).dwell_s == 3600
    assert voted(100.5, least_s=0.5).dwell_s == 0.5 and voted(102, valid_s=2, daily=1).dwell_s == 2
    for given, said in (
        ({"now_s": 100.9}, "the vote came 0.9 s after the answers: read both first"),
        ({"now_s": 99}, "the vote came 0.0 s after the answers: read both first"),
        ({"now_s": 3700.1}, "the ticket is too old: ask for a new battle"),
        ({"now_s": 102.1, "valid_s": 2}, "the ticket is too old: ask for a new battle"),
        ({"now_s": 101, "day": 100}, "100 votes in a day are the most that count: come back tomorrow"),
        ({"now_s": 101, "day": 1, "daily": 1}, "1 votes in a day are the most that count: come back tomorrow"),
        ({"now_s": 101, "voter": "w"}, "the ticket was given to another voter: ask for a battle of your own"),
        (
            {"now_s": 101, "past": [Preference("t", "2", "1", "a", "v")]},
            "this battle has your vote already: ask for the next one",
        ),
    ):
        assert refusal(voted, **given) == said
    others = [Preference("t", "2", "1", "a", "w"), Preference("t", "2", "3", "a", "v")]
    assert voted(101.0, past=others) == taken
    raw = bytearray(base64.urlsafe_b64decode(sealed))
    raw[40] ^= 1
    for ticket in (base64.urlsafe_b64encode(bytes(raw)).decode(), "", "x" * 4097, sealed[:-4], 5):
        body = {"ticket": ticket, "winner": "a"}
        said = refusal(vote_of_request, body, SECRET, voter="v", now_s=101, past=[], past_day=0)
        assert said == "the ticket is not one of this arena: ask for a new battle"
    for body, said in (
        ({"ticket": sealed}, "a vote is an object with ticket and winner"),
        ({"ticket": sealed, "winner": "c"}, "winner is 'c': give one of a, b, tie, both_bad"),
    ):
        assert refusal(vote_of_request, body, SECRET, voter="v", now_s=101, past=[], past_day=0) == said


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl"])
def test_votes_of_one_voter_at_one_time_are_all_read_back(tmp_path: Path, name: str) -> None:
    attempts = [trace(str(n), "xy"[n % 2]) for n in range(8)]
    verdicts: list[Any] = ["a", "b", "a", "a"]
    votes = [Preference("t", str(2 * n), str(2 * n + 1), won, "judge:j", KEPT.when) for n, won in enumerate(verdicts)]
    votes += [votes[0], votes[0], replace(votes[0], by="judge:k"), replace(votes[0], when="2026-01-02T03:04:06+00:00")]
    run: Any = Votes("r1", attempts, *votes)
    for layout in ("arena", "55k"):
        assert write_votes(run, tmp_path / name, layout) == 8  # type: ignore[arg-type]
        found = read_votes(tmp_path / name)
        assert (len(found.battles), found.duplicates) == (8, 0)
        assert found.battles.outcome.tolist() == [0, 2, 0, 0, 0, 0, 0, 0]
    ids = [row["id"] for row in vote_rows(run)]
    less: Any = Votes("r1", attempts, *votes[:5])
    assert len(set(ids)) == 8 and [row["id"] for row in vote_rows(less)] == ids[:5], "ids stay as votes are added"
    changed: Any = Votes("r1", attempts, replace(votes[0], winner="b"))
    assert vote_rows(changed)[0]["id"] == ids[0], "a verdict is no part of it"
    whole = (tmp_path / name).read_text().splitlines(keepends=True)
    (tmp_path / name).write_text("".join(whole + whole[-3:]))
    assert (read_votes(tmp_path / name).duplicates, len(read_votes(tmp_path / name).battles)) == (3, 8)


def test_tasks_of_two_benchmarks_with_one_id_are_two_questions() -> None:
    other = [replace(each, id=f"o{each.id}", benchmark="other") for each in ATTEMPTS]
    run: Any = Votes("r1", [*ATTEMPTS, *other], KEPT, replace(KEPT, a="o1", b="o2"))
    assert [row["question_id"] for row in vote_rows(run)] == ["arena/t", "other/t"]
    for table in (votes_of_runs([run]).battles, battles_of(run)[0]):
        assert table.questions is not None and table.questions.tolist() == [0, 1]
