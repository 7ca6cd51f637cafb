"""Settings of training at, below and above each limit, with the sentence that refuses them; and what follows from them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError
from firsthand.sampling import Sampling
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.optimizers import Muon, optimizer_for
from firsthand.train.preference_settings import preference_loop, preference_optimizer
from firsthand.train.recipe_settings import LoopSettings, ModelSettings, OptimizerSettings
from firsthand.train.rollout_settings import (
    RolloutSettings,
    expect_groups,
    policy_loop,
    policy_optimizer,
    policy_schedule,
)
from firsthand.train.scaling.sweep_config import SweepConfig
from firsthand.train.schedules import ScheduleSettings
from train_tiny import model


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        make()
    return str(raised.value)


def config_of(recipe: str, **given: Any) -> Any:
    return importlib.import_module(f"firsthand.train.recipes.{recipe}").Config(**given)


NEEDED = {
    "sft": {"data": "x"}, "distill": {"data": "x", "teacher": "t", "model": "m"}, "selfrag": {"data": "x"}, "toolformer": {},
    "pretrain": {"data": ("x",)}, "toy_player": {},
}  # fmt: skip
LIMITS = [
    # recipe, setting, values that are taken, values that are not, what is expected
    ("sft", "epochs", (1e-9,), (0.0, -1.0), "above 0"),
    ("sft", "batch_size", (1,), (0,), "1 or more"),
    ("sft", "eval_every", (1,), (0,), "1 or more"),
    ("sft", "context", (0,), (-1,), "0 or more"),
    ("sft", "holdout", (0.0, 0.999), (-0.001, 1.0), "from 0 to below 1"),
    ("distill", "beta", (0.001, 0.999), (0.0, 1.0), "above 0 and below 1"),
    ("distill", "temperature", (0.001, 999.0), (0.0, 1000.0), "above 0"),
    ("distill", "hard", (0.0, 0.999), (-0.001, 1.0), "from 0 to below 1"),
    ("distill", "epochs", (1e-9,), (0.0,), "above 0"),
    ("distill", "batch_size", (1,), (0,), "1 or more"),
    ("distill", "eval_every", (1,), (0,), "1 or more"),
    ("distill", "context", (0,), (-1,), "0 or more"),
    ("distill", "holdout", (0.0, 0.999), (-0.001, 1.0), "from 0 to below 1"),
    ("toolformer", "places", (1,), (0,), "1 or more"),
    ("toolformer", "samples", (1, 64), (0, 65), "from 1 to 64"),
    ("toolformer", "start_probability", (0.0, 0.999), (-0.001, 1.0), "from 0 to below 1"),
    ("toolformer", "threshold", (1e-9,), (0.0,), "above 0"),
    ("toolformer", "most", (1,), (0,), "1 or more"),
    ("toolformer", "batch_size", (1,), (0,), "1 or more"),
    ("toolformer", "eval_every", (1,), (0,), "1 or more"),
    ("toolformer", "holdout", (0.001, 0.999), (0.0, 1.0), "above 0 and below 1"),
    ("toy_player", "attempts", (1,), (0,), "1 or more"),
    ("toy_player", "batch_size", (1,), (0,), "1 or more"),
]  # fmt: skip


def test_each_recipe_takes_its_settings_up_to_their_limits_and_names_those_beyond() -> None:
    for recipe, name, taken, beyond, expected in LIMITS:
        for value in taken:
            assert getattr(config_of(recipe, **NEEDED[recipe], **{name: value}), name) == value
        for value in beyond:
            text = refused(lambda: config_of(recipe, **NEEDED[recipe], **{name: value}))  # noqa: B023
            assert text == f"{name} is {value}: expected {expected}", (recipe, name, value)
    for recipe in ("sft", "distill", "selfrag"):
        assert config_of(recipe, **NEEDED[recipe], epochs=0.0, loop=LoopSettings(steps=1)).loop.steps == 1
    assert refused(lambda: config_of("distill", data="x", model="m")) == (
        "teacher is '': expected the model to learn from, as in --teacher MODEL"
    )
    assert refused(lambda: config_of("distill", data="x", teacher="m")) == (
        "model is '': expected the student to begin with, as in --model MODEL"
    )


def test_the_loop_the_optimizer_and_the_model_refuse_what_lies_beyond_their_limits() -> None:
    for kind, name, taken, beyond, expected in (
        (LoopSettings, "steps", (0,), (-1,), "0 or more"), (LoopSettings, "micro_tokens", (1,), (0,), "1 or more"),
        (LoopSettings, "clip_norm", (0,), (-0.5, math.nan), "0 or more"),
        (LoopSettings, "checkpoint_every", (0,), (-1,), "0 or more"),
        (LoopSettings, "keep", (1,), (0,), "1 or more"), (OptimizerSettings, "lr", (0, 999.0), (-1e-9, 1e3), "0 or more"),
        (OptimizerSettings, "beta1", (0, 0.999), (-0.1, 1), "from 0 to below 1"),
        (OptimizerSettings, "beta2", (0, 0.999), (-0.1, 1), "from 0 to below 1"),
        (OptimizerSettings, "momentum", (0, 0.999), (-0.1, 1), "from 0 to below 1"),
        (OptimizerSettings, "eps", (1e-9, 0.999), (0, 1), "between 0 and 1"),
        (OptimizerSettings, "weight_decay", (0, 999.0), (-1e-9, 1e3), "0 or more"),
        (ModelSettings, "layers", (1,), (0,), "1 or more"), (ModelSettings, "hidden_size", (12,), (0,), "1 or more"),
        (ModelSettings, "heads", (1,), (0,), "1 or more"), (ModelSettings, "context", (2,), (1,), "2 or more"),
        (ScheduleSettings, "warmup_steps", (0, -1), (-2,), "0 or more, or -1"),
        (ScheduleSettings, "decay_steps", (0,), (-1,), "0 or more"),
        (ScheduleSettings, "final_lr", (0, 1), (-0.1, 1.1), "from 0 to 1"),
    ):  # fmt: skip
        for value in taken:
            kind(**{name: value})
        for value in beyond:
            assert refused(lambda: kind(**{name: value})) == f"{name} is {value}: expected {expected}"  # noqa: B023
    assert refused(lambda: ModelSettings(hidden_size=20, heads=4)) == (
        "hidden_size is 20: expected a multiple of twice the 4 heads"
    )
    ModelSettings(hidden_size=24, heads=4)


def test_an_architecture_has_the_sizes_of_its_settings_and_those_that_follow() -> None:
    a = ModelSettings(layers=3, hidden_size=48, heads=4, kv_heads=2, intermediate_size=100, context=77).architecture(
        500
    )
    assert (a.family, a.vocab_size, a.hidden_size, a.intermediate_size) == ("llama", 500, 48, 100)
    assert (a.num_layers, a.num_heads, a.num_kv_heads, a.head_dim) == (3, 4, 2, 12)
    assert (a.max_position, a.norm_eps, a.windows, len(a.ropes), a.tie_embeddings) == (77, 1e-5, (None,) * 3, 3, True)
    b = ModelSettings(hidden_size=48, heads=4, tie_embeddings=False).architecture(9)
    assert (b.intermediate_size, b.num_kv_heads, b.tie_embeddings) == (128, 4, False), "8/3 of 48 is 128"
    assert ModelSettings(hidden_size=52, heads=2).architecture(9).intermediate_size == 160, "138.7 rounded up to 32s"


def test_rollouts_are_refused_by_what_is_wrong_with_them() -> None:
    for name in ("prompts", "group_size", "updates", "minibatches", "eval_every", "concurrency"):
        assert getattr(RolloutSettings(**{name: 1}), name) == 1
        assert refused(lambda: RolloutSettings(**{name: 0})) == f"{name} is 0: expected 1 or more"  # noqa: B023
    assert refused(lambda: RolloutSettings(held_out=-1)) == "held_out is -1 and importance_cap 3.0: expected 0 or more"
    assert (
        refused(lambda: RolloutSettings(importance_cap=0)) == "held_out is 0 and importance_cap 0: expected 0 or more"
    )
    assert refused(lambda: RolloutSettings(temperature=0)) == (
        "temperature is 0: all rollouts of a task would be equal; give one above 0, such as 1"
    )
    for agents in (("a", "a"), ("a", " a =x"), ("",), ("=x",), ("é",), ("a", "-b/c"), (" ",)):
        assert refused(lambda: RolloutSettings(agents=agents)) == (  # noqa: B023
            f"agents are {', '.join(agents)}: give each name once, in letters, digits, spaces and - _"
        )
    named = RolloutSettings(agents=("lead", "a worker=speed=2", "x_-9="))
    assert named.agent_scores == {"lead": None, "a worker": "speed=2", "x_-9": None}
    endpoint = "openai:org/name@x@https://host:8/v1"
    for settings in ({"temperature": 0.5}, {"top_k": 1}, {"top_p": 0.9}, {"correct_to_model": True}):
        assert refused(lambda: RolloutSettings(sampler=endpoint, **settings)) == (  # noqa: B023
            f"sampler is {endpoint}, whose log-probs are the model's own: leave temperature at 1, without top_k, top_p and "
            "correct_to_model"
        )
    for sampler in ("local", "ray:1", "ray:999", "ray:2@h:1", endpoint, "openai:m@http://h"):
        assert RolloutSettings(sampler=sampler).is_endpoint == sampler.startswith("openai:")
    for sampler in (
        "Local",
        "ray:0",
        "ray:01",
        "ray:1000",
        "ray:",
        "ray:2@",
        "openai:m",
        "openai:@http://h",
        "openai:m@ftp://h",
    ):
        assert refused(lambda: RolloutSettings(sampler=sampler)) == (  # noqa: B023
            f"sampler is {sampler!r}: give local, ray:N, ray:N@HOST:PORT, or openai:NAME@http://HOST:PORT/v1"
        )
    assert refused(lambda: RolloutSettings(correct_to_model=True, correct_to_trainer="on")) == (
        "correct_to_model and correct_to_trainer are both given: give one of them"
    )
    plan = RolloutSettings(max_tokens=7, temperature=0.5, top_k=3, top_p=0.9)
    assert plan.sampling == Sampling(max_tokens=7, temperature=0.5, top_k=3, top_p=0.9)
    cuts = [RolloutSettings(**given).has_cuts for given in ({}, {"top_k": 1}, {"top_p": 0.999}, {"temperature": 0.1})]
    assert cuts == [False, True, True, False]
    expect_groups(RolloutSettings(group_size=2))
    for recipe in ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"):
        assert refused(lambda: config_of(recipe, rollouts=RolloutSettings(group_size=1))) == (  # noqa: B023
            "group_size is 1: rollouts of a task are compared, so give 2 or more"
        )
    assert config_of("reinforce", rollouts=RolloutSettings(group_size=1)).rollouts.group_size == 1


def test_settings_of_algorithms_are_refused_beyond_their_ranges() -> None:
    clips = ("clip_low", "clip_high", "epsilon")
    for recipe, names in (
        ("grpo", ("clip", "kl", "epsilon")), ("dr_grpo", ("clip", "kl")), ("rloo", ("clip", "kl")), ("gspo", clips),
        ("cispo", clips), ("dapo", clips), ("ppo", ("clip", "kl", "value", "value_clip", "ptx_weight")),
        ("kto", ("desirable_weight", "undesirable_weight")), ("orpo", ("weight",)), ("reward", ("centering",)),
        ("simpo", ("margin",)),
    ):  # fmt: skip
        for name in names:
            assert getattr(config_of(recipe, **{name: 0.0}), name) == 0
            for wrong in (-1e-9, math.nan):
                assert refused(lambda: config_of(recipe, **{name: wrong})) == f"{name} is {wrong}: expected 0 or more"  # noqa: B023
            if "clip" in name:
                assert getattr(config_of(recipe, **{name: math.inf}), name) == math.inf
            else:
                found = refused(lambda: config_of(recipe, **{name: math.inf}))  # noqa: B023
                assert found == f"{name} is inf: expected a finite number"
    for name in ("discount", "trace_decay"):
        assert [getattr(config_of("ppo", **{name: good}), name) for good in (0.0, 1.0)] == [0.0, 1.0]
        for wrong in (-0.1, 1.1, math.nan):
            assert refused(lambda: config_of("ppo", **{name: wrong})) == f"{name} is {wrong}: expected from 0 to 1"  # noqa: B023
    for wrong in (math.nan, math.inf):
        assert refused(lambda: config_of("rejection", least=wrong)) == f"least is {wrong}: expected a finite number"  # noqa: B023
    assert (
        config_of("rejection", least=-1.0).least == -1 and config_of("pretrain", data=("x",), holdout=0.0).holdout == 0
    )
    for wrong in (-0.1, 1.0, math.nan):
        found = refused(lambda: config_of("pretrain", data=("x",), holdout=wrong))  # noqa: B023
        assert found == f"holdout is {wrong}: expected a fraction from 0 to below 1"
    assert config_of("ppo", ptx_batch=1).ptx_batch == 1
    assert refused(lambda: config_of("ppo", ptx_batch=0)) == "ptx_batch is 0: expected 1 or more"
    sampled = RolloutSettings(max_tokens=40)
    assert [config_of("dapo", overlong_buffer=good, rollouts=sampled).overlong_buffer for good in (0, 40)] == [0, 40]
    for wrong in (-1, 41):
        assert refused(lambda: config_of("dapo", overlong_buffer=wrong, rollouts=sampled)) == (  # noqa: B023
            f"overlong_buffer is {wrong}: expected from 0 to 40"
        )


def test_the_defaults_are_those_of_the_papers() -> None:
    assert policy_optimizer() == preference_optimizer() == OptimizerSettings(lr=1e-6, beta2=0.999, weight_decay=0.0)
    assert (policy_schedule().schedule, policy_loop().steps, policy_loop().checkpoint_every) == ("constant", 200, 20)
    assert (preference_loop().steps, preference_loop().checkpoint_every) == (500, 100)
    assert (config_of("grpo").kl, config_of("grpo").clip, config_of("dapo").clip_high, config_of("dr_grpo").kl) == (
        0.04,
        0.2,
        0.28,
        0.0,
    )
    assert (config_of("ppo").kl, config_of("ppo").trace_decay, config_of("ppo").discount) == (0.02, 0.95, 1.0)
    assert (config_of("gspo").clip_low, config_of("gspo").clip_high, config_of("rloo").kl) == (3e-4, 4e-4, 0.05)


def test_adapters_are_refused_at_their_limits_and_become_the_adapter_they_ask_for() -> None:
    for name, taken, beyond, expected in (
        ("rank", (1, 4096), (0, 4097), "1 to 4096"), ("alpha", (1e-9,), (0, math.inf, math.nan), "a number above 0"),
        ("dropout", (0, 0.99), (-0.1, 1), "0 or more and below 1"),
        ("targets", (("x",),), ((),), "`all`, or names of matrices"),
        ("kind", ("dora",), ("rslora",), "lora or dora"), ("init", ("gaussian",), ("zeros",), "kaiming or gaussian"),
        ("base", ("nf4", "int4"), ("blocks",), "kept, nf4 or int4"),
    ):  # fmt: skip
        for value in taken:
            LoRAConfig(**{name: value})
        for value in beyond:
            text = refused(lambda: LoRAConfig(**{name: value}))  # noqa: B023
            assert text == f"{name} of the adapter is {value!r}: expected {expected}"
    assert (LoRAConfig(rank=4, alpha=6.0).scale, LoRAConfig(rank=4, alpha=6.0, rank_stabilised=True).scale) == (
        1.5,
        3.0,
    )
    given = {"rank": 3, "alpha": 5.0, "dropout": 0.25, "targets": ("q_proj",)}
    for adapter, base, expected in (
        ("lora", "kept", LoRAConfig(**given, seed=9)), ("dora", "nf4", LoRAConfig(kind="dora", base="nf4", **given, seed=9)),
        ("rslora", "blocks", LoRAConfig(rank_stabilised=True, **given, seed=9)),
        ("lora", "int4", LoRAConfig(base="int4", **given, seed=9)),
    ):  # fmt: skip
        assert AdapterSettings(adapter, base_weights=base, **given).config(9) == expected
    assert AdapterSettings().config(9) is None
    for name, value, shown in (
        ("rank", 3, "3"), ("alpha", 5.0, "5.0"), ("dropout", 0.25, "0.25"),
        ("targets", ("q_proj", "v_proj"), "q_proj,v_proj"),
        ("base_weights", "nf4", "nf4"), ("base_weights", "blocks", "blocks"), ("begin_with", Path("/a"), "/a"),
    ):  # fmt: skip
        assert refused(lambda: AdapterSettings(**{name: value})) == (  # noqa: B023
            f"{name} is {shown}, and adapter is none: give --adapter lora, rslora or dora too"
        )


def test_a_sweep_needs_two_sizes_and_lengths_of_five_steps() -> None:
    small = {"texts": 2, "context": 3, "widths": (8, 16), "tokens": (30, 60)}
    SweepConfig(**small)
    for name, value, expected in (
        ("widths", (8, 8), "two or more sizes"), ("widths", (8, 12), "multiples of 8"), ("widths", (8, 0), "multiples of 8"),
        ("tokens", (60, 60), "two or more lengths"), ("tokens", (60, 29), "5 steps of 6 tokens or more"),
        ("layers", 0, "1 or more"), ("learning_rate", 0, "above 0 and below 1"), ("learning_rate", 1, "above 0 and below 1"),
    ):  # fmt: skip
        text = refused(lambda: SweepConfig(**{**small, name: value}))  # noqa: B023
        assert text == f"{name} of the sweep is {value}: expected {expected}"
    assert refused(lambda: SweepConfig(**{**small, "eval_texts": 0})) == (
        "texts of the sweep is 2: expected 1 or more, of eval_texts too"
    )
    assert refused(lambda: SweepConfig(**{**small, "context": 1})) == "context of the sweep is 1: expected 2 or more"


def test_an_optimizer_decays_matrices_alone_and_muon_turns_those_of_blocks() -> None:
    decoder = model()
    decoder.layers[0].mlp.up_proj.weight.requires_grad_(False)
    whole = nn.ModuleDict({"model": decoder, "value_head": nn.Linear(32, 1)})
    settings = {"lr": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 1e-4, "momentum": 0.6, "weight_decay": 0.3}
    blocks = [
        each for name, each in whole.named_parameters() if "layers." in name and each.dim() == 2 and each.requires_grad
    ]
    vectors = [each for each in whole.parameters() if each.dim() < 2]
    others = [decoder.embed.weight, whole["value_head"].weight]
    adamw = optimizer_for(whole, OptimizerSettings("adamw", **settings))
    muon = optimizer_for(whole, OptimizerSettings("muon", **settings))
    for optimizer, expected in (
        (adamw, [(blocks + others, 0.3, None), (vectors, 0.0, None)]),
        (muon, [(blocks, 0.3, True), (others, 0.3, False), (vectors, 0.0, False)]),
    ):
        for group, (weights, decay, orthogonal) in zip(optimizer.param_groups, expected, strict=True):
            assert [id(each) for each in group["params"]] == [id(each) for each in weights]
            assert (group["weight_decay"], group.get("orthogonal"), group["lr"]) == (decay, orthogonal, 0.25)
            assert (group["betas"], group["eps"]) == ((0.5, 0.75), 1e-4)
    assert isinstance(muon, Muon) and muon.param_groups[0]["momentum"] == 0.6 and isinstance(adamw, torch.optim.AdamW)
    assert len(optimizer_for(nn.Linear(2, 2, bias=False), OptimizerSettings("muon")).param_groups) == 1
    assert len(optimizer_for(nn.LayerNorm(2), OptimizerSettings()).param_groups) == 1
