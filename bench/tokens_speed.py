"""Speed of encoding and of training vocabularies beside tokenizers and tiktoken: CPU seconds, in turns in one process.

    python bench/tokens_speed.py --megabytes 100 --rounds 5
    python bench/tokens_speed.py --megabytes 1 --rounds 1 --train-megabytes 10

The text is the Markdown and Python of this repository, again and again up to the size. All three encode with the same
vocabulary of byte-level BPE (GPT-4's pre-tokeniser), which is trained first: ours through `train_vocabulary`, that of
tokenizers by its own trainer with the same settings, so the difference is what our door adds. tiktoken gets the trained
ranks. Texts are given in documents of 10 kB, and the ids of all three are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "2")
import tiktoken
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from firsthand.measure.measurements import markdown_table, spread
from firsthand.tokens import pretrained
from firsthand.tokens.pretokenizers import LLAMA3
from firsthand.train.vocabulary import END_OF_TEXT, train_vocabulary

ROOT = Path(__file__).parent.parent
DOCUMENT = 10_000


def documents(megabytes: float, start: int = 0) -> list[str]:
    """Documents of about 10 kB, this many MB in all, other ones for each start: all encoders remember what they saw."""
    files = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py")])
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    wanted, found, at = int(megabytes * 1e6), list[str](), start
    while wanted > 0:
        found.append(text[at : at + min(DOCUMENT, wanted)])
        wanted -= DOCUMENT
        at = (at + DOCUMENT + 13) % max(len(text) - DOCUMENT, 1)
    return found


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What some work returns, and its CPU seconds, all threads together."""
    began = time.process_time()
    return work(), time.process_time() - began


def theirs_trained(texts: Iterator[str], size: int) -> tokenizers.Tokenizer:
    """The same vocabulary, by tokenizers alone."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return made


def as_tiktoken(file: Path) -> tiktoken.Encoding:
    """A byte-level tokenizer.json as tiktoken's ranks."""
    table = json.loads(file.read_text(encoding="utf-8"))
    kept = [c for c in range(256) if 33 <= c <= 126 or 161 <= c <= 172 or 174 <= c <= 255]
    moved = [c for c in range(256) if c not in kept]
    byte = {chr(c): c for c in kept} | {chr(256 + i): c for i, c in enumerate(moved)}
    ids = {token: id for token, id in table["model"]["vocab"].items() if token != END_OF_TEXT}
    ranks = {bytes(byte[letter] for letter in token): id for token, id in ids.items()}
    return tiktoken.Encoding("own", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})


def main() -> None:
    """Trains, encodes in turns, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100, help="of text to encode")
    parser.add_argument("--train-megabytes", type=float, default=100)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = Path(name), documents(args.train_megabytes)
        training: dict[str, list[float]] = {"ours": [], "tokenizers": []}
        walls: dict[str, float] = {}
        for _ in range(args.rounds if args.train_megabytes <= 10 else 1):
            for who, work in (
                ("ours", lambda: train_vocabulary(iter(corpus), folder, vocab_size=args.vocab_size)),
                ("tokenizers", lambda: theirs_trained(iter(corpus), args.vocab_size)),
            ):
                wall = time.perf_counter()
                training[who].append(timed(work)[1])
                walls[who] = time.perf_counter() - wall
        ours, rust = pretrained.load(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        rust.encode_special_tokens = True  # names of special tokens in a text are text, as in ours
        tik = as_tiktoken(folder / "tokenizer.json")
    texts = list[str]()
    encoders: dict[str, Callable[[], object]] = {
        "ours": lambda: [ours.encode(text) for text in texts],
        "tokenizers": lambda: [rust.encode(text, add_special_tokens=False).ids for text in texts],
        "tiktoken": lambda: [tik.encode_ordinary(text) for text in texts],
    }
    seconds: dict[str, list[float]] = {who: [] for who in encoders}
    found: dict[str, object] = {}
    for turn in range(args.rounds):
        texts[:] = documents(args.megabytes, 7919 * turn)
        for who, work in encoders.items():
            found[who], took = timed(work)
            seconds[who].append(took)
    same = {who: found[who] == found["ours"] for who in encoders}
    rows = [
        [
            f"train, {args.train_megabytes:g} MB",
            *(spread(training[who]) if who in training else "" for who in encoders),
        ],
        [f"encode, {args.megabytes:g} MB", *(spread(seconds[who]) for who in encoders)],
    ]
    print(markdown_table(["CPU seconds", *encoders], rows))
    for who in list(encoders)[1:]:
        ratio = statistics.median(seconds["ours"]) / statistics.median(seconds[who])
        print(f"- encoding takes {ratio:.2f} times the CPU of {who}; ids equal: {same[who]}")
    print(f"- training took {walls['ours']:.0f} s of wall time, tokenizers {walls['tokenizers']:.0f} s")


if __name__ == "__main__":
    main()
