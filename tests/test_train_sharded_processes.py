"""A model spread over processes: its steps, checkpoints, references and files are those of a whole one."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from firsthand.nn import weights
from firsthand.train.adapters.lora_training import merged_state
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.reference_policy import ReferencePolicy
from firsthand.train.samplers import weights_digest
from firsthand.train.sharding import forget_gathered, is_sharded, load_whole, sharded, whole_state
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun
from tiny import write_model
from train_processes import in_processes
from train_tiny import Kept, Lists, model

torch.set_num_threads(1)
SEEDED = Lock()
STEPS = [
    [Stream([3, 14, 15], ce=[0, 1, 2], value=[0, 1, 0], returns=[0, 5, 0]), Stream([9, 26], ce=[0, 1]),
     Stream([5, 35, 8, 9], ce=[0, 1, 0, 1])],
    [Stream([1, 2], ce=[0, 1])],
    [Stream([7, 2, 4], ce=[0, 3, 1]), Stream([6, 6], ce=[0, 0])],
]  # fmt: skip


def trained(decoder: Any, checkpoint: Checkpoints | None = None, *, steps: int = 3, optimizer: str = "adamw") -> Any:
    """The state after steps with a value head, which is never sharded, and the metrics of the first process."""
    with SEEDED:  # the processes are threads, which draw from the same numbers
        torch.manual_seed(5)
        head, kept = nn.Linear(32, 1), Kept()
    whole = nn.ModuleDict({"model": decoder, "value_head": head})
    settings = OptimizerSettings(optimizer, lr=0.05, weight_decay=0.1)  # type: ignore[arg-type]
    fit(decoder, Lists(*STEPS), objective=Objective(ce=1.0, value=0.5), optimizer=optimizer_for(whole, settings),
        schedule=lambda step: 1 / step, steps=steps, track=kept, checkpoint=checkpoint, values=head, micro_tokens=4,
        clip_norm=0.5)  # fmt: skip
    for row in kept.rows:
        row.pop("tokens_per_s")
    return {**whole_state(decoder), "head": head.weight.detach().clone()}, kept.rows


def alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-4) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=tolerance) for name in one)


@pytest.mark.slow
def test_a_spread_model_takes_the_same_steps_as_a_whole_one() -> None:
    expected, rows = trained(model(), optimizer="muon")

    def act(number: int) -> Any:
        decoder = sharded(model())
        stream_logprobs(decoder, [Stream([3, 14, 15])])
        gathered = [name for name, weight in decoder.named_parameters() if not isinstance(weight, DTensor)]
        assert "embed.weight" in gathered, "a pass without a gradient leaves what it gathered"
        assert is_sharded(decoder) and sharded(decoder) is decoder and not is_sharded(model())
        assert all(isinstance(weight, DTensor) for weight in decoder.parameters())
        return trained(decoder, optimizer="muon")

    for number, (state, told) in enumerate(in_processes(2, act)):
        assert alike(state, expected)
        assert [pytest.approx(row, rel=1e-4) for row in rows] == told if number == 0 else told == []


@pytest.mark.slow
def test_a_checkpoint_of_a_spread_model_is_gone_on_with_by_any_number_of_processes(tmp_path: Path) -> None:
    expected, rows = trained(model())
    in_processes(2, lambda _: trained(sharded(model()), Checkpoints(tmp_path / "a", every=1), steps=2))
    state, told = trained(model(), Checkpoints(tmp_path / "a", every=9))
    assert alike(state, expected) and told == [pytest.approx(rows[2], rel=1e-4)]
    trained(model(), Checkpoints(tmp_path / "b", every=1), steps=2)
    spread = in_processes(2, lambda _: trained(sharded(model()), Checkpoints(tmp_path / "b", every=9)))
    assert alike(spread[1][0], expected)


@pytest.mark.slow
def test_a_spread_models_reference_file_and_digest_are_those_of_the_whole(tmp_path: Path) -> None:
    folder, stream = write_model(tmp_path / "tiny"), Stream([3, 14, 15])
    plain = weights.load(folder)
    before = stream_logprobs(plain, [stream])[0].logprobs.tolist()
    digest = weights_digest(plain)

    def act(number: int) -> Any:
        run = TrainingRun(tmp_path / "run", LoopSettings(), None)
        decoder = run.spread(weights.load(folder))
        assert is_sharded(decoder) and not is_sharded(
            TrainingRun(tmp_path, LoopSettings(shard=False), None).spread(model())
        )
        found = weights_digest(decoder)
        reference = ReferencePolicy(decoder)
        own = dict(decoder.named_parameters())  # without the tied head
        load_whole(decoder, {name: 1.5 * value for name, value in whole_state(decoder).items() if name in own})
        with reference.there() as there:
            was = stream_logprobs(there, [stream])[0].logprobs.tolist()
        now = stream_logprobs(decoder, [stream])[0].logprobs.tolist()
        forget_gathered(decoder)
        return found, was, now, merged_state(decoder), len(reference.beginning), reference.copy

    changed = weights.load(folder)
    changed.load_state_dict({name: 1.5 * value for name, value in changed.state_dict().items()})
    after = stream_logprobs(changed, [stream])[0].logprobs.tolist()
    for found, was, now, state, kept, copy in in_processes(2, act):
        assert (found, copy, kept) == (digest, None, len(list(plain.parameters())))
        assert was == pytest.approx(before, abs=1e-5) and now == pytest.approx(after, abs=1e-4)
        assert alike(state, {name: value for name, value in changed.state_dict().items() if name in state}, 1e-6)
