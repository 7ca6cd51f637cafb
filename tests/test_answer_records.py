"""Answers, citations and sources as whole records: what is cited from where, what is told of it, and in which form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import tiny_corpus, write_index
from firsthand.errors import ConfigError, LimitExceeded, ModelError, PromptTooLong, TransientError
from firsthand.loop.budget import Limits
from firsthand.message import Message, assistant, user
from firsthand.message import system as system_message
from firsthand.model import Usage
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.answering import (
    NOT_IN_DOCUMENTS,
    Answer,
    AnswerSettings,
    answer,
    answer_grammar,
    evidence_prompt,
    extract,
    extracts,
)
from firsthand.retrieval.answers.chosen import candidates, chosen
from firsthand.retrieval.answers.citations import Citation, HitPlace, find_quote, holds, label_of, locate, sentences
from firsthand.retrieval.answers.claims import best_sentence, check_claims
from firsthand.retrieval.answers.held_words import content_words
from firsthand.retrieval.answers.rag_model import RagModel, _split, sources_of
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.hit_json import hit_from_json, hit_to_json
from firsthand.retrieval.rag.naive import naive
from firsthand.retrieval.retriever import Hit, TrailStep
from firsthand.retrieval.writer import ModelWriter
from firsthand.sampling import Sampling

CORPUS = tiny_corpus(
    {"mill.md": "Intro here.\nThe mill was built in 1871. It burned.\n", "river.md": "The river has 12 bridges.\n"}
)
HITS = [Hit(chunk, 0.5) for chunk in CORPUS.index.chunks("mill.md")[1:] + CORPUS.index.chunks("river.md")]
PLACES = asyncio.run(locate(CORPUS, HITS))
SHA = {id: CORPUS.index.document(id).sha256 for id in ("mill.md", "river.md")}


def test_a_hit_is_located_by_line_or_by_the_marks_up_to_its_end() -> None:
    assert [
        HitPlace(SHA["mill.md"], "/data/mill.md", 2, ()), HitPlace(SHA["river.md"], "/data/river.md", 1, ())
    ] == PLACES  # fmt: skip
    marks = (
        Location(0, "page", "1"),
        Location(10, "page", "2"),
        Location(20, "heading", "End"),
        Location(30, "page", "3"),
    )
    document = Document("d.pdf", "x" * 40, source="/d", locations=marks)
    CORPUS.index.documents["d.pdf"] = document  # type: ignore[attr-defined]
    hit = Hit(Chunk("d.pdf", 12, 30, "x" * 18), 1.0)
    [place] = asyncio.run(locate(CORPUS, [hit]))
    assert place == HitPlace(document.sha256, "/d", 1, ((10, "page", "2"), (20, "heading", "End")))
    assert [label_of(hit, place, at) for at in (12, 19, 20, 29)] == ["d.pdf, page 2"] * 2 + ["d.pdf, End"] * 2
    [gone] = asyncio.run(locate(CORPUS, [Hit(Chunk("gone", 0, 3, "abc"), 1.0)]))
    assert gone == HitPlace("", "", 0, ()) and label_of(Hit(Chunk("gone", 0, 3, "abc"), 1.0), gone, 0) == "gone"
    lined = HitPlace("s", "", 4, ((0, "line", "7"),))
    assert label_of(hit, lined, 12) == "d.pdf:7"
    code = Hit(Chunk("c.py", 10, 20, "ab\ncd\nef"), 1.0)
    assert [label_of(code, HitPlace("s", "", 4, ()), at) for at in (5, 10, 13, 16)] == [
        "c.py:4",
        "c.py:4",
        "c.py:5",
        "c.py:6",
    ]


def test_a_quotation_holds_only_in_the_very_document_at_its_span() -> None:
    document = Document("d", "The Mill  was\nbuilt.")
    citation = Citation(1, "d", document.sha256, 4, 8, "Mill", "", "d:1", "exact")
    assert holds(citation, document)
    for wrong in ({"sha256": "0"}, {"start": 5}, {"end": 9}, {"quote": "mill"}, {"start": 4, "end": 4, "quote": ""}):
        assert not holds(replace(citation, **wrong), document), wrong
    assert find_quote(document.text, "mill was built") == (4, 19, "normalised")
    assert find_quote(document.text, "Mill  was") == (4, 13, "exact")
    assert find_quote(document.text, "mill wa") is None and find_quote(document.text, "mill was") == (
        4,
        13,
        "normalised",
    )
    assert find_quote("die STRASSE ist lang", "straße ist") == (4, 15, "normalised")
    assert find_quote("x" * 20, " " * 9) is None


def test_sentences_end_at_stops_rows_and_paragraphs_and_not_at_numbers_of_rows() -> None:
    def texts(text: str) -> list[str]:
        return [text[start:end] for start, end in sentences(text)]

    assert texts("One. Two!  Three? (Four.) Five") == ["One.", "Two!", "Three?", "(Four.)", "Five"]
    assert texts("1. First row\n2. Second row\n12. Last") == ["1. First row", "2. Second row", "12. Last"]
    assert texts("A line\nthat goes on\n\nNew\n# Head\n| a |\n| b |\n```\n") == [
        "A line\nthat goes on", "New", "# Head", "| a |", "| b |", "```"
    ]  # fmt: skip
    assert texts("  \n ") == [] and texts("") == [] and texts("v1.5 is out.") == ["v1.5 is out."]


def test_content_words_are_without_stop_words_plurals_and_single_letters() -> None:
    assert content_words("The Mills' 7 x ss and buses of 1871") == {"mill", "7", "ss", "buse", "1871"}
    text = "A mill stood. The old mill burned in 1902, it was big. Mill burned 1902."
    assert best_sentence("mill burned 1902", text) == (55, 72), "the shortest of equals"
    assert best_sentence("mill", "Old mill! New mill!") == (0, 9), "then the first"
    assert best_sentence("nothing", text) is None and best_sentence("x", "") is None


def checked(text: str, **more: Any) -> Any:
    return check_claims(text, HITS, PLACES, **more)


def test_a_claim_is_supported_by_enough_of_its_words_and_all_of_its_numbers() -> None:
    found = checked("The mill was built in 1871 [1]. The river has 12 bridges [2].")
    assert found.text == "The mill was built in 1871. [1] The river has 12 bridges. [2]"
    assert found.citations == (
        Citation(
            1, "mill.md", SHA["mill.md"], 12, 39, "The mill was built in 1871.", "/data/mill.md", "mill.md:2", "chosen"
        ),
        Citation(
            2, "river.md", SHA["river.md"], 0, 25, "The river has 12 bridges.", "/data/river.md", "river.md:1", "chosen"
        ),
    )
    assert (found.unsupported, found.forged) == ((), 0)
    assert checked("The mill was old [1].").unsupported == (), "half of its words"
    assert checked("The mill was old and red [1].").unsupported == ("The mill was old and red.",)
    assert checked("The mill was old and red [1].", overlap=0.33).unsupported == ()
    assert checked("The mill was built in 1872 [1].").text == "The mill was built in 1872. [unsupported]"
    assert checked("The mill was built in 1872 [1].", unsupported="keep").text == "The mill was built in 1872."
    dropped = checked("Nobody knows. The mill was built [1].", unsupported="drop")
    assert dropped.text == "The mill was built. [1]" and dropped.unsupported == ("Nobody knows.",)


def test_references_to_passages_that_there_are_not_are_forged_and_quotations_must_stand() -> None:
    found = checked("The mill was built [0, 1, 3, 3].")
    assert (found.text, found.forged) == ("The mill was built. [1]", 2)
    found = checked('It was made long ago [1: "built in 1871"].')
    assert [(each.quote, each.match, each.start, each.end) for each in found.citations] == [
        ("built in 1871", "exact", 25, 38)
    ]
    found = checked('It was made long ago [2 "built in 1871"].')
    assert (found.citations, found.unsupported, found.forged) == ((), ("It was made long ago.",), 1)
    found = checked(
        "The MILL was built [1]. The mill  was built [1]. 2. The river has bridges [2].\n\n\n\nIt burned [1]."
    )
    assert found.text == "The MILL was built. [1] 2. The river has bridges. [2]\n\nIt burned. [3]"
    both = checked("The mill and the river have bridges [1][2].")
    assert [each.document for each in both.citations] == ["river.md", "mill.md"], "the one with more of its words first"
    alone = checked("The river has 12 bridges [1, 2].")
    assert [each.document for each in alone.citations] == ["river.md"], "what adds nothing is not cited"
    exact = checked('The mill was built in 1871 [1]. So they say [1 "The mill was built in 1871."].')
    assert [each.match for each in exact.citations] == ["exact"] and exact.text.endswith("So they say. [1]")


def test_an_answer_is_json_with_all_that_it_rests_on() -> None:
    model = Scripted(lambda *_: "The mill was built in 1871 [1]. It is red [7].")
    made = asyncio.run(
        answer("When was the mill built?", HITS, ModelWriter(model), CORPUS, AnswerSettings(grammar="never"))
    )
    assert made.to_json() == {
        "text": "The mill was built in 1871. [1] It is red. [unsupported]",
        "in_documents": True,
        "citations": [
            {"number": 1, "document": "mill.md", "sha256": SHA["mill.md"], "start": 12, "end": 39,
             "quote": "The mill was built in 1871.", "source": "/data/mill.md", "label": "mill.md:2", "match": "chosen"}
        ],
        "hits": [hit_to_json(hit) for hit in HITS],
        "unsupported": ["It is red."], "forged": 1, "nearest": [], "usage": Usage().to_json(), "model": None,
    }  # fmt: skip
    unsaid = asyncio.run(answer("Who?", HITS, ModelWriter(Scripted(lambda *_: "Bob did [2].")), CORPUS))
    assert unsaid.citations == () and unsaid.text == "Bob did. [unsupported]"
    assert [each.quote for each in unsaid.nearest] == [
        "The mill was built in 1871. It burned.",
        "The river has 12 bridges.",
    ]
    for said in ('"Not in the documents."', " not in the passages, sorry", "*NOT in the documents"):
        none = asyncio.run(
            answer(
                "Who?", HITS, ModelWriter(Scripted(lambda *_, said=said: said)), CORPUS, AnswerSettings(grammar="never")
            )
        )
        assert (none.text, none.in_documents, none.hits) == (NOT_IN_DOCUMENTS, False, tuple(HITS)), said
    assert asyncio.run(answer("Who?", [], ModelWriter(Scripted([])), CORPUS)) == Answer(NOT_IN_DOCUMENTS)
    dropped = asyncio.run(
        answer(
            "Who?",
            HITS,
            ModelWriter(Scripted(lambda *_: "Bob.")),
            CORPUS,
            AnswerSettings(unsupported="drop", grammar="never"),
        )
    )
    assert dropped.text == NOT_IN_DOCUMENTS and dropped.unsupported == ("Bob.",) and len(dropped.nearest) == 2


def test_settings_of_answers_are_refused_beyond_their_limits() -> None:
    AnswerSettings(overlap=0.0), AnswerSettings(overlap=1.0)
    for wrong, said in (({"unsupported": "x"}, r"^unsupported is 'x': mark, drop or keep was expected"),
                        ({"grammar": "x"}, r"^grammar is 'x': auto or never was expected"),
                        ({"overlap": -0.1}, r"^overlap is -0\.1: give 0"), ({"overlap": 1.1}, "give 0 to 1")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            AnswerSettings(**wrong)  # type: ignore[arg-type]


def test_a_model_that_takes_no_grammar_is_asked_without_and_other_errors_rise() -> None:
    class Refuses:
        def __init__(self, error: Exception):
            self.error, self.asked = error, list[Any]()

        async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
            self.asked.append(settings)
            if settings:
                raise self.error
            return ["It burned [1]."]

    for error in (ModelError("no grammar"), ConfigError("no grammar")):
        writer = Refuses(error)
        made = asyncio.run(answer("q", HITS, writer, CORPUS))  # type: ignore[arg-type]
        assert made.text == "It burned. [1]" and [*map(bool, writer.asked)] == [True, False]
    for error in (TransientError("busy"), PromptTooLong("long")):
        with pytest.raises(type(error)):
            asyncio.run(answer("q", HITS, Refuses(error), CORPUS))  # type: ignore[arg-type]
    plain = str(answer_grammar(["a", "b"]))
    assert plain.count(" claim)?") == 5 and "[2]" in plain and "[3]" not in plain
    quoted = str(answer_grammar(['one "two"\n three'], quotes=True))
    assert "one two three" in quoted and "quoted_1" in quoted and "quoted_2" not in quoted


def test_the_prompt_shows_numbered_passages_with_their_places_before_the_question() -> None:
    asked = evidence_prompt("When?", HITS, PLACES, AnswerSettings(quotes=True))
    assert 'as in [1 "copied words"]' in asked and asked.endswith("\n\nQuestion: When?")
    assert (
        "> from mill.md:2\n" in asked
        and "> from river.md:1\n" in asked
        and "<passage 2 " in asked
        and "<passage 3 " not in asked
    )
    assert "as in [1]. If the passages do not answer the question, write: Not in the documents." in evidence_prompt(
        "q", HITS, PLACES
    )


def test_an_extract_quotes_the_sentence_of_each_passage_that_fits_best() -> None:
    made = asyncio.run(extract("Was the mill on the river?", HITS, CORPUS))
    assert made.text == "“The mill was built in 1871.” [1]\n“The river has 12 bridges.” [2]", (
        "a form of burn is another word"
    )
    cited = extracts("burned", HITS, PLACES)
    assert [(each.number, each.start, each.end, each.quote, each.label, each.match) for each in cited] == [
        (1, 40, 50, "It burned.", "mill.md:2", "chosen"), (2, 0, 25, "The river has 12 bridges.", "river.md:1", "chosen")
    ]  # fmt: skip
    assert asyncio.run(extract("x", [], CORPUS)).text == NOT_IN_DOCUMENTS


def test_the_sentence_that_makes_the_question_likelier_by_the_margin_is_chosen() -> None:
    text = "# Head\nIs it so? The mill  burned. Two. The mill burned. Bob built mills here."
    hit = Hit(Chunk("mill.md", 0, len(text), text, "Mills"), 0.7)
    other = Hit(Chunk("river.md", 0, 26, "The MILL burned. Red river."), 0.9)
    found = candidates([hit, other])
    assert [(each.hit, (text if each.hit == 0 else other.chunk.text)[each.start : each.end]) for each in found] == [
        (0, "The mill  burned."), (0, "Bob built mills here."), (1, "Red river.")
    ]  # fmt: skip
    many = Hit(Chunk("d", 0, 1, " ".join(f"Word{n} stands here." for n in range(50))), 1.0)
    assert len(candidates([many])) == 40
    asked: list[str] = []

    def run(margin: float, **more: Any) -> Answer:
        def score(prompt: str, continuation: str) -> float:
            asked.append(prompt)
            assert continuation == "who built it"
            return -2.0 if "Bob built" in prompt else -4.0 if "this sentence" in prompt else -5.0

        return asyncio.run(
            chosen("who  built it", [hit, other], ModelWriter(Scripted([], score=score)), CORPUS, margin=margin, **more)
        )

    made = run(1.0)
    assert made.text == "“Bob built mills here.” [1]" and made.hits == (hit, other)
    [cited] = made.citations
    assert (cited.document, cited.start, cited.end, cited.quote, cited.match) == (
        "mill.md",
        57,
        78,
        "Bob built mills here.",
        "exact",
    )
    assert any("Mills: Bob built mills here." in each for each in asked) and any(
        "river.md: Red river." in each for each in asked
    )
    assert run(1.01).text == NOT_IN_DOCUMENTS, "3 words of the question, and 3 nats"
    assert asyncio.run(chosen("q", [], ModelWriter(Scripted([])), CORPUS)) == Answer(NOT_IN_DOCUMENTS)


def test_a_hit_is_json_and_back_and_empty_fields_are_left_out() -> None:
    bare = Hit(Chunk("d", 3, 7, "text"), 0.25)
    assert hit_to_json(bare) == {
        "id": bare.chunk.id, "document": "d", "start": 3, "end": 7, "text": "text", "score": 0.25, "trail": []
    }  # fmt: skip
    full = Hit(
        Chunk("d", 3, 7, "text", "H", "p" * 32, {"a": 1}), 1.5, (TrailStep("dense", 2, 0.5), TrailStep("rrf", 1, 1.5))
    )
    body = hit_to_json(full)
    assert body == hit_to_json(replace(bare, chunk=full.chunk)) | {
        "score": 1.5,
        "trail": [["dense", 2, 0.5], ["rrf", 1, 1.5]],
    }
    assert (body["heading"], body["parent"], body["meta"]) == ("H", "p" * 32, {"a": 1})
    assert hit_from_json(json.loads(json.dumps(body))) == full and hit_from_json(hit_to_json(bare)) == bare


# -- the model of a variant --


@pytest.fixture
def index(tmp_path: Path) -> Any:
    yield str(
        write_index(
            tmp_path / "i",
            {"mill.md": "The mill was built in 1871.", "river.md": "The river has bridges."},
            vectors=False,
        )
    )
    close_corpora()


def says(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
    last = messages[-1].text
    return "The mill was built in 1871 [1]." if "<passage 1" in last else "When was the mill built?"


def test_a_rag_model_answers_with_its_sources_and_counts_what_it_used(index: str) -> None:
    base = Scripted(says, name="scripted:b")
    model = RagModel(base, naive, {"index": index, "search": "lexical"}, "docs")
    body = asyncio.run(model.ask("When was the mill built?"))
    assert {key: body[key] for key in ("text", "in_documents", "unsupported", "forged", "calls", "model")} == {
        "text": "The mill was built in 1871. [1]", "in_documents": True, "unsupported": [], "forged": 0, "calls": 2,
        "model": "scripted:b",
    }, "asked under the grammar, which it ignores, and then without; reads are no calls"  # fmt: skip
    assert body["hits"][0]["document"] == "mill.md" and "question" not in body and "passages" not in body
    assert sources_of(body) == "[1] mill.md:1 “The mill was built in 1871.”"
    followed = asyncio.run(model.ask("And when?", [("Is there a mill?", "Yes.")]))
    assert followed["question"] == "When was the mill built?" and followed["calls"] == 3
    prompt = [
        system_message("Be brief."),
        user("Is there a mill?"),
        assistant("Yes.\n\nSources:\n[1] x"),
        user("And when?"),
    ]
    one, two = asyncio.run(model.complete(prompt, Sampling(max_tokens=40), n=2))
    assert (
        one.message.text == "The mill was built in 1871. [1]\n\nSources:\n[1] mill.md:1 “The mill was built in 1871.”"
    )
    assert two.message == one.message and one.usage.total_tokens > 0
    with pytest.raises(
        ConfigError, match=r"^docs answers from documents and has no log-probs: ask scripted:b for them"
    ):
        asyncio.run(model.score(prompt, ["x"]))
    from firsthand.grammar import choice

    with pytest.raises(ConfigError, match=r"^docs takes no tools and no response format"):
        asyncio.run(model.complete(prompt, Sampling(grammar=choice(["a"]))))
    other = RagModel(base, naive, {"index": index, "search": "lexical", "k": 3})
    assert model.fingerprint == RagModel(base, naive, dict(model.options)).fingerprint != other.fingerprint
    with pytest.raises(LimitExceeded, match="there is no answer: the attempt was ended by calls"):
        asyncio.run(RagModel(base, naive, model.options, limits=Limits(calls=1)).ask("When was the mill built?"))
    with pytest.raises(ModelError, match="gone"):
        asyncio.run(RagModel(Scripted(_gone), naive, model.options).ask("When was the mill built?"))


def _gone(*_: Any) -> str:
    raise ModelError("the model is gone")


def test_a_conversation_is_split_into_turns_without_their_sources() -> None:
    assert _split("q") == ("q", [], None)
    talk = [
        system_message("one"), assistant("hello"), user("first"), user("again"),
        assistant("a\n\nSources:\n[1] x"), assistant("more"),
        system_message("two"), user("last"),
    ]  # fmt: skip
    assert _split(talk) == ("last", [("again", "a")], "one\n\ntwo")
    for wrong in ([], [assistant("x")]):
        with pytest.raises(ConfigError, match=r"^the last message is no user's: ask a question"):
            _split(wrong)
