"""Questions of a graph within their limits: the cap of a build, entities and relations of a search, points of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import LimitExceeded, ModelError, StoreError
from firsthand.message import assistant, user
from firsthand.model import Completion, Usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.graph.graph_context import LocalShares, best_points
from firsthand.retrieval.graph.graph_data import Section, fenced
from firsthand.retrieval.graph.graph_model import GraphModel, count_tokens
from firsthand.retrieval.graph.graph_prompts import reduce_prompt
from firsthand.retrieval.graph.graph_search import GraphSearch
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from firsthand.sampling import Sampling
from graph_handmade import handmade
from opened_context import Opened


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Path, SqliteIndex]]:
    path, index = handmade(tmp_path)
    yield path, index
    index.close()


def refused(act: Callable[[], Any], kind: type[Exception] = StoreError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- the model --


class Slow:
    """Answers after it has let others run, with the tokens of each answer; keeps how many it answered at once."""

    name = fingerprint = "slow"

    def __init__(self, *used: int, finish: Any = "stop"):
        self.used, self.finish = list(used), finish
        self.asked: list[Any] = []
        self.now = self.most = 0

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked.append(sampling)
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1
        tokens = self.used[len(self.asked) - 1]
        return [Completion(assistant(' {"a": 1}\n'), self.finish, Usage(tokens - 1, 0, 1))]


def test_questions_that_waited_for_their_turn_are_held_to_what_is_used_by_then() -> None:
    async def ask(model: GraphModel, count: int) -> list[Any]:
        asked = (model.ask([user(str(n))], Sampling()) for n in range(count))
        return await asyncio.gather(*asked, return_exceptions=True)

    slow = Slow(4, 6, 9)
    model = GraphModel(slow, max_tokens=10, concurrency=1)  # type: ignore[arg-type]
    found = asyncio.run(ask(model, 4))
    assert [type(each) for each in found] == [Completion, Completion, LimitExceeded, LimitExceeded]
    assert [str(each) for each in found[2:]] == [
        "building the graph has used 10 tokens of at most 10: what is done is kept, so raise the cap and "
        "run it again to go on"
    ] * 2
    assert (model.calls, model.usage, slow.most, found[2].limit) == (2, Usage(8, 0, 2), 1, "tokens")
    for concurrency, most in ((2, 2), (4, 4), (9, 5)):
        slow = Slow(*[3] * 5)
        model = GraphModel(slow, concurrency=concurrency)  # type: ignore[arg-type]
        assert len(asyncio.run(ask(model, 5))) == 5 and (model.calls, slow.most) == (5, most)
        assert model.usage == Usage(10, 0, 5)
    assert GraphModel(slow).concurrency == 4 and GraphModel(slow).max_tokens is None  # type: ignore[arg-type]
    asked = GraphModel(Slow(3, 3))  # type: ignore[arg-type]
    body, said = asyncio.run(asked.ask_json([user("x")], {"type": "object"}, 77))
    assert (body, said) == ({"a": 1}, assistant(' {"a": 1}\n'))
    assert asyncio.run(asked.ask_choice([user("x")], ["Y", "N"])) == '{"a": 1}'
    settings = [(each.max_tokens, each.grammar is not None) for each in asked.model.asked]  # type: ignore[attr-defined]
    assert settings == [(77, True), (8, True)]
    cut = GraphModel(Slow(3, finish="length"))  # type: ignore[arg-type]
    assert refused(lambda: asyncio.run(cut.ask_json([user("x")], {"type": "object"}, 77)), ModelError) == (
        "the answer was cut off after 77 tokens: raise max_answer_tokens, or chunk smaller"
    )
    assert [count_tokens(text) for text in ("", "abcd", "abcde", "éé", "ééx", "\ud800x")] == [0, 1, 2, 1, 2, 1]


# -- searches --


def test_entities_and_relations_of_a_local_search_have_limits_of_their_own(made: tuple[Path, SqliteIndex]) -> None:
    path, index = made

    def lines(entities: int, relations: int) -> tuple[list[str], list[str]]:
        shares = LocalShares(entities=entities, relations=relations)
        search = GraphSearch(None, Corpus(index), str(path), shares=shares)  # type: ignore[arg-type]
        sections = asyncio.run(search.local_sections("ann, bob and emil?"))
        (found,) = [each.text.split("\n") for each in sections if each.label == "entities and relations"]
        return [each.split()[0] for each in found if " (person" in each or " (geo" in each], [
            each.partition(" (")[0] for each in found if " -- " in each
        ]  # fmt: skip

    # one relation lies between ANN and BOB; those to CID, a name of both, come before EMIL's
    assert lines(1, 0) == (["ANN"], []) and lines(2, 0) == (["ANN", "BOB"], ["ANN -- BOB"])
    assert lines(1, 1) == (["ANN"], ["ANN -- BOB"]) and lines(1, 3) == (["ANN"], ["ANN -- BOB", "ANN -- CID"])
    assert lines(3, 1) == (["ANN", "BOB", "EMIL"], ["ANN -- BOB", "CID -- BOB", "ANN -- CID", "DORA -- EMIL"])
    assert lines(3, 0) == (["ANN", "BOB", "EMIL"], ["ANN -- BOB"])


class Heedless(Scripted):
    """A model that takes no notice of grammars and bounds, as an endpoint may, and keeps the bounds."""

    def __init__(self, reply: Any, limits: list[int]):
        super().__init__(reply)
        self.limits = limits

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.limits.append(sampling.max_tokens)
        return await super().complete(prompt, replace(sampling, grammar=None, max_tokens=10**6), tools=tools, n=n)


@pytest.mark.slow
def test_points_of_a_final_answer_fill_the_context_and_not_the_tokens_of_an_answer(
    made: tuple[Path, SqliteIndex],
) -> None:
    path, index = made
    points = [(90 - n, f"point {n} " + "x" * 990) for n in range(12)]
    shown: list[str] = []
    limits: list[int] = []

    def reply(messages: Any, sampling: Any, number: int) -> str:
        text = messages[-1].text
        if "List the points" in text:
            return json.dumps({"points": [{"description": told, "score": score} for score, told in points]})
        if "list up to 5 follow" in text:
            return json.dumps({"answer": points[0][1], "score": 90, "follow_ups": ["ann?"]})
        if "part of a larger" in text:
            return json.dumps({"answer": points[1][1], "score": 89, "follow_ups": []})
        shown.append(text)
        return " all of it \n"

    def asked(how: str, **options: Any) -> str:
        opened = Opened(model=Heedless(reply, limits))
        question = "what did Ann do?"

        def act(ctx: Any) -> Any:
            search = GraphSearch(ctx, Corpus(index), str(path), **options)
            return search.global_(question) if how == "global" else search.drift(question, depth=1)

        shown.clear()
        limits.clear()
        assert opened.run(act) == "all of it"
        (said,) = shown
        assert limits[:-1] == [options["answer_tokens"]] * (len(limits) - 1) and limits[-1] == Sampling().max_tokens
        return said

    def expected(told: Sequence[tuple[int, str]], label: str, budget: int) -> str:
        lines = best_points(told, budget)
        return reduce_prompt("what did Ann do?", fenced("what did Ann do?", [Section(label, "\n".join(lines))]))

    assert len(best_points(points, 12_000)) == 12 and len(best_points(points, 520)) == 2
    whole, cut = expected(points, "points", 12_000), expected(points, "points", 520)
    assert asked("global", answer_tokens=300) == whole != cut
    assert asked("global", answer_tokens=9000, batch_tokens=520) == cut
    label = "answers to parts of the question"
    assert asked("drift", answer_tokens=300) == expected(points[:2], label, 12_000)
    assert asked("drift", answer_tokens=9000, batch_tokens=300) == expected(points[:2], label, 300)
    assert len(best_points(points[:2], 300)) == 1
