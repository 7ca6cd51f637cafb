"""A cassette plays what was recorded and nothing else; the authors' logs of GPT-4 replay to their published counts."""

import asyncio
import json
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import authors_logs as logs
import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.creative import endings, passage
from firsthand.benchmarks.crosswords import EMPTY, CrosswordThoughts, board_in, board_of, crosswords, place
from firsthand.benchmarks.game24 import Game24Thoughts, game24, is_solution
from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant, user
from firsthand.model import Sampling, Usage
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.providers import cassette
from firsthand.providers.cassette import Cassette, CassetteMiss, open_model, recorded
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from thorough import part

PLACES = [Path(os.environ.get("FIRSTHAND_DATA", "/nowhere")), *(p / "shared" / "data" for p in Path(__file__).parents)]
DATA = next((place for place in PLACES if (place / "cassettes").is_dir()), Path("/nowhere"))
needs_logs = pytest.mark.skipif(not DATA.is_dir(), reason="the authors' logs are not on this machine")


def ask(model, text, n=1):
    return [each.message.text for each in asyncio.run(model.complete([user(text)], Sampling(), n=n))]


def test_a_cassette_answers_in_the_order_of_the_recording():
    cassette = Cassette({"a": ["1", "2", "3"], "b": ["4"]})
    assert ask(cassette, "a", 2) == ["1", "2"] and ask(cassette, "b") == ["4"] and ask(cassette, "a") == ["3"]
    assert cassette.unplayed == 0
    with pytest.raises(CassetteMiss, match="holds 3 replies to this, 3 are played and 1 asked"):
        ask(cassette, "a")


def test_a_cassette_goes_on_after_the_replies_that_a_run_has_had():
    cassette = Cassette({"a": ["1", "2", "3"], "b": ["4", "5"]})
    cassette.skip_replies([0, 3])
    assert cassette.unplayed == 3 and ask(cassette, "a") == ["2"]
    cassette.skip_replies([0, 1])
    assert ask(cassette, "a") == ["3"] and ask(cassette, "b") == ["5"] and cassette.unplayed == 0
    with pytest.raises(CassetteMiss, match="holds 2 replies to this, 2 are played and 1 asked"):
        ask(cassette, "b")


def test_a_reply_says_which_of_the_recording_it_is():
    cassette = Cassette({"a": ["1", "2"], "b": ["3", "4"]})
    made = [asyncio.run(cassette.complete([user(text)], Sampling(), n=n)) for text, n in (("b", 1), ("a", 2), ("b", 1))]
    assert [[(each.message.text, each.reply_index) for each in replies] for replies in made] == [
        [("3", 2)], [("1", 0), ("2", 1)], [("4", 3)],
    ]  # fmt: skip


def test_a_long_list_of_replies_is_not_searched_from_its_first(monkeypatch):
    class Counted(set):
        looks = 0

        def __contains__(self, index):
            Counted.looks += 1
            return super().__contains__(index)

    cassette = Cassette({"a": list(map(str, range(300)))})
    monkeypatch.setattr(cassette, "_given", Counted())
    assert [ask(cassette, "a") for _ in range(300)][-1] == ["299"] and Counted.looks == 300


@pytest.mark.parametrize("odd", [None, True, {"a": 1}, ["a"]])
def test_what_is_no_text_is_neither_a_prompt_nor_a_reply(tmp_path, odd):
    file = tmp_path / "odd.jsonl"
    for body, told in (
        ({"prompt": "q", "replies": ["a", odd]}, "has replies that are no list of texts: "),
        ({"prompt": odd, "replies": ["a"]}, "has a prompt that is no text: "),
    ):
        file.write_text(json.dumps(body) + "\n")
        with pytest.raises(ConfigError, match=told):
            open_model(str(file))


def test_half_a_surrogate_is_recorded_and_played(tmp_path):
    file = tmp_path / "half.jsonl"
    file.write_text(json.dumps({"prompt": "q\udfff", "replies": ["\ud800"]}) + "\n")
    assert ask(open_model(str(file)), "q\udfff") == ["\ud800"]


