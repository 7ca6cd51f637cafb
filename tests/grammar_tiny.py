"""A small vocabulary that merges JSON and prose, a random model for it, and ways to draw answers under grammars."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, trainers

from engine_tiny import drain, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import Grammars
from firsthand.grammar import Grammar, lark
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder
from firsthand.tokens.tokenizer import Tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
TEXTS = [
    json.dumps({"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "units": "celsius", "exact": True}}),
    json.dumps(
        [{"id": 12, "price": 1.25, "tags": ["a", "b"], "email": "ann@example.com", "at": "2026-01-31T10:00:00Z"}]
    ),
    'Thought: I need the sum.\nAction: calculator[12 + 30]\nObservation: 42\nFinal Answer: "yes" or "no", é, 日本, {}',
    '{"": {}, "x": [[], null, false, -0.5e10], "y": "\\n\\u00e9"}}]}',
]


def _overlapping(place: int) -> str:
    return "/(" + "|".join(f"[^{chr(97 + i)}].*{10 * place + i}" for i in range(8)) + ")/"


LATE = lark("start: T\nT: /[yx]{2}z/ | (/[yx]{3}/ (" + " & ".join(map(_overlapping, range(10))) + "))\n")
"""Compiles in a millisecond; the third token takes minutes."""


@cache
def tokenizer() -> Tokenizer:
    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(TEXTS * 3, trainer)
    return Tokenizer(json.loads(rust.to_str()), eos_ids=[rust.token_to_id("<|im_end|>")])


@cache
def grammars() -> Grammars:
    return Grammars(tokenizer())


def engine(seed: int = 0, **settings: object) -> Engine:
    """An engine over that model."""
    defaults = {"kv_memory_bytes": 1 << 23, "kv_cache": "float32"}
    return Engine(model(seed), EngineConfig(**{**defaults, **settings}))  # type: ignore[arg-type]


def model(seed: int = 0) -> Decoder:
    """A random decoder of the vocabulary, with some tokens to spare."""
    return tiny_model(seed, vocab_size=tokenizer().vocab_size + 7, max_position=1024)


def request(
    grammar: Grammar | None, sampling: Sampling, *, prompt: str = "Question: what?\n", **rest: object
) -> Request:
    forcing = sampling.allowed_token_ids is None and "bad_sequences" not in rest
    compiled = None if grammar is None else grammars().compile(grammar, forcing=forcing)
    ids = tuple(tokenizer().encode(prompt))
    return Request(ids, sampling, stop_ids=tokenizer().eos_ids, grammar=compiled, **rest)  # type: ignore[arg-type]


def answers(runner: Engine, requests: list[Request]) -> list[list[tuple[str, Output]]]:
    """For each request the text of each answer without its end token, and its last output."""
    ids = [runner.add(each) for each in requests]
    found = drain(runner)
    return [
        [(text(tokens(found[id, index])), found[id, index][-1]) for index in range(each.n)]
        for id, each in zip(ids, requests, strict=True)
    ]


def text(ids: tuple[int, ...]) -> str:
    return tokenizer().decode([id for id in ids if id not in tokenizer().eos_ids], skip_special=False)
