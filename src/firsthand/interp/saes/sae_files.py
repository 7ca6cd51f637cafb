"""Writes and reads sparse autoencoders in SAELens's layout: `cfg.json` beside `sae_weights.safetensors`.

Ours are written so that SAELens loads them for inference: BatchTopK and Matryoshka as `jumprelu` with their threshold. What
theirs have and ours do not (decoder norms in the latents, an input bias that is not subtracted) is folded in when read.
"""

# D inputs, M latents

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError, nearest
from firsthand.formats.model_files import read_json
from firsthand.interp.activations import expect_same_tensor, hook_of, site_of
from firsthand.interp.saes.sae_kinds import KINDS, sae_of
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.nn.tensor_file import read_tensors
from firsthand.system.new_file import replacing, write_new

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_THEIRS = {
    "relu": "standard",
    "topk": "topk",
    "batch_topk": "jumprelu",
    "jumprelu": "jumprelu",
    "matryoshka": "jumprelu",
}
_OURS = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_NEEDED = {"W_enc", "W_dec", "b_enc", "b_dec"}


@dataclass(frozen=True)
class SavedSae:
    """An autoencoder, and the model and site that it belongs to."""

    sae: SparseAutoencoder
    model: str = ""
    """The name of the model it was trained on; empty if the file does not say."""
    site: str = ""
    """The site, by our name; empty if the file does not say."""
    facts: Json = field(default_factory=dict)
    """Further facts of the file: tokens, context, measures."""
    hook: str = ""
    """TransformerLens's name of the site, if it is known for the model, or is all that the file says."""

    def expect_fits(self, model: Decoder) -> None:
        """ConfigError if the model has no such site, or the site another width."""
        if self.site not in model.sites():
            close = nearest(self.site, model.sites())
            raise ConfigError(
                f"the autoencoder is for {self.site!r}, which this model does not have"
                + (f"; the nearest is {close!r}" if close else "")
            )
        if self.hook:
            expect_same_tensor(self.hook, model.architecture)
        width = width_of(model, self.site)
        if width != self.sae.d_in:
            raise ConfigError(
                f"the autoencoder takes activations of width {self.sae.d_in}, and {self.site} of this model has {width}: it "
                "is for another model"
            )


def width_of(model: Decoder, site: str) -> int:
    """The values of a token at a site; heads count as one row."""
    a = model.architecture
    widths = {"logits": a.vocab_size, "act": a.intermediate_size, "q": a.num_heads * a.head_dim}
    widths |= {"mixed": a.num_heads * a.head_dim, "k": a.num_kv_heads * a.head_dim, "v": a.num_kv_heads * a.head_dim}
    return widths.get(site.rpartition(".")[2], a.hidden_size)


def save_sae(saved: SavedSae, folder: Path | str) -> Path:
    """Writes both files and returns the folder."""
    sae, folder = saved.sae, Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"W_enc": sae.encoder.T, "W_dec": sae.decoder, "b_enc": sae.encoder_bias, "b_dec": sae.decoder_bias}
    theirs = _THEIRS[sae.kind]
    config: Json = {
        "architecture": theirs, "d_in": sae.d_in, "d_sae": sae.d_sae, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "model_name": saved.model, "hook_name": saved.hook or hook_of(saved.site),
            "firsthand": {"kind": sae.kind, "settings": sae.settings(), "site": saved.site, **saved.facts},
        },
    }  # fmt: skip
    if theirs == "topk":
        config |= {"k": sae.settings()["k"], "rescale_acts_by_decoder_norm": False}
    if theirs == "jumprelu":
        threshold: Tensor = sae.threshold  # type: ignore[assignment]
        tensors["threshold"] = threshold.expand(sae.d_sae)
    with replacing(folder / WEIGHTS) as part:
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, part)
    write_new(folder / CONFIG, json.dumps(config, indent=1))
    return folder


def read_sae(folder: Path | str) -> SavedSae:
    """The autoencoder in a folder that we or SAELens wrote; ModelFileError for what is missing, contradictory or unknown."""
    folder = Path(folder)
    config = _config(folder / CONFIG)
    tensors = _tensors(folder / WEIGHTS)
    d_in, d_sae = (_size(config, name, folder) for name in ("d_in", "d_sae"))
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    own = metadata.get("firsthand")
    own = own if isinstance(own, dict) and own.get("kind") in tuple(KINDS) else {}
    sae = _made(config, own, tensors, d_in, d_sae, folder)
    hook = metadata.get("hook_name") or config.get("hook_name") or ""
    model = metadata.get("model_name") or config.get("model_name") or ""
    site = own.get("site") or site_of(str(hook))
    facts = {name: value for name, value in own.items() if name not in ("kind", "settings", "site")}
    return SavedSae(sae.eval(), str(model), str(site), facts, "" if own.get("site") else str(hook))