def test_a_recording_may_hold_separators_of_lines_as_they_are(tmp_path):
    rows = [{"prompt": "a\u2028b", "replies": ["c\u0085d"]}, {"prompt": "a\u2028b", "replies": ["e"]}]
    file = tmp_path / "said.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", "utf-8")
    assert ask(open_model(str(file)), "a\u2028b", 2) == ["c\u0085d", "e"]


def test_a_prompt_is_counted_once_and_each_reply_by_its_words():
    cassette = Cassette({"one two three": ["a", "b c", "d e f"]})
    first, second = asyncio.run(cassette.complete([user("one two three")], Sampling(), n=2))
    assert [each.usage for each in (first, second)] == [Usage(3, 0, 1), Usage(0, 0, 2)]
    [third] = asyncio.run(cassette.complete("one two three", Sampling()))
    assert third.usage == Usage(3, 0, 3) and asyncio.run(cassette.count_tokens("one two three")) == 3


def test_a_miss_is_loud_and_shows_what_differs():
    cassette = Cassette({"Problem one\nnumbers: 1 2\nGo.": ["x"], "Something else": ["y"]})
    with pytest.raises(CassetteMiss) as missed:
        ask(cassette, "Problem one\nnumbers: 1 3\nGo.")
    assert "-numbers: 1 2" in str(missed.value) and "+numbers: 1 3" in str(missed.value)
    with pytest.raises(CassetteMiss, match="is empty"):
        ask(Cassette({}), "a")
    with pytest.raises(CassetteMiss, match="no likelihoods"):
        asyncio.run(cassette.score("a", ["b"]))
    with pytest.raises(ConfigError, match="must begin with 'cassette'"):
        Cassette({}, name="gpt-4")


def test_a_miss_beside_a_prompt_of_a_million_line_ends_takes_no_time():
    cassette = Cassette({"\n" * 1_000_000 + "x": ["a"]})
    asked = "\n\n".join(f"Q: question {number}?" for number in range(8))
    began_s = time.process_time()
    with pytest.raises(CassetteMiss, match="the nearest differs so:\n") as missed:
        ask(cassette, asked)
    assert "+Q: question 0?" in str(missed.value) and len(str(missed.value)) < 20_000
    assert time.process_time() - began_s < 1


def test_a_miss_shows_a_difference_late_in_a_long_text_and_in_a_long_line():
    for same in ("line\n" * 20_000, "word " * 20_000):
        with pytest.raises(CassetteMiss) as missed:
            ask(Cassette({f"{same}numbers: 1 2": ["x"]}), f"{same}numbers: 1 3")
        assert "numbers: 1 2" in str(missed.value) and "numbers: 1 3" in str(missed.value)
        assert len(str(missed.value)) < 2_000


