"""Tree of Thoughts: what is asked, kept and pruned, how many calls that takes, and closed forms of a small tree."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
from sims import kept

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.game24 import make_task
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import canonical
from firsthand.model import Sampling
from firsthand.patterns.parts.thoughts import (
    LABELS,
    GenericThoughts,
    ThoughtRequest,
    count_votes,
    last_word,
    thoughts_of,
)
from firsthand.patterns.tot import choose, tot
from firsthand.patterns.tot_dfs import tot_dfs
from firsthand.providers.scripted import Scripted
from firsthand.providers.sim import Sim
from firsthand.rollout import rollout
from firsthand.task import Task
from thorough import repetitions

QUESTION = Task("1", "What is 3 * 4 + 2?", hint="a number", secret={"answer": "SECRET"})


@dataclass(frozen=True)
class Toy:
    """A tree of `width` thoughts a state: one is `good`, the others are not. A state's worth is the number in the reply."""

    steps: int = 2
    width: int = 3
    hopeless: float = 0.0
    labels = LABELS

    def propose(self, state: str) -> ThoughtRequest:
        return ThoughtRequest(f"propose\n{state}")

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        return [f"{state}{name}\n" for name in replies[0].split()]

    def sample(self, state: str) -> ThoughtRequest:
        return ThoughtRequest(f"sample\n{state}", ("STOP",))

    def sampled(self, state: str, reply: str) -> str:
        return f"{state}{reply}\n"

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        return (ThoughtRequest(f"value\n{state}"),)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        return float(replies[0][0])

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        return ThoughtRequest("vote\n" + "".join(states))

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        return count_votes(len(states), replies)

    def is_done(self, state: str) -> bool:
        return False

    def answer(self, state: str) -> str:
        return "/".join(state.split())


def attempt(pattern, model, task=QUESTION, seed=0, **options):
    return asyncio.run(rollout(Agent("a", model, pattern, options), task, seed=seed))


def branches(trace, status):
    return [event.data for event in trace.events if event.kind == "branch" and event.data["status"] == status]


def by_letter(messages, sampling, index):
    """Three thoughts a, b, c; the worth of a state is the number of its b's."""
    kind, *thoughts = messages[-1].text.split("\n")
    return "a b c" if kind == "propose" else "b" if kind == "sample" else str("".join(thoughts).count("b"))


def test_the_best_states_survive_each_step():
    trace = attempt(tot, Scripted(by_letter), breadth=2, thoughts=lambda task: Toy())
    assert trace.answer == "b/b"
    assert [each["text"] for each in branches(trace, "kept")] == ["a", "b", "a", "b"]
    assert [each["answer"] for each in branches(trace, "done")] == ["b/b", "b/a"]
    assert len(branches(trace, "pruned")) == 1 + 4
    first = branches(trace, "kept")[0]
    assert (first["name"], first["score"]) == ("1.0", 0.0) and trace.nodes[first["at"]].message.text == "a b c"


@pytest.mark.parametrize(("steps", "width", "breadth"), [(1, 3, 2), (2, 3, 1), (3, 4, 2), (2, 2, 5)])
def test_the_number_of_calls_is_the_formula_on_the_docs_page(steps, width, breadth):
    names = " ".join("abcdef"[:width])
    model = Scripted(lambda messages, sampling, index: names if messages[-1].text.startswith("propose") else "1")
    trace = attempt(tot, model, breadth=breadth, thoughts=lambda task: Toy(steps, width))
    frontiers = [1]
    for _ in range(steps - 1):
        frontiers.append(min(breadth, frontiers[-1] * width))
    assert len(trace.calls) == sum(frontier + frontier * width for frontier in frontiers)
    if breadth <= width:
        assert len(trace.calls) == (1 + (steps - 1) * breadth) * (1 + width)
    voted = attempt(tot, model, breadth=breadth, evaluate="vote", thoughts=lambda task: Toy(steps, width))
    assert len(voted.calls) == sum(frontiers) + steps


def test_samples_and_votes_are_one_call_each():
    votes = iter(["The best choice is 2.", "I think the best choice is 2", "The best choice is 1", "no idea"])

    def reply(messages, sampling, index):
        return f"plan {index}" if messages[-1].text.startswith("sample") else next(votes)

    model = Scripted(reply)
    options = {"generate": "sample", "evaluate": "vote", "samples": 3, "judgements": 4, "breadth": 1}
    trace = attempt(tot, model, thoughts=lambda task: Toy(steps=1), **options)
    assert trace.answer == "plan/1"
    assert [asked.n for asked in model.asked] == [3, 4] and model.asked[0].sampling.stop == ("STOP",)
    assert model.asked[0].sampling.temperature == 0.7
    assert [event.data["votes"] for event in trace.events if event.kind == "vote"] == [[1.0, 2.0, 0.0]]


