"""Every recipe's options reach its loss, and every setting is refused beyond its limit and taken at it."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from firsthand.errors import ConfigError
from firsthand.train.adapters.adapter_memory import TrainingMemory, training_memory
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import MAX_RANK, LoRAConfig
from firsthand.train.live_line import LiveLine, _duration, line_of
from firsthand.train.losses import policy_losses as policies
from firsthand.train.objective import Comparisons, Objective, Targets
from firsthand.train.policy_objective import watched
from firsthand.train.preference_settings import PreferenceSettings, expect_above_0
from firsthand.train.preference_training import PairNumbers, in_pairs, ordered_right
from firsthand.train.recipe_settings import LoopSettings, ModelSettings, OptimizerSettings
from firsthand.train.rollout_settings import RolloutSettings, expect_groups
from firsthand.train.scaling.sweep_config import SweepConfig
from firsthand.train.schedules import ScheduleSettings, cosine, wsd
from firsthand.train.streams import Stream


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        act()
    return str(raised.value)


# -- objectives --

LOGPROBS, OLD, ADVANTAGE = (
    tensor([-1.0, -2.0, -0.5, -3.0]),
    tensor([-1.6, -1.0, -0.5, -2.0]),
    tensor([1.0, 1.0, -2.0, -1.0]),
)
ROW = tensor([0, 0, 1, 1])


def targets(**given: Tensor) -> Targets:
    zeros = dict.fromkeys(("ce", "pg", "ref_kl", "value", "reference", "returns", "old_values"), torch.zeros(4))
    return Targets(**{"ids": torch.arange(4), "row": ROW, "advantage": ADVANTAGE, "behaviour": OLD, **zeros, **given})


def losses(recipe: str, **settings: Any) -> list[float]:
    """The policy loss of each token under the recipe's objective with these settings."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    found: list[float] = module.objective(module.Config("x", **settings)).policy_loss(targets(), LOGPROBS).tolist()
    return found


def surrogate(ratio: list[float], low: float, high: float) -> list[float]:
    pairs = zip(ratio, ADVANTAGE.tolist(), strict=True)
    return [-min(r * a, min(max(r, 1 - low), 1 + high) * a) for r, a in pairs]


def test_the_clips_of_each_algorithm_reach_its_loss() -> None:
    ratio = [math.exp(0.6), math.exp(-1), 1.0, math.exp(-1)]
    assert losses("grpo", clip=0.3) == losses("dr_grpo", clip=0.3) == losses("ppo", clip=0.3)
    assert losses("grpo", clip=0.3) == pytest.approx(surrogate(ratio, 0.3, 0.3))
    assert losses("dapo", clip_low=0.1, clip_high=0.5) == pytest.approx(surrogate(ratio, 0.1, 0.5))
    weights = [1.5, max(math.exp(-1), 0.6), 1.0, 0.6]
    assert losses("cispo", clip_low=0.4, clip_high=0.5) == pytest.approx(
        [-w * a * p for w, a, p in zip(weights, ADVANTAGE.tolist(), LOGPROBS.tolist(), strict=True)]
    )
    means = [math.exp((0.6 - 1) / 2)] * 2 + [math.exp((0 - 1) / 2)] * 2
    assert losses("gspo", clip_low=0.1, clip_high=0.2) == pytest.approx(surrogate(means, 0.1, 0.2))
    products = [math.exp(0.6 - 1)] * 2 + [math.exp(-1)] * 2
    assert losses("rloo", clip=0.25) == pytest.approx(surrogate(products, 0.25, 0.25))
    assert losses("reinforce") == pytest.approx((-ADVANTAGE * LOGPROBS).tolist())


def objective(recipe: str, **settings: Any) -> Objective:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    found: Objective = module.objective(module.Config("x", **settings))
    return found


