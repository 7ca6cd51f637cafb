"""A variant as a Model: the JSON of an attempt made by hand, what each part of it becomes, and what a conversation asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, ModelError
from firsthand.message import assistant, user
from firsthand.message import system as system_message
from firsthand.model import Delta, ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.conversation import in_conversation, standalone
from firsthand.retrieval.answers.rag_model import RagModel, body_of, sources_of
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.hit_json import hit_to_json
from firsthand.retrieval.rag_effect import retrievals
from firsthand.retrieval.retriever import Hit, TrailStep
from firsthand.retrieval.writer import ContextWriter, ModelWriter, writer_of
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Trace
from made_traces import trace
from opened_context import Opened

HITS = [
    Hit(Chunk(id, 3, 9, f"text {id}", "H"), 0.5 + n, (TrailStep("dense", n, 0.25),)) for n, id in enumerate("abc", 1)
]
IDS = [hit.chunk.id for hit in HITS]


def call(kind: Any, used: tuple[int, int] = (0, 0), **detail: Any) -> Call:
    return Call(
        "0:1", kind, None, 0.0, 0.0, "r", Usage(prompt_tokens=used[0], completion_tokens=used[1]), detail=detail
    )


def read(name: str, *hits: Hit) -> Call:
    return call("tool", name=name, items=[hit_to_json(hit) for hit in hits])


def attempt(*events: tuple[str, Any], calls: tuple[Call, ...] = (), **more: Any) -> Trace:
    told = tuple(Event(kind, 0.0, data) for kind, data in events)
    return trace("x", events=told, calls=calls, answer=more.pop("answer", "given"), **more)


def test_an_attempts_answer_has_the_passages_of_its_last_record_in_their_order() -> None:
    record = {
        "text": "recorded",
        "in_documents": False,
        "citations": [1],
        "forged": 2,
        "passages": [IDS[2], "gone", IDS[0]],
    }
    calls = (
        read("retrieve", HITS[0], HITS[1]),
        call("generate", (100, 7)),
        read("other", HITS[1]),
        call("tool", name="retrieve", items=[{"text": "", "sha256": "", "line": 1}]),
        call("tool", name="retrieve", error="none"),
        read("retrieve", HITS[2]),
        call("score", (30, 0)),
    )
    made = attempt(
        ("rag_answer", {"text": "first", "passages": [IDS[1]]}), ("rewritten", {"question": "one?"}),
        ("rag_answer", record), ("rewritten", {"question": "two?"}), ("other", {"text": "no"}), calls=calls,
    )  # fmt: skip
    made.agent["model"] = "scripted:m"
    assert recorded_answer(made) == record and recorded_answer(attempt()) is None
    assert [(each is calls[at], hits) for (each, hits), at in zip(retrievals(made), (0, 3, 5), strict=True)] == [
        (True, HITS[:2]), (True, []), (True, HITS[2:])
    ]  # fmt: skip
    body = body_of(made)
    assert body == {
        "text": "given", "in_documents": False, "citations": [1], "forged": 2,
        "hits": [hit_to_json(HITS[2]), hit_to_json(HITS[0])],
        "usage": Usage(prompt_tokens=130, completion_tokens=7).to_json(), "calls": 2, "model": "scripted:m",
        "question": "two?",
    }  # fmt: skip
    assert body_of(attempt()) == {
        "text": "given", "in_documents": True, "citations": [], "unsupported": [], "hits": [], "usage": Usage().to_json(),
        "calls": 0, "model": None,
    }  # fmt: skip


def test_an_attempt_without_an_answer_is_an_error_of_its_kind() -> None:
    with pytest.raises(ModelError, match=r"^it broke$"):
        body_of(attempt(answer=None, error=Failure("ModelError", "it broke")))
    with pytest.raises(LimitExceeded, match=r"^there is no answer: the attempt was ended by seconds$") as error:
        body_of(attempt(answer=None, stop_reason="seconds"))
    assert error.value.limit == "seconds"
    assert body_of(attempt(answer="", stop_reason="tokens"))["text"] == ""  # empty, and an answer


class Asked(RagModel):
    """A model that keeps what it is asked, and answers by its seed."""

    async def ask(self, question: str, history: Any = (), **more: Any) -> Any:
        self.options.append((question, list(history), more))  # type: ignore[attr-defined]
        seed = more["seed"]
        cited = [{"number": 1, "label": "a b\n:3", "quote": "of\n it"}, {"number": 2, "label": "c", "quote": "x"}]
        usage = Usage(prompt_tokens=seed, completion_tokens=1).to_json()
        return {"text": f"answer {seed}", "citations": cited if seed else [], "usage": usage}


def test_a_conversation_is_asked_with_its_turns_its_system_messages_and_a_seed_for_each_answer() -> None:
    seen: list[Any] = []
    model = Asked(Scripted(), in_conversation, seen, "docs")  # type: ignore[arg-type]
    prompt = [
        system_message("Be brief."), assistant("Hello"), user("one?"), user("two?"),
        assistant("2\n\nSources:\n[1] x\n\nSources:\n[2]"), assistant("3"), system_message("Be kind."), user("last?"),
    ]  # fmt: skip
    sampling = Sampling(temperature=0.5, max_tokens=33, stop=("x",), seed=4)
    found = asyncio.run(model.complete(prompt, sampling, n=2))
    plain = Sampling(temperature=0.5, max_tokens=33)
    assert seen == [
        ("last?", [("two?", "2")], {"sampling": plain, "system": "Be brief.\n\nBe kind.", "seed": seed})
        for seed in (4, 5)
    ]
    lines = "\n\nSources:\n[1] a b :3 “of it”\n[2] c “x”"
    assert [each.message for each in found] == [assistant(f"answer 4{lines}"), assistant(f"answer 5{lines}")]
    assert [(each.finish_reason, each.usage.prompt_tokens) for each in found] == [("stop", 4), ("stop", 5)]
    seen.clear()

    async def streamed() -> list[Delta]:
        return [delta async for delta in model.stream("alone?", Sampling())]

    first, last = asyncio.run(streamed())
    assert seen[0][:2] == ("alone?", []) and seen[0][2]["system"] is None and seen[0][2]["seed"] == 0
    assert first == Delta("answer 0") and (last.text, last.completion.message) == ("", assistant("answer 0"))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"^docs takes no tools and no response format"):
        asyncio.run(anext(model.stream("alone?", Sampling(), tools=[ToolSpec("t", "T.", {})])))  # type: ignore[arg-type]
    for wrong in ([], [user("q"), assistant("a")]):
        with pytest.raises(ConfigError, match=r"^the last message is no user's: ask a question$"):
            asyncio.run(model.complete(wrong, Sampling()))
    assert sources_of({"citations": []}) == ""


def test_a_follow_up_is_rewritten_from_the_last_four_turns_and_each_is_cut() -> None:
    turns = [(f"q{n}{'x' * 700}", f"a{n}{'y' * 700}") for n in range(6)]
    opened = Opened([" - Who owned the mill?\nand more\n"])
    found = opened.run(lambda ctx: standalone("And who?", turns, ContextWriter(ctx)))
    shown = "\n".join(f"User: q{n}{'x' * 598}\nAssistant: a{n}{'y' * 598}" for n in range(2, 6))
    assert found == "Who owned the mill?"
    assert opened.asked == [
        (
            [
                f"user: Conversation so far:\n\n{shown}\n\nThe user now asks: And who?\n\nRewrite this as one question that "
                "can be understood without the conversation: put names in place of words such as it, they, that. Write the "
                "question only."
            ],
            {"max_tokens": 96},
        )
    ]
    silent = Opened([" \n"])
    assert silent.run(lambda ctx: standalone("And who?", turns[:1], ContextWriter(ctx))) == "And who?"
    assert Opened().run(lambda ctx: standalone(" q ", (), ContextWriter(ctx))) == " q "

    async def pattern(task: Task, ctx: Any) -> str:
        return f"{task.id}: {task.prompt}"

    for said, noted in (("New?", [("rewritten", {"question": "New?"})]), ("Old?", [])):
        opened = Opened([said])
        task = Task("t", "Old?")
        answer = opened.run(lambda ctx, t=task: in_conversation(t, ctx, pattern=pattern, history=[("a", "b")]))
        assert (answer, opened.notes()) == (f"t: {said}", noted)


def test_a_writer_outside_of_attempts_adds_up_what_it_used() -> None:
    model = Scripted(lambda messages, sampling, index: f"said {index}", score=lambda prompt, text: -float(len(text)))
    writer = writer_of(model)
    assert isinstance(writer, ModelWriter)
    writer.sampling = Sampling(temperature=0.5, max_tokens=40)
    assert asyncio.run(writer.write("one two", n=2, temperature=0.25)) == ["said 0", "said 1"]
    assert asyncio.run(writer.write("three")) == ["said 0"]
    assert asyncio.run(writer.logprobs("four", ("x", "yy"))) == [-1.0, -2.0]
    asked = [(each.n, each.sampling and (each.sampling.temperature, each.sampling.max_tokens)) for each in model.asked]
    assert asked == [(2, (0.25, 40)), (1, (0.5, 40)), (1, None)]
    # prompts of two, one and one words; the score reads its two continuations too, and writes nothing
    assert (writer.usage.prompt_tokens, writer.usage.completion_tokens) == (2 + 1 + 1 + 2, 6)
    opened = Opened(["a"])
    assert opened.run(lambda ctx: _kind(writer_of(ctx))) is ContextWriter


async def _kind(writer: Any) -> type:
    return type(writer)
