"""Adapters are trained, merged exactly, saved for PEFT and for the engine, and swapped while it answers."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine_tiny import in_blocks_of_4_bits
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_thread import EngineWorker
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, ModelFileError
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.lora import LoRALinear, LowRankUpdate, read_adapter
from firsthand.nn.nf4 import NF4, FourBitLinear, four_bits
from firsthand.nn.quant import BlockLinear, best_mode, pack
from firsthand.train.adapters.adapter_memory import training_memory
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import adapted, adapter_of, add_lora, merged, merged_state, with_adapter
from firsthand.train.adapters.save_adapter import save_adapter
from lora_tiny import base
from tiny import write_model

compiled = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")
IDS = torch.tensor([5, 17, 90, 3, 3, 41, 8])
KINDS = {
    "lora": LoRAConfig(rank=4),
    "rslora": LoRAConfig(rank=4, rank_stabilised=True),
    "dora": LoRAConfig(kind="dora", rank=4),
    "some": LoRAConfig(rank=3, alpha=5, targets=("q_proj", "layers.1.mlp.down_proj", "lm_head"), init="gaussian"),
}


def logprobs(model: Decoder, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model.logits(model(ids, torch.arange(len(ids)), Packed([len(ids)]))), -1)


def train(model: Decoder, steps: int = 6, rate: float = 1e-2) -> list[float]:
    """Train on one sequence by AdamW; returns the losses."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0), []
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model.logits(model(IDS, torch.arange(len(IDS)), Packed([len(IDS)])))
        loss = nn.functional.cross_entropy(logits[:-1], IDS[1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# -- training --


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_begins_as_nothing_learns_alone_and_merges_exactly(kind: str) -> None:
    model = base()
    before, frozen = logprobs(model), copy.deepcopy(dict(model.named_parameters()))
    add_lora(model, KINDS[kind])
    assert (logprobs(model) - before).abs().max() < 1e-5  # DoRA divides and multiplies by one length
    losses = train(model)
    assert losses[-1] < losses[0] - 0.5
    together = dict(model.named_parameters())
    for name, parameter in frozen.items():
        now = together[name] if name in together else together[name.replace(".weight", ".base.weight")]
        assert torch.equal(now, parameter), f"{name} is frozen"
    plain = merged(model)
    assert not any(isinstance(module, LoRALinear) for module in plain.modules())
    assert all(parameter.requires_grad for parameter in plain.parameters())
    wide = copy.deepcopy(model).double()
    assert (logprobs(merged(wide)) - logprobs(wide)).abs().max() < 1e-6
    assert (logprobs(plain) - logprobs(model)).abs().max() < 2e-5  # of a log-prob, in float32 with logits of about 20
    assert (logprobs(plain) - before).abs().max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_biases_stay_outside_of_the_adapter(kind: str) -> None:
    architecture = replace(base().architecture, qkv_bias=True, mlp_bias=True)
    model = initialise(Decoder(architecture), seed=0, std=0.3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(len(name)))
    before = logprobs(model)
    rounded = add_lora(copy.deepcopy(model), LoRAConfig(rank=4, base="nf4", targets=("q_proj",)))
    add_lora(model, LoRAConfig(kind=kind, rank=4))  # type: ignore[arg-type]
    assert (logprobs(model) - before).abs().max() < 1e-5
    for each in (model, rounded):
        own = {weight.data_ptr() for weight in (*each.parameters(), *each.buffers())}
        biases = [weight for name, weight in merged_state(each).items() if name.endswith("bias")]
        assert len(biases) == 2 * 6 and not any(bias.data_ptr() in own for bias in biases), "copies"
    train(model)
    wide = copy.deepcopy(model).double()
    assert (logprobs(merged(wide)) - logprobs(wide)).abs().max() < 1e-6


def test_the_first_gradient_is_that_of_the_whole_matrix_seen_through_a() -> None:
    """dL/dB = scale dL/dW A^T, with dL/dW from full fine-tuning."""
    whole, model = base(), add_lora(base(), LoRAConfig(rank=4, alpha=6, targets=("up_proj",)))
    for each in (whole, model):
        nn.functional.cross_entropy(each.logits(each(IDS, torch.arange(7), Packed([7])))[:-1], IDS[1:]).backward()
    module = model.layers[0].mlp.up_proj  # type: ignore[union-attr]
    expected = 1.5 * whole.layers[0].mlp.up_proj.weight.grad @ module.a.T  # type: ignore[union-attr]
    assert (module.b.grad - expected).abs().max() < 1e-5 * expected.abs().max()


def test_dropout_is_of_the_adapter_s_input_in_training_alone() -> None:
    model = add_lora(base(), LoRAConfig(rank=4, dropout=0.5))
    train(model, 2)
    model.eval()
    assert torch.equal(logprobs(model), logprobs(model))
    model.train()
    assert not torch.equal(logprobs(model), logprobs(model))
    untouched = add_lora(base(), LoRAConfig(rank=4, dropout=0.5)).train()
    assert torch.equal(logprobs(untouched), logprobs(base())), "the base sees all of its input"


def test_equal_seeds_draw_equal_adapters() -> None:
    one, same, other = (adapter_of(add_lora(base(), LoRAConfig(seed=seed))) for seed in (1, 1, 2))
    name = "layers.0.attention.q_proj.weight"
    assert torch.equal(one.deltas[name].a, same.deltas[name].a)
    assert not torch.equal(one.deltas[name].a, other.deltas[name].a)
    bound = 1 / math.sqrt(32)
    assert bound * 0.9 < one.deltas[name].a.abs().max() <= bound


def test_scales_are_those_of_the_papers() -> None:
    assert LoRAConfig(rank=16, alpha=32).scale == 2
    assert LoRAConfig(rank=16, alpha=32, rank_stabilised=True).scale == 8


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rank": 0}, "rank of the adapter is 0: expected 1 to 4096"),
        ({"alpha": math.inf}, "alpha of the adapter is inf"),
        ({"dropout": 1.0}, "dropout of the adapter is 1.0"),
        ({"kind": "loha"}, "kind of the adapter is 'loha': expected lora or dora"),
        ({"base": "int3"}, "base of the adapter is 'int3'"),
        ({"targets": ("q_porj",)}, "no matrix 'q_porj'; did you mean 'q_proj'"),
        ({"targets": ("embed",)}, "no matrix 'embed'"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        add_lora(base(), LoRAConfig(**settings))  # type: ignore[arg-type]


def test_targets_are_names_places_or_all() -> None:
    model = base()
    assert adapted(model, ("all",)) == list(model.matrices())
    assert adapted(model, ("q_proj", "layers.1.attention.q_proj")) == [
        "layers.0.attention.q_proj", "layers.1.attention.q_proj"
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="lm_head shares its matrix with the embedding"):
        adapted(base(tied=True), ("lm_head",))
    with pytest.raises(ConfigError, match="merge the model's adapter before"):
        add_lora(add_lora(model, LoRAConfig()), LoRAConfig())
    with pytest.raises(ConfigError, match="has no adapter"):
        adapter_of(base())


def test_memory_is_counted() -> None:
    full = training_memory(base(tied=True))
    assert (full.trainable, full.frozen) == (sum(p.numel() for p in base(tied=True).parameters()), 0)
    assert full.optimizer_bytes == 8 * full.trainable and full.gradient_bytes == full.weight_bytes == 4 * full.trainable
    model = add_lora(base(tied=True), LoRAConfig(rank=2, targets=("q_proj",)))
    part = training_memory(model)
    assert part.trainable == 2 * 2 * (32 + 32)
    assert part.frozen == full.trainable
    assert part.trained_bytes == 12 * part.trainable
    small = training_memory(add_lora(base(tied=True), LoRAConfig(rank=2, targets=("q_proj",), base="nf4")))
    assert (small.trainable, small.frozen) == (part.trainable, part.frozen)
    matrices = sum(math.prod(matrix.shape(model.architecture)) for matrix in model.matrices().values())
    assert part.weight_bytes - small.weight_bytes == pytest.approx(matrices * (4 - 4.5 / 8), rel=0.05)
    assert "are trained (" in str(part)


# -- 4 bits --


def test_the_levels_are_quantiles_of_a_normal_distribution() -> None:
    """Appendix E of the paper: 8 levels above 0 and 7 below, between equally probable cuts, with a 0 of their own."""
    from scipy.stats import norm

    offset = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    above = norm.ppf(torch.linspace(offset, 0.5, 9)[:-1].numpy())
    below = -norm.ppf(torch.linspace(offset, 0.5, 8)[:-1].numpy())
    levels = sorted([*above, 0.0, *below])
    assert torch.tensor(levels) / max(levels) == pytest.approx(torch.tensor(NF4), abs=2e-6)


def test_each_weight_is_rounded_to_the_nearest_level_of_its_block() -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.01, 3, 24)[:, None]
    packed = four_bits(weight, double=False)
    blocks, found = weight.reshape(-1, 64), packed.values().reshape(-1, 64)
    choices = torch.tensor(NF4) * blocks.abs().amax(1)[:, None, None]
    best = (blocks[..., None] - choices).abs().amin(-1)
    assert ((found - blocks).abs() <= best + 1e-6).all()
    assert torch.isin(found[0], choices[0]).all()
    assert packed.bits_per_weight == 4 + 32 / 64


def test_double_quantisation_costs_an_eighth_of_a_bit_and_little_error() -> None:
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(1))
    single, double = four_bits(weight, double=False), four_bits(weight)
    assert double.bits_per_weight == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=2e-4)  # 4.127, and one mean
    errors = [(each.values() - weight).square().mean().item() for each in (single, double)]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    levels = [(four_bits(weight, levels=name).values() - weight).square().mean().item() for name in ("nf4", "int4")]
    assert levels[0] < 0.8 * levels[1], "NF4 is nearer to normal weights than evenly spaced levels"


