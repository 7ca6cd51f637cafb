"""Fill the list's table of patterns, or of RAG and fine-tuning, by measurement for your own model and documents.

The list's words stand beside what was measured. Both tables come from runs, which `firsthand show` opens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError

EXAMPLES = """
firsthand claims table patterns --model smollm2 --limit 20
firsthand claims table patterns --model openai:NAME@URL --benchmark gsm8k --rows "ReAct,Chain of Thought"
firsthand claims table rag --docs DIR --questions FILE --model smollm2
firsthand claims table rag --docs DIR --questions FILE --lora --change 20%
"""


@dataclass(frozen=True)
class Config:
    """The table, and what to fill it with."""

    table: Literal["patterns", "rag"] = field(metadata={"positional": True})
    """`patterns`, or `rag` for the table of RAG and fine-tuning."""
    model: str = "smollm2"
    """The model to measure."""
    benchmark: str = "arithmetic"
    """For patterns: the tasks."""
    rows: tuple[str, ...] = ()
    """For patterns: only these rows, by the list's names."""
    docs: Path | None = None
    """For rag: a folder, or a file, with your documents."""
    questions: Path | None = None
    """For rag: a .jsonl file with `question`, `answer` and if known `document`."""
    embedder: str = "minilm"
    """For rag: the embedder of the index; none: terms alone."""
    lora: bool = False
    """For rag: fine-tune the model on the documents too. Without, its column stays empty."""
    change: str = "20%"
    """For rag: the share of facts that are changed to measure freshness; 0 leaves that out."""
    limit: int | None = None
    """Only the first N tasks or questions; 20 tasks by default for patterns."""
    max_tokens: int = 256
    """For patterns: at most this many new tokens in an answer."""
    seed: int = 0
    """Seed of tokens."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 or more")
        if self.table == "rag" and (self.docs is None or self.questions is None):
            raise ConfigError("the table rag needs your documents and questions: give --docs DIR and --questions FILE")
        if self.table == "patterns" and (self.docs or self.questions or self.lora):
            raise ConfigError("docs, questions and lora are for the table rag: leave them out for patterns")
        if self.table == "rag" and self.rows:
            raise ConfigError("rows are for the table patterns: leave them out for rag")


def run(config: Config) -> int:
    """Measure, and print the table."""
    from firsthand.claims import list_tables
    from firsthand.commands import rag_decide
    from firsthand.errors import unknown
    from firsthand.system.terminal import console, print_as_json, print_table

    out = console()
    if config.table == "rag":
        assert config.docs is not None and config.questions is not None
        arms = rag_decide.Config(
            config.docs, config.questions, model=config.model, embedder=config.embedder, lora=config.lora,
            change=config.change, limit=config.limit, seed=config.seed, json=config.json,
        )  # fmt: skip
        if not config.json:
            words = ("dimension", "RAG, by the list", "fine-tuning, by the list", "measured below as")
            print_table("The list's words", words, list_tables.RAG_ROWS)
            if not config.lora:
                out.print("Fine-tuning is not measured without --lora.", markup=False)
        return rag_decide.run(arms)
    chosen = config.rows or tuple(row.name for row in list_tables.PATTERN_ROWS)
    known = {row.name: row for row in list_tables.PATTERN_ROWS}
    for name in chosen:
        if name not in known:
            raise unknown("row", name, known, see="firsthand claims table --help")
    found = list_tables.measured_patterns(
        [known[name] for name in chosen], config.model, config.benchmark, limit=config.limit or 20,
        max_tokens=config.max_tokens, seed=config.seed,
    )  # fmt: skip
    if config.json:
        print_as_json(found.to_json())
        return 0
    columns = (
        "pattern",
        "min model, by the list",
        "cost, by the list",
        "accuracy [95%]",
        "vs. direct",
        "tokens x",
        "calls",
    )
    print_table(f"Patterns with {config.model} on {config.benchmark}", columns, found.cells(), right=columns[5:])
    out.print(f"Cost is measured against a plain answer. run {found.run}: `firsthand show {found.run}`", markup=False)
    return 0
