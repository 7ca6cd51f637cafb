"""The hundred questions about the list and the documentation, each with the passage that answers it.

A question names the page and a quotation of it, so that its passage is found again after the page has changed elsewhere.
Fifteen questions are answered by none of the documents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.errors import DataError
from firsthand.retrieval.document import Document

_FILE = Path(__file__).parent / "questions.jsonl"


@dataclass(frozen=True)
class ListQuestion:
    """A question with its gold passage; without one, the documents do not answer it."""

    id: str
    question: str
    document: str
    """The page that answers it, such as `docs/engine.md`; empty if none does."""
    quote: str
    """Words of that page which answer it."""
    answers: tuple[str, ...]
    """Texts of which a right answer contains one, as whole words."""

    @property
    def is_answerable(self) -> bool:
        """False if the documents do not answer it."""
        return bool(self.document)


@cache
def list_questions() -> tuple[ListQuestion, ...]:
    """All questions, the answerable ones first."""
    rows = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return tuple(ListQuestion(**{**row, "answers": tuple(row["answers"])}) for row in rows)


def gold_passages(question: ListQuestion, passages: Sequence[Document]) -> list[str]:
    """The ids of the passages that hold the question's quotation; empty for a question that is not answered.

    DataError if the quotation stands in no passage of its page any more.
    """
    if not question.is_answerable:
        return []
    wanted = " ".join(question.quote.split())
    found = [each.id for each in passages if each.source == question.document and wanted in " ".join(each.text.split())]
    if not found:
        raise DataError(
            f"{question.document} no longer says {wanted[:80]!r}, which answers question {question.id}: change its quote in "
            "reading/questions.jsonl"
        )
    return found
