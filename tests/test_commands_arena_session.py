"""A session of `firsthand arena` step by step: what is asked, shown, kept and said, by a person and by a judge."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.arena.battle_table import BattleTable
from firsthand.arena.blind_battles import BlindBattle, fight, prompt_task, vote
from firsthand.arena.blind_reasks import REASK, vote_key
from firsthand.arena.continued_battles import decided_battles, unvoted_battles
from firsthand.arena.pair_choice import choose_pair
from firsthand.commands import arena
from firsthand.commands.arena import Config
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.loop.concurrency import Retry
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.trace import Trace
from printed_tables import widen, words

NAMES = ("one", "two", "six")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run without battles yet; the terminal is wide."""
    widen(monkeypatch, arena)
    return store.create(tmp_path / "home", {"arena": {}}, "arena", command=["firsthand"])


def agents(*names: str, **answers: Any) -> dict[str, Agent]:
    return {name: Agent(name, Scripted(answers.get(name, {"": f"{name} says"})), reply) for name in names}


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def session(config: Config, run: Run, known: dict[str, Agent], *prompts: str, judge: Any = None) -> int:
    return asyncio.run(arena._session(config, run, known, judge, iter(prompts)))


def drawn(seed: int, number: int, models: tuple[str, ...] = NAMES, *votes: tuple[str, str, str]) -> list[str]:
    """The names of the two sides of a battle of that number, after those votes."""
    table = BattleTable.from_columns(*(list(each) for each in zip(*votes, strict=True)) if votes else ([], [], []),
                                     models=models)  # fmt: skip
    return [table.models[each] for each in choose_pair(table, np.random.default_rng([seed, number]))]


def test_a_session_shows_each_battle_takes_a_vote_and_reveals(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "zoe")
    typed(monkeypatch, "s\nB\nnone\nq\n")
    first = drawn(5, 0)
    assert drawn(5, 0) != drawn(5, 1), "another number draws other sides"
    assert session(Config(NAMES, seed=5), run, agents(*NAMES), "P0 [bold]?", "P1?", "P0 [bold]?", "P3?") == 2
    second = drawn(5, 1)
    third = drawn(5, 2, NAMES, (*second, "b"))  # type: ignore[arg-type]
    fourth = drawn(5, 3, NAMES, (*second, "b"), (*third, "both_bad"))  # type: ignore[arg-type]
    ask = arena.ASK.strip()
    told = words(capsys.readouterr().out)
    # a skip is revealed too; a vote is followed by the standings
    assert told == [
        "P0 [bold]?", "A B", f"{first[0]} says {first[1]} says", f"{ask} A was {first[0]}, B was {first[1]}.",
        "0 votes: too few to rate every model.",
        "P1?", "A B", f"{second[0]} says {second[1]} says", f"{ask} A was {second[0]}, B was {second[1]}.",
        "1 vote: too few to rate every model.",
        "P0 [bold]?", "A B", f"{third[0]} says {third[1]} says", f"{ask} A was {third[0]}, B was {third[1]}.",
        told[14],
        "P3?", "A B", f"{fourth[0]} says {fourth[1]} says", ask,
    ]  # fmt: skip
    assert told[14].startswith("2 votes: ")
    traces = list(run.traces())
    assert [(each.epoch, each.agent_name, each.seed) for each in traces[:4]] == [
        (0, first[0], 5), (0, first[1], 5), (1, second[0], 5), (1, second[1], 5)
    ]  # fmt: skip
    kept = run.preferences()
    assert [(each.winner, each.by, each.a, each.b) for each in kept] == [
        ("b", "human:zoe", traces[2].id, traces[3].id), ("both_bad", "human:zoe", traces[4].id, traces[5].id),
    ]  # fmt: skip
    assert all(0 <= each.detail["dwell_s"] < 5 for each in kept if each.detail)


def test_a_session_goes_on_counting_battles_and_ends_at_its_number_of_votes(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "t\ns\na\nb\n")
    two = ("one", "two")
    config = Config(two, voter="ada", battles=1)
    assert session(config, run, agents(*two), "P0?", "P1?") == 1, "the second prompt is not reached"
    assert session(replace(config, battles=2, voter="bo"), run, agents(*two), "P2?", "P3?", "P4?", "P5?") == 2
    assert [each.epoch for each in run.traces()] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [(each.winner, each.by) for each in run.preferences()] == [
        ("tie", "human:ada"), ("a", "human:bo"), ("b", "human:bo"),
    ]  # fmt: skip
    capsys.readouterr()
    with pytest.raises(ConfigError) as refused:
        session(Config(("one", "neo"), seed=1), run, agents("one", "neo"), *[f"Q{n}?" for n in range(9)],
                judge=Scripted({"": "[[C]]"}))  # fmt: skip
    assert str(refused.value) == f"run {run.id} has battles of 'two': name it among the models too"