def _made(
    config: Json, own: Mapping[str, Any], tensors: dict[str, Tensor], d_in: int, d_sae: int, folder: Path
) -> SparseAutoencoder:
    theirs = _architecture(config, folder)
    for name in ("normalize_activations", "reshape_activations"):
        if config.get(name) not in (None, "none", False, "hook_z" if name == "reshape_activations" else "none"):
            raise ModelFileError(f"{folder} has {name} {config[name]!r}: fold it into the weights first; expected none")
    shapes = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_in),
        "b_enc": (d_sae,),
        "b_dec": (d_in,),
        "threshold": (d_sae,),
    }
    needed = _NEEDED | ({"threshold"} if theirs == "jumprelu" else set())
    for name in sorted(needed | tensors.keys()):
        if name not in tensors:
            raise ModelFileError(f"{folder / WEIGHTS} has no tensor {name!r}, which a {theirs} autoencoder needs")
        if name not in needed:
            raise ModelFileError(f"{folder / WEIGHTS} has a tensor {name!r}: a {theirs} autoencoder has none")
        if tuple(tensors[name].shape) != shapes[name]:
            raise ModelFileError(
                f"{folder / WEIGHTS} has {name} of shape {tuple(tensors[name].shape)}: expected {shapes[name]} by cfg.json"
            )
        if not tensors[name].isfinite().all():
            raise ModelFileError(f"{folder / WEIGHTS} has values in {name} that are not finite: the file is damaged")
    if not (tensors["W_dec"].abs().amax(1) > 0).any():
        raise ModelFileError(f"{folder / WEIGHTS} has a decoder of zeros: no latent of this dictionary does anything")
    if own and _THEIRS[own["kind"]] != theirs:
        raise ModelFileError(
            f"{folder / CONFIG} has the architecture {theirs} and a note of the kind {own['kind']}: expected "
            f"{_THEIRS[own['kind']]}, so correct the one that is wrong"
        )
    if theirs == "jumprelu" and (tensors["threshold"] != tensors["threshold"][0]).any():
        own = {}  # the kinds of one threshold, if one was noted, have become JumpReLU
    kind = own.get("kind") or _OURS[theirs]
    settings = own.get("settings") or ({"k": _k(config, folder)} if theirs == "topk" else {})
    if theirs == "topk" and own and settings.get("k") != _k(config, folder):
        raise ModelFileError(
            f"{folder / CONFIG} has k {_k(config, folder)!r} and a note of k {settings.get('k')!r}: expected one of them"
        )
    if kind == "jumprelu" and not own:
        settings = {"k": min(32, d_sae)}
    try:
        sae = sae_of(kind, d_in, d_sae, **settings)
    except (TypeError, ValueError, RuntimeError, ConfigError) as error:
        raise ModelFileError(f"{folder / CONFIG} has settings that no {kind} autoencoder takes: {error}") from error
    _fill(sae, config, tensors)
    return sae


def _architecture(config: Json, folder: Path) -> str:
    """The architecture, of which SAELens 3 to 5 gave a part as the activation: `standard` with `topk` is `topk`."""
    theirs = config.get("architecture", "standard")
    if not isinstance(theirs, str) or theirs not in _OURS:
        raise ModelFileError(f"{folder} has the architecture {theirs!r}: expected {', '.join(_OURS)}")
    named = [config[name] for name in ("activation_fn", "activation_fn_str") if config.get(name) is not None]
    if theirs == "standard" and named and all(name == "topk" for name in named):
        return "topk"
    expected = "topk" if theirs == "topk" else "relu"
    for name in named:
        if name != expected:
            raise ModelFileError(
                f"{folder} has a {theirs} autoencoder with the activation {name!r}: expected {expected}"
            )
    return theirs


def _k(config: Json, folder: Path) -> Any:
    """The latents of a token that a TopK autoencoder keeps, which SAELens 3 to 5 wrote as an argument of the activation."""
    arguments = config.get("activation_fn_kwargs")
    given = [each["k"] for each in (config, arguments) if isinstance(each, dict) and each.get("k") is not None]
    if given[1:] and given[0] != given[1]:
        raise ModelFileError(
            f"{folder} has k {given[0]!r} and, for its activation, k {given[1]!r}: expected one of them"
        )
    return given[0] if given else 0


@torch.no_grad()
def _fill(sae: SparseAutoencoder, config: Json, tensors: Mapping[str, Tensor]) -> None:
    sae.encoder.copy_(tensors["W_enc"].T)
    sae.decoder.copy_(tensors["W_dec"])
    sae.encoder_bias.copy_(tensors["b_enc"])
    sae.decoder_bias.copy_(tensors["b_dec"])
    if config.get("apply_b_dec_to_input") is False:
        sae.encoder_bias.add_(sae.encoder @ sae.decoder_bias)
    if config.get("rescale_acts_by_decoder_norm"):
        norm_M = sae.decoder.norm(dim=1)
        sae.encoder.mul_(norm_M[:, None])
        sae.encoder_bias.mul_(norm_M)
        sae.decoder.div_(norm_M[:, None].clamp_min(1e-12))
    if "threshold" in tensors and sae.kind == "jumprelu":
        sae.log_threshold.copy_(tensors["threshold"].clamp_min(1e-30).log())  # type: ignore[operator]
    elif "threshold" in tensors:
        sae.threshold.copy_(tensors["threshold"][0])  # type: ignore[operator]


def _config(path: Path) -> Json:
    try:
        return read_json(path)
    except ModelFileError as error:
        raise ModelFileError(f"{error}: give the folder of an autoencoder") from error


def _size(config: Json, name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**24:
        raise ModelFileError(f"{folder / CONFIG} has {name} {value!r}: expected a whole number of 1 or more")
    return value


def _tensors(path: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in read_tensors(path).items()}
