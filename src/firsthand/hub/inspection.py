"""Describes a model file from its header, without torch: size, memory, context, vocabulary, licence.

A family that we load is read by its own reader (`nn/families`); of any other the sizes that its header states are taken. The
answer does not promise that the model loads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.model_files import TensorInfo, read_json, refuse_pickle
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.message import Json
from firsthand.nn.architecture import Architecture
from firsthand.nn.matrices import num_active_parameters, num_parameters
from firsthand.nn.model_config import config_architecture, encoder_decoder_architecture, gguf_architecture
from firsthand.system.folder_links import links_out
from firsthand.system.ordinary_file import open_ordinary

_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "4-bit": 0.5}
_CONTEXTS = (2048, 8192)
KV_VALUE_BYTES = 2
"""Bytes of a KV cache value; the engine's default is float16."""
_ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
_BLOCK_BITS = {"Q4_0": 4.5, "Q4_1": 5, "Q4_K": 6, "Q5_0": 5.5, "Q8_0": 8.5, "Q5_1": 6, "Q5_K": 7, "Q6_K": 8}
_EMBEDDINGS = ("token_embd", "embed_tokens", "wte", "word_embeddings", "shared")
_HEADS = ("output", "lm_head")


@dataclass(frozen=True)
class Inspection:
    """A model's facts; None is what the file does not state."""

    path: Path
    architecture: str | None
    is_encoder: bool
    """True for a text encoder (BERT family), which generates nothing and has no KV cache."""
    parameters: int
    """Numbers in the tensors, as stored: a file that packs several into one integer (GPTQ) has more."""
    active_parameters: int
    """Those that computing one token uses: all but the experts that it is not sent to."""
    file_bytes: int
    """Size of all weight files."""
    tensor_types: Mapping[str, int]
    """Number of tensors of each type."""
    weight_bytes: Mapping[str, int]
    """Bytes of the weights if all were held in this type, without the scales of int8 and 4-bit."""
    kv_bytes: Mapping[int, int]
    """Bytes of one conversation's KV cache in float16, by context length; empty if unknown. Sliding-window layers keep
    only their window."""
    kv_bytes_per_token: int | None
    """The same for one token, kept by all layers."""
    window: int | None
    """Positions in the sliding window; None without one."""
    window_share: float
    """Share of the KV cache that belongs to sliding-window layers."""
    decode_parameters: int
    """Weights that each decode step uses: all but an embedding table that is not also the head, and experts that a token is
    not sent to. For an encoder, the matrices of its layers."""
    block_bytes: int | None
    """Bytes of those weights in our engine, if the file's quantised blocks are used as they are."""
    head_parameters: int | None
    """Weights of the head, used only where a token is sampled or scored; None if unknown."""
    attention_width: int | None
    """Query heads x head_dim, summed over layers: four operations for each pair of tokens that attend."""
    context: int | None
    """The model's context, in positions."""
    vocabulary: int | None
    has_chat_template: bool
    licence: str | None

    def keys_and_values(self, tokens: int) -> int | None:
        """Returns the bytes of the KV cache of a conversation with this many tokens."""
        return _kv_bytes(self.kv_bytes_per_token, tokens, self.window, self.window_share)

    def tokens_in(self, num_bytes: int) -> int | None:
        """The length of one conversation whose keys and values take that many bytes; None if it cannot be told.

        Layers with a window keep no more than that; where all have one, only the context bounds the length.
        """
        each = self.kv_bytes_per_token
        if each is None:
            return None
        if self.window is None or num_bytes < each * self.window:
            return num_bytes // each
        if self.window_share == 1:
            return self.context
        kept = round(each * self.window_share * self.window)
        return int((num_bytes - kept) / (each * (1 - self.window_share)))

    def to_json(self) -> Json:
        """Returns the facts as a JSON object."""
        kv_bytes = {str(length): size for length, size in self.kv_bytes.items()}
        plain = {
            "path": str(self.path),
            "tensor_types": dict(self.tensor_types),
            "weight_bytes": dict(self.weight_bytes),
        }
        return {**vars(self), **plain, "kv_bytes": kv_bytes}


def inspect(path: Path | str) -> Inspection:
    """Returns the facts of a .gguf file or a Hugging Face folder; ModelFileError if it is invalid."""
    path = Path(path)
    refuse_pickle(path)
    return _folder(path) if path.is_dir() else _gguf(path)


def _gguf(path: Path) -> Inspection:
    file = read_gguf(path)
    metadata = file.metadata
    try:
        form = _known(gguf_architecture(file)[1])
    except ModelFileError:  # of a family that we do not load, or with less than loading needs
        form = _form_of_gguf(metadata)
    return _inspection(
        path,
        metadata.get("general.architecture"),
        list(file.tensors.values()),
        path.stat().st_size,
        form,
        has_chat_template=isinstance(metadata.get("tokenizer.chat_template"), str),
        licence=metadata.get("general.license"),
    )


