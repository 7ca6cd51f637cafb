"""Ask the reading list, the documentation and your PDFs: the answer, and a checked citation for every claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand.commands.rag_ask import AnswerFlags, RagSampling
from firsthand.errors import ConfigError

EXAMPLES = """
firsthand papers ask "What is a Wilson interval?"
firsthand papers ask "Which papers are about memory of agents?" --model none    # the best passages, no model
firsthand papers ask "How is a run resumed?" --form quoted --show
"""


@dataclass(frozen=True)
class Config:
    """The question, and how it is answered."""

    question: str | None = field(default=None, metadata={"positional": True})
    """The question."""
    index: Path | None = None
    """An index that `firsthand papers index --index` made; by default the one in the data home."""
    answer: AnswerFlags = field(default_factory=AnswerFlags)
    sampling: RagSampling = field(default_factory=RagSampling)
    show: bool = False
    """Print the passages too, with their scores."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.question is None or not self.question.strip():
            raise ConfigError('ask what? For example: firsthand papers ask "What is a Wilson interval?"')


def run(config: Config) -> int:
    """Print the answer with its citations. ConfigError if the index is missing or of other documents."""
    from firsthand.commands import rag_ask
    from firsthand.reading.entry_documents import check_list_index, list_index

    rag_ask.refuse_unused(config)
    index = config.index or list_index()
    check_list_index(index)
    return rag_ask.run(
        rag_ask.Config(config.question, index, config.answer, config.sampling, show=config.show, json=config.json)
    )
