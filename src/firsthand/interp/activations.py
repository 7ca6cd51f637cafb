"""Reads and edits activations of a decoder by site: `run_with_cache`, `run_with_edits`, and `tapped`, which always resets.

Sites are named in `nn/sites.py`, and a pattern such as `blocks.*.resid.post` stands for all that match; the hook names of
TransformerLens are understood too (`blocks.3.hook_resid_post`). Attention weights are no site: `attention_weights` makes
them.
"""

# N packed tokens of all texts, D hidden, V vocabulary, H query heads, T tokens of one text

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firsthand.engine.core.engine import Engine
from firsthand.errors import ConfigError, DataError
from firsthand.nn.architecture import Architecture
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap, Taps

Texts = Sequence[int] | Sequence[Sequence[int]] | Tensor
"""Token ids of one text, of several texts, or a matrix with a text in each row."""
_HOOKS = {
    "hook_embed": "embed",
    "hook_resid_mid": "resid.mid",
    "hook_resid_post": "resid.post",
    "hook_attn_out": "attn.out",
    "hook_mlp_out": "mlp.out",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_rot_q": "attn.q",
    "attn.hook_rot_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_z": "attn.mixed",
    "mlp.hook_post": "mlp.act",
}
"""TransformerLens's names of the same tensors; `hook_resid_pre` of a layer is `resid.post` of the layer before.

Some are the same in some architectures alone: see `expect_same_tensor`.
Its `hook_normalized` comes before a norm's weight and bias, where no site is.
"""
_DIFFERING = {
    "hook_embed", "hook_attn_out", "hook_mlp_out", "attn.hook_q", "attn.hook_k", "attn.hook_rot_q", "attn.hook_rot_k",
}  # fmt: skip


class ActivationCache(Mapping[str, Tensor]):
    """Activations by site, each a copy of N rows: the tokens of all texts, one after another."""

    def __init__(self, found: Mapping[str, Tensor], lengths: Sequence[int], architecture: Architecture | None = None):
        self._found = dict(found)
        self._architecture = architecture
        self.lengths = tuple(lengths)
        """Tokens of each text."""

    def __getitem__(self, site: str) -> Tensor:
        name = site_of(site)
        if self._architecture is not None:
            expect_same_tensor(site, self._architecture)
        if name not in self._found:
            kept = ", ".join(list(self._found)[:4]) or "nothing"
            raise ConfigError(f"the cache holds no {site!r}, but {kept}: name the site when you run the model")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def of_text(self, site: str, index: int) -> Tensor:
        """The rows of one text."""
        start = sum(self.lengths[:index])
        return self[site][start : start + self.lengths[index]]

    @property
    def last(self) -> Tensor:
        """The row of each text's last token."""
        return torch.tensor(self.lengths).cumsum(0) - 1


class CachedRun(NamedTuple):
    """The results of a run: scores of every next token (N V), and the activations that were kept."""

    logits: Tensor
    cache: ActivationCache


def run_with_cache(
    model: Decoder,
    texts: Texts,
    sites: str | Sequence[str] = "*",
    *,
    edits: Mapping[str, Tap] | None = None,
) -> CachedRun:
    """Runs texts without gradient; returns logits and a copy of each named activation, after the `edits` were made.

    ConfigError for a site or pattern that no part of the model has, with the nearest name; DataError for ids that the
    model does not have or for texts longer than its context.
    """
    found: dict[str, Tensor] = {}
    wanted = sites_matching(model, sites)
    taps = combined(_keeping(found, wanted), _named(model, edits))
    ids_N, lengths = packed_ids(model, texts)
    with torch.no_grad():
        hidden_ND = model(ids_N, _positions(lengths), Packed(lengths), taps=taps)
        logits_NV = model.logits(hidden_ND, taps=taps)
    return CachedRun(logits_NV, ActivationCache({site: found[site] for site in wanted}, lengths, model.architecture))


def run_with_edits(model: Decoder, texts: Texts, edits: Mapping[str, Tap]) -> Tensor:
    """Runs texts without gradient with activations replaced by site; returns the scores of every next token: N V."""
    return run_with_cache(model, texts, (), edits=edits).logits


def read_activations(
    model: Decoder, texts: Texts, sites: str | Sequence[str], *, edits: Mapping[str, Tap] | None = None
) -> ActivationCache:
    """Returns the same activations as `run_with_cache` and stops after the last site: later layers are not computed."""
    found: dict[str, Tensor] = {}
    wanted = sites_matching(model, sites)
    if "logits" in wanted or not wanted:
        return run_with_cache(model, texts, sites, edits=edits).cache
    ids_N, lengths = packed_ids(model, texts)
    order = {site: index for index, site in enumerate(computed_order(model))}
    last = max(wanted, key=order.__getitem__)

    def stop(values: Tensor) -> Tensor | None:
        raise _Reached

    taps = combined({last: stop}, _keeping(found, wanted), _named(model, edits))
    with torch.no_grad(), suppress(_Reached):
        model(ids_N, _positions(lengths), Packed(lengths), taps=taps)
    return ActivationCache({site: found[site] for site in wanted}, lengths, model.architecture)


