"""Self-RAG by reflection tokens, a step at a time: prompts of segments, their scores, and what a reading is asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import tiny_corpus
from firsthand.message import Json
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.rag.self_rag import _answered, _Choices, _Common, _reads_tokens, _Tokens
from firsthand.retrieval.reflection.critique import MARKS, Critique, CritiqueWeights
from firsthand.retrieval.reflection.segment_beam import Segment, SegmentPath
from firsthand.retrieval.reflection.token_reflections import SegmentReading, SegmentSettings, raw_prompt
from firsthand.retrieval.retriever import Hit
from firsthand.task import Task

RETRIEVE = {"[Retrieval]": math.log(0.2), "[Continue to Use Evidence]": math.log(0.1), "[No Retrieval]": math.log(0.5)}
RELEVANCE = {"[Relevant]": math.log(0.6), "[Irrelevant]": math.log(0.2)}
SUPPORT = {
    "[Fully supported]": math.log(0.1),
    "[Partially supported]": math.log(0.4),
    "[No support / Contradictory]": math.log(0.3),
}
UTILITY = {f"[Utility:{n}]": math.log(share) for n, share in enumerate((0.1, 0.1, 0.1, 0.3, 0.2), 1)}
GROUPS = {"retrieval": RETRIEVE, "relevance": RELEVANCE, "support": SUPPORT, "utility": UTILITY}
RELEVANT, SUPPORTED = 0.6 / 0.8, (0.1 + 0.4 * 0.5) / 0.8
USEFUL = (-0.1 - 0.05 + 0.15 + 0.2) / 0.8
TEXTS = {"mill": "The mill was built in 1871.\nIt burned in 1902.", "fox": "A fox."}


async def group(waiting: Any) -> list[Any]:
    return [await each for each in waiting]


@dataclass(frozen=True)
class Told(_Tokens):
    """Readings by hand in place of those of a model."""

    asked: list[tuple[str, SegmentSettings]] = field(default_factory=list)
    groups: Mapping[str, Any] = field(default_factory=lambda: GROUPS)

    async def _read(self, prompt: str, settings: SegmentSettings) -> SegmentReading:
        self.asked.append((prompt, settings))
        return SegmentReading(f"s{len(self.asked)}", math.log(0.3), self.groups, len(self.asked) == 3)


def common(retrieval: Any = "adaptive", threshold: float = 0.37, ctx: Any = None) -> _Common:
    ctx = ctx or SimpleNamespace(group=group)
    weights = CritiqueWeights(0.5, 2.0, 0.25)
    return _Common("When was the mill built?", ctx, tiny_corpus(TEXTS), "lexical", 2, retrieval, threshold, weights, 33)


def told(retrieval: Any = "adaptive", threshold: float = 0.37, path: SegmentPath | None = None) -> tuple[Any, Told]:
    work = Told(common(retrieval, threshold))
    return asyncio.run(work.expand(path or SegmentPath())), work


PATH = SegmentPath((Segment("It was built.", 1.0, marks="[Relevant]"), Segment("Then 1902.", 2.0, marks="[Utility:5]")))
WRITTEN = "It was built.[Relevant]Then 1902.[Utility:5]"
QUESTION = "When was the mill built?"
LINES = [
    Hit(Chunk("mill", 0, 27, "The mill was built in 1871."), 0.0),
    Hit(Chunk("mill", 28, 46, "It burned in 1902."), 0.0),
]


def test_each_passage_that_is_wanted_has_a_segment_with_its_own_reflections() -> None:
    segments, work = told(path=PATH)  # (.2 + .1) / .8 = .375 is above the threshold
    first = raw_prompt(QUESTION, WRITTEN)
    texts = ["The mill was built in 1871.", "It burned in 1902."]
    assert work.asked == [
        (first, SegmentSettings(0)),
        *((raw_prompt(QUESTION, WRITTEN, text), SegmentSettings(33, True)) for text in texts),
    ]
    score = 0.3 + 0.5 * RELEVANT + 2.0 * SUPPORTED + 0.25 * USEFUL
    assert [(each.text, each.hit.chunk.text, each.is_last) for each in segments] == [
        ("s2", texts[0], False), ("s3", texts[1], True),
    ]  # fmt: skip
    for each in segments:
        assert each.score == pytest.approx(score) and each.marks == "[Partially supported][Utility:4]"
        shares = (each.critique.relevance, each.critique.support, each.critique.utility)
        assert shares == pytest.approx((RELEVANT, SUPPORTED, USEFUL))


def test_without_passages_a_segment_says_so_and_is_judged_by_its_use_alone() -> None:
    for retrieval, threshold, readings in (("adaptive", 0.376, 2), ("never", 0.0, 1)):
        (segment,), work = told(retrieval, threshold, PATH)
        assert work.asked[-1] == (raw_prompt(QUESTION, f"{WRITTEN}[No Retrieval]"), SegmentSettings(33, False))
        assert len(work.asked) == readings and segment.hit is None and segment.marks == "[Utility:4]"
        assert segment.critique == Critique(utility=pytest.approx(USEFUL))
        assert segment.score == pytest.approx(0.3 + 0.25 * USEFUL)
    always, work = told("always", 1.0)
    assert len(always) == 1 and len(work.asked) == 1 and work.asked[0][0].endswith("in 1871.</paragraph>")
    work = Told(_Common("xyzzy", SimpleNamespace(group=group), tiny_corpus(TEXTS), "lexical", 2, "always", 0.0,
                        CritiqueWeights(), 5))  # fmt: skip
    asyncio.run(work.expand(SegmentPath()))
    assert [prompt for prompt, _ in work.asked] == [raw_prompt("xyzzy", "[No Retrieval]")], "nothing was found"


def test_a_reading_is_a_decode_of_the_raw_prompt_with_room_for_its_reflections() -> None:
    seen: list[Any] = []
    after = SimpleNamespace(
        node="n2", text=" words", alternatives=((("p", -0.5),), *(tuple(GROUPS[each].items()) for each in GROUPS))
    )

    class Ctx:
        attempt = SimpleNamespace(
            calls=[
                SimpleNamespace(nodes=["n1"], detail={"finish_reasons": ["stop"]}),
                SimpleNamespace(nodes=["n1", "n2"], detail={"finish_reasons": ["length"]}),
                SimpleNamespace(nodes=["n3"], detail={"finish_reasons": ["stop"]}),
            ]
        )

        async def decode(self, decoding: Any, positions: Any, about: Json, **options: Any) -> Any:
            seen.append((decoding.args, positions, about, options))
            return after

    ctx = Ctx()
    settings = SegmentSettings(9, True)
    reading = asyncio.run(_Tokens(common(ctx=ctx))._read("raw", settings))
    assert reading == SegmentReading(" words", -0.5, GROUPS, False)
    assert seen == [((settings,), [ctx], settings.to_json(), {"max_tokens": 10, "prompts": ["raw"]})]
    after.node = "n3"
    assert asyncio.run(_Tokens(common(ctx=ctx))._read("raw", settings)).is_last


def test_reflections_are_tokens_where_the_model_has_all_of_them() -> None:
    loaded: list[str] = []

    class Model:
        def __init__(self, *lacks: str):
            self.lacks = lacks

        async def load(self) -> None:
            loaded.append("x")

        def token_id(self, mark: str) -> int | None:
            return None if mark in self.lacks else MARKS.index(mark)

    def reads(model: Any, kind: Any = "auto") -> bool:
        return asyncio.run(
            _reads_tokens(SimpleNamespace(attempt=SimpleNamespace(agent=SimpleNamespace(model=model))), kind)
        )  # type: ignore[arg-type]

    assert reads(Model()) and loaded == ["x"] and not reads(Model(MARKS[-1])) and len(loaded) == 2
    assert not reads(SimpleNamespace(load=None)) and not reads(SimpleNamespace(token_id=len, load=None))
    assert not reads(SimpleNamespace(load=Model().load)) and len(loaded) == 2
    assert reads(None, "tokens") and not reads(Model(), "choices") and len(loaded) == 2


def test_the_query_is_the_question_with_the_last_segment_alone() -> None:
    assert [hit.chunk.text for hit in asyncio.run(common().passages(PATH))] == [hit.chunk.text for hit in LINES]
    alone = asyncio.run(common().passages(SegmentPath((Segment("1902 burned", 1.0), Segment("fox", 1.0)))))
    assert {hit.chunk.document for hit in alone} == {"mill", "fox"}
    assert len(asyncio.run(common().passages(SegmentPath()))) == 1
    assert _Choices(common())._so_far(PATH) == f"Question: {QUESTION}\nAnswer so far: {PATH.text}"
    assert _Choices(common())._so_far(SegmentPath()) == f"Question: {QUESTION}\nAnswer so far: (nothing)"


def test_the_best_path_becomes_an_answer_whose_segments_cite_their_own_passages() -> None:
    corpus = tiny_corpus(TEXTS)
    built, burned = corpus.index.chunks("mill")
    one, two = Hit(built, 1.0), Hit(burned, 2.0)

    def answered(*segments: tuple[str, Hit | None], **about: Any) -> tuple[str, Any]:
        noted: list[Any] = []
        ctx: Any = SimpleNamespace(note=lambda kind, **data: noted.append((kind, data)))
        path = SegmentPath(tuple(Segment(text, 1.0, hit=hit) for text, hit in segments))
        text = asyncio.run(_answered(Task("t", QUESTION, **about), ctx, corpus, path))
        ((kind, data),) = noted
        assert kind == "rag_answer"
        return text, data

    text, data = answered((" It burned in 1902. ", two), ("The mill was built in 1871.", one), ("Burned in 1902.", two))
    assert text == "It burned in 1902. [1]\nThe mill was built in 1871. [2]\nBurned in 1902. [1]" == data["text"]
    assert data["passages"] == [burned.id, built.id] and data["unsupported"] == [] and data["forged"] == 0
    assert [(each["number"], each["quote"]) for each in data["citations"]] == [(1, burned.text), (2, built.text)]
    text, data = answered(("The mill was built in 1871.", one), ("Ghosts live there.", None))
    assert text == "The mill was built in 1871. [1]\nGhosts live there. [unsupported]"
    assert data["unsupported"] == ["Ghosts live there."]
    text, data = answered(("In the year 1871.", one), hint="a number")
    assert text == "1871" == data["text"] and data["passages"] == [built.id] and data["citations"] == []
    text, data = answered(("From memory.", None))
    assert text == "From memory." and data["passages"] == [] and data["in_documents"] is True
    text, data = answered()
    assert text == "" and data["text"] == "Not in the documents." and data["in_documents"] is False
