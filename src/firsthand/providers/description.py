"""What a model file says of itself, read from its header without torch: size, memory, context, vocabulary, licence."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.modelfile import TensorInfo, read_gguf, read_json, read_safetensors, refuse_pickle

_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "4-bit": 0.5}


@dataclass(frozen=True)
class Description:
    """A model's facts; None is what the file does not say."""

    path: str
    architecture: str
    parameters: int
    file_bytes: int
    dtypes: dict[str, int]
    """How many tensors are stored in each type."""
    weight_bytes: dict[str, int]
    """Memory of the weights in each type we could hold them in."""
    kv_bytes: dict[int, int]
    """Memory of keys and values (float32) at some context lengths; empty if the file does not say enough."""
    context: int | None
    vocabulary: int | None
    has_chat_template: bool
    licence: str | None

    def to_json(self) -> Json:
        """The facts as a JSON object."""
        return asdict(self)


def inspect(path: Path | str) -> Description:
    """The facts of a .gguf file or a Hugging Face folder; ModelFileError if it is not sound."""
    path = Path(path)
    refuse_pickle(path)
    return _folder(path) if path.is_dir() else _gguf(path)


def _gguf(path: Path) -> Description:
    file = read_gguf(path)
    said = file.metadata
    kind = str(said.get("general.architecture", "unknown"))
    heads = _whole(said.get(f"{kind}.attention.head_count"))
    hidden = _whole(said.get(f"{kind}.embedding_length"))
    tokens = said.get("tokenizer.ggml.tokens")
    return _describe(
        path,
        kind,
        list(file.tensors.values()),
        path.stat().st_size,
        layers=_whole(said.get(f"{kind}.block_count")),
        kv_heads=_whole(said.get(f"{kind}.attention.head_count_kv")) or heads,
        head_dim=_whole(said.get(f"{kind}.attention.key_length")) or (hidden // heads if hidden and heads else None),
        context=_whole(said.get(f"{kind}.context_length")),
        vocabulary=len(tokens) if isinstance(tokens, list) else _whole(said.get(f"{kind}.vocab_size")),
        has_chat_template=isinstance(said.get("tokenizer.chat_template"), str),
        licence=said.get("general.license"),
    )


def _folder(path: Path) -> Description:
    config = read_json(path / "config.json")
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else config
    shards = sorted(path.glob("*.safetensors"))
    if not shards:
        raise ModelFileError(f"{path} holds no .safetensors file: a Hugging Face folder or a .gguf file was expected")
    heads, hidden = _whole(inner.get("num_attention_heads")), _whole(inner.get("hidden_size"))
    settings = path / "tokenizer_config.json"
    template = (path / "chat_template.jinja").is_file() or (
        settings.is_file() and read_json(settings).get("chat_template") is not None
    )
    return _describe(
        path,
        str(config.get("model_type", "unknown")),
        [tensor for shard in shards for tensor in read_safetensors(shard).tensors.values()],
        sum(shard.stat().st_size for shard in shards),
        layers=_whole(inner.get("num_hidden_layers")),
        kv_heads=_whole(inner.get("num_key_value_heads")) or heads,
        head_dim=_whole(inner.get("head_dim")) or (hidden // heads if hidden and heads else None),
        context=_whole(inner.get("max_position_embeddings")),
        vocabulary=_whole(inner.get("vocab_size")),
        has_chat_template=template,
        licence=config.get("license"),
    )


def _describe(
    path: Path,
    kind: str,
    tensors: list[TensorInfo],
    file_bytes: int,
    *,
    layers: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    context: int | None,
    vocabulary: int | None,
    has_chat_template: bool,
    licence: Any,
) -> Description:
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    each = 2 * 4 * layers * kv_heads * head_dim if layers and kv_heads and head_dim else 0
    lengths = sorted({length for length in (2048, 8192, 32768, context or 2048) if length <= (context or 2048)})
    return Description(
        path=str(path),
        architecture=kind[:80],
        parameters=parameters,
        file_bytes=file_bytes,
        dtypes=dict(Counter(tensor.dtype for tensor in tensors)),
        weight_bytes={name: math.ceil(parameters * size) for name, size in _BYTES.items()},
        kv_bytes={length: length * each for length in lengths} if each else {},
        context=context,
        vocabulary=vocabulary,
        has_chat_template=has_chat_template,
        licence=licence[:80] if isinstance(licence, str) else None,
    )


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 31 else None
