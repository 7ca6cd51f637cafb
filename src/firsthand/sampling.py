"""Sampling: the settings of a request that decide how tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.message import Json
from firsthand.system.field_types import check_kinds, shown

MAX_ALLOWED = 1 << 18
"""The size of the largest vocabularies."""
MAX_BAD_WORDS = 1024
MAX_WORD_CHARS = 256
_LATER = (
    "grammar", "logit_bias", "stop_ids", "ignore_eos", "min_tokens", "allowed_token_ids", "bad_words",
    "include_stop_str_in_output", "strict_tools",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The defaults are greedy."""

    max_tokens: int = 512
    """At most this many new tokens."""
    temperature: float = 0.0
    """Logits are divided by this; 0 takes the most probable token."""
    top_k: int = 0
    """Keep this many of the most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose probability reaches this (Holtzman et al., 2020)."""
    min_p: float = 0.0
    """Drop tokens less probable than this share of the most probable one (Nguyen et al., 2024)."""
    repetition_penalty: float = 1.0
    """Divide positive and multiply negative logits of tokens seen in prompt or answer (Keskar et al., 2019)."""
    presence_penalty: float = 0.0
    """Subtract this from the logit of each token already in the answer."""
    frequency_penalty: float = 0.0
    """Subtract this, times its count, from the logit of each token already in the answer."""
    seed: int | None = None
    """The same seed gives the same tokens for the same prompt, whatever else is being served."""
    stop: tuple[str, ...] = ()
    """End the answer before any of these strings."""
    top_logprobs: int = 0
    """Report this many alternatives with their log-probs for each token."""
    grammar: Grammar | None = None
    """The form of the answer: `json_schema`, `regex`, `choice` ... of `firsthand.grammar`. Tokens that it forbids are
    removed before all else. An answer cut off by max_tokens or a stop string may be only the beginning of such a text."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Add to the logits of these token ids, after penalties, as (id, bias): -100 practically forbids a token."""
    stop_ids: tuple[int, ...] = ()
    """End the answer with any of these tokens, besides those that end a turn anyway."""
    ignore_eos: bool = False
    """Continue past the tokens that end a turn, up to max_tokens: for benchmarks."""
    min_tokens: int = 0
    """Allow no end-of-turn token and no stop string before the answer has this many tokens. Where a grammar leaves only
    the end, the answer ends all the same."""
    allowed_token_ids: tuple[int, ...] | None = None
    """Allow only these tokens; None allows all. For an answer to end, the tokens that end a turn must be among them."""
    bad_words: tuple[str, ...] = ()
    """Never complete one of these words: its last token may not follow its others, with or without a space before it."""
    skip_special_tokens: bool = True
    """Leave control tokens out of the text. With False they are in it, except the one that ends the answer."""
    include_stop_str_in_output: bool = False
    """Keep the stop string or stop token that ended the answer in its text."""
    tool_choice: str = "auto"
    """`auto`: the model may call the tools that a request has; `required`: it must call one; a tool's name: it must call
    that one. To forbid calls, give no tools."""
    parallel_tool_calls: bool = True
    """Allow several tool calls in one answer."""
    strict_tools: tuple[str, ...] = ()
    """The tools whose calls must fit their schemas: endpoints are asked for it (`strict`), and their calls are checked.

    Calls of a local model fit anyway, but for what a grammar cannot express; a schema with none is refused with this."""

    def __post_init__(self) -> None:
        check_kinds(self, whole=False)
        checks = [
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < 100, "from 0 up to 100"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0 (1 is none)"),
            ("presence_penalty", -100 <= self.presence_penalty <= 100, "from -100 to 100"),
            ("frequency_penalty", -100 <= self.frequency_penalty <= 100, "from -100 to 100"),
            ("top_logprobs", 0 <= self.top_logprobs <= 100, "from 0 to 100"),
            ("stop", len(self.stop) <= 64 and all(self.stop), "at most 64 strings, none of them empty"),
            (
                "logit_bias",
                len(self.logit_bias) <= 1024 and all(-100 <= b <= 100 for _, b in self.logit_bias),
                "at most 1024 pairs of a token id and a bias from -100 to 100",
            ),
            ("stop_ids", len(self.stop_ids) <= 64, "at most 64 token ids"),
            ("tool_choice", bool(self.tool_choice), "auto, required, or the name of a tool"),
            ("min_tokens", self.min_tokens >= 0, "0 or more"),
            (
                "allowed_token_ids",
                self.allowed_token_ids is None or 0 < len(self.allowed_token_ids) <= MAX_ALLOWED,
                f"None for all tokens, or 1 to {MAX_ALLOWED} token ids",
            ),
            (
                "bad_words",
                len(self.bad_words) <= MAX_BAD_WORDS and all(0 < len(w) <= MAX_WORD_CHARS for w in self.bad_words),
                f"at most {MAX_BAD_WORDS} words of 1 to {MAX_WORD_CHARS} characters",
            ),
        ]
        for name, is_valid, expected in checks:
            if not is_valid:
                raise ConfigError(f"{name} is {shown(getattr(self, name))}: give {expected}")

    def with_seed(self, seed: int) -> Sampling:
        """The same settings with another seed. They were checked when they were made, so only the seed is new."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__, seed=seed)
        return made

    def to_json(self) -> Json:
        """The settings as a JSON object. Those newer than version 0.2 have a key only if they are used."""
        body: Json = dict(vars(self))  # asdict copies deeply: slow
        for name in ("stop", "stop_ids", "bad_words", "strict_tools"):
            body[name] = list(body[name])
        body["allowed_token_ids"] = None if self.allowed_token_ids is None else list(self.allowed_token_ids)
        body["logit_bias"] = [list(pair) for pair in self.logit_bias]
        body["grammar"] = None if self.grammar is None else self.grammar.to_json()
        for name in _LATER:
            if not body[name]:
                del body[name]
        if self.tool_choice == "auto":
            del body["tool_choice"]
        for name in ("skip_special_tokens", "parallel_tool_calls"):
            if body[name]:
                del body[name]
        return body
