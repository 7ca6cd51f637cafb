"""Refusals from documents: one that gives an answer beside it is none, and ordinary refusals are."""

import pytest

from firsthand.scorers.document_answers import document_answer
from firsthand.scorers.document_refusals import refuses
from firsthand.task import Task
from firsthand.trace import Trace

ASKED = "In which year was the mill at Tesk built: before or after Brunel came?"


@pytest.mark.parametrize("said", [
    "Not in the documents.", '"Not in the documents"', "**Not in the passages**, sorry.", "Not in the documents. [1]",
    "I'm sorry, but this is not in the documents.", "The year in which the mill at Tesk was built is not in the documents.",
    "Not in the documents. The passages do not say when the mill was built.", "Sorry\u2014that\u2019s not in the passages.",
    "Not in the documents. The passages describe bridges, canals and a lock, and nothing else.",
    "Whether Brunel came before or after is not in the documents.", "It is not in the documents [1], nor in any passage.",
    "I cannot answer this question based on the passages: it is not in the documents.",
])  # fmt: skip
def test_an_ordinary_refusal_is_one(said: str) -> None:
    assert refuses(said, ASKED)


@pytest.mark.parametrize("said", [
    "The answer is 1969, though this is not in the passages.", "It's not in the documents that I doubt: 1969",
    "whether or not in the documents, the answer is 1969", "I would not say 'not in the documents'; it is 1969",
    "1969 (this is not in the documents? It is: 1969)", "Not in the documents. But Porter.", "1969. Not in the documents.",
    "Not in the documents. The passages mention that it is Oslo.", "Not in the documents. They describe 1969.",
    "Before, though this is not in the documents.", "Not in the documents [1 it was 1969].", "Blue, not in the passages",
    "Not in the documents, so Brunel.", "Not in the documents. After.", "In 1969.", "", "I do not know.",
    "Not in the documents. The mill was built by Brunel.", "Not in the documents and after", "Never. Not in the documents.",
    "No, not in the documents.",
])  # fmt: skip
def test_a_refusal_with_an_answer_beside_it_is_none(said: str) -> None:
    assert not refuses(said, ASKED)


def test_a_hedge_counts_against_an_answer_where_the_documents_answer_and_where_they_do_not() -> None:
    said = "It was 1871, though this is not in the documents."
    for document, answers, names in (
        ("", (), {"document_answer": 0.0, "refuses_unanswerable": 0.0}),
        ("tesk", ("1871",), {"document_answer": 0.0, "refuses_answerable": 1.0}),
    ):
        task = Task("t", ASKED, secret={"document": document, "answers": answers, "quote": ""})
        found = document_answer(task, Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=said))
        assert {each.name: each.value for each in found} == names
