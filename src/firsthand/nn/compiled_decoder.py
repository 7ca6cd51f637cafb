"""A decoder run by the compiled step (`kernels/step/decoder_step.py`) instead of module by module.

Same weights, same architecture, other arithmetic order. Blockwise products round each token's inputs to 8 bits in blocks of
32 on either way, so hidden states agree with `Decoder.forward` of the same packed model as far as those roundings do; those
of other models agree to about 1e-5. Among themselves all fused calls agree bit for bit, whatever is computed together.
`can_fuse` says which models qualify. CPU only. Plain float32 layers are copied into tiles, so they take memory twice.
"""

# N packed tokens, M wanted rows, D hidden, L layers, P pairs, V vocabulary

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import LANES, Layout, Pages
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.batched_lora import CompiledSpans, Span, SpanCompiler
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import frequencies, rotation
from firsthand.nn.decoder import Block, Decoder
from firsthand.nn.quant import BlockLinear, DenseLinear

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

Floats = NDArray[np.float32]
ANGLES_AT_ONCE = 1024
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2}


@dataclass(frozen=True)
class Cache:
    """Memory for keys and values of all layers in one piece, and as the pages of each."""

    pages: tuple[Pages, ...]
    arrays: tuple[NDArray[Any], ...]
    """Keys, values, key scales, value scales, flat, a layer after another."""
    spans: NDArray[np.int64]
    """For each layer whether its blocks are of a kind apart (1) or not (0), its first block in `arrays`, and the one after
    its last: L 3."""

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
        """Memory that is reserved but, on the CPU, not touched yet. `num_near`: another number for windowed layers."""
        is_near = [num_near is not None and window is not None for window in a.windows]
        counts = [num_near if near and num_near is not None else num_blocks for near in is_near]
        ends = list(itertools.accumulate(counts, initial=0))
        spans = np.array([is_near, ends[:-1], ends[1:]], dtype=np.int64).T.copy()
        whole = Pages.empty(ends[-1], a.num_kv_heads, block_size, a.head_dim, dtype, device)
        pages = tuple(Pages(*(tensor[first:last] for tensor in _all(whole))) for _, first, last in spans)
        return Cache(pages, () if device.type != "cpu" or dtype == torch.bfloat16 else whole.arrays, spans)


@dataclass(frozen=True)
class Logits:
    """Scores of every next token for some rows, and what most requests need of them."""

    values: Tensor
    """M V, float32; overwritten by the next step."""
    best: list[int]
    """The most probable token of each row."""
    normalisers: Floats
    """M, log(sum(e ** score)): a token's log-prob is its score minus this."""
    drawn: Sequence[int | None] | None = None
    """The token that was drawn for each row, where the device did it."""
    known: Sequence[Mapping[int, float]] | None = None
    """Scores of some tokens of each row that came from the device with the rest."""
    drawn_logprobs: Sequence[float] | None = None
    """The log-prob that each drawn token was drawn with."""

    def rows(self) -> Iterator[LogitRow]:
        """One after another."""
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
    """The token that was drawn already."""
    known: Mapping[int, float] = field(default_factory=dict)
    drawn_logprob: float = 0.0
    """The log-prob it was drawn with; not set where that is the model's own."""

    @cached_property
    def values(self) -> Tensor:
        """The scores on the CPU; from a GPU they are fetched when first wanted."""
        return self.scores.cpu()

    def logprob(self, token: int) -> float:
        """Natural log of a token's probability, before temperature and cuts."""
        score = self.known.get(token)
        return (float(self.values[token]) if score is None else score) - self.normaliser


def can_fuse(model: Decoder) -> str | None:
    """None if the compiled step can run this model, else the reason why not, in a few words."""
    a = model.architecture
    layers = [layer for block in model.layers if isinstance(block, Block) for layer in _linears(block)] + [
        model.lm_head
    ]
    if find_spec("numba") is None:
        return "numba is not installed"
    if type(model).forward is not Decoder.forward or type(model).logits is not Decoder.logits:
        return "it computes in a way of its own"
    strange = next((layer for layer in layers if not isinstance(layer, (BlockLinear, DenseLinear, nn.Linear))), None)
    if strange is not None:
        return f"it has a layer of another kind: {type(strange).__name__}"
    plain = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    if any(weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in [model.embed.weight, *plain]):
        return "it is not float32 on the CPU"
    widths = (a.hidden_size, a.intermediate_size, a.num_heads * a.head_dim)
    unit = 32 if any(isinstance(layer, BlockLinear) for layer in layers) else LANES
    if any(width % unit for width in widths) or a.head_dim % LANES:
        return f"its widths {widths} are not multiples of {unit}, or head_dim {a.head_dim} is not one of {LANES}"
    return None


