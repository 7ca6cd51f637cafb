"""Activation patching and path patching: which part, or which path between two heads, carries a behaviour.

A clean and a corrupted text of equal length differ where the behaviour depends on. Activations of one are put into a run of
the other, and a metric says how much of the difference came along (Vig et al., 2020; Wang et al., 2022, arXiv:2211.00593).
"""

# N tokens, H heads, K head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import run_with_cache, run_with_edits, sites_matching
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap

Metric = Callable[[Tensor], float]
"""Logits N V -> a number; `logit_difference` makes the usual one."""


@dataclass(frozen=True)
class Patch:
    """One site of a run replaced by another run's."""

    site: str
    head: int | None
    position: int | None
    restored: float
    """(metric - corrupted) / (clean - corrupted): 1 brings the clean behaviour back, 0 changes nothing."""


def logit_difference(answer: int, other: int, position: int = -1) -> Metric:
    """The metric logit(answer) - logit(other) at a position."""
    return lambda logits_NV: float(logits_NV[position, answer] - logits_NV[position, other])


def activation_patches(
    model: Decoder, clean: Sequence[int], corrupted: Sequence[int], metric: Metric, sites: str | Sequence[str], *,
    by_head: bool = False, by_position: bool = False,
) -> list[Patch]:  # fmt: skip
    """Puts clean activations into the corrupted run, one at a time: a site, a head of it, or a position of it.

    DataError for texts of different lengths, or for a metric that does not tell the runs apart.
    """
    names = sites_matching(model, sites)
    clean_logits, clean_cache = run_with_cache(model, clean, names)
    base = run_with_cache(model, corrupted, ()).logits
    low, high = _ends(clean, corrupted, metric(base), metric(clean_logits))
    found = []
    for site in names:
        values = clean_cache[site]
        if by_head and values.ndim != 3:
            raise ConfigError(f"{site} has no heads: patch by head at attn.q, attn.k, attn.v or attn.mixed")
        heads = range(values.shape[1]) if by_head else [None]
        positions = range(len(clean)) if by_position else [None]
        for head in heads:
            for position in positions:
                edit = replacing(values, heads=None if head is None else [head], position=position)
                patched = metric(run_with_edits(model, corrupted, {site: edit}))
                found.append(Patch(site, head, position, (patched - low) / (high - low)))
    return found


def path_patch(
    model: Decoder, clean: Sequence[int], corrupted: Sequence[int], metric: Metric, *, sender: tuple[int, int],
    receiver: tuple[int, int], into: str = "k", through_mlps: bool = True,
) -> float:  # fmt: skip
    """The share of the behaviour lost if the receiver alone sees the corrupted sender: by its `q`, `k` or `v`.

    Sender and receiver are (layer, head). All other heads keep their clean values on the way, and MLPs too unless
    `through_mlps`. 1 is the loss of corrupting the whole text, 0 none. A key or value head serves its group of query heads.
    """
    (sent_layer, sent_head), (layer, head) = sender, receiver
    if into not in ("q", "k", "v") or not 0 <= sent_layer < layer < model.architecture.num_layers:
        raise ConfigError(
            f"a path from layer {sent_layer} to layer {layer} by {into!r} came: the receiver lies later, and the path ends "
            "in q, k or v"
        )
    heads = model.architecture.num_heads
    if not (0 <= sent_head < heads and 0 <= head < heads):
        raise ConfigError(f"the heads {sent_head} and {head} came: this model has heads 0 to {heads - 1} in each layer")
    names = [f"blocks.{index}.{name}" for index in range(layer) for name in ("attn.mixed", "mlp.out")]
    clean_logits, clean_cache = run_with_cache(model, clean, names)
    corrupted_logits, corrupted_cache = run_with_cache(model, corrupted, names)
    low, high = _ends(clean, corrupted, metric(corrupted_logits), metric(clean_logits))
    edits: dict[str, Tap] = {}
    for index in range(sent_layer, layer):
        mixed = clean_cache[f"blocks.{index}.attn.mixed"].clone()
        if index == sent_layer:
            mixed[:, sent_head] = corrupted_cache[f"blocks.{index}.attn.mixed"][:, sent_head]
        edits[f"blocks.{index}.attn.mixed"] = replacing(mixed)
        if not through_mlps:
            edits[f"blocks.{index}.mlp.out"] = replacing(clean_cache[f"blocks.{index}.mlp.out"])
    site = f"blocks.{layer}.attn.{into}"
    received = run_with_cache(model, clean, site, edits=edits).cache[site]
    a = model.architecture
    place = head if into == "q" else head * a.num_kv_heads // a.num_heads
    patched = metric(run_with_edits(model, clean, {site: replacing(received, heads=[place])}))
    return (high - patched) / (high - low)


def replacing(new: Tensor, *, heads: Sequence[int] | None = None, position: int | None = None) -> Tap:
    """A tap that puts these values in place of all, of some heads, or of one position."""

    def edit(values: Tensor) -> Tensor:
        if values.shape != new.shape:
            raise ConfigError(
                f"a patch of shape {tuple(new.shape)} came for activations of {tuple(values.shape)}: run both on texts of "
                "one length"
            )
        edited = values.clone()
        rows = slice(None) if position is None else slice(position, position + 1 or None)
        for head in [slice(None)] if heads is None else heads:
            at = (rows,) if heads is None else (rows, head)
            edited[at] = new[at]
        return edited

    return edit


def _ends(clean: Sequence[int], corrupted: Sequence[int], low: float, high: float) -> tuple[float, float]:
    if len(clean) != len(corrupted):
        raise DataError(f"the texts have {len(clean)} and {len(corrupted)} tokens: patching needs equal lengths")
    if abs(high - low) < 1e-6:
        raise DataError(f"the metric is {high:g} on both texts: choose texts on which the model behaves differently")
    return low, high
