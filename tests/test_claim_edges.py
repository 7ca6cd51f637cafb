"""Claims and quotations at their edges: repeated spans, forged references, lists, marks, and ties between passages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corpus_tiny import tiny_corpus
from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.retrieval.answers.answering import Answer, AnswerSettings, answer, evidence_prompt
from firsthand.retrieval.answers.citations import Citation, HitPlace, QuoteSpan, find_quote
from firsthand.retrieval.answers.claims import CheckedClaims, _number, best_sentence, check_claims
from firsthand.retrieval.answers.held_words import content_words
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit

TEXTS = ["Rain. The mill was built in 1871.", "The mill burned in 1902 by fire.", "A mill, a fire, 12 dogs."]
HITS = [Hit(Chunk(f"d{n}", 10 * n, 10 * n + len(text), text), 0.0) for n, text in enumerate(TEXTS, 1)]
PLACES = [HitPlace(f"sha{n}", f"/d{n}", n, ()) for n in (1, 2, 3)]


def checked(text: str, **options: Any) -> CheckedClaims:
    return check_claims(text, HITS, PLACES, **options)


def spans(made: CheckedClaims) -> list[tuple[int, str, int, int, str, str]]:
    return [(each.number, each.document, each.start, each.end, each.quote, each.match) for each in made.citations]


BUILT = (1, "d1", 16, 43, "The mill was built in 1871.", "chosen")


def test_a_citation_is_numbered_by_its_first_claim_and_has_its_whole_place() -> None:
    made = checked("A fire burned the mill in 1902. [2] The mill was built in 1871. [1]")
    assert made == CheckedClaims(
        "A fire burned the mill in 1902. [1] The mill was built in 1871. [2]",
        (
            Citation(1, "d2", "sha2", 20, 52, TEXTS[1], "/d2", "d2:2", "chosen"),
            Citation(2, "d1", "sha1", 16, 43, TEXTS[0][6:], "/d1", "d1:1", "chosen"),
        ),
        (),
        0,
    )
    twice = checked('It was built. [1 "the MILL was built"] "Built" in 1871. [1 "The mill was built"]')
    assert spans(twice) == [(1, "d1", 16, 34, "The mill was built", "normalised")] and twice.text.count("[1]") == 2
    cited: dict[Any, Citation] = {}
    matches = []
    for match in ("chosen", "normalised", "exact", "chosen"):  # a better one stays
        assert _number(cited, 0, QuoteSpan(6, 20, match), HITS, PLACES) == 1
        matches.append(cited[0, 6, 20].match)
    assert matches == ["chosen", "normalised", "normalised", "normalised"]
    assert _number(cited, 1, QuoteSpan(6, 20, "exact"), HITS, PLACES) == 2
    assert [each.quote for each in cited.values()] == [TEXTS[0][6:20], TEXTS[1][6:20]]


def test_what_is_forged_is_counted_reference_by_reference() -> None:
    for text, forged in (
        ("It is so. [9]", 1), ("It is so. [0, 4, 1]", 2), ('It is so. [9 "The mill was built"]', 2),
        ('It is so. [1 "The mill was sold"]', 1), ('It is so. [1, 2 "The mill was built"]', 0), ("It is so.", 0),
        ('It is so. [1 "The mill was sold"] [7]', 2), ("It is so. [1; 1]", 0),
    ):  # fmt: skip
        assert (text, checked(text).forged) == (text, forged)
    assert checked("Dogs flew. [9]").text == "Dogs flew. [unsupported]"
    assert checked("Dogs flew. [9]", unsupported="keep").text == "Dogs flew."
    assert checked("Dogs flew. [9]", unsupported="drop") == CheckedClaims("", (), ("Dogs flew.",), 1)


def test_passages_are_cited_by_what_they_add_and_numbers_must_stand_in_them() -> None:
    both = checked("The mill burned by fire with 12 dogs. [1][2][3]")
    assert [each[1] for each in spans(both)] == ["d3", "d2"]  # four words, one more, and of d1 the mill alone
    assert both.text == "The mill burned by fire with 12 dogs. [1][2]"
    assert spans(checked("The mill burned in 1903. [2]")) == []  # two words of three, and another number
    half = "The mill burned and dogs sang. [2]"  # two of four
    assert checked(half).unsupported == () and checked(half, overlap=0.51).unsupported == (
        "The mill burned and dogs sang.",
    )
    assert checked("Is it so? [1]").unsupported == ("Is it so?",)  # no word that carries content


def test_items_of_a_list_keep_their_numbers_and_references_alone_are_no_claim() -> None:
    made = checked("1. The mill was built in 1871. [1]\n2. It burned by fire. [2]\n\n\n\n- Dogs. [3]")
    assert made.text == "1. The mill was built in 1871. [1]\n2. It burned by fire. [2]\n\n- Dogs. [3]"
    alone = checked("The mill was built in 1871. [1] [2] A mill burned by fire. [2]")
    assert alone.text == "The mill was built in 1871. [1] A mill burned by fire. [2]"
    again = checked("The mill was built in 1871. [1] THE MILL  was built in 1871. [2]\nThe mill was built in 1871.")
    assert again.text == "The mill was built in 1871. [1]" and spans(again) == [BUILT]
    marked = checked("The\ue000 mill was built in 1871.\ue000 [1]")
    assert spans(marked) == [BUILT] and "\ue000" not in marked.text


def test_a_quotation_with_a_backslash_of_its_own_is_found_as_it_stands() -> None:
    assert find_quote("see [\\alpha] and so on", "[\\alpha] and so") == QuoteSpan(4, 19, "exact")
    assert find_quote("see <s> and so on", "<\\s> and so") == QuoteSpan(4, 14, "exact")
    assert find_quote("See  <S>\nAND so", " see <\\s> and ") == QuoteSpan(0, 12, "normalised")
    assert find_quote("1234567", "1234567") is None and find_quote("12345678", " 12345678 ") == QuoteSpan(0, 8, "exact")
    assert find_quote("Straße und Weg", "STRASSE UND") == QuoteSpan(0, 10, "normalised")
    assert find_quote("nothing of it", "        .       ") is None


def test_the_best_sentence_shares_most_words_then_is_the_shortest_then_the_first() -> None:
    text = "A mill burned down there. The mill burned. A mill burned! Rivers."
    assert text[slice(*best_sentence("the mill burned", text) or (0, 0))] == "A mill burned!"
    assert text[slice(*best_sentence("mill burned down", text) or (0, 0))] == "A mill burned down there."
    even = "One mill. Two mill."
    assert (
        best_sentence("mills", even) == (0, 9)
        and best_sentence("rain", even) is None
        and best_sentence("a", "") is None
    )
    assert content_words("The Bosses' 7 s x buses, it's I") == {"bosse", "7", "buse"}


class Writer:
    """Writes one text; with a grammar it may raise an error."""

    def __init__(self, said: str, error: Exception | None = None):
        self.said, self.error, self.asked = said, error, []  # type: ignore[var-annotated]

    async def write(self, prompt: str, **settings: Any) -> list[str]:
        self.asked.append((prompt, sorted(settings)))
        if settings and self.error is not None:
            raise self.error
        return [self.said]

    async def logprobs(self, prompt: str, continuations: Any) -> list[float]:
        raise AssertionError


def test_an_answer_keeps_its_settings_and_three_passages_are_nearest_where_none_supports_it() -> None:
    corpus = tiny_corpus({f"m{n}": f"Mill {n} burned. Rain {n} fell." for n in range(5)})
    hits = [Hit(corpus.index.chunks(f"m{n}")[0], 1.0) for n in range(5)]

    def made(said: str, error: Exception | None = None, **settings: Any) -> tuple[Answer, list[Any]]:
        writer = Writer(said, error)
        return asyncio.run(
            answer("When did rain fall?", hits, writer, corpus, AnswerSettings(**settings))
        ), writer.asked

    found, asked = made("Ghosts live there. [1]")
    assert [(each.number, each.document, each.quote) for each in found.nearest] == [
        (n + 1, f"m{n}", f"Rain {n} fell.") for n in range(3)
    ]
    assert asked == [(evidence_prompt("When did rain fall?", hits, [HitPlace("", "", 1, ())] * 5), ["grammar"])]
    assert len(found.hits) == 5 and found.text == "Ghosts live there. [unsupported]" and not found.forged
    claim = "Mill and cows burned. [1]"  # two words of three
    assert made(claim)[0].unsupported == () and made(claim)[0].nearest == ()
    assert made(claim, overlap=0.7)[0].unsupported == ("Mill and cows burned.",)
    assert made(claim, overlap=0.7, unsupported="keep")[0].text == "Mill and cows burned."
    assert made(claim, grammar="never")[1][0][1] == []
    assert [settings for _, settings in made(claim, ModelError("no grammars"))[1]] == [["grammar"], []]
    for error in (PromptTooLong("long"), TransientError("busy")):
        with pytest.raises(type(error)):
            made(claim, error)