@contextmanager
def tapped(model: Decoder | Engine, taps: Mapping[str, Tap]) -> Iterator[None]:
    """Taps every call of the model, or every step of the engine, inside the block, and no longer, whatever ends it.

    Contexts nest: the outer one's edits come first. An engine drops cached prefixes when its taps change, and takes one
    context at a time. ConfigError for an unknown site, before anything is changed.
    """
    if isinstance(model, Engine):
        if model.runner.taps is not None:
            raise ConfigError("this engine has taps already: close their context first, or pass all taps to one")
        model.tap(_named(model, taps))
        try:
            yield
        finally:
            model.tap(None)
        return
    named = _named(model, taps)
    model.checked(named)
    opened: list[Mapping[str, Tap]] = model.__dict__.setdefault("_open_taps", [])
    if not opened:
        _install(model, opened)
    opened.append(named)
    try:
        yield
    finally:
        opened[:] = [each for each in opened if each is not named]
        if not opened:
            for name in ("forward", "logits", "_open_taps"):
                model.__dict__.pop(name, None)


@torch.no_grad()
def attention_weights(model: Decoder, cache: ActivationCache, layer: int, text: int = 0) -> Tensor:
    """The weights of a layer's heads on one text, H T T: made from cached queries and keys by the model's own attention.

    Attention to unit values gives the weights themselves, so windows, softcaps, sinks and ALiBi are in them.
    """
    q_THK = cache.of_text(f"blocks.{layer}.attn.q", text)
    k_TGK = cache.of_text(f"blocks.{layer}.attn.k", text)
    length = q_THK.shape[0]
    attention: Any = model.layers[layer].attention
    units_TGT = torch.eye(length)[:, None].expand(length, k_TGK.shape[1], length)
    more = {} if attention.terms is None else {"terms": attention.terms}
    mixed_THT = Packed([length])(
        layer, q_THK.float(), k_TGK.float(), units_TGT, scale=attention.scale, window=attention.window, **more
    )
    return mixed_THT.transpose(0, 1)


