"""The training loop: losses of a whole step, whatever the micro-batches and the packing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError, DataError, TrainingError
from firsthand.nn.blocks.attention import Packed
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora
from firsthand.train.fit import fit
from firsthand.train.objective import Comparisons, Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.streams import Stream, counts, load_streams, micro_batches, packed, save_streams
from train_tiny import Kept, Lists, model, streams_of_all_kinds


def dpo(rows: Comparisons) -> torch.Tensor:
    margin = (rows.label * (rows.logprob - rows.reference))[torch.argsort(rows.pair, stable=True)].reshape(-1, 2).sum(1)
    return -nn.functional.logsigmoid(0.1 * margin)


EVERYTHING = Objective(ce=1.0, pg=0.7, ref_kl=0.3, value=0.5, pair=0.9, pair_loss=dpo)


def trained(streams, objective=EVERYTHING, micro_tokens=10_000, **settings):
    """The weights and metrics after a step of plain gradient descent."""
    decoder, kept = model(), Kept()
    torch.manual_seed(0)
    values = nn.Linear(decoder.architecture.hidden_size, 1)
    optimizer = torch.optim.SGD([*decoder.parameters(), *values.parameters()], lr=0.1)
    fit(
        decoder, Lists(streams), objective=objective, optimizer=optimizer, schedule=lambda step: 1.0, steps=1, track=kept,
        values=values, micro_tokens=micro_tokens, **settings,
    )  # fmt: skip
    weights = torch.cat([weight.detach().reshape(-1) for weight in (*decoder.parameters(), *values.parameters())])
    return weights, kept.rows[0] if kept.rows else {}


def logprobs_by_hand(stream: Stream) -> torch.Tensor:
    """The log-prob of each token after the first, of one stream alone."""
    decoder, ids = model(), torch.from_numpy(stream.ids).long()
    logits = decoder.logits(decoder(ids, torch.arange(len(ids)), Packed([len(ids)])))
    return logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("micro_tokens", [1, 25, 60])
def test_micro_batches_and_packing_change_no_result(micro_tokens):
    streams = streams_of_all_kinds()
    whole, told = trained(streams)
    parts, told_parts = trained(streams, micro_tokens=micro_tokens)
    assert len(micro_batches(streams, micro_tokens)) > 2
    assert (whole - parts).abs().max() < 1e-6
    for name in ("loss", "ce", "pg", "ref_kl", "value", "pair", "grad_norm", "sampler_gap"):
        assert told_parts[name] == pytest.approx(told[name], rel=2e-6), name


def test_the_order_of_streams_changes_no_result():
    streams = streams_of_all_kinds()
    assert (trained(streams)[0] - trained(streams[::-1], micro_tokens=40)[0]).abs().max() < 1e-6


def test_cross_entropy_is_divided_by_the_weights_of_the_whole_step():
    streams = [Stream([1, 2, 3], ce=[1, 1, 1]), Stream([4, 5, 6, 7, 8, 9], ce=[0, 0, 0.5, 1, 1, 1])]
    _, told = trained(streams, Objective(ce=1.0), micro_tokens=3)
    nll = [-(logprobs_by_hand(stream) * torch.from_numpy(stream.ce[1:])).sum().item() for stream in streams]
    assert told["ce"] == pytest.approx(sum(nll) / (2 + 3.5), rel=1e-5)
    assert told["loss"] == told["ce"] and told["tokens"] == 9


def test_each_part_is_divided_by_its_own_count_and_weighed():
    streams = streams_of_all_kinds()
    alone = {part: trained(streams, Objective(**{part: 1.0}))[1] for part in ("ce", "pg", "ref_kl", "value")}
    _, told = trained(streams)
    for part, each in alone.items():
        assert told[part] == pytest.approx(each["loss"], rel=1e-6)
    parts = sum(getattr(EVERYTHING, part) * told[part] for part in ("ce", "pg", "ref_kl", "value", "pair"))
    assert told["loss"] == pytest.approx(parts, rel=1e-6)


def test_a_constant_divisor_takes_the_place_of_the_count():
    streams = streams_of_all_kinds()
    own = counts(streams)["pg"]
    _, told = trained(streams, Objective(pg=1.0))
    _, constant = trained(streams, Objective(pg=1.0, divisors={"pg": 1000.0}))
    assert constant["pg"] == pytest.approx(told["pg"] * own / 1000, rel=1e-5)


def test_the_parts_are_those_of_the_formulas():
    streams = [stream for stream in streams_of_all_kinds() if stream.pair is None]
    _, told = trained(streams, Objective(pg=1.0, ref_kl=1.0))
    pg = kl = gap = 0.0
    for stream in streams:
        logprobs, mask = logprobs_by_hand(stream).detach().double().numpy(), stream.pg[1:] > 0
        ratio = np.exp(logprobs - stream.behaviour[1:])
        pg -= (ratio * stream.advantage[1:])[mask].sum()
        log_ratio = stream.reference[1:] - logprobs
        kl += (np.exp(log_ratio) - log_ratio - 1)[mask].sum()
        gap = max(gap, np.abs(logprobs - stream.behaviour[1:])[mask].max(initial=0))
    count = counts(streams)["pg"]
    assert told["pg"] == pytest.approx(pg / count, rel=1e-4)
    assert told["ref_kl"] == pytest.approx(kl / count, rel=1e-4)
    assert told["sampler_gap"] == pytest.approx(gap, rel=1e-5)


def test_a_comparison_sees_summed_logprobs_and_the_value_of_the_last_token():
    streams = [Stream([1, 2, 3, 4], ce=[0, 0, 1, 1], reference=[0, -9, -1, -2], pair=7, label=1.0),
               Stream([5, 6, 7], ce=[0, 0, 0], pair=7, label=-1.0), Stream([8, 9, 10], ce=[0, 1, 1])]  # fmt: skip
    seen: list[Comparisons] = []

    def keep(rows: Comparisons) -> torch.Tensor:
        seen.append(rows)
        return rows.logprob.sum() + rows.value.sum()

    trained(streams, Objective(pair=1.0, pair_loss=keep))
    (rows,) = seen
    order = rows.label.argsort(descending=True)
    assert rows.pair.tolist() == [7, 7] and rows.length[order].tolist() == [2, 0]
    assert rows.logprob[order].tolist() == pytest.approx([logprobs_by_hand(streams[0])[1:].sum().item(), 0], abs=1e-5)
    assert rows.reference[order].tolist() == [-3, 0]
    torch.manual_seed(0)
    head, decoder = nn.Linear(32, 1), model()
    hidden = decoder(torch.tensor([1, 2, 3, 4]), torch.arange(4), Packed([4]))
    assert rows.value[order[0]].item() == pytest.approx(head(hidden)[3].item(), abs=1e-5)


def test_values_are_read_before_their_token():
    """The value of token t is that of ids[:t], read at token t - 1."""
    stream = Stream([1, 2, 3], value=[0, 0, 1], returns=[0, 0, 2.0])
    _, told = trained([stream], Objective(value=1.0))
    torch.manual_seed(0)
    head, decoder = nn.Linear(32, 1), model()
    value = head(decoder(torch.tensor([1, 2, 3]), torch.arange(3), Packed([3])))[1].item()
    assert told["value"] == pytest.approx(0.5 * (value - 2.0) ** 2, rel=1e-5)


def test_a_function_sees_the_tokens_of_its_own_part_alone():
    """A token of the prompt whose reference is unlikely beyond float32 would turn the divergence into NaN."""
    stream = Stream([1, 2, 3], ce=[0, 1, 1], ref_kl=[0, 0, 1], reference=[0, 1e30, -1])
    weights, told = trained([stream], Objective(ce=1.0, ref_kl=1.0))
    assert torch.isfinite(weights).all() and np.isfinite(told["loss"])


def test_watched_metrics_are_means_over_the_step():
    streams = streams_of_all_kinds()
    objective = Objective(pg=1.0, divisors={"pg": 7.0}, watch=lambda of, logprobs: {"one": torch.ones_like(logprobs)})
    assert trained(streams, objective, micro_tokens=20)[1]["one"] == pytest.approx(1.0)
    sizes: list[tuple[int, int]] = []
    watching = Objective(ce=1.0, pg=1.0, watch=lambda of, logprobs: sizes.append((len(of.ids), len(logprobs))) or {})
    trained([Stream([1, 2, 3, 4], ce=[0, 1, 1, 1], pg=[0, 0, 0, 1], advantage=[0] * 4, behaviour=[0] * 4)], watching)
    assert sizes == [(1, 1)]  # the tokens that the policy sampled, no others


@pytest.mark.parametrize("bad", ["advantage", "value"])
def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(tmp_path, bad):
    decoder = model()
    good = Stream([1, 2, 3], ce=[0, 1, 1])
    huge = Stream([4, 5, 6], pg=[0, 1, 1], advantage=[0, 1e30, 3e38], behaviour=[0, -99, -99], source="trace 12")
    before = {name: weight.clone() for name, weight in decoder.named_parameters()}
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.0 if bad == "value" else 0.1)
    with pytest.raises(
        TrainingError, match=r"step 2 has the loss .* the weights are those of step 1.*step-2\.npz"
    ) as caught:
        fit(decoder, Lists([good], [good, huge]), objective=Objective(ce=1.0, pg=1.0), optimizer=optimizer,
            schedule=lambda step: float(step == 0), steps=5, folder=tmp_path / "run")  # fmt: skip
    assert all(torch.equal(weight, before[name]) for name, weight in decoder.named_parameters())
    saved = load_streams(Path(re.search(r"\S+\.npz", str(caught.value))[0]))
    assert [stream.source for stream in saved] == ["", "trace 12"]
    assert saved[1].advantage.tolist() == huge.advantage.tolist() and saved[0].pg is None


def test_a_batch_in_which_nothing_counts_changes_nothing():
    decoder = model()
    before = [weight.clone() for weight in decoder.parameters()]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.1, weight_decay=0.5)
    done = fit(decoder, Lists([Stream([1, 2], pg=[0, 0], advantage=[0, 0], behaviour=[0, 0])]), optimizer=optimizer,
               objective=Objective(pg=1.0), schedule=lambda step: 1.0, steps=3)  # fmt: skip
    assert done == 1
    assert all(torch.equal(a, b) for a, b in zip(before, decoder.parameters(), strict=True))


def test_the_schedule_scales_the_rates_of_each_group():
    decoder, kept = model(), Kept()
    matrices, vectors = (
        [p for p in decoder.parameters() if p.dim() > 1],
        [p for p in decoder.parameters() if p.dim() < 2],
    )
    optimizer = torch.optim.SGD([{"params": matrices, "lr": 0.1}, {"params": vectors, "lr": 0.01}])
    seen = []
    fit(decoder, Lists(*[[Stream([1, 2], ce=[0, 1])]] * 3), objective=Objective(ce=1.0), optimizer=optimizer,
        schedule=lambda step: seen.append(step) or 1 / (1 + step), steps=2, track=kept)  # fmt: skip
    assert seen == [1, 2] and [row["lr"] for row in kept.rows] == pytest.approx([0.05, 0.1 / 3])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 / 3, 0.01 / 3])


def test_gradients_are_clipped_to_the_norm():
    streams = [Stream([1, 2, 3], ce=[0, 1, 1])]
    start = torch.cat([weight.detach().reshape(-1) for weight in model().parameters()])
    count = len(start)
    moved = {norm: trained(streams, Objective(ce=1.0), clip_norm=norm) for norm in (0.0, 0.5)}
    assert moved[0.0][1]["grad_norm"] == pytest.approx(moved[0.5][1]["grad_norm"]) and moved[0.5][1]["grad_norm"] > 0.6
    assert ((moved[0.5][0][:count] - start).norm() / 0.1).item() == pytest.approx(0.5, rel=1e-3)
    assert ((moved[0.0][0][:count] - start).norm() / 0.1).item() == pytest.approx(moved[0.0][1]["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("base", [None, "nf4"])
def test_bfloat16_is_in_the_forward_pass_alone(base):
    def curve(dtype: torch.dtype) -> list[float]:
        decoder, kept = model(), Kept()
        if base is not None:
            decoder = add_lora(decoder, LoRAConfig(rank=4, base=base))
        torch.manual_seed(0)
        values = nn.Linear(decoder.architecture.hidden_size, 1)
        optimizer = optimizer_for(nn.ModuleDict({"m": decoder, "v": values}), OptimizerSettings(lr=1e-2))
        fit(
            decoder, Lists(*[streams_of_all_kinds(count=6)] * 6), objective=EVERYTHING, optimizer=optimizer, steps=6,
            schedule=lambda step: 1.0, track=kept, values=values, dtype=dtype,
        )  # fmt: skip
        assert optimizer.defaults["fused"]
        states = [value for state in optimizer.state.values() for value in state.values()]
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        assert {each.dtype for each in (*trained, *(weight.grad for weight in trained), *states)} == {torch.float32}
        return [row["loss"] for row in kept.rows]

    exact, rounded = curve(torch.float32), curve(torch.bfloat16)
    assert rounded != exact and rounded == curve(torch.bfloat16)
    assert rounded[:3] == pytest.approx(exact[:3], rel=0.1)
    assert exact[-1] < exact[0] and rounded[-1] < rounded[0]


def test_comparisons_stay_in_one_forward_pass():
    streams = [Stream([1, 2, 3], pair=index % 3, label=1.0) for index in range(6)] + [Stream([1] * 50), Stream([1])]
    groups = micro_batches(streams, 7)
    assert sorted(len(stream) for group in groups for stream in group) == sorted(map(len, streams))
    for group in groups:
        numbers = {stream.pair for stream in group if stream.pair is not None}
        assert all(sum(stream.pair == number for stream in group) == 2 for number in numbers)
    assert [sum(map(len, group)) for group in groups] == [6, 6, 6, 50, 1]
    lengths = {
        most: [len(group) for group in micro_batches([Stream([1] * 3), Stream([1] * 4)], most)] for most in (6, 7)
    }
    assert lengths == {6: [1, 1], 7: [2]}


def test_packing_keeps_every_array_at_its_tokens():
    streams = streams_of_all_kinds()
    flat = packed(streams)
    for row, (start, length) in enumerate(zip(np.cumsum((0, *flat.lengths))[:-1], flat.lengths, strict=True)):
        (match,) = [one for one in streams if np.array_equal(one.ids, flat.ids[start : start + length])]
        assert np.array_equal(flat.arrays["advantage"][start : start + length], match.advantage)
        assert flat.positions[start : start + length].tolist() == list(range(length))
        assert set(flat.row[start : start + length]) == {row} and flat.ends[row] == start + length - 1
        assert flat.pair[row] == (-1 if match.pair is None else match.pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": []}, "ids came as .* expected a sequence of 1 or more token ids"),
        ({"ids": [[1], [2]]}, "ids came as int64 of shape"),
        ({"ids": [1, -2]}, "0 or above"),
        ({"ids": [1.5, 2.0]}, "ids came as float64"),
        ({"ids": [1, 2], "ce": [1]}, r"ce came as of shape \(1,\).*one number for each of 2 tokens"),
        ({"ids": [1, 2], "ce": [1, 1, 1]}, r"ce came as of shape \(3,\).*one number for each of 2 tokens"),
        ({"ids": [1, 2], "ce": [0, -1]}, "ce came as negative or not finite"),
        ({"ids": [1, 2], "ce": [0, np.nan]}, "ce came as negative or not finite"),
        ({"ids": [1, 2], "pg": [0, 1], "behaviour": [0, 0]}, "advantage came as missing"),
        ({"ids": [1, 2], "pg": [0, 1], "advantage": [0, 0]}, "behaviour came as missing"),
        ({"ids": [1, 2], "pg": [0, 1], "advantage": [0, np.nan], "behaviour": [0, 0]}, "advantage came as not finite"),
        ({"ids": [1, 2], "ref_kl": [0, 1]}, "reference came as missing"),
        ({"ids": [1, 2], "value": [0, 1], "returns": [0, np.inf]}, "returns came as not finite"),
        ({"ids": [1, 2], "pair": 1}, "pair and label came as 1 and None"),
    ],
)
def test_a_stream_that_cannot_be_trained_on_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Stream(**arguments, source="file.jsonl:3")
    with pytest.raises(DataError, match=r"\(file\.jsonl:3\)"):
        Stream(**arguments, source="file.jsonl:3")


def test_the_first_token_never_counts():
    assert Stream([1, 2], ce=[1, 1]).ce.tolist() == [0, 1]
    assert Stream([1, 2], pg=[1, 1], advantage=[np.nan, 1], behaviour=[np.nan, -1]).pg.tolist() == [0, 1]


def test_a_token_outside_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="token id 96 came, and the model has 96 tokens"):
        trained([Stream([1, 96], ce=[0, 1])], Objective(ce=1.0))


def test_an_objective_that_trains_nothing_is_refused():
    with pytest.raises(ConfigError, match="trains nothing"):
        Objective()
    with pytest.raises(ConfigError, match="needs a pair_loss"):
        Objective(pair=1.0)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        Objective(ce=-1.0)
    with pytest.raises(ConfigError, match="divisor gp"):
        Objective(ce=1.0, divisors={"gp": 2.0})


def test_streams_are_kept_as_they_were(tmp_path):
    streams = streams_of_all_kinds(3)
    again = load_streams(save_streams(streams, tmp_path, 4))
    for before, after in zip(streams, again, strict=True):
        assert np.array_equal(before.ids, after.ids) and np.array_equal(before.old_values, after.old_values)
        assert (before.pair, before.label, before.group) == (after.pair, after.label, after.group)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 not a file of streams")
    with pytest.raises(DataError, match="holds no streams"):
        load_streams(tmp_path / "cut.npz")


RANK = """
import sys, torch
from torch import distributed
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meet", rank=int(sys.argv[2]), world_size=2)
from test_train_fit import EVERYTHING, trained
from train_tiny import streams_of_all_kinds
weights, told = trained(streams_of_all_kinds(), micro_tokens=20)
torch.save((weights, told if sys.argv[2] == "0" else None), f"{sys.argv[1]}/{sys.argv[2]}.pt")
"""


@pytest.mark.slow
def test_two_ranks_compute_what_one_process_does(tmp_path):
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(rank)], env=environment) for rank in (0, 1)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    whole, told = trained(streams_of_all_kinds())
    weights, metrics = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)), strict=True)
    assert torch.equal(*weights) and (weights[0] - whole).abs().max() < 1e-6
    for name in ("loss", "ce", "pg", "ref_kl", "value", "pair", "grad_norm", "sampler_gap"):
        assert metrics[0][name] == pytest.approx(told[name], rel=2e-6), name
