"""The made-up world: its questions can be answered from its pages and from nowhere else."""

import asyncio
import math
import re
from itertools import pairwise

import pytest

from firsthand.agent import Agent
from firsthand.benchmarks.closed_world import TWO_HOPS, WorldPages, _names, closed_world, find_page, make_world
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.patterns.direct import direct
from firsthand.patterns.react import react
from firsthand.patterns.react_cot import react_cot
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.scorers.match import normalise


def run(pattern, model, task, benchmark, **options):
    return asyncio.run(rollout(Agent("a", model, pattern, options), task, benchmark=benchmark))


def test_equal_seeds_give_equal_worlds_and_questions():
    tasks = closed_world().tasks(3)
    assert tasks == closed_world().tasks(3) != closed_world().tasks(4)
    assert len(tasks) == 200 == len({task.id for task in tasks}) == len({task.prompt for task in tasks})
    assert [task.metadata["hops"] for task in tasks[:4]] == [1, 2, 1, 2]
    assert closed_world(hops="2", tasks=9).tasks(3) == [t for t in tasks if t.metadata["hops"] == 2][:9]
    for options in ({"hops": "3"}, {"tasks": 0}, {"tasks": 401}):
        with pytest.raises(ConfigError, match="give hops 1, 2 or 1-2"):
            closed_world(**options)


FACTS = {
    " born": r"born in (\w+)", "works? for": r"works for (\w+ Works)", "country": r"a town in (\w+)",
    "river": r"The river (\w+)", "mayor": r"The mayor of \w+ is ([\w ]+)", "founded": r"founded by ([\w ]+)",
    "seat": r"seat is in (\w+)",
}  # fmt: skip
"""What a page says of a thing, by how a question speaks of it: steps on the way first."""


def reader(messages, sampling, index):
    """Looks up the name in the question, then the name that its page leads to, and answers with what is asked."""
    said = [message.text for message in messages if message.role == "user"]
    start = max(at for at, text in enumerate(said) if text.startswith("Question:"))
    question, pages = said[start], said[start + 1 :]
    if not pages:
        return f"Action: search[{next(name for name in make_world(1) if name in question)}]"
    *steps, wanted = [pattern for words, pattern in FACTS.items() if re.search(words, question)]
    if found := re.search(wanted, pages[-1]):
        return f"Final Answer: {found.group(1)}"
    return f"Action: search[{re.search(steps[0], pages[-1]).group(1)}]"


def test_whoever_reads_the_pages_answers_every_question():
    benchmark = closed_world(tasks=60)
    for task in benchmark.tasks(1):
        trace = run(react, Scripted(reader), task, benchmark)
        assert trace.error is None and trace.score("normalised").value == 1, (task.prompt, trace.answer, trace.error)
        assert [call.kind for call in trace.calls].count("tool") == task.metadata["hops"]


def test_pages_are_found_by_name_and_nothing_else_is():
    world = make_world(0)
    name = next(name for name, told in world.items() if told["kind"] == "person")
    assert find_page(world, f" {name.upper()} ") == world[name]["page"]
    assert find_page(world, f"Where was {name} born?") == world[name]["page"]
    assert find_page(world, name[:-1]) == f"There is no page {name[:-1]!r}. Similar: {name}."
    assert find_page(world, "\x00" * 10_000).startswith("There is no page")
    (search,) = WorldPages(world).tools
    assert search.effect == "read" and asyncio.run(search({"query": name})) == world[name]["page"]


def test_without_search_there_is_no_tool_and_the_answer_is_in_no_prompt():
    benchmark = closed_world(search=False, tasks=20)
    for task in benchmark.tasks(0):
        model = Scripted(lambda *_: "who knows")
        trace = run(direct, model, task, benchmark)
        assert trace.score("normalised").value == 0
        assert normalise(task.secret["answer"]) not in normalise(str(model.asked))
    assert run(react, Scripted(["Final Answer: x"]), task, benchmark).answer == "x"


@pytest.mark.slow
@pytest.mark.parametrize(("finishes", "knows", "guesses"), [(0.8, 0.5, 0.3), (0.4, 0.9, 0.6)])
def test_backing_off_scores_what_theory_says(finishes, knows, guesses):
    """P(right) = f a + (1 - f) c: ReAct is right with a where it finishes, and its stand-in with c where it does not."""
    benchmark = closed_world(tasks=120)
    gold = {task.prompt: task.secret["answer"] for task in benchmark.tasks(5)}

    def chance(*parts):
        return derive_seed(*parts) / 2**63

    def actor(messages, sampling, index):
        asked = (message.text.removeprefix("Question: ").partition("\n")[0] for message in messages)
        prompt = next(each for each in asked if each in gold)
        if "step by step" in messages[-1].text:
            return f"The answer is {gold[prompt] if chance('guess', prompt) < guesses else 'Nowhere'}"
        if chance("finish", prompt) >= finishes:
            return "Action: search[Nobody]"
        return f"Final Answer: {gold[prompt] if chance('know', prompt) < knows else 'Nowhere'}"

    model = Scripted(actor)
    traces = [run(react_cot, model, task, benchmark, max_steps=2, samples=3) for task in benchmark.tasks(5)]
    expected = finishes * knows + (1 - finishes) * guesses
    scored = sum(trace.score("normalised").value for trace in traces) / len(traces)
    assert abs(scored - expected) < 3 * math.sqrt(expected * (1 - expected) / len(traces))


@pytest.mark.parametrize("seed", range(4))
def test_no_name_of_a_world_begins_another_so_a_query_names_one_thing(seed):
    world = make_world(seed)
    words = sorted({word for name in world for word in name.removesuffix(" Works").split()})
    assert not [(one, two) for one, two in pairwise(words) if two.startswith(one)]
    assert all(find_page(world, f"who is {name}?") == facts["page"] for name, facts in world.items())


def test_every_two_hop_answer_stands_on_the_page_that_the_first_one_leads_to():
    world = make_world(5)
    asked = {task.prompt: task.secret["answer"] for task in closed_world(hops="2", tasks=400).tasks(5)}
    for question, (_, first, then) in TWO_HOPS.items():
        before, after = question.split("{}")
        mine = {
            prompt: answer for prompt, answer in asked.items() if prompt.startswith(before) and prompt.endswith(after)
        }
        assert mine
        for prompt, answer in mine.items():
            there = world[world[prompt.removeprefix(before).removesuffix(after)][first]]
            assert there[then] == answer and answer in there["page"]


def test_a_name_that_begins_one_there_is_or_is_begun_by_one_is_not_taken():
    class Given:
        """Draws that were chosen beforehand."""

        def __init__(self, names):
            self.parts = [part for name in names for part in name.split("-")]

        def choice(self, among):
            assert self.parts[0] in among
            return self.parts.pop(0)

    taken = {"Toran"}
    drawn = Given(["b-a-l-a-nd", "b-a-l-a-n", "b-a-l-a-nd", "t-o-r-a-n", "b-o-l-o-s", "b-o-l-o-st", "d-a-l-a-n"])
    assert _names(drawn, 3, taken, " Works") == ["Baland Works", "Bolos Works", "Dalan Works"]
    assert taken == {"Toran", "Baland", "Bolos", "Dalan"}
