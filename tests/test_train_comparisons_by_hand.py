"""Comparisons as data: labels by place, cuts, wrong lines, and settings at their limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from firsthand.errors import ConfigError, DataError
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.train.preference_data import _comparison, _cut, read_comparisons
from firsthand.train.preference_settings import PreferenceSettings, expect_above_0
from firsthand.train.recipes import dpo
from firsthand.train.streams import Stream
from train_rehearsal import write_lines

torch.set_num_threads(1)
PAIRS = [{"prompt": f"say {n}", "chosen": "12" + "!" * n, "rejected": "no" * (n + 1)} for n in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write_lines(place / "pairs.jsonl", PAIRS)
    return tiny.write_model(place / "tiny", max_position=60)


def read(folder: Path, path: Path, **settings: Any) -> Any:
    tokenizer = pretrained.load(folder)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    return read_comparisons(path, tokenizer, chat, **{"context": 60, **settings})


def test_streams_of_a_line_are_labelled_by_their_place_and_cut_with_what_counts() -> None:
    def encode(body: Any, where: str) -> Stream:
        return Stream(
            [1, len(str(body["completion"]))], ce=[0, 1], source=f"{body['prompt']}|{body.get('tools')}|{where}"
        )

    def rows(**body: Any) -> list[tuple[int, float | None, int | None, str]]:
        return [(int(each.ids[1]), each.label, each.pair, each.source) for each in _comparison(body, "f:3", encode)]

    assert rows(prompt="p", chosen="a", rejected="bcd", tools=[1]) == [
        (1, 1.0, 0, "p|[1]|f:3"),
        (3, -1.0, 0, "p|[1]|f:3"),
    ]
    assert rows(prompt="p", answers=["abcd", "a", "ab"]) == [
        (4, 3.0, 0, "p|None|f:3"), (1, 2.0, 0, "p|None|f:3"), (2, 1.0, 0, "p|None|f:3")
    ]  # fmt: skip
    assert (
        rows(completion="abc", label=False) == [(3, -1.0, 0, "None|None|f:3")]
        and rows(completion="a", label=True)[0][1] == 1.0
    )
    fields = "`prompt` with `chosen` and `rejected`, with `answers`, or with `completion` and `label`"
    for body, text in (
        ({"chosen": "a"}, "f:3: an answer is missing: expected both `chosen` and `rejected`, or `completion`"),
        ({"rejected": "a"}, "f:3: an answer is missing: expected both `chosen` and `rejected`, or `completion`"),
        ({"answers": ["a"]}, "f:3: `answers` must be a list of two answers or more, the best first"),
        ({"answers": ["a", "b", "a"]},
         "f:3: two of its `answers` are equal: neither is preferred, so leave one of them out"),
        ({"answers": "ab"}, "f:3: `answers` must be a list of two answers or more, the best first"),
        ({"label": 1}, "f:3: its label is 1: expected true or false"),
        ({"chosen": "a", "rejected": "a"},
         "f:3: `chosen` and `rejected` are equal: nothing is preferred, so leave the line out"),
        ({}, f"f:3 has the fields (none): expected {fields}"),
        (dict.fromkeys("abcdefgh"), f"f:3 has the fields a, b, c, d, e, f: expected {fields}"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            _comparison(body, "f:3", encode)
        assert str(refused.value) == text
    stream = Stream([1, 2, 3, 4], ce=[0, 0, 1, 1], source="s", pair=0, label=1.0)
    assert _cut(stream, 4, "refuse", "f:3") is stream and _cut(stream, 3, "skip", "f:3") is None
    shorter = _cut(stream, 3, "cut", "f:3")
    assert shorter is not None and (shorter.ids.tolist(), shorter.ce.tolist(), shorter.label) == (
        [1, 2, 3],
        [0, 0, 1],
        1.0,
    )
    assert _cut(stream, 2, "cut", "f:3") is None, "nothing that counts is left"
    with pytest.raises(DataError) as refused:
        _cut(stream, 3, "refuse", "f:3")
    assert str(refused.value) == "f:3 has 4 tokens, and the context is 3: shorten or cut it"


def test_settings_of_comparisons_are_refused_below_and_at_their_limits(folder: Path, tmp_path: Path) -> None:
    for name, value in (("batch_size", 0), ("holdout", 1.0), ("holdout", -0.1)):
        with pytest.raises(ConfigError, match="expected 1 or more, and from 0 to below 1"):
            PreferenceSettings(**{name: value})
    PreferenceSettings(batch_size=1, holdout=0.0)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError) as refused:
            expect_above_0("beta", value)
        assert str(refused.value) == f"beta is {value}: expected a number above 0"
    expect_above_0("beta", 1e-9)
    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.5: expected from 0 to below 0\.5"):
        dpo.Config(label_smoothing=0.5)
    path = write_lines(tmp_path / "long.jsonl", [{**PAIRS[0], "rejected": "x" * 70}] * 2)
    with pytest.raises(DataError) as none:
        read(folder, path)
    assert (
        str(none.value) == f"{path} has no comparison within a context of 60 tokens (2 are longer, or alike within it)"
    )