def sites_matching(model: Decoder, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The sites of the model that names and patterns stand for, in the model's order; ConfigError for one without any."""
    names, known = [wanted] if isinstance(wanted, str) else list(wanted), model.sites()
    chosen: set[str] = set()
    for given in names:
        expect_same_tensor(given, model.architecture)
        name = site_of(given)
        matches = [site for site in known if fnmatchcase(site, name)] if any(c in name for c in "*?[") else [name]
        if not matches:
            raise ConfigError(f"no activation site matches {name!r}: there are {known[0]}, {known[1]} ... {known[-1]}")
        Taps.of(dict.fromkeys(matches, _look), known)
        chosen.update(matches)
    return tuple(site for site in known if site in chosen)


def expect_vectors(model: Decoder, site: str) -> None:
    """ConfigError for a site without one vector a token that can be read or changed inside the model: heads, logits."""
    if site == "logits" or site.rpartition(".")[2] in ("q", "k", "v", "mixed", "router"):
        raise ConfigError(
            f"{site} has no vector of activations for each token: give a site such as {model.sites()[-3]} or "
            f"{site.rpartition('.attn.')[0] or 'blocks.0'}.attn.out"
        )


def computed_order(model: Decoder) -> list[str]:
    """The sites in the order in which a forward pass reaches them."""
    steps = ("attn.in", "attn.q", "attn.k", "attn.v", "attn.mixed", "attn.out", "resid.mid", "mlp.in")
    rank = {name: index for index, name in enumerate(steps)} | {"mlp.out": 98, "resid.post": 99}

    def key(site: str) -> tuple[int, int]:
        if not site.startswith("blocks."):
            return (-1, 0) if site == "embed" else (1 << 30, site == "logits")
        _, layer, name = site.split(".", 2)
        return int(layer), rank.get(name, 50)

    return sorted(model.sites(), key=key)


def site_of(name: str) -> str:
    """Our name of a site; TransformerLens's hook names are translated, any other is returned as it is."""
    if name in _HOOKS:
        return _HOOKS[name]
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found is None:
        return name
    layer, hook = int(found[1]), found[2]
    if hook == "hook_resid_pre":
        return f"blocks.{layer - 1}.resid.post" if layer else "embed"
    return f"blocks.{layer}.{_HOOKS[hook]}" if hook in _HOOKS else name


def expect_same_tensor(name: str, architecture: Architecture) -> None:
    """ConfigError for a hook name whose tensor in TransformerLens is none of this architecture's sites.

    Its queries and keys are those before head norms and rotation (`hook_rot_q` after), its outputs of attention and MLP
    those after a norm on the output, and its embeddings those without positions.
    """
    a = architecture
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    layer, hook = (int(found[1]), found[2]) if found else (0, name)
    rotates = layer < a.num_layers and a.ropes[layer].kind != "none"
    ours = ""
    if hook in ("attn.hook_q", "attn.hook_k") and (rotates or a.qk_norm):
        ours = "has head norms or rotation in it"
    elif hook in ("attn.hook_rot_q", "attn.hook_rot_k") and not rotates:
        ours = "is not rotated"
    elif hook in ("hook_attn_out", "hook_mlp_out") and a.norm_placement != "pre":
        ours = "comes before the norm on the output"
    elif hook == "hook_embed" and (a.learned_positions or a.embed_norm):
        ours = "has positions or a norm in it"
    if ours:
        raise ConfigError(
            f"{name!r} is another tensor in TransformerLens than any site of this model: {site_of(name)!r} {ours}; name "
            "that site if it is meant"
        )


def hook_of(site: str, architecture: Architecture | None = None) -> str:
    """TransformerLens's name of one of our sites; the site itself if it has none.

    Without an architecture only names that are the same tensor in all of them.
    """
    prefix, _, rest = site.partition(".")
    layer, _, name = rest.partition(".")
    inside = prefix == "blocks"
    for hook, ours in _HOOKS.items():
        if ours != (name if inside else site):
            continue
        given = f"blocks.{layer}.{hook}" if inside else hook
        if architecture is None and hook in _DIFFERING:
            continue
        with suppress(ConfigError):
            if architecture is not None:
                expect_same_tensor(given, architecture)
            return given
    return site


def packed_ids(model: Decoder, texts: Texts) -> tuple[Tensor, list[int]]:
    """The ids of all texts one after another, and the length of each; DataError for what the model cannot take."""
    if isinstance(texts, Tensor):
        texts = texts.tolist()
    given: Any = texts
    is_one = len(given) > 0 and not isinstance(given[0], Sequence)
    rows = [[int(id) for id in row] for row in ([given] if is_one else given)]
    if not rows or not all(rows):
        raise DataError("a text has no tokens: give one token or more for each text")
    ids_N = torch.tensor([id for row in rows for id in row])
    size, context = model.architecture.vocab_size, model.architecture.max_position
    foreign = next((id for row in rows for id in row if not 0 <= id < size), None)
    if foreign is not None:
        raise DataError(f"token id {foreign} came, and the model has {size} tokens: use its own tokenizer")
    if max(map(len, rows)) > context:
        raise DataError(f"a text has {max(map(len, rows))} tokens, and the model's context is {context}: cut it")
    return ids_N, [len(row) for row in rows]


def combined(*taps: Mapping[str, Tap]) -> dict[str, Tap]:
    """One tap for each site: of several on one site, the last one's edits come first."""
    found: dict[str, Tap] = {}
    for each in reversed(taps):
        for site, tap in each.items():
            found[site] = _after(found[site], tap) if site in found else tap
    return found


class _Reached(Exception):  # a signal, not an error
    """The last wanted site was read."""


def _after(first: Tap, second: Tap) -> Tap:
    def both(values: Tensor) -> Tensor | None:
        new = first(values)
        newer = second(values if new is None else new)
        return new if newer is None else newer

    return both


def _keeping(found: dict[str, Tensor], wanted: Sequence[str]) -> dict[str, Tap]:
    def keep(site: str) -> Tap:
        def copy(values: Tensor) -> None:
            found[site] = values.clone()

        return copy

    return {site: keep(site) for site in wanted}


def _look(values: Tensor) -> None:
    return None


def _named(model: Decoder | Engine, taps: Mapping[str, Tap] | None) -> dict[str, Tap]:
    for site in taps or {}:
        expect_same_tensor(site, model.architecture)
    return {site_of(site): tap for site, tap in (taps or {}).items()}


def _positions(lengths: Sequence[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])


def _install(model: Decoder, opened: list[Mapping[str, Tap]]) -> None:
    """Gives this model its own `forward` and `logits`, which add the open taps to those of a call."""
    kind = type(model)

    def all_taps(given: Mapping[str, Tap] | Taps | None) -> Taps:
        if isinstance(given, Taps):
            raise ConfigError("taps were validated outside of this context: pass the mapping of taps itself")
        return model.checked(combined(*reversed([*opened, given or {}])))

    def forward(*args: Any, taps: Mapping[str, Tap] | Taps | None = None, **more: Any) -> Tensor:
        return kind.forward(model, *args, taps=all_taps(taps), **more)

    def logits(*args: Any, taps: Mapping[str, Tap] | Taps | None = None) -> Tensor:
        return kind.logits(model, *args, taps=all_taps(taps))

    model.__dict__["forward"], model.__dict__["logits"] = forward, logits
