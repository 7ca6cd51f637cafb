"""Models of agents, of embedders and of simulated players, asked directly: who answers, with what, and what it costs."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError, ModelFileError, TransientError
from firsthand.grammar import Grammar
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.message import Message, Sampled, Text, assistant, user
from firsthand.model import Completion, Delta, Likelihood, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers import agents, local
from firsthand.providers.agents import AgentsModel, adapter_folders, agent_of
from firsthand.providers.cassette import Cassette, CassetteMiss
from firsthand.providers.embedder import EmbeddingModel
from firsthand.providers.output_validation import check
from firsthand.providers.scripted import Scripted, ScriptedRequest
from firsthand.providers.sim import Sim

ADD = ToolSpec("add", "Adds.", {"type": "object"})


class Player:
    """Answers with its name, and notes what it is asked."""

    def __init__(self, name: str, *, sampled: bool = True) -> None:
        self.name, self.fingerprint = name, f"fp-{name}"
        self.sampled = Sampled((1,), (-0.5,)) if sampled else None
        self.asked: list[Any] = []

    def answer(self) -> Completion:
        return Completion(Message("assistant", (Text(self.name),), self.sampled), "stop", Usage(1, 0, 1))

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        self.asked.append((prompt, sampling, tools, n))
        return [self.answer()] * n

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        self.asked.append((prompt, sampling, tools))
        yield Delta(self.name)
        yield Delta("", self.answer())

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        self.asked.append((prompt, continuations))
        return Scored((Likelihood(self.name, -1.0, 1, True),), Usage(2))


def test_an_agent_is_found_by_its_branch_with_or_without_a_number() -> None:
    names = ("lead", "worker", "worker 2.1", "a b")
    for branch, agent in (
        ("", "lead"), ("lead", "lead"), ("worker 3", "worker"), ("worker 2.1", "worker 2.1"), ("worker 2.1 x", "worker 2.1"),
        ("a b 7", "a b"), ("a", None), ("other", None), ("workers", None),
    ):  # fmt: skip
        assert agent_of(branch, names) == agent, branch
    assert agent_of("", ("worker",)) is None is agent_of("lead", ())


def test_each_branch_is_answered_by_its_agent_whose_name_the_tokens_bear() -> None:
    base, lead, worker = Player("base"), Player("lead"), Player("worker")
    model = AgentsModel(base, {"lead": lead, "worker": worker}, name="agents:x@y")
    assert (model.name, AgentsModel(base, {}).name) == ("agents:x@y", "base")
    found = hashlib.sha256(b"lead|worker|fp-base|fp-lead|fp-worker").hexdigest()[:16]
    assert model.fingerprint == f"agents:{found}"
    hot = Sampling(temperature=0.5)

    async def asked(branch: str) -> tuple[str, Any, str]:
        enter_branch(Branch(name=branch))
        answers = await model.complete("p", hot, tools=[ADD], n=2)
        deltas = [each async for each in model.stream("q", hot, tools=[ADD])]
        (likelihood,) = (await model.score("r", ["c"])).likelihoods
        assert [each.text for each in deltas] == [answers[0].message.text, ""] and deltas[0].completion is None
        assert answers == [deltas[1].completion] * 2
        sampled = answers[0].message.sampled
        return answers[0].message.text, sampled and sampled.adapter, likelihood.text

    assert asyncio.run(asked("worker 2")) == ("worker", "worker", "worker")
    assert asyncio.run(asked("")) == ("lead", "lead", "lead")
    name, adapter, scored = asyncio.run(asked("judge"))
    assert (name, scored) == ("base", "base") and not adapter
    whole = [("p", hot, [ADD], 2), ("q", hot, [ADD]), ("r", ["c"])]
    assert lead.asked == worker.asked == base.asked == whole
    worker.sampled = None
    assert asyncio.run(asked("worker")) == ("worker", None, "worker")


def test_a_model_of_agents_is_opened_with_the_adapter_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("worker", "lead"):
        (tmp_path / "run" / "adapters" / name).mkdir(parents=True)
        for file in (agents.CONFIG_FILE, "adapter_model.safetensors"):
            (tmp_path / "run" / "adapters" / name / file).write_text("{}")
    (tmp_path / "run" / "adapters" / "empty").mkdir()
    run = tmp_path / "run"
    folders = {name: run / "adapters" / name for name in ("lead", "worker")}
    assert dict(adapter_folders(run)) == folders == dict(adapter_folders(run / "adapters"))
    assert list(adapter_folders(run)) == ["lead", "worker"]
    said = f"^{tmp_path} holds no adapters of agents: give a run of `firsthand train ... --agents lead,worker`$"
    with pytest.raises(ModelFileError, match=said):
        adapter_folders(tmp_path)
    monkeypatch.setattr(local.model_lookup, "resolve", lambda name: Path("/models", name))
    model = agents.open_model(f"me@home@{run}")
    assert model.name == f"agents:me@home@{run}" and model.base.name == "me@home"
    assert {name: view.chosen for name, view in model.views.items()} == {"lead": "lead", "worker": "worker"}  # type: ignore[attr-defined]
    assert model.base.adapters == folders and model.base.chosen is None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"^agents:'m' has no folder of adapters: write agents:MODEL@FOLDER$"):
        agents.open_model("m")


def test_an_embedder_embeds_and_refuses_all_else() -> None:
    class Lengths:
        name = "len"

        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return [[float(len(each))] for each in texts]

    model = EmbeddingModel(Lengths(), "fp")  # type: ignore[arg-type]
    assert (model.name, model.fingerprint, asyncio.run(model.embed(["ab", ""]))) == (
        "embedder:len",
        "fp",
        [[2.0], [0.0]],
    )
    said = "^embedder:len embeds texts and does not write: attempt embedding tasks by --pattern embed$"
    for work in (lambda: model.complete("p", Sampling()), lambda: model.score("p", ["a"])):
        with pytest.raises(ModelError, match=said):
            asyncio.run(work())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=said):
        model.stream("p", Sampling())


def test_a_simulated_player_counts_words_and_scores_its_own_verdict() -> None:
    sim = Sim(seed=3)
    prompt = "Evaluate if given numbers can reach 24 (sure/likely/impossible)\n4 6"

    async def main() -> None:
        one, two = await sim.complete(prompt, Sampling(seed=5), n=2)
        assert one.message.text == two.message.text, "verdicts on one position agree"
        words = len(prompt.split())
        assert (one.usage, two.usage, one.finish_reason) == (Usage(words, 0, 1), Usage(0, 0, 1), "stop")
        assert [each async for each in sim.stream([user("x"), user(prompt)], Sampling(seed=5))] == [
            Delta(one.message.text, one)
        ]
        (own,) = await sim.complete(prompt, Sampling())
        scored = await sim.score(prompt, [f" {own.message.text}\n", "other"])
        assert scored == Scored(
            (
                Likelihood(f" {own.message.text}\n", math.log(0.98), 1, True),
                Likelihood("other", math.log(0.01), 1, False),
            ),
            Usage(words + 2),
        )
        assert (
            await sim.count_tokens(prompt, [ADD], ["a b", "c"]) == words + 2
            and await sim.count_tokens([user("a b")]) == 2
        )
        with pytest.raises(ModelError) as raised:
            await sim.complete("w" * 81, Sampling())
        assert str(raised.value) == f"sim:game24 plays the game of 24 only, and was asked: {'w' * 80!r}"

    asyncio.run(main())


def test_a_cassette_plays_each_reply_once_and_counts_words() -> None:
    made = Cassette({"a b": ["one", "two words", "three"], "other": ["x"]}, name="cassette:f")

    async def main() -> None:
        first, second = await made.complete([user("a b")], Sampling(), n=2)
        assert first == Completion(assistant("one"), "stop", Usage(2, 0, 1))
        assert second == Completion(assistant("two words"), "stop", Usage(0, 0, 2)) and made.unplayed == 2
        with pytest.raises(CassetteMiss) as raised:
            await made.complete("a b", Sampling(), n=2)
        assert str(raised.value) == "cassette:f holds 3 replies to this, 2 are played and 2 asked:\na b"
        (delta,) = [each async for each in made.stream("a b", Sampling())]
        assert delta == Delta("three", Completion(assistant("three"), "stop", Usage(2, 0, 1))) and made.unplayed == 1
        assert await made.count_tokens([user("a"), assistant("b c")], [ADD], ["d"]) == 5
        with pytest.raises(CassetteMiss, match=r"^cassette:f holds replies and no likelihoods: use a pattern"):
            await made.score("a b", ["x"])

    asyncio.run(main())


def test_a_script_notes_each_request_before_it_fails() -> None:
    model = Scripted(["one"], failures=2, error=ModelError("always"), name="scripted:s")

    async def main() -> None:
        for left in (1, 0):
            with pytest.raises(TransientError) as raised:
                await model.complete("p", Sampling(), tools=[ADD], n=3)
            assert str(raised.value) == f"scripted:s was told to fail; {left} more failures follow"
        with pytest.raises(ModelError, match=r"^always$"):
            await model.score("p", ["a", "b"])
        with pytest.raises(ModelError, match=r"^always$"):
            async for _ in model.stream([user("q")], Sampling(seed=1)):
                pass

    asyncio.run(main())
    asked = ScriptedRequest("p", Sampling(), (ADD,), 3)
    scored = ScriptedRequest("p", None, continuations=("a", "b"))
    assert model.asked == [asked, asked, scored, ScriptedRequest([user("q")], Sampling(seed=1))]


def test_finished_answers_must_fit_and_those_before_a_stop_string_may_only_begin() -> None:
    def told(*answers: tuple[str, Any], **settings: Any) -> str:
        completions = [Completion(assistant(text), reason, Usage()) for text, reason in answers]
        try:
            asyncio.run(check("m", completions, Sampling(**{"grammar": Grammar("regex", "ab+c"), **settings})))
        except ModelError as error:
            return str(error)
        return ""

    wrong = (
        "m answered {!r}, which does not fit the regex grammar it was given: it seems to ignore grammars, so leave the "
        "grammar out, or use a local model"
    )
    assert told(("abbc", "stop"), ("abc", "stop")) == "" == told(("x", "length"), ("x", "tool_calls")) == told()
    assert told(("abc", "stop"), ("ab", "stop")) == wrong.format("ab")
    assert told(("ab", "stop"), stop=("c",)) == "" and told(("ac", "stop"), stop=("c",)) == wrong.format("ac")
    assert told(("x" * 81, "stop")) == wrong.format("x" * 80) and told(("x", "stop"), grammar=None) == ""
