"""What a request that the engine cannot take is told, word for word, and rows with adapters in the compiled step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapters_tiny import adapter, merged
from engine_tiny import tiny_model
from firsthand.engine.compute.adapter_slots import AdapterSlots
from firsthand.engine.compute.runner import Runner
from firsthand.engine.compute.source_cache import SourceCache
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.request_checks import MAX_TOP, check_prefix, check_request, check_score
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk, Source
from firsthand.engine.decoding.constraint import CompiledGrammar
from firsthand.errors import ConfigError, FirsthandError, ModelError
from firsthand.grammar import regex
from firsthand.model import Sampling

ARCHITECTURE = replace(tiny_model().architecture, vocab_size=70)


def compiled(vocab_size: int = 70, **fields: Any) -> CompiledGrammar:
    return CompiledGrammar(regex("ab"), vocab_size, SimpleNamespace(), (), None, **fields)


def test_each_wrong_field_of_a_request_is_named_with_what_to_give() -> None:
    lists = "give a tuple or list of token ids"
    for fields, error, says in (
        ({"prompt": 5}, ModelError, f"the prompt is 5: {lists}"),
        ({"prompt": {1, 2}}, ModelError, f"the prompt is {{1, 2}}: {lists}"),
        ({"sampling": 1}, ConfigError, "sampling is 1: give a Sampling"),
        ({"stop_ids": "ab"}, ConfigError, "stop_ids is 'ab': give a set of token ids"),
        ({"bad_sequences": {1}}, ConfigError, "bad_sequences is {1}: give a tuple of tuples of token ids"),
        ({"bad_sequences": (5,)}, ModelError, f"bad sequence 0 is 5: {lists}"),
        ({"stopper": "x"}, ConfigError, "stopper is 'x': give None or a function that returns a Stopper"),
        ({"grammar": "x"}, ConfigError, "grammar is 'x': give None or a CompiledGrammar from Grammars"),
        ({"sampling": Sampling(repetition_penalty=float("inf"))}, ConfigError,
         "repetition_penalty is inf: give a finite number above 0"),
        ({"sampling": Sampling(logit_bias=((4, 1.0), (5, 1.0), (4, 2.0)))}, ConfigError,
         "logit_bias names a token twice: give one bias for each"),
        ({"sampling": Sampling(grammar=regex("a"))}, ConfigError,
         f"the sampling has a {regex('a').kind} grammar that was not compiled: give Grammars(...).compile's result"),
        ({"grammar": compiled(), "bad_sequences": ((1,),)}, ConfigError,
         "the request forbids tokens and its grammar forces some: compile it with forcing=False"),
        ({"grammar": compiled(), "sampling": Sampling(allowed_token_ids=(1,))}, ConfigError,
         "the request forbids tokens and its grammar forces some: compile it with forcing=False"),
        ({"grammar": compiled(71)}, ConfigError,
         "the grammar was compiled for 71 tokens and the model has 70: use the model's own tokenizer"),
    ):  # fmt: skip
        with pytest.raises(error) as told:
            check_request(replace(Request((1, 2)), **fields), ARCHITECTURE)
        assert str(told.value) == says
    for good in (
        {"grammar": compiled(70)}, {"grammar": compiled(9, forcing=False), "bad_sequences": [[1]]}, {"stop_ids": [1, 69]},
        {"sampling": Sampling(top_logprobs=MAX_TOP, seed=-(2**63))},
        {"sampling": Sampling(seed=2**64 - 1), "stopper": dict},
        {"sampling": Sampling(logit_bias=((4, 1.0), (5, 1.0)))},
        {"prompt": [0, 69]}, {"owner": "é" * 256, "salt": "x" * 256},
    ):  # fmt: skip
        check_request(replace(Request((1, 2)), **good), ARCHITECTURE)


def test_each_wrong_argument_of_a_score_or_a_pin_is_named() -> None:
    given: dict[str, Any] = {
        "prefix": (1,),
        "continuations": [(2,)],
        "priority": 0,
        "owner": "",
        "architecture": ARCHITECTURE,
    }
    for fields, says in (
        ({"prefix": None}, "the prefix is None: give a tuple or list of token ids"),
        ({"prefix": ()}, "the prefix is empty: give one token or more, such as the model's start token"),
        ({"continuations": 3}, "the argument continuations is 3: give a tuple or list of continuations"),
        ({"continuations": [(1,), 4]}, "continuation 1 is 4: give a tuple or list of token ids"),
        ({"continuations": [(), (1, 70)]}, "token 1 of continuation 1 is 70: expected a whole number from 0 to 69"),
        ({"top": -1}, "top is -1: give 0 to 100"),
        ({"continuations": [(1,) * 9, (1,) * 256]},
         "the prompt has 1 tokens and at least 256 must follow: the model's context is 256"),
    ):  # fmt: skip
        with pytest.raises(FirsthandError) as told:
            check_score(**{**given, **fields})
        assert str(told.value) == says
    check_score(**{**given, "continuations": [(1,) * 255, ()], "top": 100})
    check_score(**{**given, "continuations": []})
    check_prefix((1, 69), "x" * 256, ARCHITECTURE)
    with pytest.raises(
        ModelError, match=r"^token 0 of the prefix to pin is True: expected|^the prefix to pin is empty"
    ):
        check_prefix((), "", ARCHITECTURE)
    with pytest.raises(ConfigError, match=r"^salt is 5: give a text of at most 256 characters$"):
        check_prefix((1,), 5, ARCHITECTURE)  # type: ignore[arg-type]


def test_rows_with_an_adapter_are_computed_in_the_compiled_step_and_its_tables_are_forgotten() -> None:
    model = tiny_model()
    added = adapter(model, 1)
    run = Runner(model, num_blocks=6, block_size=16, kv_dtype=torch.float32)
    assert run.fused is not None and run.modules is None and run.is_compiled
    loaded: Any = SimpleNamespace(id=1, packed=AdapterSlots(model, EngineConfig(), tiles_of="float32").read(added))
    ids = [5, 6, 7]

    def chunk(block: int, **fields: Any) -> SequenceChunk:
        return SequenceChunk(Sequence(block, 0, ids, 3, table=[block], **fields), 0, 3)

    both = run.hidden([chunk(1, adapter=loaded), chunk(2)])
    whole = merged(tiny_model(), added)
    other = Runner(whole, num_blocks=6, block_size=16, kv_dtype=torch.float32).hidden([chunk(1)])
    torch.testing.assert_close(both[:1], other, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(both[1:], run.hidden([chunk(3)]), atol=1e-5, rtol=1e-5)
    assert run.fused.spans._seen == (loaded.packed,)
    run.forget_adapters()
    assert run.fused.spans._seen == () and run.modules is None
    spans: Any = [object()]
    assert run._is_compiled_for(spans) and run._is_compiled_for([])
    run.fused.experts = SimpleNamespace()  # type: ignore[assignment]
    assert run._is_compiled_for([]) and run.modules is None
    assert not run._is_compiled_for(spans) and run.modules is not None and run.modules.steps is None
    run.modules.sources = SourceCache(SimpleNamespace())  # type: ignore[arg-type]
    source = Source((1,))
    run.modules.sources._encoded[source] = SimpleNamespace()  # type: ignore[assignment]
    run.forget_source(source)
    assert len(run.modules.sources) == 0
    run.modules.sources = None
    run.forget_source(source)


def test_each_number_of_a_sampling_is_within_what_the_engine_takes() -> None:
    for fields, says in (
        ({"top_logprobs": 2.5}, "top_logprobs is 2.5: give 0 to 100"),
        ({"top_k": 2.5}, "top_k is 2.5: give 0 or more"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5: give 1 or more"),
        ({"min_tokens": 2.5}, "min_tokens is 2.5: give 0 or more"),
        ({"seed": 2**64}, f"seed is {2**64}: give {-(2**63)} to {2**64 - 1}"),
        ({"seed": -(2**63) - 1}, f"seed is {-(2**63) - 1}: give {-(2**63)} to {2**64 - 1}"),
    ):
        with pytest.raises(ConfigError) as told:
            check_request(Request((1, 2), Sampling(**fields)), ARCHITECTURE)  # type: ignore[arg-type]
        assert str(told.value) == says
    for good in ({"top_logprobs": 0}, {"top_logprobs": 100}, {"top_k": 0}, {"top_k": 10**9}, {"max_tokens": 1}):
        check_request(Request((1, 2), Sampling(**good)), ARCHITECTURE)
    for top, good in ((100, True), (101, False)):
        given: dict[str, Any] = {"priority": 0, "owner": "", "architecture": ARCHITECTURE, "top": top}
        if good:
            check_score((1,), [(2,)], **given)
        else:
            with pytest.raises(ConfigError, match=r"^top is 101: give 0 to 100$"):
                check_score((1,), [(2,)], **given)
