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
from firsthand.train.token_file import Split
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
    note: str = ""
    """That another part is held out than was asked for; empty if not."""

    def __str__(self) -> str:
        """The counts in words."""
        trained, held_out = (len(each.starts) - 1 for each in (self.corpus, self.unseen))
        return (
            f"{count_of(trained, 'document')}, {self.corpus.num_targets:,} tokens; "
            f"{count_of(held_out, 'document')} held out{self.note}"
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

    A document is held out by a hash of its text, as the folder was filled; a part that is missing, of a writer that was
    stopped, is written beside the other from the same texts, and nothing that is whole is written again. Of several runs
    that come at once one fills the folder, and the others wait for it. ConfigError if no document is held out, though some
    should be, or the folder was filled in a way that has no room for what is missing; DataError if the texts are others, or
    its bytes are not those that were written.
    """
    assert config.tokens is not None
    folder, own = config.tokens, config.tokens / "tokenizer"
    for name in ("tokenizer", "trained", "held_out"):  # somebody else's may have links to what is yours
        expect_own_tree(folder / name)
    source = model_lookup.resolve(config.tokenizer) if config.tokenizer else own
    parts = {name: folder / name for name in ("trained", *(["held_out"] if config.holdout else []))}

    def is_filled() -> bool:
        return (source != own or _is_tokenizer(own)) and all(map(token_file.is_written, parts.values()))

    def fill() -> None:
        whole = [part for part in (folder / "trained", folder / "held_out") if token_file.is_written(part)]
        if whole and source == own and not _is_tokenizer(own):
            raise ConfigError(
                f"{folder} has no tokenizer beside its tokens: give --tokenizer as it was filled, or another folder"
            )
        split = _split_beside(whole[0], config.holdout) if whole else Split(config.holdout, run.loop.seed)

        def texts() -> Iterator[documents.SourceText]:
            return documents.stream_documents(
                list(map(Path, config.data)), suffixes=config.suffixes, exclude=config.exclude
            )

        def part_of(*, held_out: bool) -> Iterator[documents.SourceText]:
            return token_file.part_of(texts(), split.fraction, seed=split.seed, held_out=held_out)

        if source == own and not _is_tokenizer(own):
            bpe.train_tokenizer((each.text for each in part_of(held_out=False)), own, vocab_size=config.vocab_size)
        tokenizer = pretrained.load(source)
        for part in whole:
            token_file.open_token_file(part, tokenizer)  # of another tokenizer nothing is written beside it
        if config.holdout and next(part_of(held_out=True), None) is None:
            raise ConfigError(
                f"no document falls into the {split.fraction:g} that are held out: give more documents, a larger "
                "--holdout, or --holdout 0"
            )
        for name, part in parts.items():
            if not token_file.is_written(part):
                token_file.write_part(texts(), tokenizer, part, split, held_out=name == "held_out")

    if is_first():
        if not is_filled():  # a whole one is read without the lock: it may lie where nobody can write
            folder.mkdir(parents=True, exist_ok=True)
            with lock.held(folder / LOCK):
                if not is_filled():  # by the one that was waited for
                    fill()
        for part in parts.values():
            token_file.expect_as_written(part)
    together()
    tokenizer = pretrained.load(source)
    corpus = token_file.open_token_file(parts["trained"], tokenizer)
    if config.holdout:
        unseen = token_file.open_token_file(parts["held_out"], tokenizer)
    else:
        unseen = documents.encode_documents([], tokenizer)
    split, note = token_file.split_of(parts["trained"]), ""
    if split is not None and split.fraction != config.holdout:
        note = f" (not --holdout {config.holdout:g}: {folder} was filled with --holdout {split.fraction:g})"
    return PretrainingTexts(corpus, unseen, tokenizer, source, token_file.token_digest(parts["trained"]), note)


def _split_beside(part: Path, holdout: float) -> Split:
    """The split of a whole token file, by which the other one is written beside it.

    ConfigError if it has none, or has no documents held out where some should be.
    """
    split = token_file.split_of(part)
    if split is None:
        raise ConfigError(
            f"{part} does not say which documents it holds (a version before 0.23 wrote it), so that nothing can be written "
            f"beside it: give another folder, or delete {part.parent} if no run reads it"
        )
    if not split.fraction:  # then it is the other documents, and those that are held out are missing
        raise ConfigError(
            f"{part.parent} was filled with --holdout 0, and --holdout {holdout:g} was asked for: give --holdout 0, or "
            "another folder"
        )
    return split


def _is_tokenizer(folder: Path) -> bool:
    """True if a whole tokenizer is in the folder: this file is written last."""
    return (folder / "tokenizer_config.json").exists()