def test_the_weights_of_each_algorithm_are_those_of_its_settings() -> None:
    def parts(made: Objective) -> tuple[float, ...]:
        return made.ce, made.pg, made.ref_kl, made.value, made.pair, made.soft

    for recipe in ("grpo", "dr_grpo"):
        assert parts(objective(recipe, kl=0.3)) == (0, 1, 0.3, 0, 0, 0)
    for recipe in ("dapo", "cispo", "gspo", "rloo", "reinforce"):
        assert parts(objective(recipe)) == (0, 1, 0, 0, 0, 0)
    assert parts(objective("ppo", value=0.7)) == (0, 1, 0, 0.7, 0, 0)
    assert parts(objective("ppo", ptx=Path("x"), ptx_weight=0.4)) == (0.4, 1, 0, 0.1, 0, 0)
    assert parts(objective("rejection")) == (1, 0, 0, 0, 0, 0)
    sampled = RolloutSettings(prompts=3, group_size=4, minibatches=2, max_tokens=10)
    assert objective("dr_grpo", rollouts=sampled).answer_length == 10 and objective("grpo").answer_length is None
    assert objective("grpo", rollouts=RolloutSettings(temperature=0.5)).policy_logprobs is not None
    assert objective("grpo", rollouts=RolloutSettings(temperature=0.5, correct_to_model=True)).policy_logprobs is None
    values = objective("ppo", value_clip=0.5).value_loss
    clipped = values(
        targets(old_values=tensor([0.0, 0, 0, 0]), returns=tensor([2.0, 1, 0, -1])), tensor([1.0, 0.2, 0.4, 0.6])
    )
    assert clipped.tolist() == pytest.approx([0.5 * 1.5**2, 0.5 * 0.8**2, 0.5 * 0.4**2, 0.5 * 1.6**2])


def test_what_is_watched_of_a_token_is_its_ratio_kl_surprisal_and_gap() -> None:
    found = watched(targets(behaviour=tensor([-1.0, -1.5, -0.5, -3.0001])), LOGPROBS)
    assert found["ratio"].tolist() == pytest.approx([1, math.exp(-0.5), 1, math.exp(1e-4)], rel=1e-5)
    assert found["approx_kl"].tolist() == pytest.approx([0, math.exp(-0.5) - 1 + 0.5, 0, 0], abs=1e-6)
    assert found["surprisal"].tolist() == [1.0, 2.0, 0.5, 3.0] and found["gap_share"].tolist()[:3] == [0, 1, 0]


def test_losses_of_answers_number_them_from_their_rows() -> None:
    assert policies.sum_of_sequences(tensor([1.0, 2, 4, 8]), ROW).tolist() == [3, 12]
    assert policies.mean_of_sequences(tensor([1.0, 2, 4, 8]), ROW).tolist() == [1.5, 6]


# -- preferences --

