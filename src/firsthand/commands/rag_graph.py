"""Build the graph of an index for `graph_rag`, or bring it up to date; print its cost before, or its faults.

With `--extractor noun_phrases` no model is asked. The exit code is 3 if chunks or reports failed; the others are in the
graph.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system import interruption
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, print_as_json

if TYPE_CHECKING:
    from firsthand.model import Model
    from firsthand.retrieval.graph.graph_build import GraphSettings

EXAMPLES = """
firsthand rag graph docs --extractor noun_phrases    # names and terms that occur together: no model
firsthand rag graph docs --model smollm2 --estimate  # calls and tokens, before anything is asked
firsthand rag graph docs --model smollm2 --max-tokens 5000000
firsthand rag graph docs --verify
firsthand run my_questions.jsonl --pattern graph_rag:index=docs:mode=global
"""


@dataclass(frozen=True)
class Config:
    """The index, and the settings of its graph."""

    index: str = field(default=".", metadata={"positional": True})
    """The folder that was indexed, or the index's file."""
    model: str | None = None
    """The model that extracts, summarises and reports."""
    extractor: Literal["model", "noun_phrases"] = "model"
    """model, or noun_phrases, which needs no model."""
    types: str = "organization,person,geo,event"
    """The types of entities to look for, with commas between."""
    gleanings: int = 1
    """Further passes in which the model is asked for what it missed."""
    max_answer_tokens: int = 2000
    """The most tokens of one answer about a chunk; a chunk whose answer is cut off there has failed."""
    max_tokens: int = 1_000_000
    """The most tokens, prompts and answers together; a build that would take more is refused before it begins."""
    max_cluster_size: int = 10
    """Communities of this many names or more are divided again."""
    largest_component: bool = False
    """Divide the largest connected component alone, as Microsoft's GraphRAG does: other entities are in no report."""
    concurrency: int = 4
    """Max concurrent calls of the model."""
    estimate: bool = False
    """Print the cost and stop."""
    verify: bool = False
    """Compare the graph with the index, print faults, and stop; the exit code is 1 if there are any."""
    rebuild: bool = False
    """Delete the existing graph and build it again."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.concurrency < 1:
            raise ConfigError(
                f"max_tokens is {self.max_tokens} and concurrency {self.concurrency}: give 1 or more of each"
            )


def run(config: Config) -> int:
    """Build the graph and print what was done."""
    from firsthand.retrieval.corpus import check_index, index_file, open_corpus
    from firsthand.retrieval.graph.graph_build import build_graph, estimate
    from firsthand.retrieval.graph.graph_file import GraphFile, graph_path
    from firsthand.retrieval.graph.graph_state import verify_graph

    if config.verify:
        others = {each.name for each in fields(config)} - {"index", "verify"}
        refuse_given(config, others, "--verify compares and stops: leave it out")
    check_index(config.index)
    path, settings = graph_path(index_file(config.index)), _settings(config)
    corpus = open_corpus(config.index)
    if config.verify:
        with closing(GraphFile(path)) as file:
            return _print_faults(verify_graph(file, corpus.index), path)
    if config.estimate:
        known = GraphFile(path) if path.is_file() and not config.rebuild else None
        cost = estimate(known, corpus.index, settings)
        if config.json:
            print_as_json(asdict(cost))
        else:
            of = count_of(cost.chunks, "chunk")
            told = f"about {count_of(cost.calls, 'call')} and {count_of(cost.tokens, 'token')} for {of}"
            console().print(told, markup=False, soft_wrap=True)
        return 0
    if config.rebuild:
        for old in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            old.unlink(missing_ok=True)
    model = _opened(config)
    with closing(GraphFile(path, create=True)) as file:
        receipt = interruption.run(
            build_graph(
                corpus.index, file, settings, model=model, embedder=corpus.embedder, max_tokens=config.max_tokens,
                concurrency=config.concurrency,
            )
        )  # fmt: skip
    if config.json:
        print_as_json(asdict(receipt))
    else:
        out = console()
        levels = ", ".join(f"{count} at level {level}" for level, count in receipt.communities.items()) or "none"
        lines = [
            f"chunks: {receipt.extracted} read, {receipt.reused} unchanged, {receipt.removed} removed, "
            f"{len(receipt.failed)} failed"
            + (f", {empty} without entities" if (empty := receipt.without_entities) else ""),
            f"graph: {receipt.entities} entities, {receipt.relations} relations ({receipt.orphans} left out)",
            f"communities: {levels}",
            f"reports: {receipt.reports_made} made, {receipt.reports_reused} unchanged, "
            f"{len(receipt.failed_reports)} failed",
        ]
        if receipt.calls:
            lines.append(f"cost: {count_of(receipt.calls, 'call')}, {count_of(receipt.usage.total_tokens, 'token')}")
        for line in lines:
            out.print(line, markup=False, soft_wrap=True)
        if receipt.without_entities and not receipt.entities:
            told = count_of(receipt.without_entities, "chunk")
            complain(
                f"no entity was found in {told}, so graph_rag will find nothing: the model may be too small to extract; "
                "give another with --rebuild, or --extractor noun_phrases"
            )
        for each in receipt.failed:
            complain(f"failed: chunk {each.chunk[:8]} of {each.document}: {each.reason}")
        for community, reason in receipt.failed_reports:
            complain(f"failed: report of community {community}: {reason}")
    return 3 if receipt.failed or receipt.failed_reports else 0


def _settings(config: Config) -> GraphSettings:
    from firsthand.retrieval.graph.graph_build import GraphSettings
    from firsthand.retrieval.graph.graph_extraction import ExtractionSettings
    from firsthand.retrieval.graph.leiden import LeidenSettings

    types = tuple(each.strip() for each in config.types.split(",") if each.strip())
    return GraphSettings(
        config.extractor,
        ExtractionSettings(types, config.gleanings, config.max_answer_tokens),
        leiden=LeidenSettings(max_cluster_size=config.max_cluster_size, largest_component=config.largest_component),
    )


def _opened(config: Config) -> Model | None:
    if config.extractor != "model":
        return None
    if config.model is None:
        raise ConfigError("extraction needs a model: give --model, or --extractor noun_phrases, which needs none")
    from firsthand import catalog

    return catalog.model(config.model)


def _print_faults(faults: list[str], path: Path) -> int:
    for fault in faults:
        complain(fault)
    if not faults:
        console().print(f"{path} is sound", markup=False, soft_wrap=True)
    return 1 if faults else 0
