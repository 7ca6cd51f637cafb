"""Ask a question of an index: the answer, and a citation with its place and quotation for every claim."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system import interruption

if TYPE_CHECKING:
    from firsthand.agent import Pattern
    from firsthand.model import Sampling
    from firsthand.retrieval.answers.rag_model import RagModel
    from firsthand.retrieval.corpus import Corpus

EXAMPLES = """
firsthand rag ask "How do I resume a run?"
firsthand rag ask "How do I resume a run?" --index docs
firsthand rag ask "How do I resume a run?" --index docs --model none     # the best passages, no model
firsthand rag ask "How do I resume a run?" --index docs --variant advanced:pool=10 --show
firsthand rag ask "How do I resume a run?" --index docs --rerank cross_encoder:models/reranker
firsthand rag ask "How do I resume a run?" --index docs --form quoted --unsupported drop --json
"""
NONE = "none"
NO_SUPPORT = "No passage supports that answer. The passages' own sentences nearest to the question:"


@dataclass(frozen=True)
class AnswerFlags:
    """The model, the variant, and the form of its answers."""

    model: str = "smollm2"
    """The model that answers, or none: then the best passages are quoted."""
    variant: str = "naive:search=convex"
    """The pattern that retrieves and answers, with its options, such as advanced:pool=10. `firsthand list patterns`."""
    k: int | None = None
    """Passages that are read; by default as many as the variant takes."""
    rerank: str | None = None
    """Rerank the passages that are found: sentences (the best sentence of each, by the index's embedder),
    cross_encoder:MODEL (a folder or hf:org/name), or the answering model's logprob or listwise order."""
    form: Literal["cited", "quoted", "chosen", "plain"] = "cited"
    """cited: sentences name passages; quoted: they copy words of passages; chosen: the one sentence of the
    passages after which the model finds the question likeliest; plain: no citations."""
    unsupported: Literal["mark", "drop", "keep"] = "mark"
    """Mark, drop or keep claims that no citation supports."""
    floor: float | None = None
    """Leave out passages whose cosine with the question is lower."""
    device: str = "cpu"
    """Device for a model that runs here: cpu, cuda, cuda:N, or auto (CUDA if available)."""

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ConfigError(f"k is {self.k}: read 1 passage or more")
        if self.floor is not None and not -1 <= self.floor <= 1:
            raise ConfigError(f"floor is {self.floor}: give a cosine, from -1 to 1")
        for name in ("variant", "form", "unsupported", "device") if self.model == NONE else ():
            if getattr(self, name) != getattr(AnswerFlags, name):
                raise ConfigError(f"--{name} is for a model's answers, and --model none quotes passages: leave one out")


@dataclass(frozen=True)
class RagSampling:
    """The sampling of answers."""

    max_tokens: int = 400
    """At most this many tokens in an answer."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 or more")
        if not self.temperature >= 0:
            raise ConfigError(f"temperature is {self.temperature}: give 0 or more")


@dataclass(frozen=True)
class Config:
    """The question, the index, and how it is answered."""

    question: str | None = field(default=None, metadata={"positional": True})
    """The question."""
    index: Path = field(default=Path())
    """The folder that was indexed, or the index's file; by default this folder's, or that of the one folder in it that has
    one."""
    answer: AnswerFlags = field(default_factory=AnswerFlags)
    sampling: RagSampling = field(default_factory=RagSampling)
    show: bool = False
    """Print the passages too, with their scores."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.question is None or not self.question.strip():
            raise ConfigError('ask what? For example: firsthand rag ask "How do I resume a run?" --index docs')


class Asked(Protocol):
    """A config that answers a question."""

    @property
    def answer(self) -> AnswerFlags:
        """The model, the variant, and the form of its answers."""
        ...


def refuse_unused(config: Asked) -> None:
    """ConfigError for flags of a model's sampling where no model answers."""
    if config.answer.model == NONE:
        refuse_given(
            config, {"max_tokens", "temperature"}, "it is for a model's answers: leave it out with --model none"
        )


def run(config: Config) -> int:
    """Print the answer with its citations. Returns 1 if it failed, and 0 if the documents do not answer, too."""
    from firsthand.retrieval.corpus import check_index, close_corpora, expect_documents, nearby_index
    from firsthand.retrieval.retrievers.cross_encoder import close_cross_encoders

    if config.answer.model == NONE:
        refuse_given(
            config, {"max_tokens", "temperature"}, "it is for a model's answers: leave it out with --model none"
        )
    config = replace(config, index=nearby_index(config.index))
    check_index(config.index)
    expect_documents(config.index)
    try:
        body = interruption.run(answer_body(config))
    finally:
        close_corpora()
        close_cross_encoders()
    if config.json:
        from firsthand.system.terminal import print_as_json

        print_as_json(body)
    else:
        print_answer(body, passages=config.show)
    return 0


def variant_of(flags: AnswerFlags, index: Path) -> tuple[Pattern, dict[str, Any]]:
    """The pattern of the flags, and its options. ConfigError for a pattern that reads no index."""
    from firsthand import catalog
    from firsthand.system.option_spec import keywords_of

    pattern, options = catalog.pattern(flags.variant)
    keywords = keywords_of(pattern)
    if "index" not in keywords:
        raise ConfigError(
            f"the pattern {flags.variant!r} reads no index: name a variant, such as naive, advanced or team"
        )
    given = {
        "k": flags.k,
        "rerank": flags.rerank,
        "form": flags.form,
        "unsupported": flags.unsupported,
        "floor": flags.floor,
        "index": str(index),
    }
    defaults = AnswerFlags()
    for name, value in given.items():
        if name in keywords and value is not None:
            options.setdefault(name, value)
        elif value is not None and value != getattr(defaults, name, None):
            raise ConfigError(f"--{name} was given, and {flags.variant} has no option {name}: leave it out")
    return pattern, options


async def answer_body(config: Config) -> Json:
    """The answer as JSON: text, citations, passages and what it cost."""
    from firsthand.retrieval.corpus import open_corpus

    assert config.question is not None
    if config.answer.model == NONE:
        return await _extracted(config.question, open_corpus(config.index), config.answer)
    model = rag_model(config.answer, config.index)
    try:
        return await model.ask(config.question, sampling=sampling_of(config.sampling))
    finally:
        model.close()


def rag_model(flags: AnswerFlags, index: Path) -> RagModel:
    """The variant of the flags over an index, with the model that answers."""
    from firsthand.commands.chat import open_model
    from firsthand.retrieval.answers.rag_model import RagModel

    pattern, options = variant_of(flags, index)
    return RagModel(open_model(flags.model, flags.device), pattern, options)


def sampling_of(flags: RagSampling) -> Sampling:
    """The sampling settings of the flags."""
    from firsthand.model import Sampling

    return Sampling(max_tokens=flags.max_tokens, temperature=flags.temperature)


async def _extracted(question: str, corpus: Corpus, flags: AnswerFlags) -> Json:
    from firsthand.retrieval.answers.answering import extract
    from firsthand.retrieval.retriever import Query
    from firsthand.retrieval.retrievers.reranker_names import reranked
    from firsthand.retrieval.retrievers.searches import hybrid

    found = reranked(hybrid(corpus), flags.rerank or "", corpus, None)
    hits = await found(Query(question), flags.k or 3)
    made = await extract(question, hits, corpus, floor=flags.floor)
    return made.to_json() | {"calls": 0}


def print_answer(body: Json, *, passages: bool = False) -> None:
    """Print the answer, its citations as `[n] file:line “quotation”`, and on request the passages.

    Where no passage supports what the model wrote, the sentences nearest to the question are quoted with their places.
    """
    from firsthand.system.terminal import console, one_line, printable

    out = console()

    def say(text: str) -> None:
        out.print(text, markup=False, highlight=False, soft_wrap=True)

    say(printable(body["text"]))
    if body["model"] is not None and body["citations"]:
        say("")
    for each in body["citations"]:
        quote = "" if body["model"] is None else f" “{one_line(each['quote'])}”"
        say(f"[{each['number']}] {one_line(each['label'])}{quote}")
    if nearest := body.get("nearest"):
        say(f"\n{NO_SUPPORT}")
    for each in nearest or ():
        say(f"- {one_line(each['label'])} “{one_line(each['quote'])}”")
    if passages:
        print_passages(body)


def print_passages(body: Json) -> None:
    """Print the passages of an answer, each with the rank and score that every retriever gave it."""
    from firsthand.system.terminal import console, one_line, printable

    for number, hit in enumerate(body["hits"], 1):
        trail = ", ".join(f"{who} {rank} ({score:.4g})" for who, rank, score in hit["trail"])
        head = f"passage {number}: {one_line(hit['document'])} {hit['start']}-{hit['end']}: {trail}"
        console().print(f"\n{head}\n{printable(hit['text'])}", markup=False, highlight=False, soft_wrap=True)