def test_a_state_can_be_valued_by_the_likelihood_of_each_verdict():
    def score(prompt, label):
        return {"sure": -0.1, "likely": -5.0, "impossible": -9.0}[label] if prompt.endswith("b\n") else -1.0

    model = Scripted(lambda messages, sampling, index: "a b c", score=score)
    trace = attempt(tot, model, evaluate="score", breadth=1, thoughts=lambda task: Toy(steps=1))
    assert trace.answer == "b"
    assert {call.kind for call in trace.calls} == {"generate", "score"} and len(trace.calls) == 1 + 3
    values = [each["score"] for each in (*branches(trace, "kept"), *branches(trace, "pruned"))]
    weights = [math.exp(-0.1), math.exp(-5), math.exp(-9)]
    assert values[0] == pytest.approx(sum(map(float.__mul__, weights, LABELS.values())) / sum(weights))
    assert values[1] == pytest.approx(sum(LABELS.values()) / 3)


def test_equal_states_are_judged_once_and_the_second_counts_nothing():
    model = Scripted(lambda messages, sampling, index: "a a b" if messages[-1].text.startswith("propose") else "1")
    trace = attempt(tot, model, breadth=3, thoughts=lambda task: Toy(steps=1))
    assert [each["score"] for each in branches(trace, "kept")] == [1.0, 0.0, 1.0] and len(trace.calls) == 1 + 2


def test_selection_is_greedy_and_stable_or_drawn_by_value():
    assert choose([1, 3, 3, 2], 2, "greedy", Random(0)) == [1, 2]
    drawn = [choose([1.0, 3.0], 1, "sample", Random(seed))[0] for seed in range(2000)]
    assert abs(drawn.count(1) / 2000 - 0.75) < 3 * math.sqrt(0.75 * 0.25 / 2000)
    assert choose([0.0, 0.0], 1, "sample", Random(0)) == [0]


def test_depth_first_backs_up_from_hopeless_states():
    def reply(messages, sampling, index):
        kind, *made = messages[-1].text.split("\n")
        return "a b c" if kind == "propose" else "-1" if made[0] == "a" or made[:2] == ["b", "a"] else "1"

    trace = attempt(tot_dfs, Scripted(reply), per_state=2, thoughts=lambda task: Toy())
    visits = [event.data for event in trace.events if event.data["status"] != "done"]
    assert [(each["answer"], each["status"]) for each in visits] == [
        ("a", "pruned"), ("b", "kept"), ("b/a", "pruned"), ("b/b", "kept"),
    ]  # fmt: skip
    assert trace.answer == "b/a"  # the deepest, the first of equals
    assert len(trace.calls) == 4 + 2  # one valuation a visit, one proposal a state that was followed
    blind = attempt(tot_dfs, Scripted(reply), per_state=2, prune=False, thoughts=lambda task: Toy())
    assert [event.data["answer"] for event in blind.events] == ["a", "a/a", "a/b", "b", "b/a", "b/b", "a/a"]
    assert len(attempt(tot_dfs, Scripted(reply), visits=3, thoughts=lambda task: Toy()).events) == 3 + 1


def test_what_the_model_calls_impossible_is_hopeless_in_any_task():
    def reply(messages, sampling, index):
        text = messages[-1].text
        if "Possible next steps" in text:
            return "- good\n- bad"
        return "The answer is 14" if "Follow" in text else "impossible" if "\nbad" in text else "likely"

    trace = attempt(tot_dfs, Scripted(reply))
    assert {each["text"] for each in branches(trace, "pruned")} == {"bad"} and trace.answer == "14"
    assert len(branches(attempt(tot_dfs, Scripted(reply), threshold=0.0001), "pruned")) == 0


def test_any_task_can_be_searched():
    def reply(messages, sampling, index):
        text = messages[-1].text
        if "Possible next steps" in text:
            return "1. Multiply 3 and 4.\n2. Add 4 and 2 first.\n\n2. Add 4 and 2 first."
        if "Follow these steps" in text:
            return "3 * 4 = 12,\nso the answer is 14." if "Multiply" in text else "The answer is 18"
        return "Judging: sure" if "Multiply" in text else "impossible."

    model = Scripted(reply)
    trace = attempt(tot, model, breadth=2)
    assert trace.answer == "14" and trace.error is None
    assert all(asked.prompt[0].text.startswith("What is 3 * 4 + 2?\n\n") for asked in model.asked)  # one prefix for all
    assert "SECRET" not in str(model.asked)
    assert attempt(tot_dfs, Scripted(reply)).answer == "14"
    choice = Task("2", "Which is soft?", (" rock", " wool"))
    assert attempt(tot, Scripted(lambda messages, sampling, index: "The answer is B"), choice).answer == "B"
    assert attempt(tot, Scripted(lambda messages, sampling, index: ""), choice).answer == ""


def test_thoughts_are_found_by_the_name_in_the_task():
    assert isinstance(thoughts_of(QUESTION), GenericThoughts)
    assert type(thoughts_of(make_task("1", "4 5 6 10"))).__name__ == "Game24Thoughts"
    wrong = Task("1", "Q", thoughts="arithmetic")
    assert "has no 'thoughts'" in attempt(tot, Scripted([]), wrong).error.message
    assert attempt(tot, Scripted([]), Task("1", "Q", thoughts="gme24")).error.kind == "UnknownName"


