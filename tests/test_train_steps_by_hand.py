"""A step of training by hand: every part of its loss, what `fit` tells and changes, and numbers of streams one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.routed_lora import RoutedLinear
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_training import with_adapter
from firsthand.train.agent_heads import AgentHeads
from firsthand.train.bits_per_byte import held_out_loss, mean_loss
from firsthand.train.fit import _add, fit
from firsthand.train.objective import Comparisons, Objective, Targets
from firsthand.train.policy_objective import policy_objective, watched, watched_with_kl
from firsthand.train.rollout_settings import RolloutSettings
from firsthand.train.step_loss import logits_of, on, step_loss
from firsthand.train.stream_logprobs import _chunks, stream_logprobs
from firsthand.train.streams import Stream, counts, load_streams, packed
from train_tiny import Kept, Lists, model


def pass_of(decoder: Decoder, ids: Any, head: nn.Module | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence alone: the logits before each token after the first, their log-probs, and the values of all tokens."""
    tokens = torch.tensor(np.asarray(ids)).long()
    hidden = decoder(tokens, torch.arange(len(tokens)), Packed([len(tokens)]))
    logits = decoder.logits(hidden)[:-1]
    own = logits.log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
    return logits, own, torch.zeros(len(tokens)) if head is None else head(hidden)[:, 0]


def drawn_head(seed: int = 5) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(32, 1)


LONG = Stream(
    [3, 14, 15, 92, 65], ce=[9, 0, 0.5, 0, 2],
    pg=[9, 1, 0, 0.25, 0], advantage=[0, 3, 7, -2, 7], behaviour=[0, -1, 7, -4, 7],
    reference=[0, -2, -3, -5, -6], ref_kl=[9, 0, 0.75, 1.5, 0], value=[9, 0, 0, 1, 0.5], returns=[0, 0, 0, 4, -1],
    old_values=[0, 0, 0, 0.25, 0.5],
)  # fmt: skip
GOOD = Stream([35, 89, 79], ce=[9, 1, 0.5], reference=[0, -3, -4], pair=4, label=2.0)
BAD = Stream([38, 46, 26, 43], ce=[9, 0, 2, 1], pair=4, label=-1.0)


def test_every_part_of_a_steps_loss_is_the_sum_of_its_tokens_over_its_divisor() -> None:
    decoder, head, seen = model(), drawn_head(), {}
    (_, own, values), (_, good, good_values), (_, bad, bad_values) = (
        pass_of(decoder, each.ids, head) for each in (LONG, GOOD, BAD)
    )

    def tempered(logits: Tensor, targets: Targets) -> Tensor:
        return logits.log_softmax(-1).gather(1, targets.ids[:, None])[:, 0] / 2

    def pairs(found: Comparisons) -> Tensor:
        seen["pairs"] = found
        return found.label * (found.logprob - found.reference) + 10 * found.length + found.value

    def watch(targets: Targets, logprobs: Tensor) -> Mapping[str, Tensor]:
        assert not logprobs.requires_grad
        return {"seen": logprobs * targets.advantage}

    def soft(batch: Any, rows: Tensor, logits: Tensor) -> Tensor:
        seen["rows"] = rows.tolist()
        return logits[:, 7]

    objective = Objective(
        ce=0.3, pg=0.7, ref_kl=0.2, value=0.4, pair=0.9, soft=0.6,
        policy_loss=lambda targets, logprobs: targets.advantage * logprobs + targets.behaviour,
        kl_loss=lambda targets, logprobs: logprobs - 2 * targets.reference,
        value_loss=lambda targets, found: 3 * found - targets.returns + targets.old_values,
        pair_loss=pairs, soft_loss=soft, policy_logprobs=tempered, watch=watch,
    )  # fmt: skip
    divisors = {"ce": 2.0, "pg": 3.0, "ref_kl": 5.0, "value": 7.0, "pair": 11.0, "watch": 13.0}
    batch = packed([LONG, BAD, GOOD])
    loss, told = step_loss(decoder, batch, objective, divisors, values=head)
    at = {"long": own, "good": good, "bad": bad}
    ce = -(0.5 * at["long"][1] + 2 * own[3] + good[0] + 0.5 * good[1] + 2 * bad[1] + bad[2]) / 2
    pg = (3 * own[0] / 2 - 1 + 0.25 * (-2 * own[2] / 2 - 4)) / 3
    kl = (0.75 * (own[1] / 2 + 6) + 1.5 * (own[2] / 2 + 10)) / 5
    value = ((3 * values[2] - 4 + 0.25) + 0.5 * (3 * values[3] + 1 + 0.5)) / 7
    sums = good[0] + 0.5 * good[1], 2 * bad[1] + bad[2]
    pair = (2 * (sums[0] + 5) + 15 + good_values[2] - sums[1] + 30 + bad_values[3]) / 11
    seventh = [pass_of(decoder, each.ids)[0][:, 7] for each in (GOOD, BAD, LONG)]
    soft_sum = seventh[0][0] + 0.5 * seventh[0][1] + 2 * seventh[1][1] + seventh[1][2]
    softened = (soft_sum + 0.5 * seventh[2][1] + 2 * seventh[2][3]) / 2
    expected = {
        "loss": 0.3 * ce + 0.7 * pg + 0.2 * kl + 0.4 * value + 0.9 * pair + 0.6 * softened, "ce": ce, "pg": pg, "ref_kl": kl,
        "value": value, "pair": pair, "soft": softened,
        "sampler_gap": max(abs(own[0] / 2 + 1), abs(own[2] / 2 + 4)), "seen": (3 * own[0] / 2 - 0.5 * own[2] / 2) / 13,
    }  # fmt: skip
    assert told == pytest.approx({name: float(each.detach()) for name, each in expected.items()}, abs=2e-5)
    assert float(loss.detach()) == pytest.approx(told["loss"]) and loss.requires_grad
    found = seen["pairs"]  # the shortest stream first, and LONG belongs to no comparison
    assert found.pair.tolist() == [4, 4] and found.label.tolist() == [2, -1] and found.length.tolist() == [1.5, 3]
    assert found.reference.tolist() == [-5, 0] and seen["rows"] == [1, 2, 5, 6, 9, 11]


