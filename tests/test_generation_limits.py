"""The settings of a model folder that decide which tokens its outputs may have."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.model import Sampling
from firsthand.providers.local_completions import Loaded
from firsthand.providers.request_preparation import derive
from firsthand.tokens import generation_limits as limits


def stated(folder: Path, name: str = "generation_config.json", **values: Any) -> Path:
    (folder / name).write_text(json.dumps(values))
    return folder


def test_forbidden_tokens_are_those_of_bad_words_ids_and_suppress_tokens(tmp_path: Path) -> None:
    def found(**values: Any) -> object:
        return limits.forbidden_tokens(stated(tmp_path, **values), vocab_size=9, ends={1, 2})

    assert found(bad_words_ids=[[8], [3, 4]], suppress_tokens=[0, 8]) == ((8,), (3, 4), (0,))
    assert found(bad_words_ids=[[1], [2, 1], [3]]) == ((2, 1), (3,)), "an end token alone stays, as in transformers"
    assert found(suppress_tokens=[2, 3]) == ((2,), (3,)), "suppress_tokens holds for ends too, as in transformers"
    assert found(bad_words_ids=[[9], [3, 9], [-1]], suppress_tokens=[9, -1, 0]) == ((0,),), "they cannot occur"
    assert found(bad_words_ids=None, suppress_tokens=None) == found(pad_token_id=5) == ()
    assert limits.forbidden_tokens(tmp_path / "model.gguf", vocab_size=9, ends=()) == ()


def test_config_json_counts_only_where_there_is_no_generation_config(tmp_path: Path) -> None:
    stated(tmp_path, "config.json", bad_words_ids=[[8]], num_beams=3)
    assert limits.forbidden_tokens(tmp_path, vocab_size=9, ends=()) == ((8,),)
    assert limits.left_out(tmp_path) == ["num_beams 3"]
    stated(tmp_path, suppress_tokens=[7])
    assert limits.forbidden_tokens(tmp_path, vocab_size=9, ends=()) == ((7,),)
    assert limits.left_out(tmp_path) == []


def test_the_pad_token_of_an_encoder_decoder_is_forbidden_unless_it_ends_outputs(tmp_path: Path) -> None:
    def found(*, has_sources: bool = True) -> object:
        return limits.forbidden_tokens(tmp_path, vocab_size=9, ends={1}, has_sources=has_sources)

    assert found() == ()
    for pad, forbidden in ((0, ((0,),)), (1, ()), (8, ((8,),)), (9, ()), (-1, ()), (None, ()), ("x", ()), (True, ())):
        stated(tmp_path, "config.json", pad_token_id=pad)
        assert found() == forbidden, pad
    stated(tmp_path, "config.json", pad_token_id=8)
    stated(tmp_path, bad_words_ids=[[8], [3]])
    assert found() == ((8,), (3,)) and found(has_sources=False) == ((8,), (3,))
    stated(tmp_path, pad_token_id=4)
    assert found() == ((4,),) and found(has_sources=False) == (), "what is for generation counts"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bad_words_ids": [8]}, r"bad_words_ids is '\[8\]': expected lists of token ids, none of them empty"),
        ({"bad_words_ids": [[]]}, "none of them empty"),
        ({"bad_words_ids": {"a": 1}}, "none of them empty"),
        ({"bad_words_ids": [[True]]}, "expected a list of token ids"),
        ({"bad_words_ids": [["x"]]}, "expected a list of token ids"),
        ({"suppress_tokens": 5}, "suppress_tokens is '5': expected a list of token ids"),
        ({"suppress_tokens": [1.5]}, "expected a list of token ids"),
        ({"suppress_tokens": [3] * 8193}, "is '8193 lists': expected at most 8192, suppress_tokens included"),
    ],
)
def test_settings_of_another_form_are_refused_by_name(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=said):
        limits.forbidden_tokens(stated(tmp_path, **values), vocab_size=9, ends=())
    stated(tmp_path, suppress_tokens=[3] * 8192)
    assert limits.forbidden_tokens(tmp_path, vocab_size=9, ends=()) == ((3,),)


def test_settings_that_are_not_applied_are_named_unless_they_change_nothing(tmp_path: Path) -> None:
    neutral = {
        "num_beams": 1, "no_repeat_ngram_size": 0, "min_length": 0, "typical_p": 1.0, "guidance_scale": None,
        "begin_suppress_tokens": [], "sequence_bias": {}, "encoder_repetition_penalty": 1.0, "temperature": 0.6,
        "repetition_penalty": 1.2, "forced_eos_token_id": 0, "bad_words_ids": [[3]],
    }  # fmt: skip
    assert limits.left_out(stated(tmp_path, **neutral)) == []
    asked = {"num_beams": 4, "guidance_scale": 3, "typical_p": 0.5, "begin_suppress_tokens": list(range(99))}
    found = limits.left_out(stated(tmp_path, **neutral | asked))
    assert [found[0], *found[2:]] == ["num_beams 4", "guidance_scale 3", "typical_p 0.5"]
    assert found[1] == "begin_suppress_tokens 99 values" and len(found) == 4
    others = {
        "stop_strings": ["\x1b[2J"],
        "force_words_ids": [[5]],
        "dola_layers": "high",
        "penalty_alpha": 0.6,
        "max_time": 1,
    }
    shown = [
        "stop_strings ['\\x1b[2J']",
        "force_words_ids [[5]]",
        "dola_layers 'high'",
        "penalty_alpha 0.6",
        "max_time 1",
    ]
    assert limits.left_out(stated(tmp_path, **neutral | others)) == shown


def test_requests_forbid_what_the_model_does_besides_their_own_words() -> None:
    architecture = SimpleNamespace(vocab_size=64)
    tokenizer = SimpleNamespace(eos_ids=frozenset({1}), encode_runs=lambda runs, continuing: [9])
    worker = SimpleNamespace(engine=SimpleNamespace(architecture=architecture))
    loaded = Loaded(worker, tokenizer, None, None, limits=limits.GenerationLimits(((8,), (3, 4))))  # type: ignore[arg-type]
    plain, both = derive(loaded, Sampling()), derive(loaded, Sampling(bad_words=("x",)))
    assert plain.bad_sequences == ((8,), (3, 4)) and both.bad_sequences == ((8,), (3, 4), (9,))
    assert plain.token_filter is not None

    def allowed(token: int, *answer: int) -> bool:
        assert plain.token_filter is not None
        return bool(plain.token_filter.after((5, *answer), 1, None)[token // 32] >> token % 32 & 1)

    assert (allowed(8), allowed(9), allowed(4), allowed(4, 3), allowed(1)) == (False, True, True, False, True)
    assert derive(Loaded(worker, tokenizer, None, None), Sampling()).token_filter is None  # type: ignore[arg-type]