def test_a_failed_attempt_takes_no_vote_and_an_answer_that_names_its_model_makes_it_void(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ("one", "two")
    answers = {"P0": "fine", "P1": "I am zephyr", "P2": "fine"}
    known = agents(*two) | {"two": Agent("two", Scripted(answers, name="scripted:zephyr"), reply)}
    typed(monkeypatch, "a\nt\n")
    assert session(Config(two, voter="ada"), run, known, "P0?", "PX?", "P1?") == 2
    side = {number: "AB"[drawn(0, number, two).index("two")] for number in (1, 2)}
    out = words(capsys.readouterr().out)
    (failed,) = [line for line in out if "failed: " in line]
    assert (
        failed.startswith(f"{side[1]} failed: ")
        and failed.endswith(". No vote is taken.")
        and ".." not in failed
        and "PX?" not in out
    )
    void = [line for line in out if "does not count" in line]
    assert void == [f"{arena.ASK.strip()} This vote does not count, because {side[2]} names itself: zephyr."]
    assert [bool((each.detail or {}).get("void")) for each in run.preferences()] == [False, True]
    assert "1 vote: too few to rate every model." in out[-1]


def test_a_judge_votes_in_place_of_a_person_and_only_verdicts_count(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ("one", "two")
    judge = Scripted(["no idea", "none", "[[A]]", "[[B]]", "[[C]]", "[[C]]"], name="scripted:j")
    assert session(Config(two, prompts="x", battles=2, judge="j", seed=4), run, agents(*two), *"PQRS", judge=judge) == 2
    assert [(each.winner, each.by) for each in run.preferences()] == [
        ("a", "judge:scripted:j"),
        ("tie", "judge:scripted:j"),
    ]
    assert len(list(run.traces())) == 6, "the fourth prompt is not asked"
    told = words(capsys.readouterr().out)
    assert told[:2] == ["0 votes: too few to rate every model.", "1 vote: too few to rate every model."]
    assert told[2].startswith("2 votes: ")
    assert told[3:] == [f"1 battle without a verdict of the judge: --continue {run.id} asks for it again."]
    assert [each.sampling.seed for each in judge.asked if each.sampling] == [4] * 6


TWO = ("one", "two")


def judged(run: Run, judge: Any, *prompts: str, again: bool = False, models: tuple[str, ...] = TWO, **more: Any) -> int:
    """A session of a judge on a file of these prompts."""
    config = Config(models, prompts="p.txt", judge="j", continue_="last" if again else "", **more)
    return session(config, run, agents(*models), *prompts, judge=judge)


def voted(run: Run) -> list[tuple[str, str]]:
    """The prompts of the votes, in order, each with the voter."""
    prompts = {task_id: task.prompt for (_, task_id), task in run.tasks().items()}
    return [(prompts[each.task_id], each.by) for each in run.preferences()]


def failing(*numbers: int, error: Exception | None = None) -> Scripted:
    """A judge for which all answers are equal, and whose calls of these numbers fail."""
    calls = iter(range(1000))

    def answer(*_: Any) -> str:
        if next(calls) in numbers:
            raise error or ModelError("no power.")
        return "[[C]]"

    return Scripted(answer, name="scripted:j")


def test_a_battle_in_which_the_judge_fails_has_no_vote_and_the_session_goes_on(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # two failures, a vote, two failures: no three in a row. The second call of a battle may fail as the first may
    assert judged(run, failing(0, 2, 5, 7), "P", "Q", "R", "S", "T") == 1
    assert voted(run) == [("R", "judge:scripted:j")] and len(list(run.traces())) == 10
    told = words(capsys.readouterr().out)
    assert told[0] == "The judge failed: no power. No vote is taken." and told.count(told[0]) == 4
    assert told[-1] == f"4 battles without a verdict of the judge: --continue {run.id} asks for it again."


def test_three_new_battles_in_a_row_in_which_the_judge_fails_end_the_session(run: Run) -> None:
    with pytest.raises(ModelError) as refused:
        judged(run, failing(*range(9)), *"PQRST")
    assert str(refused.value) == (
        f"the judge failed in 3 battles in a row, and run {run.id} keeps their answers: go on with --continue {run.id} "
        "when it answers again (no power.)"
    )
    assert len(list(run.traces())) == 6, "the fourth battle is not answered"
    # those of before are asked for first, however many of them fail, and the fourth prompt is answered
    assert judged(run, failing(0, 1, 2), *"PQRS", again=True) == 1
    assert voted(run) == [("S", "judge:scripted:j")] and len(list(run.traces())) == 8


def test_ten_battles_in_a_row_for_which_the_judge_is_out_of_reach_end_the_session_waiting_ones_too(run: Run) -> None:
    class Down(Scripted):
        async def complete(self, *_: Any, **__: Any) -> Any:
            nonlocal asked
            asked += 1
            raise TransientError("no answer", 0.0)

    asked, prompts = 0, [f"P{number}" for number in range(16)]
    for first in range(0, 12, 3):  # twelve battles wait for a vote
        with pytest.raises(ModelError, match="failed in 3 battles in a row"):
            judged(run, failing(*range(99)), *prompts[first : first + 3])
    with pytest.raises(ModelError, match=r"failed in 10 battles in a row.*no answer"):
        judged(run, Down([], name="scripted:j"), *prompts, again=True)
    assert asked == 10 * Retry().attempts and len(list(run.traces())) == 24
    # answers that are refused, or a vote between, are no outage: the session goes on with what waits and then with prompts
    outage, refusal = TransientError("no answer", 0.0), ModelError("no power.")
    for between, votes in ((refusal, 1), (None, 3)):
        faults = [*[outage] * 9, between, *[outage] * 2]
        assert judged(run, each_fails(faults), *prompts[: 13 if votes == 1 else 15], again=True) == votes


def each_fails(faults: list[Exception | None]) -> Scripted:
    """A judge with these faults in its first battles, None for a vote; those that pass are faults of all tries."""
    tries = {TransientError: Retry().attempts, ModelError: 1, type(None): 2}
    calls = iter([fault for each in faults for fault in [each] * tries[type(each)]])

    def answer(*_: Any) -> str:
        if (fault := next(calls, None)) is not None:
            raise fault
        return "[[C]]"

    return Scripted(answer, name="scripted:j")


def test_a_fault_of_the_judge_that_passes_is_waited_for_and_another_error_is_raised(run: Run) -> None:
    assert judged(run, failing(0, error=TransientError("busy", 0.0)), "P") == 1
    with pytest.raises(ConfigError, match="no key"):
        judged(run, failing(0, error=ConfigError("no key")), "Q")


def test_a_continued_session_of_a_judge_asks_for_missing_votes_and_then_for_the_prompts_that_are_left(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judged(run, failing(2), "P", "Q", "R") == 2
    answers = [each.id for each in run.traces()]
    assert judged(run, failing(), "P", "Q", "R", "S", again=True, battles=1) == 1
    assert [prompt for prompt, _ in voted(run)] == ["P", "R", "Q"] and len(list(run.traces())) == 6
    assert {run.preferences()[-1].a, run.preferences()[-1].b} == set(answers[2:4]), "the answers of before"
    assert judged(run, failing(), "P", "Q", "R", "S", "S", again=True) == 2
    assert [prompt for prompt, _ in voted(run)[3:]] == ["S", "S"]
    capsys.readouterr()
    assert judged(run, failing(), "S", "P", "S", again=True) == 0 and len(list(run.traces())) == 10
    told = "Each prompt of p.txt has a vote already: add prompts, or begin anew without --continue."
    assert words(capsys.readouterr().out) == [told]
    assert judged(run, failing(), "S", "S", "S", again=True) == 1, "a line more is a battle more"
    other = Scripted({"": "[[A]]"}, name="scripted:k")
    assert judged(run, other, "P", again=True) == 1, "what another voter decided is not left out"
    assert judged(run, failing(), "P") == 1, "without --continue each line is a battle"
    assert told not in words(capsys.readouterr().out)
    with pytest.raises(ModelError, match="3 battles in a row"):
        judged(run, failing(0, 1, 2), "X", "Y", "Z")
    capsys.readouterr()
    assert judged(run, failing(), "X", again=True) == 3 and told not in words(capsys.readouterr().out)
    assert judged(run, failing()) == 0 and capsys.readouterr().out == ""


def test_a_continued_session_comes_back_to_a_prompt_for_models_that_were_not_compared_on_it(run: Run) -> None:
    def pairs() -> list[tuple[str, frozenset[str]]]:
        names = {each.id: each.agent_name for each in run.traces()}
        prompts = [prompt for prompt, _ in voted(run)]
        kept = zip(prompts, run.preferences(), strict=True)
        return [(prompt, frozenset((names[each.a], names[each.b]))) for prompt, each in kept]

    assert judged(run, failing(), "P", models=NAMES) == 1
    for number in (2, 2, 1):  # Q first, of which there are fewer votes, until each pair has met on both
        assert judged(run, failing(), "P", "Q", again=True, models=NAMES) == number
    assert judged(run, failing(), "P", "Q", again=True, models=NAMES) == 0
    assert len(set(pairs())) == len(pairs()) == 6
    assert [prompt for prompt, _ in pairs()] == ["P", "Q", "P", "Q", "P", "Q"]


def test_a_person_goes_on_with_the_prompts_of_a_file_that_they_have_not_decided(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(TWO, prompts="p.txt", voter="ada")
    typed(monkeypatch, "a\ns\nq\n")
    assert session(config, run, agents(*TWO), "P", "Q", "R") == 1
    typed(monkeypatch, "b\nb\n")
    assert session(replace(config, continue_="last"), run, agents(*TWO), "P", "Q", "R") == 2
    typed(monkeypatch, "b\n")
    assert session(replace(config, continue_="last", voter="bo"), run, agents(*TWO), "P") == 1
    typed(monkeypatch, "b\n")
    assert session(replace(config, continue_="last", prompts=""), run, agents(*TWO), "P") == 1, "typed anew: asked anew"
    ada, bo = "human:ada", "human:bo"
    assert voted(run) == [("P", ada), ("Q", ada), ("R", ada), ("P", bo), ("P", ada)]


def test_battles_without_a_vote_have_two_answers_and_no_vote_of_anybody(run: Run) -> None:
    first, second, third = battles(run, 3)
    broken = Agent("two", Scripted(["x"], error=ModelError("gone")), reply)
    asyncio.run(fight(run, agents("one")["one"], broken, prompt_task("Q?"), number=3, seed=0))
    vote(run, second, "tie", by="human:zoe", dwell_s=1)
    found = unvoted_battles(run)
    assert [(each.task, each.a.id, each.b.id) for each in found] == [
        (each.task, each.a.id, each.b.id) for each in (first, third)
    ]
    vote(run, first, "a", by="human:zoe", dwell_s=1, more={"void": "A names itself: one"})
    vote(run, first, "a", by="human:zoe", dwell_s=1, more={REASK: "x"})
    vote(run, first, "a", by="human:ada", dwell_s=1)
    vote(run, first, "a", by="human:zoe", dwell_s=1)
    one = agents("one")["one"]  # whose second attempt takes the place of the first, as if a session was killed after it
    asyncio.run(fight(run, one, one, prompt_task("Alone?"), number=4, seed=0))
    for a, b in ((first.a.id, "gone"), ("gone", first.a.id)):
        run.add_preference(Preference(first.task.id, a, b, "a", "human:zoe"))
    keys = [(each.task.id, frozenset(TWO)) for each in (second, first, first)]
    assert decided_battles(run, "human:zoe") == Counter(keys) and len(unvoted_battles(run)) == 1


def battles(run: Run, count: int) -> list[BlindBattle]:
    known = agents("one", "two")

    async def made() -> list[BlindBattle]:
        return [
            await fight(run, known["one"], known["two"], prompt_task(f"Q{n}?"), number=n, seed=0) for n in range(count)
        ]

    return asyncio.run(made())


def test_an_earlier_battle_is_asked_again_with_its_sides_exchanged(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fought = battles(run, 7)
    typed(monkeypatch, "b\n")
    assert arena._asked_again(run, "human:ada", Random(1)) is True, "without earlier votes nothing is asked"
    assert capsys.readouterr().out == ""
    kept = [vote(run, each, "a" if n else "b", by="human:ada", dwell_s=1) for n, each in enumerate(fought)]
    earlier = kept[0] if Random(1).choice([0, 1]) == 0 else kept[1]
    assert arena._asked_again(run, "human:ada", Random(1)) is True
    assert words(capsys.readouterr().out) == [
        f"Q{kept.index(earlier)}?", "A B", "two says one says", arena.ASK.strip()
    ]  # fmt: skip
    again = run.preferences()[-1]
    assert (again.a, again.b, again.task_id) == (earlier.b, earlier.a, earlier.task_id)
    assert (again.winner, again.by) == ("b", "human:ada") and (again.detail or {})[REASK] == vote_key(earlier)
    # skipping keeps nothing and goes on, quitting ends
    for line, goes_on in (("s\n", True), ("q\n", False), ("", False)):
        typed(monkeypatch, line)
        assert arena._asked_again(run, "human:ada", Random(1)) is goes_on and len(run.preferences()) == 8
    capsys.readouterr()
    arena._self_agreement(run)
    # the other side won when the sides were exchanged, so the verdicts are equal if the first was for a
    share = "100%" if earlier.winner == "a" else "0%"
    assert capsys.readouterr().out.startswith(f"1 battle asked again: {share} equal verdicts")


def test_nothing_is_said_of_agreement_without_a_second_vote(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = battles(run, 2)
    one, other = (vote(run, each, "tie", by="human:ada", dwell_s=1) for each in (first, second))
    arena._self_agreement(run)
    assert capsys.readouterr().out == ""
    for earlier, battle, winner, told in (
        (one, first, "tie", "1 battle asked again: 100% equal verdicts; too few or too alike for kappa.\n"),
        (other, second, "a", "2 battles asked again: 50% equal verdicts, kappa 0.00.\n"),
    ):
        turned = BlindBattle(battle.task, battle.b, battle.a)
        vote(run, turned, winner, by="human:ada", dwell_s=1, more={REASK: vote_key(earlier)})  # type: ignore[arg-type]
        arena._self_agreement(run)
        assert capsys.readouterr().out == told


def test_standings_are_one_line_the_best_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for battle, winner in zip(battles(run, 3), ("b", "a", "b"), strict=True):
        vote(run, battle, winner, by="human:ada", dwell_s=1)  # type: ignore[arg-type]
    arena._standings(run, ("one", "two"))
    # two wins 2 of 3: its odds are 2, which is 400 * log10(2) = 120.4 points about the mean of 1000
    (line,) = words(capsys.readouterr().out)
    assert line.startswith("3 votes: two 1060 [") and "] one 940 [" in line and line.endswith("]")
    low, high = (int(each.strip("[],")) for each in line.split()[4:6])
    assert low < 1060 < high and abs((low + high) / 2 - 1060) <= 1
    arena._standings(run, ("one", "two", "new"))
    assert capsys.readouterr().out == "3 votes: too few to rate every model.\n"


@pytest.mark.parametrize(("width", "wide"), [(99, False), (100, True)])
def test_answers_stand_side_by_side_where_the_terminal_is_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, wide: bool
) -> None:
    made = arena.console

    def console() -> Any:
        out = made()
        out.width = width
        return out

    monkeypatch.setattr(arena, "console", console)
    a, b = (Trace(name, "arena", "t", {"name": name}, 0, 0, "", 1.0, (), answer=answer)
            for name, answer in (("x", "left [b]one\x1b"), ("y", None)))  # fmt: skip
    arena._show("Which [i]is\x1b it?", BlindBattle(prompt_task("Which?"), a, b))
    out = capsys.readouterr().out
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[:3] == ["", "Which [i]is\\x1b it?", ""]
    if wide:
        assert [line.split("  ")[0] for line in lines[3:]] == ["A", "left [b]one\\x1b"]
        assert lines[3].index("B") == lines[4].index("(no answer)") > 40
    else:
        assert lines[3:] == ["A", "left [b]one\\x1b", "", "B", "(no answer)", ""]


def test_a_verdict_is_the_first_letter_of_a_line_and_the_end_of_input_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "\nyes\n  Both\nT\nnone\nS\nQ\nA")
    assert [arena._ask() for _ in range(6)] == ["b", "tie", "both_bad", "s", "q", "a"]
    assert capsys.readouterr().out == arena.ASK * 8
    assert arena._ask() == "q" and capsys.readouterr().out == f"{arena.ASK}\n"
    typed(monkeypatch, " two words \n")
    prompts = arena._prompts(Config(("x", "y")))
    assert list(prompts) == [" two words "] and capsys.readouterr().out.count("Your prompt (empty to end): ") == 2
    typed(monkeypatch, "first\n\nsecond\n")
    assert list(arena._prompts(Config(("x", "y")))) == ["first"]


def test_prompts_of_a_file_are_its_lines_that_are_not_blank(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text(" one\n\n \ntwo ü\n", encoding="utf-8")
    assert list(arena._prompts(Config(("x", "y"), prompts=str(file)))) == [" one", "two ü"]
    file.write_bytes(b"\xff\n")
    for content, told in ((b"\xff\n", "cannot be read: "), (b" \n\t\n", "has no prompts: write one on each line")):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=told) as refused:
            arena._prompts(Config(("x", "y"), prompts=str(file)))
        assert repr(str(file)) in str(refused.value)


def test_agents_have_the_settings_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr(arena, "fetch_named", fetched.append)
    real = arena.catalog.model
    monkeypatch.setattr(arena.catalog, "model", lambda name, *, device: fetched.append(device) or real(name))
    config = Config(("scripted:echo", "y"), system="Be brief.", device="cuda:1", temperature=0.25, max_tokens=7)
    agent = arena._agent(config, "scripted:echo")
    assert (agent.name, agent.model.name, agent.pattern, agent.tools) == ("scripted:echo", "scripted:echo", reply, ())
    assert agent.sampling == Sampling(temperature=0.25, max_tokens=7) and agent.system == "Be brief."
    assert fetched == ["scripted:echo", "cuda:1"]


def test_limits_of_a_session() -> None:
    for given, told in (
        ({"models": ("a",)}, "models is a: name two or more different ones"),
        ({"models": ()}, "models is empty: name two or more different ones"),
        ({"models": ("a", "b", "a")}, "models is a, b, a: name two or more different ones"),
        ({"reask": 1.0}, "reask is 1.0: give a chance from 0 to below 1"),
        ({"reask": -0.1}, "reask is -0.1: give a chance from 0 to below 1"),
        ({"judge": "j"}, "judge votes on prompts from a file: give one with --prompts"),
        ({"battles": -1}, "battles is -1: give 1 or more, or 0 for no end"),
    ):
        with pytest.raises(ConfigError) as refused:
            Config(**{"models": ("a", "b"), **given})  # type: ignore[arg-type]
        assert str(refused.value) == told
    assert Config(("a", "b"), reask=0.99, judge="j", prompts="p").battles == 0


def test_an_arena_keeps_its_settings_and_says_where_votes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("six.json").write_text('{"": "six says"}')
    models = ("scripted:six.json", "scripted:echo")
    typed(monkeypatch, "P?\na\n\n")
    assert arena.main(Config(models, system="S", seed=7, voter="ada")) == 0
    with store.open_run("last", tmp_path) as run:
        assert (
            run.config == {"arena": {"models": list(models), "system": "S", "seed": 7}} and run.info.status != "running"
        )
        assert list(run.agents()) == list(models) and run.agents()[models[0]]["system"] == "S"
        first = run.id
    out = " ".join(capsys.readouterr().out.split())
    assert out.endswith(f"1 vote kept in run {first}. `firsthand board {first}` shows the ratings.")
    typed(monkeypatch, "")
    assert arena.main(Config(models, continue_=first, system="S", voter="ada")) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(
        f"No vote was given; the answers are kept in run {first}."
    )
    typed(monkeypatch, "")
    assert arena.main(Config(models)) == 0 and [
        each.parent.name for each in (tmp_path / "runs").glob("*/run.sqlite")
    ] == [first]
    assert capsys.readouterr().out.endswith("Nothing was asked, so nothing is kept.\n")
    with store.create(tmp_path, {"arena": {}}, "old") as old:
        path = old.path
    typed(monkeypatch, "")
    assert arena.main(Config(models, continue_=str(path))) == 0 and path.is_dir(), "an old run is never removed"
    assert "No vote was given; the answers are kept in run " in capsys.readouterr().out


def test_a_model_that_was_drawn_and_not_named_is_refused_on_either_side(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (battle,) = battles(run, 1)
    vote(run, battle, "a", by="human:ada", dwell_s=1)
    refused_at = set()
    for seed in range(12):
        for missing in TWO:
            known = tuple(name for name in ("six", *TWO) if name != missing)
            sides = drawn(seed, 1, known, ("one", "two", "a"))
            if missing in sides:
                with pytest.raises(ConfigError) as refused:
                    session(Config(known, seed=seed), run, agents(*known), "P0?")
                assert str(refused.value) == f"run {run.id} has battles of {missing!r}: name it among the models too"
                refused_at.add((missing, sides.index(missing)))
    assert refused_at == {(name, side) for name in TWO for side in (0, 1)}
    assert len([*run.traces()]) == 2, "nothing was asked"
