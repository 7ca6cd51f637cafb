"""New weights between two steps: no request is dropped, and none finds memory of the old ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adapters_tiny import adapter
from engine_tiny import drain, logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder

PROMPT = tuple(range(5, 45))


class Remembering:
    """An `Attend` that keeps every key and value it saw, whoever computed them."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        k = self.keys[layer] = torch.cat([self.keys[layer], k_NGK]) if layer in self.keys else k_NGK
        v = self.values[layer] = torch.cat([self.values[layer], v_NGK]) if layer in self.values else v_NGK
        shared = q_NHK.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = torch.einsum("nhk,mhk->hnm", q_NHK, k) * scale
        rows, past = scores.shape[1:]
        later = torch.arange(past) > torch.arange(past - rows, past)[:, None]
        return torch.einsum("hnm,mhk->nhk", scores.masked_fill(later, -math.inf).softmax(-1), v)


@torch.no_grad()
def mixed_logprobs(old: Decoder, new: Decoder, ids: list[int], turn: int) -> list[float]:
    """The log-prob of each token after `turn`, where the keys and values of the first `turn` are the old model's."""
    memory = Remembering()
    old(torch.tensor(ids[:turn]), torch.arange(turn), memory)
    found = []
    for at in range(turn, len(ids) - 1):
        hidden = new(torch.tensor(ids[at : at + 1]), torch.tensor([at]), memory)
        found.append(float(new.logits(hidden).log_softmax(-1)[0, ids[at + 1]]))
    return found


def collect(engine: object, request_id: int, outputs: list[Output]) -> list[Output]:
    return outputs + drain(engine)[request_id, 0]  # type: ignore[arg-type]


def test_answers_go_on_with_old_keys_and_new_weights_if_nothing_is_computed_again() -> None:
    engine = tiny_engine(weights="float32")
    job = engine.add(Request(PROMPT, Sampling(max_tokens=12)))
    outputs = [output for _ in range(5) for output in engine.step()]
    before = engine.stats()
    engine.load(tiny_model(seed=1).state_dict(), version=1, recompute=False)
    other = engine.add(Request(PROMPT, Sampling(max_tokens=6)))
    found = drain(engine)
    whole = outputs + found[job, 0]
    assert [output.version for output in whole] == [0] * 5 + [1] * 7
    ids = [*PROMPT, *tokens(whole)]
    turn = len(PROMPT) + 4  # the last token that the old weights chose was not fed to them
    expected = mixed_logprobs(tiny_model(), tiny_model(seed=1), ids, turn)
    assert logprobs(whole)[5:] == pytest.approx(expected, abs=1e-4)
    after = engine.stats()
    assert after.prefill_tokens - before.prefill_tokens == len(PROMPT)  # the other request's own
    fresh = tiny_engine(seed=1, weights="float32")
    fresh.add(Request(PROMPT, Sampling(max_tokens=6)))
    (want,) = drain(fresh).values()
    assert logprobs(found[other, 0]) == logprobs(want)
    assert (found[other, 0][0].cached_tokens, after.used_blocks) == (0, 0)
    last = engine.add(Request(tuple(ids), Sampling(max_tokens=1)))
    (output,) = drain(engine)[
        last, 0
    ]  # of the old answer nothing is known, of the new one its prompt and its own tokens
    assert output.cached_tokens <= len(PROMPT) + 5 and output.version == 1


@pytest.mark.parametrize("recompute", [True, False])
def test_weights_change_under_answers_of_every_kind_and_nothing_is_lost(recompute: bool) -> None:
    engine = tiny_engine(kv_memory_bytes=24 << 13, max_batch_tokens=24, max_sequences=16, speculation="prompt_lookup")
    engine.load_adapter("red", adapter(tiny_model(), 1))
    jobs = [
        engine.add(
            Request(PROMPT[: 9 + i], Sampling(max_tokens=14, temperature=1.0, seed=i), n=1 + i % 3, adapter=name)
        )
        for i in range(6)
        for name in (None, "red")
    ]
    scores = engine.add_score(PROMPT, [PROMPT[:7], PROMPT[7:30]], adapter="red")
    found: dict[tuple[int, int], list[Output]] = {}
    for version in range(1, 6):
        for _ in range(4):
            for output in engine.step():
                found.setdefault((output.request_id, output.index), []).append(output)
        engine.load(tiny_model(seed=version).state_dict(), version=version, recompute=recompute)
        engine.pool.check()
    for key, outputs in drain(engine).items():
        found.setdefault(key, []).extend(outputs)
    assert not any(output.error for outputs in found.values() for output in outputs)
    for place, job in enumerate(jobs):
        for index in range(1 + place // 2 % 3):
            versions = [output.version for output in found[job, index]]
            assert len(tokens(found[job, index])) == 14 and versions == sorted(versions)
    assert [len(logprobs(found[scores, index])) for index in range(2)] == [7, 23]
    assert engine.stats().used_blocks == 0 and any(
        found[job, 0][0].version != found[job, 0][-1].version for job in jobs
    )
