"""Label answers with Self-RAG's reflection tokens, by a critic model and an index; failed lines are named.

Reads JSONL with `instruction` and `output` (or `prompt` and `completion`), and writes what `firsthand train selfrag`
reads. The exit code is 3 if lines failed; the others are written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError, DataError, FirsthandError, TransientError, reason_of
from firsthand.system import interruption
from firsthand.system.json_values import TooManyValues, decoded_line
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.packed_stream import filled_lines
from firsthand.system.packed_text import lines_of
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console

EXAMPLES = """
firsthand rag label answers.jsonl --index docs --model CRITIC --out labelled.jsonl
firsthand train selfrag labelled.jsonl --model smollm2
"""


@dataclass(frozen=True)
class Config:
    """Answers, the index, the critic, and the file to write."""

    data: Path | None = field(default=None, metadata={"positional": True})
    """A .jsonl file: each line has `instruction` and `output`, or `prompt` and `completion`."""
    index: str = "."
    """The folder that was indexed, or the index's file."""
    model: str = "smollm2"
    """The critic, which must give log-probs of words."""
    out: Path | None = None
    """The .jsonl file to write."""
    k: int = 5
    """Passages that are judged for a sentence."""
    threshold: float = 0.5
    """Passages are looked up where the critic's probability that they are wanted exceeds this."""
    search: Literal["dense", "lexical", "hybrid", "convex"] = "hybrid"
    """The search for passages."""

    def __post_init__(self) -> None:
        if self.data is None or self.out is None:
            raise ConfigError("label needs two files, as in: firsthand rag label answers.jsonl --out labelled.jsonl")
        if self.out.exists():
            raise ConfigError(f"{self.out} is there already: give another file, or remove it")


def run(config: Config) -> int:
    """Label every line and print the counts."""
    assert config.out is not None
    try:
        labelled, failed = interruption.run(_label(config))
    finally:
        if config.out.is_file() and not config.out.stat().st_size:  # the next try would refuse it, and training too
            config.out.unlink()
    for where, reason in failed:
        complain(f"failed: {where}: {reason}")
    told = f"{count_of(labelled, 'answer')} labelled, {len(failed)} failed{f': {config.out}' if labelled else ''}"
    console().print(told, markup=False, soft_wrap=True)
    return 3 if failed else 0


async def _label(config: Config) -> tuple[int, list[tuple[str, str]]]:
    """The number of labelled answers, and (place, reason) of each that failed."""
    from firsthand import catalog
    from firsthand.retrieval.corpus import open_corpus
    from firsthand.retrieval.reflection.critic_labels import LabelSettings, label
    from firsthand.retrieval.retrievers.searches import SEARCHES
    from firsthand.retrieval.writer import ModelWriter

    assert config.data is not None and config.out is not None
    try:
        lines = lines_of(read_bounded_text(config.data))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config.data} cannot be read: {reason_of(error)}") from None
    retriever = SEARCHES[config.search](open_corpus(config.index))
    critic, settings = ModelWriter(catalog.model(config.model)), LabelSettings(config.k, config.threshold)
    labelled, failed = 0, []
    with config.out.open("x", encoding="utf-8") as out:
        for number, line in filled_lines(lines, config.data):
            try:
                question, answer = _pair(line)
                output = await label(question, answer, retriever, critic, settings)
            except TransientError:
                raise
            except FirsthandError as error:
                failed.append((f"{config.data}:{number}", str(error)))
                continue
            out.write(json.dumps({"instruction": question, "output": output}, ensure_ascii=False) + "\n")
            out.flush()
            labelled += 1
    return labelled, failed


def _pair(line: str) -> tuple[str, str]:
    try:
        body = decoded_line(line)
    except TooManyValues as error:
        raise DataError(str(error)) from None
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        for names in (("instruction", "output"), ("prompt", "completion")):
            question, answer = (body.get(name) for name in names)
            if isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip():
                return question, answer
    raise DataError("an object with `instruction` and `output` was expected, both texts that are not empty")
