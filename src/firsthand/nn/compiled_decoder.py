"""Runs a decoder by the compiled step (`kernels/step/decoder_step.py`) instead of module by module.

Weights and architecture are the same, the order of operations is not. With float weights hidden states agree with
`Decoder.forward` to about 1e-5; blockwise products round each token's inputs to 8 bits either way, and agree as far as those
roundings do. Calls are batch-invariant, bit for bit. `why_not_compiled` tells which models qualify; an engine runs others by
their modules. CPU only. Plain float32 layers are copied into tiles, so they take memory twice.
"""

# N packed tokens, M wanted rows, D hidden, L layers, P pairs, V vocabulary

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import LANES, Layout, Pages
from firsthand.kernels.step.step_tables import MATRICES, NORMS, Adapted, Batch, ModelShape, Weights, WorkingMemory
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.batched_lora import AdapterSpan, SpanCompiler
from firsthand.nn.blocks.attention import Attention
from firsthand.nn.blocks.experts import MixtureOfExperts
from firsthand.nn.blocks.mlp import MLP
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import frequencies, rotation
from firsthand.nn.compiled_experts import CompiledExperts, linears_of, mlps_of, why_experts_not_compiled, width_of
from firsthand.nn.decoder import Block, Decoder
from firsthand.nn.matrices import ATTENTION, BLOCK, BLOCK_NORMS, Matrix, columns
from firsthand.nn.quant import BlockLinear, DenseLinear

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

Floats = NDArray[np.float32]
ANGLES_AT_ONCE = 1024
_NONE: Floats = np.empty(0, dtype=np.float32)
KNOWN_SETTINGS = frozenset((
    "family", "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
    "max_position", "norm_eps", "windows", "ropes", "tie_embeddings", "qkv_bias", "o_bias", "mlp_bias",
    "qk_norm", "activation", "norm_placement", "norm_unit_offset", "embed_scale", "attention_scale", "logit_softcap",
    "experts", "latent",  # their blocks are parts of other types, which are named
))  # fmt: skip
"""Settings of an `Architecture` that the compiled step implements; a model that sets any other runs by its modules."""
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2}


@dataclass(frozen=True)
class Cache:
    """The KV cache of all layers: one allocation, and its pages by layer."""

    pages: tuple[Pages, ...]
    arrays: tuple[NDArray[Any], ...]
    """Keys, values, key scales, value scales: flat, layer after layer."""
    spans: NDArray[np.int64]
    """For each layer whether its blocks are in the sliding-window pool (1) or not (0), its first block in `arrays`, and the
    one after its last: L 3."""

    @staticmethod
    def empty(
        a: Architecture,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        num_near: int | None = None,
    ) -> Cache:
        """Returns a cache whose memory is reserved, and not touched on the CPU. `num_near`: blocks of windowed layers."""
        is_near = [num_near is not None and window is not None for window in a.windows]
        counts = [num_near if near and num_near is not None else num_blocks for near in is_near]
        ends = list(itertools.accumulate(counts, initial=0))
        spans = np.array([is_near, ends[:-1], ends[1:]], dtype=np.int64).T.copy()
        whole = Pages.empty(ends[-1], a.num_kv_heads, block_size, a.head_dim, dtype, device)
        pages = tuple(Pages(*(tensor[first:last] for tensor in _all(whole))) for _, first, last in spans)
        return Cache(pages, () if device.type != "cpu" or dtype == torch.bfloat16 else whole.arrays, spans)


@dataclass(frozen=True)
class Logits:
    """Scores of every next token for some rows, with their best tokens and normalisers."""

    values: Tensor
    """M V, float32; overwritten by the next step."""
    best: list[int]
    """The most probable token of each row."""
    normalisers: Floats
    """M, log(sum(e ** score)): a token's log-prob is its score minus this."""
    drawn: Sequence[int | None] | None = None
    """The token sampled for each row, if the device sampled it."""
    known: Sequence[Mapping[int, float]] | None = None
    """Scores of some tokens of each row, copied from the device together with the rest."""
    drawn_logprobs: Sequence[float] | None = None
    """The log-prob that each drawn token was drawn with."""

    def rows(self) -> Iterator[LogitRow]:
        """Iterates over the rows."""
        for row, (values_V, best, normaliser) in enumerate(zip(self.values, self.best, self.normalisers, strict=True)):
            drawn = self.drawn[row] if self.drawn else None
            drawn_logprob = self.drawn_logprobs[row] if self.drawn_logprobs else 0.0
            known = self.known[row] if self.known else {}
            yield LogitRow(values_V, best, float(normaliser), drawn, known, drawn_logprob)


