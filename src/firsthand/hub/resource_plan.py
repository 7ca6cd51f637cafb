"""Predicts what a model takes on any machine: memory for serving and training, operations, and bounds on tokens/s.

Memory is arithmetic on the shape: weights, the KV cache, and for training gradients, optimizer state and activations. Speed
is the roofline (Williams et al., 2009): a step takes at least the time to read its bytes and at least the time to do its
operations. `planner` predicts this machine's engine from measurements.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from firsthand.errors import ConfigError, nearest
from firsthand.hub.model_shapes import DecoderShape
from firsthand.message import Json

BITS = {
    "float32": 32.0, "bfloat16": 16.0, "float16": 16.0, "fp8": 8.0, "int8": 8.5, "int4": 4.5,
    "nf4": 4 + 8 / 64 + 32 / (64 * 256),
}  # fmt: skip
"""Bits of a weight with its scales: int8 and int4 as Q8_0 and Q4_0, a float16 for 32; nf4 doubly quantised (QLoRA)."""
Training = Literal["full", "lora", "qlora"]


@dataclass(frozen=True)
class MachineSpec:
    """A machine: its published peaks, or what was measured of it."""

    name: str
    read_gb_s: float
    """Memory bandwidth, 10^9 bytes/s."""
    tflop_s: float
    """Dense matrix products in 16 bits, 10^12 operations/s."""
    memory_gb: float
    """10^9 bytes."""

    def __post_init__(self) -> None:
        for field in ("read_gb_s", "tflop_s", "memory_gb"):
            if not 0 < getattr(self, field) < 1e9:
                raise ConfigError(f"{field} of the machine is {getattr(self, field):g}: expected a number above 0")


MACHINES = {
    each.name: each
    for each in (
        MachineSpec("b200", 8000, 2250, 180),
        MachineSpec("h200", 4800, 989, 141),
        MachineSpec("h100", 3350, 989, 80),
        MachineSpec("a100", 2039, 312, 80),
        MachineSpec("l4", 300, 121, 24),
        MachineSpec("a6000", 768, 155, 48),
        MachineSpec("rtx-4090", 1008, 165, 24),
        MachineSpec("rtx-3090", 936, 71, 24),
        MachineSpec("m2-ultra", 800, 27, 192),
    )
}
"""Vendors' peaks, without sparsity."""


@dataclass(frozen=True)
class ServingPlan:
    """Memory and speed of serving; bytes, and bounds on tokens/s."""

    parameters: int
    active_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    """Of one sequence, while no window is full."""
    kv_bytes: int
    """Of all sequences at full context."""
    flops_per_token: float
    """Forward pass of one token at half the context, its mean over a prompt."""
    total_bytes: int
    fits: bool | None
    """None without a machine."""
    decode_tokens_s: float | None
    """Of all sequences together, each at full context, at most."""
    prefill_tokens_s: float | None


@dataclass(frozen=True)
class TrainingNeeds:
    """Memory and compute of training; bytes."""

    method: Training
    trained_parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    """AdamW: two moments in float32, and a float32 copy of weights that are trained in 16 bits."""
    activation_bytes: int
    """Kept for the backward pass, with attention that does not keep its scores."""
    checkpointed_bytes: int
    """The same where only each layer's input is kept, and one layer is computed again at a time."""
    flops_per_token: float
    total_bytes: int
    checkpointed_total_bytes: int
    fits: bool | None
    """With layers computed again."""
    tokens_s: float | None
    """At most, at the machine's peak."""


def plan_serving(
    shape: DecoderShape | int,
    dtype: str = "bfloat16",
    *,
    context: int = 4096,
    batch: int = 1,
    kv_bits: float = 16,
    machine: MachineSpec | None = None,
) -> ServingPlan:
    """Returns what serving takes. A plain number of parameters has neither a KV cache nor attention."""
    bits = bits_of(dtype)
    _check(context, batch)
    if isinstance(shape, int):
        shape_parameters = active = shape
        per_token = kv = 0
        flops, read = 2.0 * shape, float(shape)
    else:
        shape_parameters, active = shape.parameters, shape.active_parameters
        per_token = round(shape.kv_values_per_token * kv_bits / 8)
        kv = round(batch * shape.kv_values(context) * kv_bits / 8)
        flops, read = forward_flops(shape, context / 2), shape.read_parameters(batch)
    weights = round(shape_parameters * bits / 8)
    decode = prefill = None
    if machine is not None:
        step_s = max(
            (read * bits / 8 + kv) / (machine.read_gb_s * 1e9),
            batch * (flops if isinstance(shape, int) else forward_flops(shape, context)) / (machine.tflop_s * 1e12),
        )
        decode, prefill = batch / step_s, machine.tflop_s * 1e12 / flops
    total = weights + kv
    fits = None if machine is None else total <= machine.memory_gb * 1e9
    return ServingPlan(shape_parameters, active, weights, per_token, kv, flops, total, fits, decode, prefill)


