"""Texts of pretraining with their tokenizer: encoded in memory, or in a token file that is written once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.system import lock
from firsthand.system.own_file import expect_own_tree
from firsthand.system.plurals import count_of
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train import bpe, documents, token_file
from firsthand.train.processes import is_first, together
from firsthand.train.streams import Batches
from firsthand.train.training_run import TrainingRun

LOCK = ".lock"
"""Held by the run that fills a folder of tokens."""


class PretrainingConfig(Protocol):
    """The settings of the recipe that are read here."""

    @property
    def data(self) -> tuple[str, ...]: ...
    @property
    def suffixes(self) -> tuple[str, ...]: ...
    @property
    def exclude(self) -> tuple[str, ...]: ...
    @property
    def tokenizer(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def tokens(self) -> Path | None: ...
    @property
    def holdout(self) -> float: ...


@dataclass(frozen=True, eq=False)
class PretrainingTexts:
    """The corpus to train on, that held out, and the tokenizer of both."""

    corpus: documents.Corpus
    unseen: documents.Corpus
    tokenizer: Tokenizer
    source: Path
    """The folder or file of the tokenizer."""
    digest: str = ""
    """The hash of the token file; empty for texts in memory."""

    def __str__(self) -> str:
        """The counts in words."""
        trained, held_out = (len(each.starts) - 1 for each in (self.corpus, self.unseen))
        return (
            f"{count_of(trained, 'document')}, {self.corpus.num_targets:,} tokens; "
            f"{count_of(held_out, 'document')} held out"
        )

    def batches(self, batch_tokens: int, context: int, seed: int) -> Batches:
        """Batches of exactly so many tokens, in a seeded order."""
        if self.digest:
            return token_file.BlockBatches(
                self.corpus, self.digest, batch_tokens=batch_tokens, context=context, seed=seed
            )
        return documents.DocumentBatches(self.corpus, batch_tokens=batch_tokens, context=context, seed=seed)


def in_memory(config: PretrainingConfig, run: TrainingRun) -> PretrainingTexts:
    """All texts read and encoded at once, a fraction of the documents held out."""
    texts = documents.read_documents(list(map(Path, config.data)), suffixes=config.suffixes, exclude=config.exclude)
    trained, held_out = documents.split_documents(texts, config.holdout, seed=run.loop.seed)
    own = run.folder / "tokenizer"
    source = model_lookup.resolve(config.tokenizer) if config.tokenizer else own
    if is_first() and source == own and not (run.is_resumed and _is_tokenizer(own)):
        bpe.train_tokenizer((each.text for each in trained), own, vocab_size=config.vocab_size)
    together()
    tokenizer = pretrained.load(source)
    corpus, unseen = (documents.encode_documents(each, tokenizer) for each in (trained, held_out))
    return PretrainingTexts(corpus, unseen, tokenizer, source)


def in_token_file(config: PretrainingConfig, run: TrainingRun) -> PretrainingTexts:
    """The texts in the folder `tokens`, which is filled if it holds none yet; its tokenizer is in it too.

    A document is held out by a hash of its text. Of several runs that come at once one fills the folder, and the others wait
    for it. ConfigError if no document is held out, though some should be.
    """
    assert config.tokens is not None
    folder, own = config.tokens, config.tokens / "tokenizer"
    for part in ("tokenizer", "trained", "held_out"):  # somebody else's may have links to what is yours
        expect_own_tree(folder / part)

    def texts(*, held_out: bool) -> Iterator[documents.SourceText]:
        read = documents.stream_documents(
            list(map(Path, config.data)), suffixes=config.suffixes, exclude=config.exclude
        )
        return token_file.part_of(read, config.holdout, seed=run.loop.seed, held_out=held_out)

    source = model_lookup.resolve(config.tokenizer) if config.tokenizer else own
    parts = {name: folder / name for name in ("trained", *(["held_out"] if config.holdout else []))}

    def is_filled() -> bool:
        return (source != own or _is_tokenizer(own)) and all(map(token_file.is_written, parts.values()))

    def fill() -> None:
        if source == own and not _is_tokenizer(own):
            bpe.train_tokenizer((each.text for each in texts(held_out=False)), own, vocab_size=config.vocab_size)
        tokenizer = pretrained.load(source)
        if config.holdout and next(texts(held_out=True), None) is None:
            raise ConfigError(
                f"no document falls into the {config.holdout:g} that are held out: give more documents, a larger "
                "--holdout, or --holdout 0"
            )
        for name, part in parts.items():
            token_file.write_token_file(texts(held_out=name == "held_out"), tokenizer, part)

    if is_first() and not is_filled():  # a whole one is read without the lock: it may lie where nobody can write
        folder.mkdir(parents=True, exist_ok=True)
        with lock.held(folder / LOCK):
            if not is_filled():  # by the one that was waited for
                fill()
    together()
    tokenizer = pretrained.load(source)
    corpus = token_file.open_token_file(parts["trained"], tokenizer)
    if config.holdout:
        unseen = token_file.open_token_file(parts["held_out"], tokenizer)
    else:
        unseen = documents.encode_documents([], tokenizer)
    return PretrainingTexts(corpus, unseen, tokenizer, source, token_file.token_digest(parts["trained"]))


def _is_tokenizer(folder: Path) -> bool:
    """True if a whole tokenizer is in the folder: this file is written last."""
    return (folder / "tokenizer_config.json").exists()