def test_parts_without_weight_or_tokens_are_not_told_and_what_is_wrong_is_refused() -> None:
    decoder, head = model(), drawn_head()
    only = Stream([3, 14, 15], ce=[0, 1, 0])
    loss, told = step_loss(decoder, packed([only]), Objective(pg=1.0, ce=0.0), {"pg": 1.0})
    assert (told, loss.requires_grad) == ({"loss": 0.0}, False)
    _, told = step_loss(decoder, packed([only]), Objective(ce=0.5), {"ce": 4.0})
    nll = -float(pass_of(decoder, only.ids)[1][0].detach())
    assert told == pytest.approx({"loss": nll / 8, "ce": nll / 4}, abs=1e-6)
    with pytest.raises(ConfigError) as refused:
        step_loss(decoder, packed([only]), Objective(value=1.0), {"value": 1.0})
    assert str(refused.value) == "the objective has a weight for values: give `fit` the value head as `values`"
    size = decoder.architecture.vocab_size
    step_loss(decoder, packed([Stream([1, size - 1], ce=[0, 1])]), Objective(ce=1.0), {"ce": 1.0}, values=head)
    with pytest.raises(DataError) as wrong:
        step_loss(decoder, packed([Stream([size, 1], ce=[0, 1])]), Objective(ce=1.0), {"ce": 1.0})
    assert str(wrong.value) == (
        f"token id {size} came, and the model has {size} tokens: encode the data with the model's own tokenizer"
    )


def test_an_agents_streams_read_its_own_value_head_and_adapter() -> None:
    decoder = with_adapter(model(), AdapterSettings("lora", rank=2), seed=0, agents=("lead", "worker"), verbose=False)
    heads = AgentHeads({"lead": drawn_head(1), "worker": drawn_head(2)})
    objective = Objective(value=1.0, value_loss=lambda targets, found: found)
    for agent, seed in (("worker", 2), ("lead", 1)):
        stream = Stream([3, 14, 15], value=[0, 0, 2], returns=[0, 0, 0], adapter=agent)
        _, told = step_loss(decoder, packed([stream]), objective, {"value": 4.0}, values=heads)
        hidden = pass_of(model(), stream.ids, drawn_head(seed))[2]
        assert told["value"] == pytest.approx(float(hidden[1].detach()) / 2, abs=1e-5)
        routed = {each.chosen for each in decoder.modules() if isinstance(each, RoutedLinear)}
        assert routed == {agent}