class Fused:
    """A decoder ready for the compiled step, with its working memory. Not thread-safe: one call at a time."""

    def __init__(self, model: Decoder, *, threads: int = 1):
        reason = can_fuse(model)
        if reason:
            raise ConfigError(f"this model cannot run in the compiled step: {reason}")
        self.model = model
        self.threads = threads
        self._angles = 0
        self._rows = 0
        self._head_rows = 0
        self.spans = SpanCompiler(model.architecture.num_layers)
        self._low = self._lift = np.empty(0, dtype=np.float32)
        self.refresh()

    def refresh(self) -> None:
        """Read the model's weights again, after they were replaced."""
        a = self.model.architecture
        blocks = [block for block in self.model.layers if isinstance(block, Block)]
        layers = [[_packed(linear) for linear in _linears(block)] for block in blocks]
        head = _packed(self.model.lm_head)
        self._held = [layers, head]  # what the addresses point to
        self._matrices = np.array([[linear.entry() for linear in linears] for linears in layers], dtype=np.int64)
        self._head = np.array([head.entry()], dtype=np.int64)
        kinds = [linear for linears in layers for linear in linears] + [head]
        self._has_blocks = any(isinstance(linear, BlockLinear) for linear in kinds)
        self._has_dense = not all(isinstance(linear, BlockLinear) for linear in kinds)
        vectors = _Vectors()
        places = [[vectors.add(vector) for vector in _vectors(block)] for block in blocks]
        final = vectors.add(_norm_weights(self.model.norm))
        self._places = np.array([*places, [final] + [-1] * (len(places[0]) - 1)], dtype=np.int64)
        self._vectors = vectors.joined()
        self._embed = self.model.embed.weight.detach().numpy().reshape(-1)
        kv_width = a.num_kv_heads * a.head_dim
        q_width = a.num_heads * a.head_dim
        self._columns = np.array([0, q_width, q_width + kv_width, 0, 0, a.intermediate_size, 0], dtype=np.int64)
        self._numbers = np.array([a.norm_eps, a.attention_scale, a.embed_scale], dtype=np.float32)
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
        spans: Sequence[Span] = (),
    ) -> Floats:
        """The states after the final norm of some of the packed tokens; keys and values of all enter the cache: M D.

        `near` is the layout of the windowed layers where the cache keeps their blocks apart, `spans` the rows with adapters.
        """
        from firsthand.kernels.step import decoder_step
        from firsthand.kernels.step.thread_team import counters, together

        a = self.model.architecture
        rows = len(ids)
        positions = layout.positions
        assert len(positions) == rows, "the layout is of other tokens"
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
        arguments = (
            team, self.threads, _sizes(a, layout.block_size, self._has_dense or bool(spans)), self._numbers,
            self._matrices, self._columns, self._places, self._layers, self._vectors, self._embed, self._cos, self._sin,
            np.array(ids, dtype=np.int64), positions, places, cache.spans, *cache.arrays, tables, plans, tasks, members,
            slots, merged, np.array(wanted, dtype=np.int64), adapted.pieces, adapted.entries, self._low, adapted.rank,
            self._lift, self._stream, self._wide, self._rest, self._rounded, partials,
            out.reshape(-1),
        )  # fmt: skip
        together(self.threads, lambda: decoder_step.run(*arguments))
        return out

    def logits(self, hidden_MD: Floats, spans: Sequence[Span] = ()) -> Logits:
        """Scores of every next token after some states, of which `spans` have adapters."""
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
        arguments = (
            counters(decoder_step.PHASES_OF_THE_HEAD + 1), self.threads, self._head, hidden_MD.reshape(-1), rows,
            a.hidden_size, a.vocab_size, np.float32(a.logit_softcap or 0.0), self._rounded, self._logits, stride,
            best, normalisers, adapted.pieces, adapted.entries[a.num_layers], self._low, adapted.rank, self._lift,
        )  # fmt: skip
        together(self.threads, lambda: decoder_step.head(*arguments))
        values = torch.from_numpy(self._logits[: rows * stride].reshape(rows, stride)[:, : a.vocab_size])
        return Logits(values, best.tolist(), normalisers)

    def _adapted(self, spans: Sequence[Span], rows: int) -> CompiledSpans:
        """What the compiled code wants to know of the rows with adapters, and working memory for them."""
        from firsthand.kernels.step import lora_products

        adapted = self.spans(spans)
        if spans:
            needed = lora_products.MATRICES * rows
            if len(self._low) < needed * adapted.rank:
                self._low = np.empty(needed * adapted.rank, dtype=np.float32)
            if len(self._lift) < needed * lora_products.LIFT:
                self._lift = np.empty(needed * lora_products.LIFT, dtype=np.float32)
        return adapted

    def _make_room(self, rows: int, positions: int) -> None:
        """Working memory for so many rows, and angles for so many positions."""
        a = self.model.architecture
        if rows > self._rows:
            from firsthand.kernels.products.rounded_rows import BLOCK, RECORD

            self._rows = rows
            q_width = a.num_heads * a.head_dim
            widest = max(a.hidden_size, q_width, a.intermediate_size)
            wide = max(q_width + 2 * a.num_kv_heads * a.head_dim, 2 * a.intermediate_size, a.hidden_size)
            self._stream = np.empty(rows * a.hidden_size, dtype=np.float32)
            self._rest = np.empty(rows * widest, dtype=np.float32)
            self._wide = np.empty(rows * wide, dtype=np.float32)
            records = rows * (widest // BLOCK) if self._has_blocks else 0
            self._rounded = np.empty(records * RECORD, dtype=np.uint8)
        if positions > self._angles:
            self._angles = max(-(-positions // ANGLES_AT_ONCE) * ANGLES_AT_ONCE, 2 * self._angles)
            tables = [_angles(rope, a.head_dim, self._angles) for rope in self._ropes]
            self._cos, self._sin = (np.concatenate(parts) for parts in zip(*tables, strict=True))
            each = self._angles * (a.head_dim // 2)
            self._layers = np.array(
                [
                    [window or 0, self._windows.index(window or 0), self._ropes.index(rope) * each]
                    for window, rope in zip(a.windows, a.ropes, strict=True)
                ],
                dtype=np.int64,
            )

    def _plans(self, layout: Layout, near: Layout | None) -> tuple[NDArray[Any], ...]:
        """The attention work of each window, joined: bounds, tasks, members, slots, merged, and the number of slots."""
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
    """Norm weights and biases, one after another, each beginning at a multiple of 16."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self._length = 0

    def add(self, vector: Tensor | None) -> int:
        """Where the vector will begin; -1 for none."""
        if vector is None:
            return -1
        place, size = self._length, -(-vector.numel() // LANES) * LANES
        part = np.zeros(size, dtype=np.float32)
        part[: vector.numel()] = vector.detach().float().numpy()
        self._parts.append(part)
        self._length += size
        return place

    def joined(self) -> Floats:
        """All of them."""
        return np.concatenate(self._parts)


def _sizes(a: Architecture, block_size: int, has_dense: bool) -> NDArray[np.int64]:
    """What the compiled step wants to know of the model, in its order."""
    shapes = (a.num_layers, a.hidden_size, a.intermediate_size, a.num_heads, a.num_kv_heads, a.head_dim)
    return np.array([*shapes, block_size, ACTIVATIONS[a.activation], has_dense], dtype=np.int64)


def _all(pages: Pages) -> list[Tensor]:
    return [pages.keys, pages.values, pages.key_scales, pages.value_scales]


def _linears(block: Block) -> list[nn.Module]:
    """In the order of the table of matrices."""
    attention, mlp = block.attention, block.mlp
    return [
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
        mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    ]  # fmt: skip


def _packed(layer: nn.Module) -> BlockLinear | DenseTiles:
    """What says where a layer's weights lie: those of a plain one are copied."""
    from firsthand.kernels.products.float_products import tile_floats

    if isinstance(layer, nn.Linear):
        return tile_floats(layer.weight.detach().contiguous().numpy(), np.float32)
    assert isinstance(layer, (BlockLinear, DenseLinear))
    return layer if isinstance(layer, BlockLinear) else layer.tiles


def _vectors(block: Block) -> list[Tensor | None]:
    """In the order of the table of vectors."""
    attention = block.attention
    norms = (block.attention_norm, block.attention_out_norm, block.mlp_norm, block.mlp_out_norm)
    heads = (attention.q_norm, attention.k_norm)
    biases: list[Any] = [linear.bias for linear in _linears(block)]
    return [*map(_norm_weights, norms), *biases, *map(_norm_weights, heads)]


def _norm_weights(norm: nn.Module | None) -> Tensor | None:
    if not isinstance(norm, RMSNorm):
        return None
    return 1.0 + norm.weight.float() if norm.unit_offset else norm.weight


def _angles(rope: Rope, head_dim: int, positions: int) -> tuple[Floats, Floats]:
    """Cosines and sines, flat: positions P. Made in equal pieces, so that a longer table begins with the same bits."""
    each = frequencies(rope, head_dim)
    parts = [
        rotation(each, torch.arange(start, start + ANGLES_AT_ONCE), scale=rope.attention_factor, dtype=torch.float32)
        for start in range(0, positions, ANGLES_AT_ONCE)
    ]
    half = head_dim // 2
    cos = torch.cat([part.cos[:, :half] for part in parts]).reshape(-1)
    sin = torch.cat([part.sin[:, :half] for part in parts]).reshape(-1)
    return cos.numpy(), sin.numpy()