def test_a_model_that_never_stops_listing_is_cut_short():
    names = " ".join(f"x{number}" for number in range(10_000))
    model = Scripted(lambda messages, sampling, index: names if messages[-1].text.startswith("propose") else "0")
    trace = attempt(tot, model, breadth=1, thoughts=lambda task: Toy(steps=1))
    assert len(trace.calls) == 1 + 100 and trace.answer == "x0"


def test_a_search_that_is_interrupted_goes_on_where_it_stopped():
    def run(model, journal, **limits):
        agent = Agent("a", model, tot, {"breadth": 3}, limits=Limits(**limits))
        return asyncio.run(rollout(agent, make_task("1", "4 5 6 10"), journal=journal))

    whole = run(Sim(), MemoryJournal())
    journal = MemoryJournal()
    cut = run(Sim(), journal, calls=20)
    assert (cut.stop_reason, cut.answer, len(journal.entries)) == ("calls", None, 20)
    resumed = run(Sim(), journal)
    assert resumed.answer == whole.answer and len(resumed.calls) == len(whole.calls) == len(journal.entries)
    assert sum(call.replayed for call in resumed.calls) == 20


def test_mistaken_options_are_refused():
    for options in ({"breadth": 0}, {"samples": 0}, {"judgements": -1}):
        with pytest.raises(ConfigError, match="give 1 or more"):
            attempt(tot, Scripted([]), **options)
    with pytest.raises(ConfigError, match="per_state is 0"):
        attempt(tot_dfs, Scripted([]), per_state=0)
    assert catalog.pattern("tot:breadth=1:evaluate=vote:generate=sample")[1]["evaluate"] == "vote"
    assert "thoughts" not in catalog.names("pattern")


@pytest.mark.parametrize(
    ("reply", "votes"),
    [
        ("Both.\nThe best choice is 2.", [0, 1]),
        ("the best choice is Choice 1, not 2", [1, 0]),
        ("The best choice is {s}, so: the best choice is 2", [0, 1]),
        ("The best choice is 7", [0, 0]),
        ("2", [0, 0]),
        ("best choice is " * 5000, [0, 0]),
    ],
)
def test_votes_are_read_from_the_last_line_that_names_one(reply, votes):
    assert count_votes(2, [reply]) == votes


def test_a_verdict_is_the_last_word():
    assert [last_word(text) for text in ("so: Sure.", "10 + 14 = 24\nsure", "", "24")] == ["sure", "sure", "", ""]


# -- against theory --


def noisy(true: float, false: float):
    """A model that lists one good thought among bad ones, and calls states sure at these rates; ties are random."""

    def reply(messages, sampling, index):
        rng = Random(f"{sampling.seed}/{index}")
        kind, *made = messages[-1].text.strip().split("\n")
        if kind == "propose":
            alive = all(name == "good" for name in made)
            return " ".join(["good" if alive else "bad0", "bad1", "bad2"])
        sure = rng.random() < (true if set(made) == {"good"} else false)
        return str(sure + rng.random())

    return Scripted(reply, name="scripted:noisy", fingerprint=canonical([true, false]))


CASES = [(0.9, 0.2, 1), (0.7, 0.4, 1), (0.9, 0.2, 2), (0.6, 0.1, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("true", "false", "breadth", "runs"),
    [(*case, repetitions(700, 150)) for case in CASES],
)
def test_success_on_a_two_level_tree_is_its_closed_form(true, false, breadth, runs):
    model = noisy(true, false)
    options = {"breadth": breadth, "judgements": 1, "thoughts": lambda task: Toy()}
    solved = sum(attempt(tot, model, seed=seed, **options).answer == "good/good" for seed in range(runs))
    theory = kept(breadth, 3, true, false) * kept(1, 3 * min(breadth, 3), true, false)
    assert abs(solved / runs - theory) < 3 * math.sqrt(theory * (1 - theory) / runs)


@pytest.mark.weights
def test_on_our_engine_the_requests_of_a_search_share_what_they_begin_with(smollm2):
    model = catalog.model(str(smollm2))
    options = {"breadth": 1, "evaluate": "score"}
    agent = Agent("tot", model, tot, options, sampling=Sampling(max_tokens=repetitions(48, 16)))
    usage = asyncio.run(rollout(agent, make_task("1", "1 1 4 6"))).usage
    assert usage.cached_tokens > 0.5 * usage.prompt_tokens > 0  # few requests, each kind once in full


def test_a_task_stored_with_its_thoughts_in_the_metadata_is_read() -> None:
    task = Task("1", "Q", thoughts="game24", metadata={"numbers": "1 2 3 4"})
    body = task.to_json()
    assert body["metadata"] == {"numbers": "1 2 3 4", "thoughts": "game24"} and "thoughts" not in body
    assert Task.from_json(body) == task
    with pytest.raises(ConfigError, match="field `thoughts`"):
        thoughts_of(Task("1", "Q", metadata={"thoughts": "game24", "numbers": "1 2 3 4", "examples": {}}))
