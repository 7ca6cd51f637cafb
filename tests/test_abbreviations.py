"""A point of an abbreviation, an initial or an ordinal ends no sentence, in chunks, passages and claims alike."""

from __future__ import annotations

import pytest

from firsthand.retrieval.answers.citations import HitPlace, sentences
from firsthand.retrieval.answers.claims import best_sentence, check_claims
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking.text_spans import sentence_pieces
from firsthand.retrieval.retriever import Hit
from firsthand.system.abbreviations import ends_sentence

WHOLE = [
    "Dr. Smith founded the clinic in 1998.",
    "The U.S. Government pays approx. 40 percent of its costs, e.g. Salaries.",
    "Opening hours are 9 a.m. Monday to Friday.",
    "J. R. R. Tolkien wrote about it.",
    "Mr. Jones, Ph.D., runs it now.",
    "Smith et al. (2019) found a gain of 5 percent.",
    "St. Petersburg has 5 million people.",
    "É. Zola wrote it.",
    "Der Umsatz betrug 2020 2,5 Mio. Euro.",
    "Sie wurde am 3. Mai 1871 und am 4. April 1872 hier gesehen.",
    "See No. 5, Fig. 3, pp. 12 and Vol. 2 of it.",
    "He (b. 1871, d. 1902) owned it.",
    "Sgt. Pepper met Prof. A. Miller.",
    "The Washington, D.C. Office of Apple Inc. Europe is closed.",
    "А. С. Пушкин написал это.",
    "Papers by K. He and J. An won.",
    "The answer is J. Smith.",
    "In class J. K. Rowling taught it.",
    "The impact J. Smith had was large.",
]
TWO = [
    ("It opens at 9 p.m.", "The mill does not."),
    ("He works at Acme Inc.", "It is haunted."),
    ("Was it burned?", "No."),
    ("No.", "Mills burn."),
    ("It has vitamin C.", "They say so."),
    ("It has 12.", "Then it burned."),
    ("It is etc.", "So it is."),
    ("It is vitamin C.", "Pumps need oil."),
    ("The answer is B.", "Paris is large."),
    ("Take option A.", "Option B."),
    ("It began after World War I.", "Germany lost."),
    ("Sie hat Hepatitis C.", "Mühlen brennen."),
    ("Die Antwort ist B.", "Paris brennt."),
    ("He lives in the U.S.", '"The mill" is there.'),
    ("It is in the U.K.", "As is the mill."),
    ("It cost 3,50.", "Mai is here."),
    ("We ate at noon.", "Dr. Who did not."),
    ("I met Jim.", "Ann left."),
    ("It is on p.", "Ghosts live there."),
    ("It has 12.", "April was cold."),
]


def supported(claim: str, passage: str) -> tuple[str, ...]:
    made = check_claims(f"{claim} [1]", [Hit(Chunk("d", 0, len(passage), passage), 1.0)], [HitPlace("x", "d", 1, ())])
    assert not made.unsupported and made.text == f"{claim} [1]"
    return tuple(each.quote for each in made.citations)


@pytest.mark.parametrize("text", WHOLE)
def test_a_copy_of_a_sentence_with_abbreviations_is_supported_and_quoted_whole(text: str) -> None:
    passage = f"It rains. {text} Ghosts live there."
    assert supported(text, passage) == (text,)
    wanted = ["It rains.", text, "Ghosts live there."]
    assert [passage[a:b] for a, b in sentences(passage)] == wanted
    assert [passage[a:b] for a, b in sentence_pieces(passage, 200)] == wanted
    wrapped = passage.replace(". ", ".\n")
    assert [" ".join(wrapped[a:b].split()) for a, b in sentences(wrapped)] == wanted


@pytest.mark.parametrize("pair", TWO)
def test_a_sentence_that_ends_with_an_abbreviation_ends(pair: tuple[str, str]) -> None:
    text = " ".join(pair)
    assert [text[a:b] for a, b in sentences(text)] == [*pair] == [text[a:b] for a, b in sentence_pieces(text, 200)]
    assert check_claims(text, [], []).unsupported == pair
    blank = "\n\n".join(pair)
    assert [blank[a:b] for a, b in sentences(blank)] == [*pair] == [blank[a:b] for a, b in sentence_pieces(blank, 200)]


def test_a_small_letter_goes_on_unless_all_are_small_or_a_blank_line_is_between() -> None:
    def found(text: str) -> list[str]:
        return [text[a:b] for a, b in sentences(text)]

    assert found("Es war bzgl. der Mühle. Sie brannte.") == ["Es war bzgl. der Mühle.", "Sie brannte."]
    assert found("the mill was built. it burned.") == ["the mill was built.", "it burned."]
    assert found("By J.\n \nthe mill? yes") == ["By J.", "the mill?", "yes"]
    assert [*sentence_pieces("By J.\n \nthe mill", 99)] == [(0, 5), (8, 16)]
    assert check_claims("Seen by Dr. [1] Ann left.", [], []).unsupported == ("Seen by Dr.", "Ann left.")
    assert found("It costs 5.[4] it is red") == ["It costs 5.[4]", "it is red"]
    assert found("- Fig.\n- Dr.\n1. Mr.\n\n# St.\nEnd") == ["- Fig.", "- Dr.", "1. Mr.", "# St.\nEnd"]
    assert found("Mr. X came.\nMr.") == ["Mr. X came.", "Mr."]
    text = "The Government pays approx. 40 percent. It rains."
    assert text[slice(*best_sentence("What does the Government pay?", text) or (0, 0))] == text[:39]


def test_an_abbreviation_is_whole_and_of_its_own_sentence() -> None:
    assert ends_sentence("The Miniml. Ann", 0, 10, 12) and ends_sentence("xDr. Ann", 0, 3, 5)
    assert not ends_sentence("xDr. Ann", 1, 3, 5)
    assert not ends_sentence("Dr. Ann", 0, 2, 4) and ends_sentence("xx. Dr. ", 4, 6, 8)
    assert ends_sentence("A a 1,12. Mai", 0, 8, 10) and not ends_sentence("A a 1 12. Mai", 0, 8, 10)
    assert not ends_sentence("J. In. x", 0, 1, 3), "an initial, not a word"
    assert ends_sentence("J. In x", 0, 1, 3) and not ends_sentence("J. He x", 0, 1, 3)