def _folder(path: Path) -> Inspection:
    config = read_json(path / "config.json")
    text = config.get("text_config")  # the decoder of a vision-language model
    inner = text if isinstance(text, dict) else config
    try:
        form = _known(config_architecture(inner, path / "config.json"))
    except ModelFileError:
        form = _encoder_decoder(inner, path / "config.json") or _form_of_config(inner)
    shards = _shards(path)
    return _inspection(
        path,
        config.get("model_type"),
        [tensor for shard in shards for tensor in read_safetensors(shard).tensors.values()],
        sum(shard.stat().st_size for shard in shards),
        form,
        has_chat_template=_has_template(path),
        licence=config.get("license") or _licence_file(path),
    )


class _Form(NamedTuple):
    """A decoder's sizes; None is what the file does not say."""

    context: int | None
    vocabulary: int | None
    query_heads: int | None
    """Of all layers together, as `kv_heads`."""
    kv_heads: int | None
    key_dim: int | None
    value_dim: int | None
    window: int | None = None
    window_share: float = 0.0
    idle: int = 0
    """Parameters of experts that a token is not sent to."""


def _known(a: Architecture) -> _Form:
    """The sizes of a model that we load."""
    windows = [window for window in a.windows if window is not None]
    return _Form(
        context=a.max_position,
        vocabulary=a.vocab_size,
        query_heads=a.num_heads * a.num_layers,
        kv_heads=a.num_kv_heads * a.num_layers,
        key_dim=a.head_dim,
        value_dim=a.head_dim,
        window=max(windows, default=None),
        window_share=len(windows) / a.num_layers,
        idle=num_parameters(a) - num_active_parameters(a),
    )