def test_the_logits_before_chosen_places_have_no_gradient() -> None:
    decoder, batch = model(), packed([LONG, GOOD])
    found = logits_of(decoder, batch, torch.tensor([2, 4, 7]))
    good, long = pass_of(decoder, GOOD.ids)[0], pass_of(decoder, LONG.ids)[0]
    assert torch.allclose(found, torch.stack([good[1], long[0], long[3]]), atol=1e-5) and not found.requires_grad
    kinds = [on(np.zeros(2, kind), torch.device("cpu")).dtype for kind in (np.int32, np.int64, np.float32, bool)]
    assert kinds == [torch.int64, torch.int64, torch.float32, torch.bool]


def test_held_out_loss_is_the_mean_per_token_and_the_bits_of_all_tokens_per_byte() -> None:
    decoder = model().train()
    nll = -float((pass_of(decoder, LONG.ids)[1][1] * 0.5 + pass_of(decoder, LONG.ids)[1][3] * 2).detach())
    nll -= float((pass_of(decoder, GOOD.ids)[1] * torch.tensor([1, 0.5])).sum().detach())
    for micro_tokens in (1, 4096):
        found = held_out_loss(decoder, [LONG, GOOD], 7, micro_tokens=micro_tokens)
        assert found == pytest.approx((nll / 4, nll / math.log(2) / 7), rel=1e-5)
    assert decoder.training and all(weight.grad is None for weight in decoder.parameters())
    decoder.eval()
    doubled = mean_loss(decoder, [LONG], Objective(ce=2.0))
    assert doubled == pytest.approx(2 * held_out_loss(decoder, [LONG], 1).loss) and not decoder.training


class Saves:
    """A saver whose newest checkpoint is of a given step."""

    def __init__(self, restored: int = 0):
        self.restored, self.after_steps, self.modules = restored, [], []

    def restore(self, whole: nn.Module, optimizer: Any, batches: Any) -> int:
        self.modules.append(any(name.startswith("value_head.") for name, _ in whole.named_parameters()))
        return self.restored

    def after(self, step: int, whole: nn.Module, optimizer: Any, batches: Any) -> None:
        self.after_steps.append((step, batches.position))


@pytest.mark.slow
def test_each_step_is_told_clipped_scheduled_saved_and_counted_as_by_hand() -> None:
    decoder, other, kept, saver = model().eval(), model(), Kept(), Saves(3)
    steps = [[Stream([3, 14, 15], ce=[0, 1, 2])], [Stream([9, 26], ce=[0, 1]), Stream([5, 35, 8, 9], ce=[0, 1, 0, 1])]]
    steps.append([Stream([1, 2], ce=[0, 1])])
    decoder.norm.weight.requires_grad_(False)
    groups = [{"params": [decoder.embed.weight], "lr": 0.5}, {"params": list(decoder.layers.parameters()), "lr": 0.25}]
    optimizer, batches = torch.optim.SGD(groups), Lists(*steps)
    last = fit(
        decoder, batches, objective=Objective(ce=6.0, divisors={"ce": 6.0}), optimizer=optimizer,
        schedule=lambda step: 1 / step, steps=5, track=kept, checkpoint=saver, clip_norm=0.5,
        evaluate=lambda step: {"twice": 2.0 * step},
    )  # fmt: skip
    assert last == 5 and batches.position == 2 and decoder.training
    assert saver.after_steps == [(4, 1), (5, 2)] and saver.modules == [False]
    for step, row, streams in zip((4, 5), kept.rows, steps, strict=False):
        nll = sum(-(pass_of(other, s.ids)[1] * torch.tensor(s.ce[1:])).sum() for s in streams) / 6
        other.zero_grad()
        (6 * nll).backward()
        trained = [(weight, 0.5 if weight is other.embed.weight else 0.25)
                   for weight in (other.embed.weight, *other.layers.parameters())]  # fmt: skip
        norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight, _ in trained))
        assert norm > 0.5
        with torch.no_grad():
            for weight, rate in trained:
                weight -= rate / step * weight.grad * 0.5 / norm
        assert row.pop("tokens_per_s") > 0
        assert row == pytest.approx(
            {"step": step, "loss": 6 * float(nll.detach()), "ce": float(nll.detach()), "grad_norm": norm, "lr": 0.5 / step,
             "tokens": 3 if step == 4 else 6, "twice": 2.0 * step}, rel=1e-4)  # fmt: skip
    assert len(kept.rows) == 2
    for one, two in zip(decoder.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.05]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.5, 0.25]