@pytest.mark.parametrize("shape", [(1, 1), (3, 21), (5, 64), (257, 64), (2, 128)])
def test_shapes_that_fill_no_whole_block_or_group_come_back(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 4.0
    packed = four_bits(weight)
    assert packed.values().shape == shape
    assert (packed.values() - weight).abs().max() <= 4.0 * 0.155  # half the widest gap, and the absmax's rounding
    assert torch.equal(four_bits(torch.zeros(shape)).values(), torch.zeros(shape))


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ConfigError, match="no finite numbers"):
        four_bits(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ConfigError, match="4 bits are for matrices"):
        four_bits(torch.zeros(4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_learns_over_four_bits_and_merges_into_floats(kind: str) -> None:
    model = add_lora(base(tied=True), LoRAConfig(kind=kind, rank=4, base="nf4"))  # type: ignore[arg-type]
    assert sum(isinstance(module, FourBitLinear) for module in model.modules()) == 14
    losses = train(model)
    assert losses[-1] < losses[0] - 0.5
    plain = merged(model)
    assert (logprobs(plain) - logprobs(model)).abs().max() < 2e-5
    state = merged_state(model)
    assert state.keys() == base(tied=True).state_dict().keys()


@pytest.mark.slow
@compiled
def test_gradients_pass_through_packed_weights_to_their_inputs() -> None:
    model = in_blocks_of_4_bits(base(tied=True))
    assert isinstance(model.layers[0].mlp.up_proj, BlockLinear)  # type: ignore[union-attr]
    for module in (model.layers[0].mlp.up_proj, pack(nn.Sequential(nn.Linear(32, 8)), "float16")[0]):  # type: ignore[union-attr,index]
        x = torch.randn(3, 32, requires_grad=True)
        out = module(x)
        (out * torch.arange(out.shape[1])).sum().backward()
        expected = torch.arange(out.shape[1]).float().expand(3, -1) @ module.weight
        assert (x.grad - expected).abs().max() < 1e-4 * expected.abs().max()
        assert torch.equal(out.detach(), module(x.detach())), "the same product as without a gradient"
    add_lora(model, LoRAConfig(rank=4))
    losses = train(model)
    assert losses[-1] < losses[0] - 0.5
    first = model.layers[0].attention.q_proj  # type: ignore[union-attr]
    assert first.b.grad.abs().max() > 0, "gradients reach the first layer through the blocks above"
    assert (logprobs(merged(model)) - logprobs(model)).abs().max() < 0.2  # activations are no longer rounded
    with pytest.raises(ConfigError, match="is quantised already"):
        add_lora(in_blocks_of_4_bits(base(tied=True)), LoRAConfig(base="nf4"))


# -- files --


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_read_back_as_it_was(kind: str, tmp_path: Path) -> None:
    model = add_lora(base(), KINDS[kind])
    train(model)
    place = tmp_path / "not" / "a"
    for _ in range(2):
        written = save_adapter(model, place, base="tiny", config=KINDS[kind])
    again = read_adapter(place, base())
    assert again.deltas.keys() == written.deltas.keys()
    for name, update in written.deltas.items():
        found = again.deltas[name]
        assert torch.equal(found.a, update.a) and torch.equal(found.b, update.b)
        assert found.scale == pytest.approx(update.scale, rel=1e-12)
        assert (found.magnitude is None) == (update.magnitude is None)
    for _ in range(2):
        weights.save(base(), tmp_path / "nor" / "m")
    loaded = weights.load(tmp_path / "nor" / "m", adapter=place)
    assert (logprobs(loaded) - logprobs(merged(model))).abs().max() < 1e-5
    assert not list(place.glob("*.part"))


def test_ranks_that_differ_go_to_the_patterns(tmp_path: Path) -> None:
    model = add_lora(base(), LoRAConfig(rank=4, targets=("q_proj", "k_proj")))
    module = model.layers[1].attention.k_proj  # type: ignore[union-attr]
    wider = LowRankUpdate(torch.ones(6, 32), torch.ones(16, 6), 0.75)
    model.layers[1].attention.k_proj = LoRALinear(module.base, wider)  # type: ignore[union-attr]
    save_adapter(model, tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["rank_pattern"] == {"model.layers.1.self_attn.k_proj": 6}
    assert settings["alpha_pattern"] == {"model.layers.1.self_attn.k_proj": 4.5}
    found = read_adapter(tmp_path, base()).deltas
    assert found["layers.1.attention.k_proj.weight"].scale == 0.75
    assert found["layers.0.attention.k_proj.weight"].scale == 8.0


def test_an_adapter_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    model = add_lora(base(), LoRAConfig(rank=4))
    with torch.no_grad():
        model.layers[0].mlp.up_proj.b[0, 0] = math.nan  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="no finite numbers: it is not saved"):
        save_adapter(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_adapter_for_another_model_is_one_sentence(tmp_path: Path) -> None:
    save_adapter(add_lora(base(), LoRAConfig(rank=4)), tmp_path, base="models/wide")
    other = Decoder(base().architecture.__class__(**{**vars(base().architecture), "hidden_size": 48}))
    with pytest.raises(
        ModelFileError, match=r"expected .* and \(48, r\) .* says that it was made for 'models/wide'"
    ) as raised:
        read_adapter(tmp_path, other)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"use_dora": False}, "lora_magnitude_vector' belongs to DoRA, and the settings do not say use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the base's own"),
        ({"use_bdlora": {"a": 1}}, "use_bdlora is set, which asks for block-diagonal LoRA"),
    ],
)
def test_settings_that_the_tensors_contradict_are_refused(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    save_adapter(add_lora(base(), LoRAConfig(kind="dora", rank=4)), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=expected):
        read_adapter(tmp_path, base())


def test_dora_beside_shared_weights_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save_adapter(add_lora(base(), LoRAConfig(kind="dora", rank=4)), tmp_path / "dora")
    engine = Engine(base(), EngineConfig(kv_memory_bytes=1 << 21))
    with pytest.raises(ConfigError, match=r"is a DoRA adapter.*merge it when the model is loaded, as MODEL\+lora:"):
        engine.load_adapter("dora", tmp_path / "dora")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_what_we_save_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights.save(base(), tmp_path / "m")
    model = add_lora(base(), KINDS[kind])
    train(model)
    save_adapter(model, tmp_path / "a", base=str(tmp_path / "m"), config=KINDS[kind])
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "m"), tmp_path / "a").eval()
    with torch.no_grad():
        found = torch.log_softmax(theirs(IDS[None]).logits[0].float(), -1)
    assert (found - logprobs(model)).abs().max() < 5e-5
    saved, ours = tmp_path / "b", load_file(tmp_path / "a" / "adapter_model.safetensors")
    theirs.save_pretrained(saved)
    again = load_file(saved / "adapter_model.safetensors")
    again.pop("base_model.model.lm_head.base_layer.weight", None)  # PEFT adds the head's own weights
    assert again.keys() == ours.keys() and all(torch.equal(again[name], ours[name]) for name in ours)
    assert read_adapter(saved, base()).deltas.keys() == adapter_of(model).deltas.keys()