def test_a_run_of_ones_own_can_be_recorded_and_played(tmp_path):
    task = Task("1", "What is 3 * 4?", hint="a number")
    live = asyncio.run(rollout(Agent("a", Scripted(["3 * 4 = 12. The answer is 12."]), cot), task))
    lines = [json.dumps({"prompt": prompt, "replies": replies}) for prompt, replies in recorded([live]).items()]
    (tmp_path / "run.jsonl").write_text("\n".join(lines))
    played = asyncio.run(rollout(Agent("a", catalog.model(f"cassette:{tmp_path / 'run.jsonl'}"), cot), task))
    assert played.answer == live.answer == "12"
    for text in ("nothing.jsonl", str(tmp_path)):
        with pytest.raises(ConfigError, match="cannot be read"):
            catalog.model(f"cassette:{text}")
    (tmp_path / "bad.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(ConfigError, match="has a line without prompt and replies"):
        catalog.model(f"cassette:{tmp_path / 'bad.jsonl'}")


def test_a_recording_keeps_why_its_replies_ended(tmp_path):
    call = {"id": "c", "name": "look", "arguments": {}}
    replies = [
        {"text": "The answer is", "finish_reason": "length"},
        "The answer is 12.",
        {"text": "", "finish_reason": "content_filter"},
        {"text": "", "tool_calls": [call], "finish_reason": "length"},
    ]
    question = "What is 3 * 4?"

    async def four(task, ctx):
        return (await ctx.say(task.question).sample(4))[0].text

    live = asyncio.run(rollout(Agent("a", Cassette({question: replies}), four), Task("1", question)))
    (generation,) = (each for each in live.calls if each.kind == "generate")
    assert generation.detail["finish_reasons"] == ["length", "stop", "content_filter", "length"]
    assert recorded([live]) == {question: replies}  # a whole answer is its text alone
    lines = [json.dumps({"prompt": prompt, "replies": each}) for prompt, each in recorded([live]).items()]
    calling = [{"text": "", "tool_calls": [call]}]
    (tmp_path / "run.jsonl").write_text("\n".join([*lines, json.dumps({"prompt": "call", "replies": calling})]))
    played = open_model(str(tmp_path / "run.jsonl"))
    made = asyncio.run(played.complete(question, Sampling(), n=4)) + asyncio.run(played.complete("call", Sampling()))
    assert [each.finish_reason for each in made] == ["length", "stop", "content_filter", "length", "tool_calls"]
    assert made[3].message.tool_calls and made[0].message.text == "The answer is"


def test_a_recording_of_a_trace_without_reasons_has_texts_alone():
    live = asyncio.run(rollout(Agent("a", Scripted(["12"]), direct), Task("1", "q")))
    calls = tuple(replace(each, detail={}) for each in live.calls)
    assert [*recorded([replace(live, calls=calls)]).values()] == [["12"]]


@pytest.mark.parametrize(
    "odd", [{"finish_reason": "cut"}, {"finish_reason": ["length"]}, {"finish_reason": "length", "tool_calls": [1]}, {}]
)
def test_a_reply_that_ended_for_no_reason_known_is_refused(tmp_path, odd):
    (tmp_path / "odd.jsonl").write_text(json.dumps({"prompt": "q", "replies": [{"text": "a"} | odd]}))
    with pytest.raises(ConfigError, match="has replies that are no list of texts: "):
        open_model(str(tmp_path / "odd.jsonl"))


def test_conversations_are_keyed_with_their_roles():
    cassette = Cassette({"[user]\na\n[assistant]\nb\n[user]\nc": ["d"]})
    [reply] = asyncio.run(cassette.complete([user("a"), assistant("b"), user("c")], Sampling()))
    assert reply.message.text == "d"


# -- game of 24 --


@cache
def game24_traces(breadth, space):
    return asyncio.run(logs.replay_game24(DATA, breadth, space))


def solved(traces, scorer):
    assert not [trace.error for trace in traces if trace.error]
    return round(sum(trace.score(scorer).value for trace in traces) * 1000) / 1000


@needs_logs
@pytest.mark.slow
def test_game_of_24_replays_to_the_logged_69_of_100_state_by_state():
    traces = game24_traces(5, logs.AsLogged)
    assert (solved(traces, "any"), solved(traces, "solved")) == (69, 62)
    for trace, puzzle in zip(traces, logs.load(DATA, f"tree-of-thought/{logs.GAME24}"), strict=True):
        for number, step in enumerate(puzzle["steps"], 1):
            noted = [event.data for event in trace.events if event.data["name"].startswith(f"{number}.")]
            assert [each["score"] for each in noted] == step["values"]
            assert [each["text"] for each in noted] == [
                (text.strip().splitlines())[-1][:200] for text in step["new_ys"]
            ]
        final = [event.data["answer"] for event in trace.events if event.data["status"] == "done"]
        numbers = puzzle["steps"][0]["x"]
        assert [int(is_solution(each, numbers)) for each in final] == [info["r"] for info in puzzle["infos"]]


@needs_logs
@pytest.mark.slow
def test_our_own_rules_keep_the_69_and_choose_the_right_answer_more_often():
    traces = game24_traces(5, Game24Thoughts)
    assert (solved(traces, "any"), solved(traces, "solved")) == (69, 65)
    assert sum(len(trace.calls) for trace in traces) == 6897


@pytest.mark.slow
@needs_logs
@pytest.mark.parametrize(
    ("breadth", "at_least"),
    part([(2, 51), (1, 40), (3, 58), (4, 65)], 4),
)
def test_narrower_searches_solve_at_least_so_many(breadth, at_least):
    assert solved(game24_traces(breadth, logs.AsLogged), "any") == at_least


@pytest.mark.slow
@needs_logs
@pytest.mark.parametrize(("log", "right", "any_of_100"), [("cot", 403, 49), ("standard", 734, 33)])
def test_the_checker_agrees_with_the_authors_on_20_000_answers(log, right, any_of_100):
    puzzles = logs.load(DATA, f"tree-of-thought/game24_gpt-4_0.7_naive_{log}_sample_100_start900_end1000.json")
    tasks = game24(data=str(DATA)).tasks(0)
    verdicts = [
        [is_solution(y, task.metadata["numbers"]) for y in puzzle["ys"]]
        for task, puzzle in zip(tasks, puzzles, strict=True)
    ]
    assert (sum(map(sum, verdicts)), sum(map(any, verdicts))) == (right, any_of_100)
    for mine, puzzle in zip(verdicts, puzzles, strict=True):
        assert "infos" not in puzzle or [int(each) for each in mine] == [info["r"] for info in puzzle["infos"]]


# -- mini crosswords --


@needs_logs
@pytest.mark.parametrize(
    ("log", "chosen", "best"),
    [
        (logs.PRUNED, (0.780, 0.600, 0.20), (0.824, 0.675)),
        pytest.param(logs.UNPRUNED, (0.654, 0.415, 0.05), (0.716, 0.515), marks=pytest.mark.slow),
    ],
)
def test_crosswords_replay_to_the_logged_trajectories_and_scores(log, chosen, best):
    traces = asyncio.run(logs.replay_crosswords(DATA, log))
    for trace, visits in zip(traces, logs.load(DATA, f"tree-of-thought/{log}"), strict=True):
        assert trace.error is None
        walked = [event.data for event in trace.events if event.data["status"] != "done"]
        boards = [board_of("\n".join(visit["actions"])) for visit in visits]
        assert [board_in(each["answer"]) for each in walked] == boards
        assert [each["text"] for each in walked] == [visit["actions"][-1] for visit in visits]
        pruned = [visit["count"]["impossible"] > 0 and log == logs.PRUNED for visit in visits]
        assert [each["status"] == "pruned" for each in walked] == pruned
    mean = lambda name: round(sum(trace.score(name).value for trace in traces) / 20, 6)  # noqa: E731
    assert (mean("letters"), mean("words"), mean("game")) == chosen
    assert (mean("best_letters"), mean("best_words")) == best


@needs_logs
def test_the_crosswords_are_the_papers_twenty():
    tasks = crosswords(data=str(DATA)).tasks(0)
    assert [task.id for task in tasks] == [f"game-{index:03d}" for index in range(0, 100, 5)]
    assert len(crosswords(data=str(DATA), games="all").tasks(0)) == 156
    answer = "\n".join(" ".join(tasks[0].secret["board"][row : row + 5]) for row in range(0, 25, 5))
    trace = asyncio.run(
        rollout(Agent("a", Scripted([f"Thoughts\n{answer}\n"]), cot), tasks[0], benchmark=crosswords(data=str(DATA)))
    )
    assert [score.value for score in trace.scores] == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_boards_are_read_from_any_text(monkeypatch, tmp_path):
    assert board_in("") == board_in("none") == "_" * 25
    assert board_in("A B C D E\nF G H I J") == "ABCDEFGHIJ" + "_" * 15
    rows = [" ".join(letter * 5) for letter in "ABCDEFG"]
    assert board_in("\n".join(rows)) == "".join(letter * 5 for letter in "CDEFG"), "the last five rows"
    assert board_in("\n".join([*rows, "that is all", "A B C D E F"])) == "".join(letter * 5 for letter in "CDEFG")
    assert place("_" * 25, "v2. motor")[1::5] == "MOTOR"
    (tmp_path / "mini0505.json").write_text('[[["clue"], "A"]]')
    with pytest.raises(DataError, match="a list of clues and boards was expected"):
        crosswords(data=str(tmp_path))


def test_a_state_of_a_crossword_is_asked_about_valued_and_shown_clue_by_clue():
    thoughts = CrosswordThoughts(tuple(f"clue of {way}{number}" for way in "hv" for number in range(1, 6)))
    state = "h1. abcde\nv1. afghi\n"  # h2 to h5 and v2 to v5 have one letter each
    assert board_of(state) == "ABCDE" + "F____" + "G____" + "H____" + "I____"
    asked = [request.prompt for request in thoughts.value(state)]
    assert len(asked) == 2 and "clue of h1: a b c d e" in asked[0] and "clue of v1: a f g h i" in asked[1]
    assert len(thoughts.value("h1. abcde\nh2. fghij\n")) == 7, "two letters of a clue are enough to judge it"
    assert thoughts.value("") == ()
    assert thoughts.valued(state, [["it is sure", "maybe"], ["Impossible"], ["who knows"]]) == 1.0 + 0.5 - 20.0
    replies = [
        "h2. fjklm (high)\nv2. bjxyz (low)\nh2. fjklm (low)",
        "V3. cxxxx (certain)\nv2. bjxyz (certain)\nh2. xxxxx (certain)",
    ]
    assert thoughts.proposed(state, replies) == [f"{state}v2. bjxyz\n", f"{state}h2. fjklm\n"]
    assert thoughts.sampled(state, replies[0]) == f"{state}h2. fjklm\n" and thoughts.sampled(state, "no") == state
    shown = thoughts.shown(state)
    unfilled, filled = shown.partition("Unfilled:\n")[2].split("\nFilled:\n")
    assert shown.startswith("Current Board:\nABCDE\nF____\n") and unfilled.count("clue") == 8
    assert filled == "h1. clue of h1: ABCDE\nv1. clue of v1: AFGHI\n\nChanged:\n"
    assert thoughts.answer(state).splitlines()[1] == "F _ _ _ _" and not thoughts.is_done(state)
    full = "".join(f"h{row}. abcde\n" for row in range(1, 6))
    assert thoughts.is_done(full) and board_of("") == EMPTY


# -- creative writing --


@pytest.mark.slow
@needs_logs
def test_creative_writing_replays_to_the_logged_choices():
    traces = asyncio.run(logs.replay_creative(DATA))
    for trace, log in zip(traces, logs.load(DATA, f"tree-of-thought/{logs.CREATIVE}"), strict=True):
        assert trace.answer == passage(log["ys"][0]) and len(trace.calls) == 4
        assert [event.data["votes"] for event in trace.events if event.kind == "vote"] == [
            [float(votes) for votes in step["values"]] for step in log["steps"]
        ]
    assert round(sum(trace.score("endings").value for trace in traces)) == 75


def test_an_ending_counts_in_its_own_paragraph():
    task = Task("1", "Write.", secret={"endings": ["It rained.", 'He said "no".']})
    text = "Plan:\nmuch\nPassage:\nFirst day. It rained.\n\nThen: he said “No”."
    trace = asyncio.run(rollout(Agent("a", Scripted([text]), direct), task))
    assert endings(task, trace).value == 1.0
    trace = asyncio.run(rollout(Agent("a", Scripted(["He said no.\n\nIt rained."]), direct), task))
    assert endings(task, trace).value == 0.0


# -- Reflexion --


@needs_logs
def test_humaneval_replays_from_141_to_150_of_164():
    plain = {
        row["task_id"]: row["is_solved"] for row in logs.rows(DATA, "humaneval-py__simple_1_gpt-4_pass_at_k_1_py.jsonl")
    }
    traces = asyncio.run(logs.replay_reflexion_code(DATA))
    assert len(traces) == 164 and not [trace.error for trace in traces if trace.error]
    after = {trace.task_id: bool(trace.score("solved").value) for trace in traces}
    assert (sum(plain.values()), sum(after.values())) == (141, 150)
    gained = sum(after[task] and not plain[task] for task in after)
    lost = sum(plain[task] and not after[task] for task in after)
    assert gained - lost == 9
    assert sum(len(trace.events) == 1 for trace in traces) == 134  # passed their own tests at once


@pytest.mark.slow
@needs_logs
def test_mbpp_replays_to_its_loss():
    """The published negative case: tests that a model writes for itself pass wrong programs."""
    plain = {row["name"]: row["is_solved"] for row in logs.rows(DATA, "mbpp-py_simple_1_gpt-4_pass_at_k_1_py.jsonl")}
    traces = asyncio.run(logs.replay_reflexion_code(DATA, "mbpp-py_reflexion_5_gpt-4_pass_at_k_1_py.jsonl"))
    assert len(traces) == 257
    assert (
        sum(trace.score("solved").value for trace in traces)
        == 204
        < sum(plain[trace.task_id] for trace in traces)
        == 213
    )


@needs_logs
def test_alfworld_replays_to_the_logged_curve_and_shows_the_last_three_reflections():
    traces = asyncio.run(logs.replay_alfworld(DATA))
    curve = [84, 103, 111, 113, 117, 118, 123, 126, 128, 129, 130, 130, 131, 133, 134]
    assert logs.solved_by_trial(traces, 15) == curve
    final = logs.load(DATA, "reflexion/alfworld_env_results_trial_14.json")
    for trace, row in zip(traces, final, strict=True):
        acted = [trace.messages(call.at)[0].text for call in trace.calls[::2]]
        memory = [text.strip() for text in row["memory"]]
        for trial, prompt in enumerate(acted):
            shown = memory[:trial][-3:]
            listed = "\n".join(f"{number}. {text}" for number, text in enumerate(shown, 1))
            assert prompt.endswith(f"in your own words:\n{listed}") if shown else "tried" not in prompt


def test_replies_of_a_cassette_are_a_list_of_texts_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps({"prompt": "p", "replies": ["a, [b]", "c"]}) + "\n")
    monkeypatch.setattr(cassette, "_MAX_VALUES", 4)
    assert cassette.open_model(str(file)).unplayed == 2
    monkeypatch.setattr(cassette, "_MAX_VALUES", 3)
    with pytest.raises(ConfigError, match=r"c\.jsonl' holds more than 3 JSON values: record fewer attempts$"):
        cassette.open_model(str(file))
    monkeypatch.undo()
    for replies in ("one text", {"a": 1}, 3, None):
        file.write_text(json.dumps({"prompt": "p", "replies": replies}))
        with pytest.raises(ConfigError, match=r"c\.jsonl' has replies that are no list of texts: .* on each line$"):
            cassette.open_model(str(file))


def test_of_long_prompts_the_nearest_is_found_by_the_lines_of_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cassette, "_COMPARED_CHARS", 300)
    begin, tail = "a first line\n" * 90, "\n" + "x" * 80
    asked = f"{begin}of the north\nof the south\nof the west\n{tail}"
    ends_alike, tail_alike = f"{asked[:-80]}{'y' * 80}", f"{begin}of all the others\n{tail}"
    for others in ([ends_alike, tail_alike], [tail_alike, ends_alike]):
        assert cassette.nearest_recorded(asked, others) == ends_alike