NUMBERS = PairNumbers(*(tensor([value], dtype=torch.float64) for value in (-4.0, -9.0, -5.0, -6.0, 2.0, 3.0)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pair_loss(recipe: str, **settings: Any) -> float:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    return float(module.loss(NUMBERS, module.Config("x", **settings)))


def test_the_options_of_pair_losses_reach_them() -> None:
    assert [float(each) for each in (*NUMBERS.ratios, *NUMBERS.means)] == [1.0, -3.0, -2.0, -3.0]
    margin = 0.5 * 4
    smooth = -0.8 * math.log(sigmoid(margin)) - 0.2 * math.log(sigmoid(-margin))
    assert pair_loss("dpo", beta=0.5, label_smoothing=0.2) == pytest.approx(smooth)
    assert pair_loss("ipo", beta=0.25) == pytest.approx((4 - 2) ** 2)
    assert pair_loss("ipo", beta=0.25, per_token=True) == pytest.approx((0.5 + 1 - 2) ** 2)
    assert pair_loss("simpo", beta=3.0, margin=0.5) == pytest.approx(-math.log(sigmoid(3 * 1 - 0.5)))
    odds = [math.log(math.exp(mean) / (1 - math.exp(mean))) for mean in (-2.0, -3.0)]
    chosen = 2.0  # the cross-entropy of the chosen answer's tokens
    ratio = -0.4 * math.log(sigmoid(odds[0] - odds[1]))
    assert pair_loss("orpo", weight=0.4) == pytest.approx(ratio + chosen)


def comparisons(**given: Any) -> Comparisons:
    body = {"pair": tensor([4, 2, 2, 4]), "label": tensor([1.0, -1, 1, -1]), "logprob": tensor([-1.0, -2, -3, -4]),
            "reference": tensor([-1.5, -1, -1, -1]), "length": tensor([1.0, 2, 3, 4]), "value": None}  # fmt: skip
    return Comparisons(**{**body, **given})


def test_pairs_are_put_together_by_their_number() -> None:
    pairs = in_pairs(comparisons())
    assert (pairs.chosen.tolist(), pairs.rejected.tolist()) == ([-3, -1], [-2, -4])
    assert (pairs.chosen_reference.tolist(), pairs.rejected_reference.tolist()) == ([-1, -1.5], [-1, -1])
    assert (pairs.chosen_length.tolist(), pairs.rejected_length.tolist()) == ([3, 1], [2, 4])


def test_kto_and_reward_models_take_their_weights() -> None:
    kto, reward = (importlib.import_module(f"firsthand.train.recipes.{name}") for name in ("kto", "reward"))
    config = kto.Config("x", beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    expected = [2 * sigmoid(-0.25), 3 * sigmoid(-0.5), 2 * sigmoid(1.0), 3 * sigmoid(-1.5)]
    assert kto.loss(comparisons(), config).tolist() == pytest.approx(expected)
    ranked = comparisons(label=tensor([2.0, 1, 3, 1]), value=tensor([0.5, 1.0, -1.0, 0.0]), pair=tensor([7, 9, 9, 9]))
    found = reward.loss(ranked, reward.Config("x", centering=0.1)).tolist()
    pairs = [(-1.0, 1.0), (-1.0, 0.0)]
    assert found == pytest.approx([0.0, sum(-math.log(sigmoid(a - b)) + 0.1 * (a + b) ** 2 for a, b in pairs) / 2])

    class Scored:
        def scores(self, sequences: Any) -> list[float]:
            return [float(ids[0]) for ids in sequences]

    rows = [[Stream([3, 0]), Stream([2, 0]), Stream([2, 0])], [Stream([1, 0]), Stream([5, 0])]]
    assert ordered_right(Scored(), rows) == 0.5, "of four pairs, those of 3 before both 2s"  # type: ignore[arg-type]


# -- limits of settings --

LIMITS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (LoopSettings, {"steps": 0, "micro_tokens": 1, "clip_norm": 0, "checkpoint_every": 0, "keep": 1},
     {"steps": -1, "micro_tokens": 0, "clip_norm": -0.1, "checkpoint_every": -1, "keep": 0}),
    (OptimizerSettings, {"lr": 0, "beta1": 0, "beta2": 0, "momentum": 0, "weight_decay": 0},
     {"lr": -1, "beta1": -0.1, "beta2": -0.1, "momentum": -0.1, "eps": 0, "weight_decay": -1}),
    (OptimizerSettings, {"lr": 999, "beta1": 0.999, "beta2": 0.999, "momentum": 0.999, "eps": 0.5, "weight_decay": 999},
     {"lr": 1e3, "beta1": 1, "beta2": 1, "momentum": 1, "eps": 1, "weight_decay": 1e3}),
    (ScheduleSettings, {"warmup_steps": -1, "decay_steps": 0, "final_lr": 0},
    {"warmup_steps": -2, "decay_steps": -1, "final_lr": -0.1}),
    (ScheduleSettings, {"final_lr": 1}, {"final_lr": 1.1}),
    (ModelSettings, {"layers": 1, "hidden_size": 12, "heads": 1, "context": 2},
    {"layers": 0, "hidden_size": 0, "heads": 0, "context": 1}),
    (ModelSettings, {}, {"hidden_size": 18}),
    (PreferenceSettings, {"batch_size": 1, "holdout": 0}, {"batch_size": 0, "holdout": -0.1}),
    (PreferenceSettings, {"holdout": 0.99}, {"holdout": 1}),
    (LoRAConfig, {"rank": 1, "alpha": 0.1, "dropout": 0},
    {"rank": 0, "alpha": 0, "dropout": -0.1, "kind": "x", "init": "x", "base": "x"}),
    (LoRAConfig, {"rank": MAX_RANK, "dropout": 0.99},
    {"rank": MAX_RANK + 1, "dropout": 1, "alpha": math.inf, "targets": ()}),
    (SweepConfig, {"layers": 1, "context": 2, "texts": 1, "learning_rate": 0.99, "widths": (8, 16),
    "tokens": (5 * 1024, 6 * 1024)},
     {"layers": 0, "context": 1, "texts": 0, "eval_texts": 0, "learning_rate": 1, "widths": (8, 8),
     "tokens": (5 * 1024 - 1, 9999)}),
    (SweepConfig, {}, {"learning_rate": 0, "widths": (8, 12), "tokens": (9999, 9999)}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "taken", "out"), LIMITS)
def test_a_setting_is_taken_at_its_limit_and_refused_beyond(
    make: Any, taken: dict[str, Any], out: dict[str, Any]
) -> None:
    for name, value in taken.items():
        made = make(**({name: value} if name != "context" or make is not SweepConfig else {name: value, "texts": 512}))
        assert getattr(made, name) == value
    for name, value in out.items():
        said = refused(lambda n=name, v=value: make(**{n: v}))  # type: ignore[misc]
        assert f"{name}" in said and "expected" in said, said


def test_recipes_refuse_what_they_cannot_take() -> None:
    for recipe, field, bad, good in (
        ("sft", "batch_size", 0, 1), ("sft", "eval_every", 0, 1), ("sft", "context", -1, 0), ("sft", "holdout", 1, 0.9),
        ("sft", "epochs", 0, 0.1),
        ("pretrain", "batch_tokens", 0, 1), ("pretrain", "eval_every", 0, 1), ("pretrain", "vocab_size", 258, 259),
        ("dpo", "beta", 0, 0.1), ("dpo", "label_smoothing", 0.5, 0.49), ("dpo", "label_smoothing", -0.1, 0),
        ("ipo", "beta", math.inf, 1),
        ("kto", "beta", -1, 1), ("simpo", "beta", math.nan, 1),
    ):  # fmt: skip
        module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
        module.Config("x", **{field: good})
        assert f"{field} is {bad}: expected" in refused(lambda m=module, f=field, b=bad: m.Config("x", **{f: b}))  # type: ignore[misc]
    distill = importlib.import_module("firsthand.train.recipes.distill").Config
    whole = {"teacher": "t", "model": "m"}
    distill("x", **whole, beta=0.01, temperature=0.1, hard=0.0, loop=LoopSettings(steps=3), epochs=0)
    for wrong in ({"teacher": ""}, {"model": ""}, {"beta": 0}, {"beta": 1}, {"temperature": 0}, {"temperature": 1e3},
        {"hard": 1},
                  {"hard": -0.1}, {"epochs": 0}, {"batch_size": 0}):  # fmt: skip
        assert "expected" in refused(lambda w=wrong: distill("x", **{**whole, **w}))  # type: ignore[misc]
    sft = importlib.import_module("firsthand.train.recipes.sft").Config
    assert sft("x", epochs=0, loop=LoopSettings(steps=1)).epochs == 0
    pretrain = importlib.import_module("firsthand.train.recipes.pretrain").Config
    assert refused(lambda: pretrain(("x",), loop=LoopSettings(steps=0))) == "steps is 0: expected 1 or more"
    ppo = importlib.import_module("firsthand.train.recipes.ppo").Config
    assert "value_init is reward, and there is no reward model" in refused(lambda: ppo("x", value_init="reward"))
    for recipe in ("grpo", "dr_grpo", "dapo", "cispo", "gspo", "rloo"):
        config = importlib.import_module(f"firsthand.train.recipes.{recipe}").Config
        assert "group_size is 1: rollouts of a task are compared" in refused(
            lambda c=config: c("x", rollouts=RolloutSettings(group_size=1))
        )  # type: ignore[misc]
    expect_groups(RolloutSettings(group_size=2))
    expect_above_0("x", 1e-9)


def test_an_adapters_settings_are_those_of_its_config() -> None:
    assert AdapterSettings().config(3) is None
    made = AdapterSettings("rslora", rank=4, alpha=6.0, dropout=0.5, targets=("q_proj",), base_weights="nf4").config(3)
    assert made == LoRAConfig("lora", 4, 6.0, True, 0.5, ("q_proj",), "kaiming", "nf4", 3) and made.scale == 3.0
    dora = AdapterSettings("dora", base_weights="blocks", rank=4, alpha=6.0).config(0)
    assert dora is not None and (dora.kind, dora.base, dora.rank_stabilised, dora.scale) == ("dora", "kept", False, 1.5)
    assert "give --adapter lora, rslora or dora too" in refused(lambda: AdapterSettings(begin_with=Path("x")))


def test_a_fresh_models_shape_follows_from_its_settings() -> None:
    made = ModelSettings(layers=3, hidden_size=48, heads=6, kv_heads=2, context=9, tie_embeddings=False).architecture(
        77
    )
    assert (
        made.vocab_size,
        made.hidden_size,
        made.intermediate_size,
        made.num_layers,
        made.num_heads,
        made.num_kv_heads,
    ) == (77, 48, 128, 3, 6, 2)
    assert (made.head_dim, made.max_position, made.tie_embeddings, len(made.windows), len(made.ropes)) == (
        8,
        9,
        False,
        3,
        3,
    )
    plain = ModelSettings(hidden_size=36, heads=3, intermediate_size=50).architecture(5)
    assert (plain.num_kv_heads, plain.intermediate_size) == (3, 50)
    assert ModelSettings(hidden_size=36, heads=3).architecture(5).intermediate_size == 96 == 36 * 8 // 3


# -- schedules, memory, the live line --


def test_a_schedule_takes_its_steps_from_the_run() -> None:
    def rates(steps: int, *at: int, **settings: Any) -> list[float]:
        made = ScheduleSettings(**settings).over(steps)
        return [made(step) for step in at]

    assert rates(40, 1, 2, 3, 40, warmup_steps=-1, schedule="constant") == [0.5, 1, 1, 1]
    assert rates(10, 1, 10, schedule="constant") == [1, 1]
    assert rates(10, 8, 9, 10, schedule="wsd", final_lr=0.2) == pytest.approx([1, 0.6, 0.2])
    assert rates(10, 2, 4, 6, 8, 10, schedule="wsd", warmup_steps=4, decay_steps=6, final_lr=0) == pytest.approx(
        [0.5, 1, 4 / 6, 2 / 6, 0]
    )
    assert rates(10, 2, 6, 10, warmup_steps=2, final_lr=0.5) == pytest.approx([1, 0.75, 0.5])
    assert "warm-up and decay take 11 of 10 steps" in refused(
        lambda: rates(10, schedule="wsd", warmup_steps=4, decay_steps=7)
    )
    assert "take 11 of 10 steps" in refused(lambda: rates(10, warmup_steps=11)) and rates(10, 10, warmup_steps=10) == [
        1
    ]
    assert cosine(50, 40, final=0.1) == pytest.approx(0.1) and wsd(50, 40, decay_steps=3, final=0.3) == pytest.approx(
        0.3
    )


def test_memory_counts_trainable_and_frozen_parameters_in_bytes() -> None:
    model = torch.nn.Linear(3, 5)
    model.bias.requires_grad_(False)
    model.register_buffer("more", torch.zeros(2, dtype=torch.float16))
    memory = training_memory(model)
    assert (
        memory == TrainingMemory(15, 5, 80 + 4, 60, 120)
        and memory.trained_bytes == 180
        and memory.trainable_share == 0.75
    )
    assert str(replace(memory, weight_bytes=1_234_000_000)) == (
        "15 of 20 parameters are trained (75.0%); weights 1,234.00 MB, gradients and optimizer 0.00 MB, together 1,234.00 MB"
    )


def test_the_live_line_shows_what_is_due_and_the_time_left() -> None:
    now = [0.0]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    line = LiveLine(100, shown, clock=lambda: now[0])
    for step, at in ((1, 0.0), (2, 0.05), (3, 0.1), (4, 0.12)):
        now[0] = at
        line.log({"loss": step, **({"held_out_loss": 2.0} if step == 4 else {})}, step=step)
    assert shown.getvalue() == (
        "\r\x1b[Kstep 1/100  loss 1.0000\r\x1b[Kstep 3/100  loss 3.0000  5 s left"
        "\r\x1b[Kstep 4/100  loss 4.0000  held-out loss 2.0000  4 s left\n"
    )
    plain = io.StringIO()
    line = LiveLine(100, plain, clock=lambda: 0.0)
    for step in (1, 5, 7, 10, 100):
        line.log({}, step=step)
    assert [each.split("  ")[0] for each in plain.getvalue().splitlines()] == [
        "step 5/100",
        "step 10/100",
        "step 100/100",
    ]
    assert [_duration(seconds) for seconds in (89.4, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]
    names = (
        "tokens_per_s",
        "lr",
        "grad_norm",
        "pair_accuracy",
        "sampler_gap",
        "answer_tokens",
        "reward",
        "bits_per_byte",
    )
    assert line_of(dict.fromkeys((*names, "held_out_loss", "loss"), 0.0), 0, 9, 0.0) == (
        "step 0/9  loss 0.0000  held-out loss 0.0000  bits per byte 0.0000  reward 0.000  tokens/answer 0.0  sampler gap "
        "0.0e+00  pairs in order 0.00  gradient norm 0.00  lr 0.00e+00  tokens/s 0  0 s left"
    ), "a number of 0 is shown too"
    told = {"reward": 0.5, "answer_tokens": 3.14, "sampler_gap": 1e-5, "pair_accuracy": 0.875, "grad_norm": 1.5, "lr": 3e-4,
            "tokens_per_s": 12345.6, "bits_per_byte": 1.25, "other": 1}  # fmt: skip
    assert line_of(told, 3, 3, 9.0) == (
        "step 3/3  loss nan  bits per byte 1.2500  reward 0.500  tokens/answer 3.1  sampler gap 1.0e-05  pairs in order "
        "0.88  gradient norm 1.50  lr 3.00e-04  tokens/s 12,346"
    )
