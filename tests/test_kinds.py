"""Values of the wrong kind, from a caller's own Python: an error that names the field, no bare TypeError, no silent yes."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from engine_tiny import drain, tiny_engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, FirsthandError, ModelError
from firsthand.grammar import regex
from firsthand.model import Sampling

WRONG = (
    None,
    "1",
    b"1",
    "abc",
    [],
    (),
    {},
    set(),
    object(),
    math.nan,
    True,
    1.5,
    10**5000,
    ((1,),),
    [[1, 2, 3]],
    (None,),
)


class Unprintable:
    def __repr__(self) -> str:
        return "u" * 10**6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"temperature": "1"}, "temperature is '1': give a number"),
        ({"temperature": None}, "temperature is None: give a number"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": 1j}, "temperature is 1j"),
        ({"max_tokens": "5"}, "max_tokens is '5': give a number"),
        ({"seed": "0"}, "seed is '0': give a number or None"),
        ({"stop": "abc"}, "stop is 'abc': give a tuple, each a text"),
        ({"stop": None}, "stop is None"),
        ({"stop": (b"a",)}, "stop is"),
        ({"stop": 10**5000}, "stop is a number of 16610 bits"),
        ({"stop": Unprintable()}, r"stop is u{100}\.\.\.: give"),
        ({"logit_bias": ((1,),)}, r"logit_bias is \(\(1,\),\): give a tuple, each \(a number, a number\)"),
        ({"logit_bias": {1: 2.0}}, "logit_bias"),
        ({"logit_bias": ((1, "x"),)}, "logit_bias"),
        ({"logit_bias": ((1, math.nan),)}, "logit_bias"),
        ({"stop_ids": 5}, "stop_ids"),
        ({"stop_ids": ("1",) * 10**6}, "stop_ids is 1000000 values: give a tuple, each a number"),
        ({"stop_ids": (True,)}, "stop_ids"),
        ({"ignore_eos": 1}, "ignore_eos is 1: give True or False"),
        ({"grammar": "a+"}, r"grammar is 'a\+': give a Grammar or None"),
    ],
)
def test_a_sampling_of_wrong_kinds_is_not_made(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Sampling(**fields)


def test_numbers_of_any_library_and_lists_are_taken() -> None:
    sampling = Sampling(
        temperature=np.float32(0.5), top_p=Fraction(1, 2), max_tokens=np.int64(3), stop=["a"], logit_bias=[[1, 2]],
        grammar=regex("a"),
    )  # type: ignore[arg-type]  # fmt: skip
    assert sampling.stop == ["a"] and sampling.top_p == 0.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block_size": 1.5}, "block_size is 1.5: give a whole number"),
        ({"max_batch_tokens": 1e9}, "max_batch_tokens is 1000000000.0"),
        ({"kv_memory_bytes": 60e9}, "kv_memory_bytes is 60000000000.0: give a whole number or None"),
        ({"threads": 10**9}, "threads is 1000000000: give None or 1 to 1024"),
        ({"threads": True}, "threads is True"),
        ({"device": None}, "device is None: give a text"),
        ({"weights": ["int8"]}, r"weights is \['int8'\]: give one of auto, int8, float16, float32"),
        ({"max_sequences": "64"}, "max_sequences"),
    ],
)
def test_an_engine_config_of_wrong_kinds_is_not_made(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EngineConfig(**fields)


@pytest.mark.parametrize("cls", [Sampling, EngineConfig])
def test_no_value_of_any_field_raises_anything_but_a_config_error(cls: type) -> None:
    refused = 0
    for name in cls.__dataclass_fields__:  # type: ignore[attr-defined]
        for value in WRONG:
            try:
                cls(**{name: value})
            except ConfigError as error:
                refused += 1
                assert name in str(error) and len(str(error)) < 300
    assert refused > 10 * len(cls.__dataclass_fields__)  # type: ignore[attr-defined]


def test_no_part_of_a_request_raises_anything_but_our_errors_and_nothing_stays() -> None:
    engine = tiny_engine()
    good = {"prompt": (1, 2), "sampling": Sampling(max_tokens=2), "n": 1}
    rows = (*WRONG, np.array([1, 2]), torch.tensor([1, 2]), "", 5)
    for name in ("prompt", "sampling", "n", "stop_ids", "stopper", "grammar", "priority", "owner", "adapter", "salt"):
        for value in rows:
            try:
                engine.add(Request(**{**good, name: value}))  # type: ignore[arg-type]
            except FirsthandError as error:
                assert len(str(error)) < 300
    for prefix, continuations, more in (
        *(
            ((1, 2), [(3,)], {name: value})
            for name in ("top", "priority", "owner", "adapter", "salt")
            for value in rows
        ),
        *((value, [(3,)], {}) for value in rows),
        *(((1, 2), value, {}) for value in rows),
        *(((1, 2), [(3,), value], {}) for value in rows),
    ):
        try:
            engine.add_score(prefix, continuations, **more)  # type: ignore[arg-type]
        except FirsthandError as error:
            assert len(str(error)) < 300
    for value in rows:
        try:
            engine.pin_prefix(value)  # type: ignore[arg-type]
        except FirsthandError as error:
            assert len(str(error)) < 300
    outputs = [output for found in drain(engine).values() for output in found]
    assert [output.error for output in outputs if output.error] == [], "what is taken can be computed"
    assert engine.stats().used_blocks == 0


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (Request(None), ModelError, "the prompt is None: give a tuple or list of token ids"),  # type: ignore[arg-type]
        (Request((1,), None), ConfigError, "sampling is None: give a Sampling"),  # type: ignore[arg-type]
        (Request((1,), stop_ids=None), ConfigError, "stop_ids is None"),  # type: ignore[arg-type]
        (Request((1,), stopper="x"), ConfigError, "stopper is 'x'"),  # type: ignore[arg-type]
        (Request((1,), grammar="a+"), ConfigError, r"grammar is 'a\+'"),  # type: ignore[arg-type]
    ],
)
def test_a_request_of_wrong_kinds_is_refused_by_name(request_: Request, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        tiny_engine().add(request_)


def test_a_score_of_wrong_kinds_is_refused_by_name() -> None:
    engine = tiny_engine()
    for top in (None, "3", 1.0, -1, 101):
        with pytest.raises(ConfigError, match="top is"):
            engine.add_score((1,), [(2,)], top=top)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="continuation 1 is 3: give a tuple or list of token ids"):
        engine.add_score((1,), [(2,), 3])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="the argument continuations is None: give a tuple or list of continuations"):
        engine.add_score((1,), None)  # type: ignore[arg-type]
    assert not engine.has_work
