"""Show how models cut a text into tokens, side by side, with counts and costs; or train a vocabulary."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.tokens.tokenizer import Tokenizer

EXAMPLES = """
firsthand tokens "Wie viele Token sind das?"
firsthand tokens "def f(x): return x" --model smollm2,path/to/cl100k_base.tiktoken
firsthand tokens README.md --model smollm2 --price smollm2=0.15 --json
firsthand tokens --languages --model smollm2
firsthand tokens --train corpus.txt --kind unigram --vocab-size 8000 --out my-vocabulary
"""
_SHOWN = 200


@dataclass(frozen=True)
class Config:
    """The text and the models, or the vocabulary to train."""

    text: str = field(default="", metadata={"positional": True})
    """The text, or the path of a text file; - reads standard input."""
    model: tuple[str, ...] = ("smollm2",)
    """Models: names, folders, .gguf files, tokenizer.model or .tiktoken files; several are compared."""
    price: tuple[str, ...] = ()
    """US dollars for a million tokens of a model, such as smollm2=0.15."""
    languages: bool = False
    """Count one text in fifteen languages instead: tokens, tokens per word, and the premium over English."""
    train: str = ""
    """A text file to train a vocabulary on."""
    kind: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    """With --train: the algorithm."""
    vocab_size: int = 32_000
    """With --train: the maximum size of the vocabulary."""
    cut: Literal["gpt-2", "gpt-4", "llama-3"] = "llama-3"
    """With --train: the pre-tokeniser of byte-level BPE."""
    out: str = ""
    """With --train: the folder to write."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if bool(self.train) != bool(self.out):
            raise ConfigError("--train and --out belong together: firsthand tokens --train FILE --out FOLDER")
        if self.train and (self.text or self.languages):
            raise ConfigError("--train takes no text to show: leave it out, or train first")
        if not self.train:
            own = {"kind": Config.kind, "vocab_size": Config.vocab_size, "cut": Config.cut}
            if given := [name for name, default in own.items() if getattr(self, name) != default]:
                raise ConfigError(
                    f"--{given[0].replace('_', '-')} goes with --train: leave it out, or train a vocabulary"
                )
        if self.languages and self.text:
            raise ConfigError("--languages counts a text of its own: leave yours out")
        if not (self.train or self.text or self.languages):
            raise ConfigError('a text is missing, as in: firsthand tokens "some text"')


def main(config: Config) -> int:
    """Print the pieces, or train."""
    if config.train:
        refuse_given(config, {"model", "price"}, "--train makes a vocabulary and opens no model")
        _train(config)
        return 0
    if config.languages:
        refuse_given(config, {"price"}, "--languages counts tokens and tells no price")
    prices = dict(_price(each, config.model) for each in config.price)
    opened = {name: _open(name, shown=not config.json) for name in dict.fromkeys(config.model)}
    if config.languages:
        _print_languages(opened, as_json=config.json)
        return 0
    text = _text(config.text)
    rows = {name: _cut(tokenizer, text) for name, tokenizer in opened.items()}
    if config.json:
        print_as_json({"characters": len(text), "words": len(text.split()), "models": [
            {"model": name, "tokens": len(ids), "ids": ids, "pieces": pieces, "cost_usd": _cost(len(ids), prices.get(name))}
            for name, (ids, pieces) in rows.items()
        ]})  # fmt: skip
        return 0
    _print(text, rows, prices)
    return 0


def _open(name: str, *, shown: bool) -> Tokenizer:
    """The tokenizer of a model or of a file."""
    from firsthand.hub.fetch_model import fetch_model
    from firsthand.tokens.pretrained import load

    path = Path(name)
    is_file = (
        path.suffix in (".tiktoken", ".gguf") or path.name in ("tokenizer.json", "tokenizer.model") or path.is_dir()
    )
    return load(path if is_file else fetch_model(name, shown=shown))


def _text(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    try:
        mode = os.stat(given).st_mode if len(given) < 1024 else 0  # noqa: PTH116 - a Path cannot hold every text
    except (OSError, ValueError):
        mode = 0
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{given} is a folder: give a file, or pipe the text and give a dash")
    if not stat.S_ISREG(mode):
        return given  # a text, not a path
    try:
        return read_bounded_text(Path(given))
    except UnicodeDecodeError:
        raise ConfigError(f"{given} is no text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{given} cannot be read: {error.strerror or error}") from None


def _cut(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[str]]:
    """The ids of a text and what each stands for; bytes that are no whole character show as \\xNN."""
    ids = tokenizer.encode(text)
    return ids, [tokenizer.token_bytes(id).decode("utf-8", "backslashreplace") for id in ids]


def _price(given: str, models: tuple[str, ...]) -> tuple[str, float]:
    name, equals, value = given.rpartition("=")
    try:
        price = float(value)
    except ValueError:
        price = -1.0
    if not equals or not 0 <= price < 1e9 or name not in models:
        raise ConfigError(
            f"price is {given!r}: write MODEL=DOLLARS for a million tokens, of one of {', '.join(models)}"
        )
    return name, price


def _cost(tokens: int, price: float | None) -> float | None:
    return None if price is None else tokens * price / 1e6


def _print(text: str, rows: dict[str, tuple[list[int], list[str]]], prices: dict[str, float]) -> None:
    words = max(1, len(text.split()))
    for name, (_, pieces) in rows.items():
        shown = "|".join(piece.replace("\n", "\\n").replace("\t", "\\t") for piece in pieces[:_SHOWN])
        more = f" ... {len(pieces) - _SHOWN} more" if len(pieces) > _SHOWN else ""
        console().print(f"{name}: {shown}{more}", markup=False, soft_wrap=True)
    header = ["model", "tokens", "per word", "characters per token"] + ["cost, USD"] * bool(prices)
    table = []
    for name, (ids, _) in rows.items():
        row = [name, f"{len(ids):,}", f"{len(ids) / words:.2f}", f"{len(text) / max(1, len(ids)):.2f}"]
        cost = _cost(len(ids), prices.get(name))
        table.append(row + ([f"{cost:.6f}" if cost is not None else "not given"] if prices else []))
    print_table(f"{len(text):,} characters", header, table, right=tuple(header[1:]))


def _print_languages(opened: dict[str, Tokenizer], *, as_json: bool) -> None:
    from firsthand.tokens.fertility import fertility

    found = {name: fertility(tokenizer) for name, tokenizer in opened.items()}
    if as_json:
        body: Json = {
            name: [{**vars(each), "tokens_per_word": each.tokens_per_word} for each in rows]
            for name, rows in found.items()
        }
        print_as_json(body)
        return
    for name, rows in found.items():
        table = [
            [each.language, str(each.tokens), f"{each.tokens_per_word:.2f}" if each.tokens_per_word else "no blanks",
             f"{each.premium:.2f}"]
            for each in rows
        ]  # fmt: skip
        header = ["language", "tokens", "per word", "vs. English"]
        print_table(f"{name}: article 1 of the Declaration of Human Rights", header, table, right=tuple(header[1:]))


def _train(config: Config) -> None:
    from firsthand.train.vocabulary import train_vocabulary

    path = Path(config.train)
    made = train_vocabulary(
        _lines(path), Path(config.out), kind=config.kind, vocab_size=config.vocab_size, cut=config.cut
    )  # fmt: skip
    if config.json:
        print_as_json({"folder": config.out, "kind": config.kind, "vocab_size": made.vocab_size})
        return
    console().print(
        f"{config.out}: {config.kind} vocabulary of {made.vocab_size:,} tokens", markup=False, soft_wrap=True
    )


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, so that one of any size is read with little memory."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from file
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8") from None