def _encoder_decoder(config: dict[str, Any], path: Path) -> _Form | None:
    """The sizes of an encoder-decoder; its KV cache is that of the decoder's own text, and the source's is as large."""
    try:
        a = encoder_decoder_architecture(config, path)
    except ModelFileError:
        return None
    layers = a.num_decoder_layers
    return _Form(a.max_position, a.vocab_size, a.decoder_heads * layers, a.decoder_heads * layers,
                 a.attention_width // a.decoder_heads, a.attention_width // a.decoder_heads)  # fmt: skip


def _form_of_gguf(metadata: Mapping[str, Any]) -> _Form:
    """The sizes that a GGUF file of another family states."""
    kind = metadata.get("general.architecture")
    heads, hidden, layers, context = (
        _whole(metadata.get(f"{kind}.{key}"))
        for key in ("attention.head_count", "embedding_length", "block_count", "context_length")
    )
    tokens = metadata.get("tokenizer.ggml.tokens")
    return _Form(
        context=context,
        vocabulary=len(tokens) if isinstance(tokens, list) else _whole(metadata.get(f"{kind}.vocab_size")),
        query_heads=_product(heads, layers),
        kv_heads=_kv_heads(metadata.get(f"{kind}.attention.head_count_kv", heads), layers),
        key_dim=_whole(metadata.get(f"{kind}.attention.key_length")) or _ratio(hidden, heads),
        value_dim=_whole(metadata.get(f"{kind}.attention.value_length")) or _ratio(hidden, heads),
    )


def _form_of_config(config: Mapping[str, Any]) -> _Form:
    """The sizes that a config.json of another family states; layers have a window only where `layer_types` says so."""
    heads, hidden, layers = (
        _whole(config.get(key)) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
    )
    head_dim = _whole(config.get("head_dim")) or _ratio(hidden, heads)
    window, types, share = _whole(config.get("sliding_window")), config.get("layer_types"), 0.0
    if window is not None and layers is not None and isinstance(types, list):
        share = types[:layers].count("sliding_attention") / layers
    return _Form(
        context=_whole(config.get("max_position_embeddings")) or _whole(config.get("n_positions")),
        vocabulary=_whole(config.get("vocab_size")),
        query_heads=_product(heads, layers),
        kv_heads=_kv_heads(config.get("num_key_value_heads", heads), layers),
        key_dim=head_dim,
        value_dim=head_dim,
        window=window if share else None,
        window_share=share,
    )


def _inspection(
    path: Path,
    kind: Any,
    tensors: list[TensorInfo],
    file_bytes: int,
    form: _Form,
    *,
    has_chat_template: bool,
    licence: Any,
) -> Inspection:
    """The facts, with what follows from them."""
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    if not parameters:
        raise ModelFileError(f"{path} holds no weights, only their header: fetch the model again")
    is_encoder, context, windows = kind in _ENCODERS, form.context, (form.window, form.window_share)
    kv_heads = None if is_encoder else form.kv_heads
    has_cache = kv_heads and form.key_dim and form.value_dim
    each = _product(KV_VALUE_BYTES, kv_heads, (form.key_dim or 0) + (form.value_dim or 0)) if has_cache else None
    table, head = (None, None) if is_encoder else _embeddings_and_head(tensors)
    lengths = sorted({length for length in (*_CONTEXTS, context or 0) if 0 < length <= (context or _CONTEXTS[-1])})
    return Inspection(
        path=path,
        architecture=kind[:80] if isinstance(kind, str) else None,
        is_encoder=is_encoder,
        parameters=parameters,
        active_parameters=parameters - form.idle,
        file_bytes=file_bytes,
        tensor_types=dict(Counter(tensor.dtype for tensor in tensors).most_common()),
        weight_bytes={name: math.ceil(parameters * size) for name, size in _BYTES.items()},
        kv_bytes={length: _kv_bytes(each, length, *windows) or 0 for length in lengths} if each else {},
        kv_bytes_per_token=each,
        window=form.window,
        window_share=form.window_share,
        decode_parameters=_layer_weights(tensors)
        if is_encoder
        else parameters - form.idle - (math.prod(table.shape) if table else 0),
        block_bytes=_block_bytes([tensor for tensor in tensors if tensor is not table and len(tensor.shape) > 1]),
        head_parameters=math.prod(head.shape) if head else None,
        attention_width=_product(form.query_heads, form.key_dim),
        context=context,
        vocabulary=form.vocabulary,
        has_chat_template=has_chat_template,
        licence=licence[:80] if isinstance(licence, str) else None,
    )


def _kv_bytes(each: int | None, tokens: int, window: int | None, share: float) -> int | None:
    """Returns the bytes of this many tokens, of which some layers keep only the window."""
    if each is None or window is None:
        return None if each is None else each * tokens
    return round(each * ((1 - share) * tokens + share * min(tokens, window)))


def _block_bytes(matrices: list[TensorInfo]) -> int | None:
    """Returns the bytes of matrices in the engine's blocks, scales included; None if one has another type."""
    if not matrices or any(matrix.dtype not in _BLOCK_BITS for matrix in matrices):
        return None
    return math.ceil(sum(math.prod(matrix.shape) * _BLOCK_BITS[matrix.dtype] for matrix in matrices) / 8)


def _layer_weights(tensors: list[TensorInfo]) -> int:
    """Returns the numbers in an encoder's matrices, without embedding tables and the pooler."""
    passed_over = ("embed", "embd", "pooler")
    layers = [t for t in tensors if len(t.shape) == 2 and not any(word in t.name for word in passed_over)]
    return sum(math.prod(tensor.shape) for tensor in layers)


def _embeddings_and_head(tensors: list[TensorInfo]) -> tuple[TensorInfo | None, TensorInfo | None]:
    """Returns the embedding table, if it is not also the head, and the head."""
    of_name = {
        part[-2]: tensor for tensor in tensors if len(part := tensor.name.split(".")) > 1 and part[-1] == "weight"
    }
    table = next((of_name[name] for name in _EMBEDDINGS if name in of_name), None)
    head = next((of_name[name] for name in _HEADS if name in of_name), None)
    return (table, head) if head else (None, table)


def _shards(folder: Path) -> list[Path]:
    """Returns a folder's weight files; ModelFileError if there are none, or fewer than its index names."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ModelFileError(f"{folder} has no .safetensors file: give a Hugging Face folder or a .gguf file")
    index = folder / "model.safetensors.index.json"
    weight_map = read_json(index).get("weight_map") if index.is_file() else None
    named = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else set()
    missing = sorted(named - {shard.name for shard in shards})
    if missing:
        raise ModelFileError(f"{folder} lacks {len(missing)} of {len(named)} weight files, such as {missing[0][:80]!r}")
    # some repositories hold the same weights twice, under other names
    return [shard for shard in shards if shard.name in named] or shards


def _has_template(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and read_json(settings).get("chat_template") is not None
    )


def _licence_file(folder: Path) -> str | None:
    """Returns the first line of a licence file within the folder, usually its title."""
    for file in sorted(folder.glob("LICENSE*")):
        if links_out(file):
            continue
        try:
            with open_ordinary(file) as stream:
                lines = stream.read(1 << 12).decode("utf-8", "replace").split("\n")
        except OSError:  # such as a folder or a pipe of that name: the licence is unknown
            continue
        return next((line.strip() for line in lines if line.strip()), None)
    return None


def _kv_heads(value: Any, layers: int | None) -> int | None:
    """Returns the KV heads of all layers together; a list gives each layer its own."""
    if isinstance(value, list) and len(value) == layers:
        return sum(each for each in value if type(each) is int and 0 < each < 1 << 31) or None
    heads = _whole(value)
    return heads * layers if heads and layers else None


def _ratio(whole: int | None, parts: int | None) -> int | None:
    return whole // parts if whole and parts else None


def _product(*factors: int | None) -> int | None:
    return math.prod(factor or 0 for factor in factors) or None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 31 else None
