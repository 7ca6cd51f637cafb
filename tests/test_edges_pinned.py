"""Boundaries in the rooms whose planted changes lived: each table holds the value on either side of a limit, and at it."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.cluster.replicas.replica_slots import total_counters
from firsthand.cluster.replicas.router import Router
from firsthand.errors import ConfigError, ModelFileError, PromptTooLong, TransientError
from firsthand.formats.fields import MAX_LAYERS, Fields
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.patterns.code_act import _observe, parse_code
from firsthand.providers.cassette import open_model
from firsthand.providers.openai_errors import Endpoint
from firsthand.sampling import Sampling
from firsthand.scorers.contained import best_subspan_em
from firsthand.scorers.familiar import regex
from firsthand.scorers.human_votes import longer_answer, majority_agreement
from firsthand.scorers.written import mmlu_pro_tiger, simple_evals_letter
from firsthand.show.curves import BARS, sparkline
from firsthand.show.gate_report import MAX_TASKS, _listed
from firsthand.show.heatmap import STEPS, shade
from firsthand.show.trace_shape import marks
from firsthand.show.word_wrap import WordWrap
from firsthand.stats.breakdown import Cell, _value
from firsthand.stats.comparison_design import Design
from firsthand.stats.effective_length import effective
from firsthand.stats.intervals import Interval
from firsthand.task import Task
from firsthand.tools.web.html import to_text
from firsthand.trace import Event, Trace
from firsthand.train.advantages import overlong_penalty
from firsthand.train.data_order import split
from firsthand.train.importance import importance_weights
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.sweep_space import MAX_TRIALS, combinations


def answered(text: str, **more: Any) -> Trace:
    return Trace("p", "b", "t", {"name": "a"}, 0, 0, "", 1.0, answer=text, **more)


# -- train --


@pytest.mark.parametrize(
    ("length", "penalty"), [(60, 0), (61, -0.025), (80, -0.5), (99, -0.975), (100, -1), (101, -1), (500, -1)]
)
def test_the_overlong_penalty_falls_over_the_buffer(length: int, penalty: float) -> None:
    assert overlong_penalty(length, max_length=100, buffer=40) == pytest.approx(penalty)
    assert overlong_penalty(length, max_length=100, buffer=40) <= 0


def test_a_ratio_at_the_cap_counts_and_above_it_is_masked() -> None:
    own = np.log(np.array([0.5, 3.0, 3.0 + 1e-9, 6.0]))
    for mode, wanted in (("token", [0.5, 3, 3, 3]), ("token_mask", [0.5, 3, 0, 0])):
        found = importance_weights(own, np.zeros(4), cap=float(np.exp(own[1])), mode=mode)
        assert found == pytest.approx(wanted)
    whole = importance_weights(own[:2], np.zeros(2), cap=1.4, mode="sequence_mask")
    assert list(whole) == [0.0, 0.0] and importance_weights(
        own[:2], np.zeros(2), cap=1.6, mode="sequence_mask"
    ) == pytest.approx([1.5, 1.5])


@pytest.mark.parametrize(("steps", "at"), [(20, 1), (100, 5), (399, 19)])
def test_the_warm_up_of_a_run_is_a_twentieth_by_default(steps: int, at: int) -> None:
    rate = ScheduleSettings(schedule="constant", warmup_steps=-1).over(steps)
    assert rate(at) == 1.0 and rate(at - 1) == pytest.approx((at - 1) / at)


def test_no_steps_of_warm_up_are_none_however_long_the_run() -> None:
    for schedule in ("constant", "cosine", "wsd"):
        rate = ScheduleSettings(schedule=schedule, final_lr=1.0).over(100)
        assert [rate(step) for step in (1, 2, 50, 100)] == [1.0] * 4, schedule
    assert [ScheduleSettings(schedule="constant", warmup_steps=4).over(100)(at) for at in (1, 4, 5)] == [0.25, 1, 1]
    short = ScheduleSettings(schedule="constant", warmup_steps=-1).over(19)
    assert [short(at) for at in (1, 19)] == [1, 1], "a twentieth of 19 steps is none"


def test_a_schedule_may_fill_the_run_and_no_more() -> None:
    wsd = ScheduleSettings(schedule="wsd", warmup_steps=4, decay_steps=6, final_lr=0.0)
    assert [wsd.over(10)(step) for step in (2, 4, 7, 10)] == pytest.approx([0.5, 1, 0.5, 0])
    with pytest.raises(ConfigError, match="take 10 of 9 steps"):
        wsd.over(9)
    for bad in ({"warmup_steps": -2}, {"decay_steps": -1}, {"final_lr": 1.01}, {"final_lr": -0.01}):
        with pytest.raises(ConfigError):
            ScheduleSettings(**bad)
    for good in ({"warmup_steps": -1}, {"decay_steps": 0}, {"final_lr": 1}, {"final_lr": 0}):
        ScheduleSettings(**good)


@pytest.mark.parametrize(
    ("items", "fraction", "held"), [(10, 0.0, 0), (10, 0.01, 1), (10, 0.16, 2), (10, 0.14, 1), (3, 0.6, 2)]
)
def test_a_share_is_held_out_to_the_nearest_and_one_at_least(items: int, fraction: float, held: int) -> None:
    kept, out = split(range(items), fraction)
    assert len(out) == held and sorted([*kept, *out]) == list(range(items))
    with pytest.raises(ConfigError):
        split(range(2), 0.9)


def test_a_grid_has_as_many_trials_as_are_allowed() -> None:
    assert len(combinations({"x": [str(n) for n in range(MAX_TRIALS)]})) == MAX_TRIALS
    with pytest.raises(ConfigError, match="combinations"):
        combinations({"x": [str(n) for n in range(MAX_TRIALS + 1)]})


# -- scorers --


def test_a_regex_takes_the_last_match_of_its_group_without_spaces_and_case() -> None:
    task, score = Task("t", "q", secret={"answer": "Blue"}), regex(pattern=r"Answer:(.*)")
    for text, value in (
        ("Answer: red\nAnswer:  BLUE ", 1),
        ("Answer: blue\nAnswer: red", 0),
        ("blue", 0),
        ("Answer: blue.", 0),
    ):
        assert score(task, answered(text)).value == value
    assert regex(pattern="blu.")(task, answered("it is blue")).value == 1  # without a group the whole match


def test_a_letter_counts_in_either_case() -> None:
    task = Task("t", "q", secret={"answer": "B"})
    assert [
        simple_evals_letter(task, answered(text)).value for text in ("Answer: b", "Answer: B", "Answer: a", "b")
    ] == [1, 1, 0, 0]


@pytest.mark.parametrize("options", range(2, 11))
def test_the_guess_of_tiger_is_that_of_their_seed(options: int) -> None:
    import random

    random.seed(12345)
    guess = "ABCDEFGHIJ"[random.randint(0, options - 1)]
    task = Task("t", "q", secret={"answer": guess, "options": options})
    found = mmlu_pro_tiger(task, answered("no idea: 42"))
    assert found.value == 1 and found.detail == {"found": None, "guess": guess}


def test_votes_without_a_majority_give_the_share_that_agrees() -> None:
    split_votes, most = (Task("t", "q", secret={"votes": votes}) for votes in (["A", "B"], ["A", "A", "B"]))
    assert majority_agreement(split_votes, answered("A")).value == 0.5
    assert [majority_agreement(most, answered(each)).value for each in ("A", "B", "tie")] == [1, 0, 0]
    for a, b, longer in (("xx", "y", "A"), ("x", "yy", "B"), ("x", "y", None), ("", "", None)):
        task = Task("t", "q", metadata={"judge": {"fields": {"answer_a": a, "answer_b": b}}})
        assert longer_answer(task) == longer


def test_only_the_first_line_counts_for_a_subspan() -> None:
    task = Task("t", "q", secret={"answers": ["Paris", "the City of Light"]})
    for text, value in (("Paris\nRome", 1), ("Rome\nParis", 0), ("city of LIGHT!", 1), ("", 0)):
        assert best_subspan_em(task, answered(text)).value == value
    for text, value in (("Paris", 0), ("the", 0), ("A", 1), ("a\nParis", 1)):  # normalised, this reference is empty
        assert best_subspan_em(Task("t", "q", secret={"answers": ["A"]}), answered(text)).value == value


# -- stats --


def cell(length: float, low: float, value: float, high: float) -> Cell:
    return Cell("b", "a", (length,), Interval(value, low, high, 10), 10, 0)


def test_a_threshold_that_is_met_exactly_is_reached() -> None:
    found = [cell(1, 0.8, 0.9, 0.95), cell(2, 0.5, 0.8, 0.9), cell(3, 0.4, 0.7, 0.8), cell(4, 0.1, 0.2, 0.79)]
    (reached,) = effective(found, 0.8)
    assert (reached.last, reached.sure, reached.failing, reached.gaps, reached.is_end) == (2, 1, 4, (), False)
    (gap,) = effective([found[0], found[2], found[1]], 0.8)
    assert (gap.last, gap.gaps, gap.is_end) == (2, (3,), True)


def test_a_flag_is_a_text_and_no_number() -> None:
    assert [_value(each) for each in (True, 1, 0.5, "x", None, [1])] == ["true", 1, 0.5, "x", "", "[1]"]


@pytest.mark.parametrize(("tasks", "effect", "alone"), [(10, 1.0, 10), (10, 3.0, 3), (11, 4.0, 2), (2, 4.0, 1)])
def test_dependent_tasks_say_as_much_as_whole_independent_ones(tasks: int, effect: float, alone: int) -> None:
    assert Design(0.1, (0.1, 0.1), design_effect=effect)._alone(tasks) == alone


def test_as_many_tasks_as_are_needed_are_enough() -> None:
    design = Design(0.04, None)
    needed = design.tasks(0.1)
    assert needed is not None and design.epochs(0.1, needed) == 1 and design.epochs(0.1, needed - 1) is None


# -- show --


def test_pictures_at_their_ends() -> None:
    assert sparkline([2.0, 2.0]) == 2 * BARS[(len(BARS) - 1) // 2] and sparkline([]) == ""
    assert sparkline([0, 1, math.nan]).startswith(BARS[0] + BARS[-1])
    for value, step in (
        (0.0, 0),
        (1.0, STEPS),
        (0.5, round(0.5 * STEPS)),
        (-0.01, None),
        (1.01, None),
        (math.nan, None),
    ):
        assert shade(cell(1, 0, value, 1)) == step
    assert shade(None) is None


@pytest.mark.parametrize("count", [0, MAX_TASKS - 1, MAX_TASKS, MAX_TASKS + 1])
def test_a_gate_names_fifty_tasks_and_counts_the_rest(count: int) -> None:
    found = _listed("worse", [str(number) for number in range(count)])
    assert found[:MAX_TASKS] == [f"worse: {number}" for number in range(min(count, MAX_TASKS))]
    assert found[MAX_TASKS:] == (["worse: 1 more"] if count > MAX_TASKS else [])


def test_a_branch_may_stand_at_the_first_node() -> None:
    notes = tuple(Event("branch", 0.0, {"name": str(at), "at": at}) for at in (0, 1, 2, -1, True))
    at_node, elsewhere = marks(answered("", nodes=(None, None), events=notes))  # type: ignore[arg-type]
    assert sorted(at_node) == [0, 1] and [mark.name for mark in elsewhere] == ["2", "-1", "True"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("abc def", "abc def"), ("abcd def", "abcd\ndef"), ("abc  de f", "abc  de\nf"), ("a b c d e", "a b c d\ne")],
)
def test_words_that_fit_exactly_stay_on_the_line(text: str, shown: str) -> None:
    wrap = WordWrap(7)
    assert wrap.feed(text) + wrap.flush() == shown


# -- tools, providers, formats, cluster, patterns --


def test_tables_and_stray_tags_of_a_page() -> None:
    assert to_text("<table><tr><th>a</th><td>b</td></tr></table>") == "a | b |"
    stray = to_text("</pre></pre><pre>  x\n  y</pre> a   b")
    assert "x\n" in stray and stray.endswith("a b")


def test_a_cassette_gives_its_last_reply_and_charges_the_prompt_once(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps({"prompt": "one two", "replies": ["x", "y", "z w"]}) + "\n")
    model = open_model(str(tmp_path / "c.jsonl"))
    found = asyncio.run(model.complete("one two", Sampling(), n=3))
    assert [each.usage.prompt_tokens for each in found] == [2, 0, 0]
    assert [each.usage.completion_tokens for each in found] == [1, 1, 2] and model.unplayed == 0


@pytest.mark.parametrize("status", [404, 408, 409, 410, 425, 429, 499, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    found = Endpoint("e", "m", (), 1.0).status(status, {}, {})
    assert isinstance(found, TransientError) == (status in (408, 409, 425, 429, 500, 503))


@pytest.mark.parametrize("status", [400, 413, 422, 500, 404, 503])
def test_a_prompt_that_is_too_long_is_told_apart_by_status_and_code(status: int) -> None:
    body = {"code": "context_length_exceeded", "message": "no"}
    assert isinstance(Endpoint("e", "m", (), 1.0).status(status, body, {}), PromptTooLong) == (
        status in (400, 413, 422, 500)
    )
    unknown = "with an error"
    for code, kept in ((600, unknown), (599, 599), (400, 400), (399, unknown), ("500", 500), (True, unknown)):
        assert f"answered {kept}" in str(Endpoint("e", "m", (), 1.0).reported({"error": {"code": code}}))


def test_numbers_of_a_header_at_their_limits(tmp_path: Path) -> None:
    for value, good in ((0, True), (2**31 - 1, True), (2**31, False), (-1, False), (True, False), (1.0, False)):
        fields = Fields({"n": value}, "here")
        if good:
            assert fields.integer("n") == value
        else:
            with pytest.raises(ModelFileError):
                fields.integer("n")
    for value, good in (
        (9.9e29, True),
        (-9.9e29, True),
        (1e30, False),
        (-1e30, False),
        (math.nan, False),
        (True, False),
    ):
        with pytest.raises(ModelFileError) if not good else nullcontext():
            assert Fields({"n": value}, "here").number("n") == value
    for count, good in ((MAX_LAYERS, True), (MAX_LAYERS + 1, False)):
        with pytest.raises(ModelFileError) if not good else nullcontext():
            assert len(Fields({"s": ["x"] * count}, "here").strings("s") or ()) == count
        with pytest.raises(ModelFileError) if not good else nullcontext():
            assert Fields({"l": count}, "here").num_layers("l") == count
    for rank, good in ((16, True), (17, False)):
        header = json.dumps({"t": {"dtype": "F32", "shape": [1] * rank, "data_offsets": [0, 4]}}).encode()
        path = tmp_path / f"{rank}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
        with pytest.raises(ModelFileError) if not good else nullcontext():
            assert read_safetensors(path).tensors["t"].shape == (1,) * 16


def test_waiting_times_of_replicas_are_not_added_up() -> None:
    slots = [
        SimpleNamespace(counters={"oldest_wait_s": wait, "tokens": 2.0}, ended={"tokens": 1.0}) for wait in (3.0, 5.0)
    ]
    assert total_counters(slots) == {"oldest_wait_s": 5.0, "tokens": 6.0}  # type: ignore[arg-type]


def test_a_router_remembers_no_more_than_the_cache_and_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.cluster.replicas import router

    made = Router()
    for replica, blocks, kept in ((0, 0, 1), (1, 3, 3), (2, 10 * router.MAX_KNOWN, router.MAX_KNOWN)):
        made.open(replica, blocks)
        made.note(replica, range(router.MAX_KNOWN + 10))
        assert made.num_known(replica) == kept
    made.close(1)
    assert made.num_known(1) == 0
    assert Router.choose(_opened(2), [], {0: 0, 1: 0}) == 0


def _opened(count: int) -> Router:
    made = Router()
    for replica in range(count):
        made.open(replica, 8)
    return made


@pytest.mark.parametrize(
    ("text", "code", "final"),
    [
        ("```python\n1\n```\nFinal Answer: 2", "1\n", None),
        ("Final Answer: 2\n```python\n1\n```", None, "2\n```python\n1\n```"),
        ("so\nFinal Answer: 3", None, "3"),
        ("so\nFinal Answer: 2\n```python\n1\n```", None, "2\n```python\n1\n```"),
        ("```python\n1", "", None),
        ("nothing", None, None),
    ],
)
def test_code_or_an_answer_whichever_comes_first(text: str, code: str | None, final: str | None) -> None:
    found, answer = parse_code(text)
    assert answer == final and (found if found is None else found.strip()) == (code if code is None else code.strip())


def test_code_of_blanks_is_no_code() -> None:
    for code, said in (
        (None, "There was no code."),
        ("", "was empty or not closed"),
        ("  \n", "was empty or not closed"),
    ):
        assert said in asyncio.run(_observe(None, code, 1))  # type: ignore[arg-type]