# -- in a running engine --


@pytest.mark.slow
def test_a_new_version_is_swapped_in_while_streams_go_on_and_none_is_dropped() -> None:
    """Streams keep the version they began with, bit for bit; what comes later gets the new one."""

    async def answers(swap: bool) -> tuple[list[list[Output]], dict[str, int]]:
        model = base(tied=True)
        trained = add_lora(base(tied=True), LoRAConfig(rank=4))
        train(trained, 3)
        engine = Engine(
            model, EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32", max_adapters=3)
        )
        engine.load_adapter("policy", adapter_of(trained), version=1)
        with EngineWorker(engine) as worker:
            started = asyncio.Event()

            async def follow(seed: int) -> list[Output]:
                request = Request(
                    (5, 17, 90, seed), Sampling(max_tokens=60, temperature=1.0, seed=seed), adapter="policy"
                )
                found = []
                async for output in worker.submit(request):
                    found.append(output)
                    if len(found) == 5:
                        started.set()
                return found

            streams = [asyncio.create_task(follow(seed)) for seed in range(4)]
            await started.wait()
            assert not any(stream.done() for stream in streams)
            if swap:
                train(trained, 3)
                await worker.load_adapter("policy", adapter_of(trained), version=2, replace=True)
                streams.append(asyncio.create_task(follow(0)))
            return [await stream for stream in streams], dict(engine.adapters.versions)

    plain, _ = asyncio.run(answers(swap=False))
    swapped, versions = asyncio.run(answers(swap=True))
    assert versions == {"policy": 2}

    def ids(outputs: list[Output]) -> list[tuple[int, ...]]:
        return [output.token_ids for output in outputs]

    assert [sum(map(len, ids(outputs))) for outputs in swapped] == [60] * 5
    for before, after in zip(plain, swapped, strict=False):
        assert [token for each in ids(before) for token in each] == [token for each in ids(after) for token in each]
        assert {output.adapter_version for output in after} == {1}
    assert {output.adapter_version for output in swapped[4]} == {2}
    assert [t for each in ids(swapped[4]) for t in each] != [t for each in ids(swapped[0]) for t in each]
    assert all(output.error is None for outputs in swapped for output in outputs)


