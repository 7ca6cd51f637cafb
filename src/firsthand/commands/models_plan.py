"""Prints what a model takes on a machine for `firsthand models plan`."""

from __future__ import annotations

from typing import Literal

from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.hub.model_shapes import DecoderShape, find_shape
from firsthand.hub.resource_plan import (
    MachineSpec,
    ServingPlan,
    TrainingNeeds,
    as_json,
    machine_of,
    plan_serving,
    plan_training_memory,
)
from firsthand.system.terminal import console, print_as_json, print_table


def print_plan_of(
    model: str,
    *,
    machine: str,
    dtype: str,
    train: Literal["", "full", "lora", "qlora"],
    context: int,
    batch: int,
    rank: int,
    as_json: bool,
) -> None:
    """Print memory, operations and bounds on tokens/s of serving, and of training where asked."""
    shape = find_shape(_path_or_name(model))
    if isinstance(shape, int) and train:
        raise ConfigError(f"{model} is a number of parameters: training needs a configuration, such as llama-3-8b")
    spec = machine_of(machine) if machine else this_machine()
    length = context or (4096 if isinstance(shape, int) else min(shape.max_position, 4096))
    serving = plan_serving(shape, dtype, context=length, batch=batch, machine=spec)
    training = None
    if train and isinstance(shape, DecoderShape):
        training = plan_training_memory(
            shape, train, dtype, context=length, batch=batch, rank=rank, machine=spec
        )  # fmt: skip
    if as_json:
        _print_json(model, spec, length, batch, serving, training)
        return
    _print_serving(model, dtype, spec, length, batch, serving)
    if training is not None:
        _print_training(spec, length, batch, training)


def this_machine() -> MachineSpec:
    """This machine, by its measured speeds, which are measured first if they are not known."""
    import os

    from firsthand.measure.machine_speeds import speeds

    found = speeds()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 16.0
    return MachineSpec("this machine", found.read_gb_s, found.float32_gflop_s / 1e3, memory)


def _path_or_name(model: str) -> str:
    """The path of a model that is on disk under a name; anything else unchanged."""
    known = model in model_lookup.KNOWN or model.startswith("hf:")
    if not known:
        return model
    if not model_lookup.is_here(model):
        raise ConfigError(f"{model} is not on disk: `firsthand models pull {model}` first, or give its config.json")
    return str(model_lookup.resolve(model))


def _print_json(
    model: str, spec: MachineSpec, context: int, batch: int, serving: ServingPlan, training: TrainingNeeds | None
) -> None:
    print_as_json({
        "model": model, "machine": vars(spec), "context": context, "batch": batch, "serving": as_json(serving),
        "training": as_json(training) if training is not None else None,
    })  # fmt: skip


def _print_serving(model: str, dtype: str, spec: MachineSpec, context: int, batch: int, plan: ServingPlan) -> None:
    rows = [
        ["parameters", f"{plan.parameters / 1e9:,.2f} billion"],
        ["active for a token", f"{plan.active_parameters / 1e9:,.2f} billion"],
        [f"weights in {dtype}", _gb(plan.weight_bytes)],
        ["KV cache, one token", f"{plan.kv_bytes_per_token / 1e3:,.1f} kB"],
        [f"KV cache, {batch:,} x {context:,} tokens", _gb(plan.kv_bytes)],
        ["operations for a token", f"{plan.flops_per_token / 1e9:,.2f} GFLOP"],
    ]
    print_table(f"{model}: serving", ["item", "amount"], rows, right=("amount",))
    fits = "fits" if plan.fits else "does not fit"
    lines = [
        f"{spec.name}: {spec.read_gb_s:,.0f} GB/s, {spec.tflop_s:,.1f} TFLOP/s, {spec.memory_gb:,.0f} GB. "
        f"{_gb(plan.total_bytes)} {fits}.",
    ]
    if plan.decode_tokens_s is not None and plan.prefill_tokens_s is not None:
        lines.append(
            f"At most {plan.decode_tokens_s:,.1f} tokens/s decoding and {plan.prefill_tokens_s:,.0f} in prefill: "
            "the limits of memory and of products, which no engine reaches."
        )
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def _print_training(spec: MachineSpec, context: int, batch: int, plan: TrainingNeeds) -> None:
    rows = [
        ["trained parameters", f"{plan.trained_parameters / 1e6:,.1f} million"],
        ["weights", _gb(plan.weight_bytes)],
        ["gradients", _gb(plan.gradient_bytes)],
        ["optimizer (AdamW)", _gb(plan.optimizer_bytes)],
        ["activations, all kept", _gb(plan.activation_bytes)],
        ["activations, layers computed again", _gb(plan.checkpointed_bytes)],
        ["total, all kept", _gb(plan.total_bytes)],
        ["total, layers computed again", _gb(plan.checkpointed_total_bytes)],
    ]
    title = f"training ({plan.method}), {batch:,} x {context:,} tokens"
    print_table(title, ["item", "memory"], rows, right=("memory",))
    fits = "fits" if plan.fits else "does not fit"
    speed = f"; at most {plan.tokens_s:,.0f} tokens/s" if plan.tokens_s else ""
    console().print(f"With layers computed again it {fits} {spec.name}{speed}.", markup=False, soft_wrap=True)


def _gb(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"