@dataclass(frozen=True)
class LogitRow:
    """Scores of every next token after one position."""

    scores: Tensor
    """V, float32, on the device that computed them."""
    best: int
    normaliser: float
    drawn: int | None = None
    """The token sampled on the device, if any."""
    known: Mapping[int, float] = field(default_factory=dict)
    drawn_logprob: float = 0.0
    """The log-prob it was drawn with; not set where that is the model's own."""

    @cached_property
    def values(self) -> Tensor:
        """The scores on the CPU; copied from a GPU on first use."""
        return self.scores.cpu()

    def logprob(self, token: int) -> float:
        """Returns the log-prob of a token, before temperature and truncation."""
        score = self.known.get(token)
        return (float(self.values[token]) if score is None else score) - self.normaliser


def why_not_compiled(model: Decoder) -> str | None:
    """Returns None if the compiled step can run this model, else the reason in a few words."""
    a = model.architecture
    if find_spec("numba") is None:
        return "numba is not installed"
    if type(model).forward is not Decoder.forward or type(model).logits is not Decoder.logits:
        return "it overrides Decoder's forward or logits"
    unknown = next(_unknown_parts(model), None)
    if unknown is None and a.experts is not None:
        unknown = why_experts_not_compiled(model)
    if unknown is not None:
        return unknown
    mlps = [mlp for block in model.layers if isinstance(block, Block) for mlp in mlps_of(block)]
    layers = [layer for block in model.layers for layer in _linears(block, ATTENTION)] + [model.lm_head]
    layers += [layer for mlp in mlps for layer in linears_of(mlp)]
    unsupported = next(
        (layer for layer in layers if not isinstance(layer, (BlockLinear, DenseLinear, nn.Linear))), None
    )
    if unsupported is not None:
        return f"it has an unsupported layer: {type(unsupported).__name__}"
    plain = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    if any(weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in [model.embed.weight, *plain]):
        return "it is not float32 on the CPU"
    inner = dict.fromkeys(map(width_of, mlps)) if a.experts else (a.intermediate_size,)
    widths = (a.hidden_size, *inner, a.num_heads * a.head_dim)
    unit = 32 if any(isinstance(layer, BlockLinear) for layer in layers) else LANES
    if any(width % unit for width in widths) or a.head_dim % LANES:
        return f"its widths {widths} are not multiples of {unit}, or head_dim {a.head_dim} is not one of {LANES}"
    return None


def _unknown_parts(model: Decoder) -> Iterator[str]:
    """Yields each part or setting that the compiled step does not know and would ignore."""
    a = model.architecture
    for setting in fields(a):
        if setting.name not in KNOWN_SETTINGS and getattr(a, setting.name) != setting.default:
            yield f"its {setting.name} is {getattr(a, setting.name)!r}"
    if a.activation not in ACTIVATIONS or a.norm_placement not in ("pre", "sandwich"):
        yield f"its activation is {a.activation} and its norm_placement {a.norm_placement}"
    for layer, block in enumerate(model.layers):
        if type(block) is not Block:
            yield f"its layer {layer} is a {type(block).__name__}"
            continue
        norms = (block.attention_norm, block.attention_out_norm, block.mlp_norm, block.mlp_out_norm)
        parts = [
            (block.attention, (Attention,)),
            (block.mlp, (MLP, MixtureOfExperts)),
            *((norm, (RMSNorm, nn.Identity)) for norm in norms),
        ]
        for part, known in parts:
            if type(part) not in known:
                yield f"its layer {layer} has an unsupported part: {type(part).__name__}"
    if type(model.norm) is not RMSNorm or type(model.embed) is not nn.Embedding:
        yield "its embedding or final norm is unsupported"


assert tuple(matrix.leaf for matrix in BLOCK) == MATRICES, "the compiled step's table is another"
assert tuple(norm.name.rpartition(".")[2] for norm in BLOCK_NORMS) == NORMS, "the compiled step's table is another"