def test_no_bound_on_the_norm_clips_nothing_and_values_are_part_of_what_is_saved() -> None:
    decoder, head, saver, kept = model(), drawn_head(), Saves(), Kept()
    for weight in (*decoder.parameters(), *head.parameters()):
        weight.requires_grad_(weight is decoder.embed.weight or weight is head.weight)
    before = decoder.embed.weight.detach().clone()
    optimizer = torch.optim.SGD([{"params": [decoder.embed.weight, head.weight]}], lr=1.0, momentum=0.9)
    stream = Stream([3, 14, 15], ce=[0, 1, 2], value=[0, 1, 0], returns=[0, 5, 0])
    told: list[int] = []
    done = fit(
        decoder, Lists([stream]), objective=Objective(ce=9.0, value=4.0), optimizer=optimizer, schedule=lambda step: 0.5,
        steps=9, checkpoint=saver, values=head, clip_norm=0.0, evaluate=lambda step: told.append(step) or {},
    )  # fmt: skip
    assert done == 1 and saver.modules == [True] and saver.after_steps == [(1, 1)]
    assert told == []  # without a track nobody reads an evaluation
    moved = float((decoder.embed.weight.detach() - before).norm())
    assert moved == pytest.approx(0.5 * float(decoder.embed.weight.grad.norm()), rel=1e-4) and moved > 1
    after = decoder.embed.weight.detach().clone()
    nothing = fit(
        decoder, Lists([Stream([3, 4], ce=[0, 0])]), objective=Objective(ce=1.0), optimizer=optimizer,
        schedule=lambda step: 1.0, steps=1, track=kept,
    )  # fmt: skip
    row = kept.rows[0]
    assert torch.equal(after, decoder.embed.weight), "its momentum does not move it either"
    assert nothing == 1 and row.pop("tokens_per_s") > 0
    assert row == {"step": 1, "loss": 0.0, "grad_norm": 0.0, "lr": 1.0, "tokens": 2}
    assert fit(decoder, Lists([stream]), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0,
               steps=0) == 0  # fmt: skip


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_where_its_streams_are(tmp_path: Path) -> None:
    decoder = model()
    before = [weight.detach().clone() for weight in decoder.parameters()]
    stream = Stream([3, 14, 15], ce=[0, 1, 2], source="f:1")
    objective = Objective(ce=1.0, pair=0.0, soft=1.0, soft_loss=lambda batch, rows, logits: logits[:, 0] * math.inf)
    for folder, where in ((tmp_path, f", and its streams are in {tmp_path / 'step-1.npz'}"), (None, "")):
        optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
        with pytest.raises(TrainingError) as raised:
            fit(decoder, Lists([stream]), objective=objective, optimizer=optimizer, schedule=lambda step: 1.0, steps=2,
                folder=folder)  # fmt: skip
        text = str(raised.value)
        assert (
            text.startswith("step 1 has the loss ") and " and a gradient of norm nan: the weights are those of " in text
        )
        assert text.endswith(f"step 0{where}; lower the learning rate, or look at what these streams hold")
    (saved,) = load_streams(tmp_path / "step-1.npz")
    assert (saved.ids.tolist(), saved.source) == ([3, 14, 15], "f:1")
    assert all(torch.equal(one, two) for one, two in zip(before, decoder.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_stops_beside_a_finite_loss(tmp_path: Path) -> None:
    decoder, head = model(), nn.Linear(32, 1)
    stream = Stream([3, 14, 15], ce=[0, 1, 2], value=[0, 1, 0], returns=[0, 1.5e19, 0], source="f:2")
    optimizer = torch.optim.SGD([*decoder.parameters(), *head.parameters()], lr=0.1)
    before = [weight.detach().clone() for weight in (*decoder.parameters(), *head.parameters())]
    with pytest.raises(TrainingError) as raised:
        fit(decoder, Lists([stream]), objective=Objective(value=1.0), optimizer=optimizer, schedule=lambda step: 1.0,
            steps=1, values=head, folder=tmp_path)  # fmt: skip
    assert re.match(r"step 1 has the loss \d\.?\d*e\+3\d and a gradient of norm (inf|nan): ", str(raised.value))
    assert all(torch.equal(*each) for each in zip(before, (*decoder.parameters(), *head.parameters()), strict=True))
    assert load_streams(tmp_path / "step-1.npz")[0].source == "f:2"


def test_a_stream_leaves_the_arrays_that_it_was_given_as_they_are() -> None:
    ids, weights, values = np.array([3, 14, 15]), np.ones(3, np.float32), np.full(3, 2.0, np.float32)
    stream = Stream(ids, ce=weights, pg=weights, advantage=values, behaviour=values)
    assert stream.ce.tolist() == stream.pg.tolist() == [0, 1, 1], "nothing comes before the first token"
    assert weights.tolist() == [1, 1, 1] and stream.advantage.tolist() == [2, 2, 2]


def test_a_value_head_is_set_to_train_and_what_an_evaluation_tells_stands_for_the_steps_own() -> None:
    decoder, head, kept = model().eval().requires_grad_(False), nn.Linear(32, 1).eval(), Kept()
    stream = Stream([3, 14, 15], value=[0, 1, 0], returns=[0, 1, 0])
    fit(decoder, Lists([stream]), objective=Objective(value=1.0), optimizer=torch.optim.SGD(head.parameters(), lr=0.1),
        schedule=lambda step: 1.0, steps=1, values=head, track=kept,
        evaluate=lambda step: {"loss": 9.0, "lr": 8.0, "sampler_gap": 7.0})  # fmt: skip
    assert decoder.training and head.training
    assert [kept.rows[0][name] for name in ("loss", "lr", "sampler_gap", "tokens")] == [9, 8, 7, 3]


def test_shares_of_metrics_add_up_and_the_gap_is_the_largest() -> None:
    sums: dict[str, float] = {}
    for shares in (
        {"loss": 1.0, "sampler_gap": 0.3},
        {"loss": 2.5, "pg": -1.0, "sampler_gap": 0.2},
        {"sampler_gap": 0.25},
    ):
        _add(sums, shares)
    assert sums == {"loss": 3.5, "sampler_gap": 0.3, "pg": -1.0}


@pytest.mark.slow
def test_numbers_of_streams_come_in_their_order_whatever_their_lengths_and_passes() -> None:
    decoder, head = model().train(), drawn_head()
    ids = [[3, 14, 15, 92], [6], [5, 35], [8, 97 % 96, 9]]
    given = [np.array(ids[0], np.int32), Stream(ids[1]), np.array(ids[2], np.int64), Stream(ids[3])]

    def doubled(logits: Tensor, targets: Targets) -> Tensor:
        assert not targets.pg.any() and len(targets.advantage) == len(targets.ids) == len(targets.row)
        return 2 * logits.log_softmax(-1).gather(1, targets.ids[:, None])[:, 0]

    for micro_tokens in (1, 4, 4096):
        plain = stream_logprobs(decoder, given, micro_tokens=micro_tokens)
        valued = stream_logprobs(decoder, given, values=head, policy_logprobs=doubled, micro_tokens=micro_tokens)
        for each, tokens, other in zip(plain, ids, valued, strict=True):
            _, own, values = pass_of(decoder, tokens, head)
            assert each.logprobs.tolist() == pytest.approx([0.0, *own.tolist()], abs=1e-5)
            assert each.values is None and each.last_value == 0.0
            assert other.logprobs.tolist() == pytest.approx([0.0, *(2 * own).tolist()], abs=2e-5)
            assert other.values is not None and other.values.tolist() == pytest.approx(
                [0.0, *values.tolist()[:-1]], abs=1e-5
            )
            assert other.last_value == pytest.approx(float(values[-1].detach()), abs=1e-5)
    assert decoder.training and stream_logprobs(decoder, []) == []
    stream_logprobs(decoder.eval(), given)
    assert not decoder.training
    half = stream_logprobs(decoder, given[:1], dtype=torch.bfloat16)[0].logprobs
    assert 0 < np.abs(half - stream_logprobs(decoder, given[:1])[0].logprobs).max() < 0.2
    rows = [np.zeros(size, np.int32) for size in (5, 2, 3, 2, 9)]
    assert _chunks(rows, 7) == [[1, 3, 2], [0], [4]] and _chunks(rows, 6) == [[1, 3], [2], [0], [4]]
    assert _chunks(rows, 1) == [[1], [3], [2], [0], [4]] and _chunks([], 9) == []


def test_divisors_of_a_step_count_weights_over_all_streams_and_pairs_once() -> None:
    assert counts([LONG, GOOD, BAD, Stream([1, 2], pair=9, label=0.0)]) == {
        "ce": 7.0, "pg": 1.25, "ref_kl": 2.25, "value": 1.5, "pair": 2.0
    }  # fmt: skip


def test_a_policy_objective_hands_each_loss_what_it_reads() -> None:
    row = torch.arange(3)
    targets = SimpleNamespace(
        behaviour=torch.tensor([-1.0, -2.0, -3.0]), advantage=torch.tensor([2.0, 3.0, 5.0]), row=row
    )
    now = torch.tensor([-1.0, -1.5, -3.00005])
    by_token = policy_objective(lambda new, old, advantage: 100 * new + 10 * old + advantage)
    assert by_token.policy_loss(targets, now).tolist() == pytest.approx([-108.0, -167.0, -325.005])
    by_answer = policy_objective(
        None, RolloutSettings(temperature=0.5),
        answer_loss=lambda new, old, advantage, rows: rows * 1000 + new + old * advantage, 
        kl=0.25, answer_length=7.0, value=0.5, ce=0.125,
    )  # fmt: skip
    assert by_answer.policy_loss(targets, now).tolist() == pytest.approx([-3.0, 992.5, 1981.99995])
    assert (by_answer.ref_kl, by_answer.value, by_answer.ce, by_answer.pg) == (0.25, 0.5, 0.125, 1.0)
    assert (by_answer.answer_length, by_token.answer_length, by_token.divisors) == (7.0, None, {})
    assert by_answer.policy_logprobs is not None
    without_kl = policy_objective(lambda *row: row[0], answer_length=7.0)
    assert (without_kl.watch, by_token.watch) == (watched, watched) and by_answer.watch is watched_with_kl
    assert (
        policy_objective(lambda *row: row[0], RolloutSettings(temperature=0.5, correct_to_model=True)).policy_logprobs
        is None
    )
    found = {name: each.tolist() for name, each in watched(targets, now).items()}
    assert found["ratio"] == pytest.approx([1.0, np.exp(0.5), np.exp(-5e-5)])
    assert found["approx_kl"] == pytest.approx([0.0, np.exp(0.5) - 1.5, 0.0], abs=1e-6)
    assert found["surprisal"] == pytest.approx([1.0, 1.5, 3.00005]) and found["gap_share"] == [0.0, 1.0, 0.0]


def test_a_sharded_models_passes_reach_every_weight_and_an_idle_one_counts_nothing() -> None:
    decoder, batch, objective = model(), packed([Stream([3, 14, 15], ce=[0, 0, 2])]), Objective(ce=1.0)
    plain, told = step_loss(decoder, batch, objective, {"ce": 4.0})
    anchored, same = step_loss(decoder, batch, objective, {"ce": 4.0}, kind="anchored")
    assert same == told and float(anchored.detach()) == pytest.approx(float(plain.detach()))
    idle, nothing = step_loss(decoder, batch, objective, {"ce": 4.0}, kind="idle")
    assert (float(idle.detach()), nothing) == (0.0, {})
    idle.backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in decoder.parameters())
    empty = packed([Stream([3, 14], ce=[0, 0])])
    loss, _ = step_loss(model(), empty, objective, {"ce": 4.0}, kind="anchored")
    assert loss.requires_grad and not step_loss(model(), empty, objective, {"ce": 4.0})[0].requires_grad


def test_bfloat16_rounds_the_forward_pass_of_steps_and_of_evaluations() -> None:
    stream, kept = Stream([3, 14, 15, 92, 65, 35], ce=[0, 1, 1, 1, 1, 1]), Kept()
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        optimizer = torch.optim.SGD((decoder := model()).parameters(), lr=0.1)
        losses[dtype] = [
            step_loss(decoder, packed([stream]), Objective(ce=1.0), {"ce": 5.0}, dtype=dtype)[1]["loss"],
            mean_loss(decoder, [stream], Objective(ce=1.0), dtype=dtype),
            held_out_loss(decoder, [stream], 1, dtype=dtype).loss,
        ]  # fmt: skip
        fit(decoder, Lists([stream]), objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0, steps=1,
            track=kept, dtype=dtype)  # fmt: skip
        losses[dtype].append(kept.rows[-1]["loss"])
        assert decoder.embed.weight.dtype == torch.float32
    for exact, rounded in zip(*losses.values(), strict=True):
        assert exact == pytest.approx(losses[torch.float32][0]) and 0 < abs(exact - rounded) < 0.3


def test_numbers_of_streams_are_those_without_dropout_and_the_model_trains_on() -> None:
    decoder = with_adapter(model(), AdapterSettings("lora", rank=2, dropout=0.5), seed=0, verbose=False)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if name.endswith(".b"):
                weight.fill_(0.25)
    expected = stream_logprobs(decoder.eval(), [Stream([3, 14, 15, 9])])[0].logprobs.tolist()
    assert not decoder.training
    found = stream_logprobs(decoder.train(), [Stream([3, 14, 15, 9])])[0].logprobs.tolist()
    assert found == expected and decoder.training
