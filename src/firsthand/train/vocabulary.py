"""Trains a vocabulary of any of three kinds and writes it as a folder that `tokens.pretrained.load` reads.

| kind | algorithm | text is cut by |
|---|---|---|
| `bpe` | the most frequent pair becomes a token (Sennrich et al., 2016), on bytes | `gpt-2`, `gpt-4`, `llama-3` |
| `unigram` | pieces whose loss costs the likelihood least are dropped (Kudo, 2018) | blanks |
| `wordpiece` | the most frequent pair becomes a token, on characters | words and punctuation |

The library `tokenizers` (Rust) does the counting, in threads; texts are read once, one at a time. Its WordPiece merges by
frequency, where Schuster and Nakajima (2012) take the pair that raises the likelihood most.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from firsthand.errors import ConfigError, FirsthandError
from firsthand.system.new_file import replacing, write_new
from firsthand.tokens import pretrained
from firsthand.tokens.pretokenizers import GPT2, LLAMA3
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.rust_training import tokenizer_json, train

VocabularyKind = Literal["bpe", "unigram", "wordpiece"]
EXPRESSIONS = {"gpt-2": GPT2, "gpt-4": LLAMA3, "llama-3": LLAMA3}
"""Pre-tokenisers of byte-level BPE; Llama 3 took GPT-4's."""
END_OF_TEXT = "<|endoftext|>"


def train_vocabulary(
    texts: Iterable[str],
    folder: Path,
    *,
    kind: VocabularyKind = "bpe",
    vocab_size: int = 32_000,
    cut: str = "llama-3",
    special: tuple[str, ...] = (END_OF_TEXT,),
) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json into a folder and returns the Tokenizer.

    The vocabulary has at most `vocab_size` tokens, the special ones included (of WordPiece more, if there are more
    characters, each counted at the beginning of words and within them); the first of them begins and ends texts.
    `cut` is the pre-tokeniser of byte-level BPE. ConfigError for a size that leaves no room, or texts that are all empty.
    """
    least = {"bpe": 256, "unigram": 2, "wordpiece": 2}.get(kind)
    if least is None:
        raise ConfigError(f"kind is {kind!r}: expected bpe, unigram or wordpiece")
    if cut not in EXPRESSIONS:
        raise ConfigError(f"cut is {cut!r}: expected one of {', '.join(EXPRESSIONS)}")
    if not special or vocab_size < least + len(special):
        raise ConfigError(
            f"vocab_size is {vocab_size}: {kind} needs {least + len(special)} or more, and a special token"
        )
    if kind == "bpe":
        rust, trainer, unknown = _bpe(vocab_size, cut, special)
    elif kind == "unigram":
        rust, trainer, unknown = _unigram(vocab_size, special)
    else:
        rust, trainer, unknown = _wordpiece(vocab_size, special)
    counted = _Counted(texts)
    try:
        train(rust, counted, trainer)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is not an Exception
        if counted.error is not None:
            raise counted.error from None
        if counted.characters:
            raise ConfigError(f"the {kind} vocabulary could not be trained: {error}") from error
    if not counted.characters:
        raise ConfigError("the texts to train a vocabulary on are empty: give a file with text")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "tokenizer.json") as part:
        write_new(part, tokenizer_json(rust, special[0]))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[0],
        "add_bos_token": True, "clean_up_tokenization_spaces": False, **({"unk_token": unknown} if unknown else {}),
    }  # fmt: skip
    write_new(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    return pretrained.load(folder)


def _bpe(vocab_size: int, cut: str, special: tuple[str, ...]) -> tuple[Any, Any, str]:
    rust: Any = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(EXPRESSIONS[cut]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    rust.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    return rust, trainer, ""


def _unigram(vocab_size: int, special: tuple[str, ...]) -> tuple[Any, Any, str]:
    rust: Any = tokenizers.Tokenizer(models.Unigram())
    rust.normalizer = normalizers.NFKC()
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
    )
    return rust, trainer, "<unk>"


def _wordpiece(vocab_size: int, special: tuple[str, ...]) -> tuple[Any, Any, str]:
    rust: Any = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=["[UNK]", *special], show_progress=False)
    return rust, trainer, "[UNK]"


class _Counted:
    """Texts that are counted as they are read."""

    def __init__(self, texts: Iterable[str]):
        self.texts, self.characters = texts, 0
        self.error: FirsthandError | None = None
        """The error that a reader of the texts raised, which the library would report in its own words."""

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self.texts:
                self.characters += len(text)
                yield text
        except FirsthandError as error:
            self.error = error
            raise