class CompiledDecoder:
    """A decoder prepared for the compiled step, with its working memory. Not thread-safe."""

    def __init__(self, model: Decoder, *, threads: int = 1):
        reason = why_not_compiled(model)
        if reason:
            raise ConfigError(f"this model cannot run in the compiled step: {reason}")
        self.model = model
        self.threads = threads
        self._angles = 0
        self._rows = 0
        self._head_rows = 0
        self.spans = SpanCompiler(model.architecture.num_layers)
        self._low = self._lift = _NONE
        self._shapes: dict[tuple[int, bool], tuple[NDArray[np.int64], Floats]] = {}
        self._weights = Weights(*[_NONE] * len(Weights._fields))
        self.experts: CompiledExperts | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the model's weights again after they were replaced."""
        a = self.model.architecture
        blocks = [block for block in self.model.layers if isinstance(block, Block)]
        own = BLOCK if a.experts is None else ATTENTION
        layers = [[_packed(linear) for linear in _linears(block, own)] for block in blocks]
        head = _packed(self.model.lm_head)
        self._held = [layers, head]  # keeps what the addresses point to
        matrices = np.zeros((a.num_layers, len(BLOCK), len(head.entry())), dtype=np.int64)
        matrices[:, : len(own)] = [[linear.entry() for linear in linears] for linears in layers]
        if a.experts is not None:
            mlps = [[[_packed(one) for one in linears_of(mlp)] for mlp in mlps_of(block)] for block in blocks]
            self.experts = CompiledExperts(self.model, mlps)
        self._head = np.array([head.entry()], dtype=np.int64)
        kinds = [linear for linears in layers for linear in linears] + [head]
        self._has_blocks = any(isinstance(linear, BlockLinear) for linear in kinds)
        self._has_dense = not all(isinstance(linear, BlockLinear) for linear in kinds)
        vectors = _Vectors()
        places = [[vectors.add(vector) for vector in _vectors(block, own)] for block in blocks]
        final = vectors.add(_norm_weights(self.model.norm))
        self._weights = Weights(
            matrices=matrices,
            columns=np.array([*columns(a)], dtype=np.int64),
            places=np.array([*places, [final] + [-1] * (len(places[0]) - 1)], dtype=np.int64),
            vectors=vectors.joined(),
            embed=self.model.embed.weight.detach().numpy().reshape(-1),
            layers=self._weights.layers,
            cos=self._weights.cos,
            sin=self._weights.sin,
        )
        self._windows = list(dict.fromkeys(window or 0 for window in a.windows))
        self._ropes = list(dict.fromkeys(a.ropes))

    def hidden(
        self,
        ids: Sequence[int],
        layout: Layout,
        cache: Cache,
        wanted: Sequence[int],
        *,
        near: Layout | None = None,
        spans: Sequence[AdapterSpan] = (),
    ) -> Floats:
        """Returns the states of the wanted packed tokens after the final norm: M D. Keys and values of all enter the cache.

        `near` is the layout of the windowed layers if the cache has a pool for them, `spans` the rows with adapters.
        """
        from firsthand.kernels.step import decoder_step
        from firsthand.kernels.step.thread_team import counters, together

        a = self.model.architecture
        assert not spans or self.experts is None, "rows with adapters go through the modules of a mixture of experts"
        rows = len(ids)
        positions = layout.positions
        assert len(positions) == rows, "the layout is for other tokens"
        self._make_room(rows, int(positions.max()) + 1)
        plans, tasks, members, slots, merged, num_slots = self._plans(layout, near)
        places, tables = layout.places[None], layout.tables
        if near is not None:
            places, tables = np.stack([layout.places, near.places]), np.concatenate([layout.tables, near.tables])
        partials = np.empty(num_slots * a.num_heads * (-(-a.head_dim // LANES) * LANES + LANES), dtype=np.float32)
        out = np.empty((len(wanted), a.hidden_size), dtype=np.float32)
        adapted = self._adapted(spans, rows)
        phases = decoder_step.PHASES_OF_A_LAYER * a.num_layers + decoder_step.PHASES_BESIDE
        team = counters(phases + decoder_step.ADAPTED_PHASES_OF_A_LAYER * a.num_layers if spans else phases)
        batch = Batch(np.array(ids, dtype=np.int64), positions, places, tables, plans, tasks, members, slots, merged,
                      np.array(wanted, dtype=np.int64))  # fmt: skip
        sizes, factors = self._shape(layout.block_size, self._has_dense or bool(spans))
        if self.experts is not None:
            step = (sizes, factors, self._fixed, tuple(batch), (cache.spans, *cache.arrays), (*self._buffers, partials))
            self.experts.run(self.threads, a.num_layers, rows, step, out.reshape(-1))
            return out
        arguments = (
            team, self.threads, sizes, factors, self._fixed, tuple(batch), (cache.spans, *cache.arrays),
            tuple(adapted), (*self._buffers, partials), out.reshape(-1),
        )  # fmt: skip
        together(self.threads, lambda: decoder_step.run(*arguments))
        return out

    def logits(self, hidden_MD: Floats, spans: Sequence[AdapterSpan] = ()) -> Logits:
        """Returns scores of every next token after some states; `spans` are the rows with adapters."""
        from firsthand.kernels.step import decoder_step
        from firsthand.kernels.step.thread_team import counters, together

        a = self.model.architecture
        rows = len(hidden_MD)
        stride = -(-a.vocab_size // LANES) * LANES
        if rows > self._head_rows:
            self._head_rows = rows
            self._logits = np.empty(rows * stride, dtype=np.float32)
        self._make_room(rows, 1)
        best, normalisers = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.float32)
        adapted = self._adapted(spans, rows)
        of_the_head = (adapted.pieces, adapted.entries[a.num_layers], *adapted[2:])
        arguments = (
            counters(decoder_step.PHASES_OF_THE_HEAD + 1), self.threads, self._head, hidden_MD.reshape(-1), a.hidden_size,
            a.vocab_size, np.float32(a.logit_softcap or 0.0), self._rounded, self._logits, stride, best, normalisers,
            of_the_head,
        )  # fmt: skip
        together(self.threads, lambda: decoder_step.head(*arguments))
        values = torch.from_numpy(self._logits[: rows * stride].reshape(rows, stride)[:, : a.vocab_size])
        return Logits(values, best.tolist(), normalisers)

    def _adapted(self, spans: Sequence[AdapterSpan], rows: int) -> Adapted:
        """The rows with adapters, with working memory for them."""
        from firsthand.kernels.step import lora_products

        pieces, entries, rank = self.spans(spans)
        if spans:
            needed = lora_products.MATRICES * rows
            if len(self._low) < needed * rank:
                self._low = np.empty(needed * rank, dtype=np.float32)
            if len(self._lift) < needed * lora_products.LIFT:
                self._lift = np.empty(needed * lora_products.LIFT, dtype=np.float32)
        return Adapted(pieces, entries, rank, self._low, self._lift)

    def _make_room(self, rows: int, positions: int) -> None:
        """Allocate working memory for so many rows and angles for so many positions."""
        a = self.model.architecture
        if rows > self._rows:
            from firsthand.kernels.products.rounded_rows import BLOCK, RECORD

            self._rows = rows
            q_width = a.num_heads * a.head_dim
            widest = max(a.hidden_size, q_width, a.intermediate_size)
            wide = max(q_width + 2 * a.num_kv_heads * a.head_dim, 2 * a.intermediate_size, a.hidden_size)
            records = rows * (widest // BLOCK) if self._has_blocks else 0
            memory = WorkingMemory(
                stream=np.empty(rows * a.hidden_size, dtype=np.float32),
                rest=np.empty(rows * widest, dtype=np.float32),
                rounded=np.empty(records * RECORD, dtype=np.uint8),
                wide=np.empty(rows * wide, dtype=np.float32),
                partials=_NONE,
            )
            self._rounded, self._buffers = memory.rounded, tuple(memory[:-1])
        if positions > self._angles:
            self._angles = max(-(-positions // ANGLES_AT_ONCE) * ANGLES_AT_ONCE, 2 * self._angles)
            tables = [_angles(rope, a.head_dim, self._angles, a.max_position) for rope in self._ropes]
            cos, sin = (np.concatenate(parts) for parts in zip(*tables, strict=True))
            each = self._angles * (a.head_dim // 2)
            layers = [
                [window or 0, self._windows.index(window or 0), self._ropes.index(rope) * each]
                for window, rope in zip(a.windows, a.ropes, strict=True)
            ]
            self._weights = self._weights._replace(layers=np.array(layers, dtype=np.int64), cos=cos, sin=sin)
        self._fixed = tuple(self._weights)

    def _shape(self, block_size: int, has_dense: bool) -> tuple[NDArray[np.int64], Floats]:
        """The fields of `ModelShape` as arrays of sizes and of factors."""
        if (block_size, has_dense) not in self._shapes:
            a = self.model.architecture
            shape = ModelShape(
                num_layers=a.num_layers,
                width=a.hidden_size,
                inner=a.intermediate_size,
                num_heads=a.num_heads,
                num_kv_heads=a.num_kv_heads,
                head_dim=a.head_dim,
                block_size=block_size,
                activation=ACTIVATIONS[a.activation],
                has_dense=int(has_dense),
                eps=a.norm_eps,
                attention_scale=a.attention_scale,
                embed_scale=a.embed_scale,
            )
            arrays = np.array(shape[:-3], dtype=np.int64), np.array(shape[-3:], dtype=np.float32)
            self._shapes[block_size, has_dense] = arrays
        return self._shapes[block_size, has_dense]

    def _plans(self, layout: Layout, near: Layout | None) -> tuple[NDArray[Any], ...]:
        """The attention work of all windows, joined: bounds, tasks, members, slots, merged, and the number of slots."""
        a = self.model.architecture
        layouts = [layout if near is None or not window else near for window in self._windows]
        plans = [
            mine.plan(a.num_heads // a.num_kv_heads, window)
            for mine, window in zip(layouts, self._windows, strict=True)
        ]
        num_slots = max(plan.num_slots for plan in plans)
        if len(plans) == 1:
            (plan,) = plans
            bounds = np.array([[0, len(plan.tasks), 0, len(plan.merged)]], dtype=np.int64)
            return bounds, plan.tasks, plan.members, plan.slots[None], plan.merged, num_slots  # type: ignore[return-value]
        ranges: list[list[int]] = []
        tasks, first_task, first_member, first_merged = [], 0, 0, 0
        for mine, plan in zip(layouts, plans, strict=True):
            ranges.append([first_task, first_task + len(plan.tasks), first_merged, first_merged + len(plan.merged)])
            moved = plan.tasks.copy()
            moved[:, 3] += first_member
            if mine is near:
                moved[:, 0] += len(layout.tables)
            tasks.append(moved)
            first_task, first_merged = ranges[-1][1], ranges[-1][3]
            first_member += len(plan.members)
        return (
            np.array(ranges, dtype=np.int64),
            np.concatenate(tasks),
            np.concatenate([plan.members for plan in plans]),
            np.stack([plan.slots for plan in plans]),
            np.concatenate([plan.merged for plan in plans]),
            num_slots,  # type: ignore[return-value]
        )


class _Vectors:
    """Concatenates norm weights and biases, each beginning at a multiple of 16."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self._length = 0

    def add(self, vector: Tensor | None) -> int:
        """Adds a vector and returns where it begins; -1 for none."""
        if vector is None:
            return -1
        place, size = self._length, -(-vector.numel() // LANES) * LANES
        part = np.zeros(size, dtype=np.float32)
        part[: vector.numel()] = vector.detach().float().numpy()
        self._parts.append(part)
        self._length += size
        return place

    def joined(self) -> Floats:
        """Returns all vectors as one array."""
        return np.concatenate(self._parts)


def _all(pages: Pages) -> list[Tensor]:
    return [pages.keys, pages.values, pages.key_scales, pages.value_scales]


def _linears(block: nn.Module, matrices: Sequence[Matrix]) -> list[nn.Module]:
    """The block's projections in the order of a table."""
    return [block.get_submodule(matrix.name) for matrix in matrices]


def _packed(layer: nn.Module) -> BlockLinear | DenseTiles:
    """The packed weights of a layer; those of a plain Linear are copied into tiles."""
    from firsthand.kernels.products.float_products import tile_floats

    if isinstance(layer, nn.Linear):
        return tile_floats(layer.weight.detach().contiguous().numpy(), np.float32)
    assert isinstance(layer, (BlockLinear, DenseLinear))
    return layer if isinstance(layer, BlockLinear) else layer.tiles


def _vectors(block: Block, matrices: Sequence[Matrix]) -> list[Tensor | None]:
    """The block's norm weights and biases, in the order of `Weights.places`."""
    norms = [_norm_weights(_part(block, norm.name)) for norm in BLOCK_NORMS]
    biases: list[Any] = [linear.bias for linear in _linears(block, matrices)]
    return [*norms, *biases, *[None] * (len(BLOCK) - len(biases))]


def _part(block: Block, name: str) -> nn.Module | None:
    """The module at a place in a block, or None."""
    parent, _, leaf = name.rpartition(".")
    part: nn.Module | None = getattr(block.get_submodule(parent), leaf)
    return part


def _norm_weights(norm: nn.Module | None) -> Tensor | None:
    if not isinstance(norm, RMSNorm):
        return None
    return 1.0 + norm.weight.float() if norm.unit_offset else norm.weight


def _angles(rope: Rope, head_dim: int, positions: int, length: int) -> tuple[Floats, Floats]:
    """Cosines and sines, flat: positions P. Computed in equal pieces, so a longer table begins with the same bits."""
    each = frequencies(rope, head_dim, length=length)
    parts = [
        rotation(each, torch.arange(start, start + ANGLES_AT_ONCE), scale=rope.attention_factor, dtype=torch.float32)
        for start in range(0, positions, ANGLES_AT_ONCE)
    ]
    half = head_dim // 2
    cos = torch.cat([part.cos[:, :half] for part in parts]).reshape(-1)
    sin = torch.cat([part.sin[:, :half] for part in parts]).reshape(-1)
    return cos.numpy(), sin.numpy()