def plan_training_memory(
    shape: DecoderShape,
    method: Training,
    dtype: str = "bfloat16",
    *,
    context: int = 4096,
    batch: int = 1,
    rank: int = 16,
    machine: MachineSpec | None = None,
) -> TrainingNeeds:
    """Returns what training takes with sequences of `context` tokens; QLoRA's base is nf4 whatever `dtype` is.

    Adapters are on all seven matrices of a dense layer. Their weights, gradients and moments are float32.
    """
    bits = bits_of(dtype)
    _check(context, batch)
    value_bytes = 4 if dtype == "float32" else 2
    if method == "full":
        if value_bytes * 8 != bits:
            raise ConfigError(f"dtype is {dtype}: weights that are trained need float32, bfloat16 or float16")
        trained = shape.parameters
        weights, gradients = trained * value_bytes, trained * value_bytes
        optimizer = trained * (8 if value_bytes == 4 else 12)
    else:
        trained = adapter_parameters(shape, rank)
        kept = shape.embedding_parameters
        base = bits_of("nf4") if method == "qlora" else bits
        weights = round((shape.parameters - kept) * base / 8) + round(kept * (16 if method == "qlora" else bits) / 8)
        weights, gradients, optimizer = weights + 4 * trained, 4 * trained, 8 * trained
    tokens = batch * context
    layer = layer_activations(shape) * tokens * value_bytes
    logits = 2 * 4 * tokens * shape.vocab_size
    inputs = shape.hidden_size * tokens * value_bytes
    activations = shape.num_layers * layer + logits
    checkpointed = shape.num_layers * inputs + layer + logits
    passes = 3 if method == "full" else 2
    flops = passes * forward_flops(shape, context / 2)
    fixed = weights + gradients + optimizer
    fits = None if machine is None else fixed + checkpointed <= machine.memory_gb * 1e9
    return TrainingNeeds(
        method, trained, weights, gradients, optimizer, activations, checkpointed, flops, fixed + activations,
        fixed + checkpointed, fits, None if machine is None else machine.tflop_s * 1e12 / flops,
    )  # fmt: skip


def forward_flops(shape: DecoderShape, context: float) -> float:
    """Operations of one token's forward pass: two for each weight it meets, four for each position and unit of attention."""
    seen = context
    if shape.window is not None:
        share = shape.windowed_layers / shape.num_layers
        seen = (1 - share) * context + share * min(context, shape.window)
    return 2.0 * shape.matrix_parameters + 4.0 * shape.attention_width * seen


def adapter_parameters(shape: DecoderShape, rank: int) -> int:
    """Weights of LoRA adapters of a rank on all matrices of attention and MLP: rank (inputs + outputs) each."""
    if not 1 <= rank < 1 << 16:
        raise ConfigError(f"rank is {rank}: expected 1 or more")
    h, q, kv = shape.hidden_size, shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    width = shape.expert_size if shape.num_experts else shape.intermediate_size
    experts = max(1, shape.num_experts)
    attention = (h + q) * 2 + (h + kv) * 2
    return shape.num_layers * rank * (attention + experts * (2 + shape.gated) * (h + width))


def layer_activations(shape: DecoderShape) -> int:
    """Numbers that one layer keeps of a token for the backward pass, if attention keeps no scores.

    Residual stream, normalised and scaled, before attention and before the MLP (3 hidden each); queries and keys before and
    after rotation, values, and attention's result; gate, its activation, up, and their product.
    """
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    width = shape.intermediate_size
    if shape.num_experts:
        width = shape.experts_per_token * shape.expert_size + shape.shared_size
    return 6 * shape.hidden_size + 3 * q + 3 * kv + (4 if shape.gated else 2) * width


def bits_of(dtype: str) -> float:
    """Bits of a weight with its scales; ConfigError for an unknown type."""
    if dtype not in BITS:
        raise ConfigError(f"dtype is {dtype!r}: expected one of {', '.join(BITS)}")
    return BITS[dtype]


def machine_of(text: str) -> MachineSpec:
    """The machine of a known name, or of numbers: GB/s, TFLOP/s and GB of memory, as in `3350:990:80`."""
    if text.lower() in MACHINES:
        return MACHINES[text.lower()]
    try:
        read, products, memory = (float(part) for part in text.split(":"))
    except ValueError:
        close = nearest(text.lower(), MACHINES)
        hint = f"did you mean {close}? " if close else ""
        raise ConfigError(
            f"no machine {text!r}; {hint}there are {', '.join(MACHINES)}, or write GB/s:TFLOP/s:GB, as in 3350:990:80"
        ) from None
    return MachineSpec(text, read, products, memory)


def as_json(plan: ServingPlan | TrainingNeeds) -> Json:
    """Returns a plan as a JSON object."""
    return asdict(plan)


def _check(context: int, batch: int) -> None:
    if not (1 <= context < 1 << 31 and 1 <= batch < 1 << 31):
        raise ConfigError(f"context is {context} and batch {batch}: expected whole numbers of 1 or more")