def test_merged_weights_go_into_a_running_engine() -> None:
    """DoRA, which cannot stay beside shared weights, is swapped in as new weights."""
    trained = add_lora(base(tied=True), LoRAConfig(kind="dora", rank=4))
    train(trained, 3)
    engine = Engine(base(tied=True), EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32"))
    engine.add(Request((5, 17, 90), Sampling(max_tokens=6)))
    outputs = engine.step() + engine.step()
    engine.load(merged_state(trained), 1)
    while engine.has_work:
        outputs += engine.step()
    assert [output.version for output in outputs] == [0, 0, 1, 1, 1, 1]
    found = engine.score([5, 17, 90], [[3, 41]])[0].logprobs
    expected = logprobs(trained, torch.tensor([5, 17, 90, 3, 41]))
    assert found == pytest.approx([expected[2, 3].item(), expected[3, 41].item()], abs=1e-4)


# -- from the command line --


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [("--adapter", "lora"), ("--adapter", "dora", "--base-weights", "nf4")], ids=["lora", "qdora"]
)
def test_sft_trains_an_adapter_which_is_named_by_its_run(extra: tuple[str, ...], tmp_path: Path, cli: Any) -> None:
    house = write_model(tmp_path / "m")
    rows = [{"prompt": f"What is {n} + 1?", "completion": f"{n + 1}"} for n in range(8)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    code, told, _ = cli(
        "train", "sft", str(tmp_path / "d.jsonl"), "--model", str(house), "--out", str(out), "--steps", "4", "--lr", "1e-2",
        "--rank", "4", "--batch-size", "4", "--checkpoint-every", "2", *extra,
    )  # fmt: skip
    assert code == 0 and "parameters are trained (" in told
    model = weights.load(house)
    adapter = read_adapter(out, model)  # the run's own folder
    assert adapter.deltas.keys() == {f"{place}.weight" for place in model.matrices()}
    assert any(update.b.abs().max() > 0 for update in adapter.deltas.values())
    saved = weights.load(out / "model")
    if extra == ("--adapter", "lora"):
        assert (logprobs(weights.load(house, adapter=out)) - logprobs(saved)).abs().max() < 1e-5
    assert torch.equal(saved.embed.weight, model.embed.weight)
    with pytest.raises(ConfigError, match="base_weights is 'blocks', which needs an adapter and a GGUF file"):
        with_adapter(model, AdapterSettings("lora", base_weights="blocks"), seed=0)
