"""Perplexity of one GGUF file on one text, by llama.cpp and by us, from the same token ids.

    python bench/perplexity_llama_cpp.py MODEL.gguf --rival-python /path/to/venv/bin/python

The rival needs `pip install llama-cpp-python==0.3.36` in a virtual environment of its own (it is built from source);
without --rival-python, only our number is printed. Both see tests/data/dickens_1859.ids.json in one window of the
whole text. llama.cpp is run twice: on the file as it is, where its kernels round activations to 8 bits, and on a copy
with the very same weights written out in float32 (about 4 bytes a parameter in a temporary folder) and a float32
cache, where it computes what we compute. `--write-ids` has it tokenise tests/data/dickens_1859.txt anew.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ENGINES = [
    ("float32", "float32"),
    ("float16", "float32"),
    ("auto", "float32"),
    ("auto", "float16"),
    ("auto", "int8"),
    ("int8", "int8"),
]
DATA = Path(__file__).parent.parent / "tests" / "data"
RIVAL = """
import json, sys
import numpy as np
from llama_cpp import Llama
model, ids_path, text_path, write_ids = sys.argv[1:]
float32_cache = {"type_k": 0, "type_v": 0} if "float32" in model else {}
llm = Llama(model, n_ctx=2048, n_batch=512, n_threads=2, logits_all=True, verbose=False, **float32_cache)
if write_ids == "yes":
    ids = llm.tokenize(open(text_path, "rb").read(), add_bos=False, special=False)
    open(ids_path, "w").write(json.dumps(ids) + "\\n")
ids = json.load(open(ids_path))
llm.eval(ids)
logits = np.array(llm.scores[: len(ids) - 1], dtype=np.float64)
top = logits.max(1, keepdims=True)
logprobs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
print(json.dumps(float(np.exp(-logprobs[np.arange(len(ids) - 1), ids[1:]].mean()))))
"""


def rival_perplexity(python: str, model: Path, *, write_ids: bool) -> float:
    """What llama.cpp says."""
    files = (str(DATA / "dickens_1859.ids.json"), str(DATA / "dickens_1859.txt"))
    command = [python, "-c", RIVAL, str(model), *files, "yes" if write_ids else "no"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def write_float32(model: Path, path: Path) -> None:
    """Write a GGUF file with the same metadata and the same weights, each tensor in float32."""
    import gguf

    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            item_type = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=item_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def our_perplexity(model: Path, ids: list[int], *, as_llama_cpp_rounds: bool = False) -> float:
    """What we say, in float32; or with the roundings that llama.cpp's kernels do, to see what they cost.

    Those are: activations to 8 bits before each matrix, a scale for 32 of them, and queries, keys and values to float16.
    """
    import torch
    from torch import Tensor, nn

    from firsthand.nn.blocks.attention import Packed
    from firsthand.nn.weights import load

    class RoundedPacked(Packed):
        def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, **settings: Any) -> Tensor:
            return super().__call__(layer, q.half().float(), k.half().float(), v.half().float(), **settings)

    def round_to_8_bits(module: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        blocks = arguments[0].unflatten(-1, (-1, 32))
        scale = blocks.abs().amax(-1, keepdim=True) / 127
        return ((blocks / scale.clamp_min(1e-30)).round().mul(scale.half().float()).flatten(-2),)

    decoder, ids_N = load(model), torch.tensor(ids)
    if as_llama_cpp_rounds:
        for module in decoder.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(round_to_8_bits)
    attend = (RoundedPacked if as_llama_cpp_rounds else Packed)([len(ids)])
    with torch.no_grad():
        hidden_ND = decoder(ids_N, torch.arange(len(ids)), attend)
        losses = [  # in slices, since all logits at once take half a gigabyte
            torch.nn.functional.cross_entropy(decoder.logits(rows_MD), targets_M, reduction="sum").item()
            for rows_MD, targets_M in zip(hidden_ND[:-1].split(256), ids_N[1:].split(256), strict=True)
        ]
    return float(torch.tensor(sum(losses) / (len(ids) - 1)).exp())


def engine_perplexity(model: Path, ids: list[int], *, weights: str = "auto", kv_cache: str = "auto") -> float:
    """What the engine says of the same window: with `auto` weights it computes with the file's own blocks."""
    from firsthand.engine.core.engine import Engine
    from firsthand.engine.core.engine_config import EngineConfig
    from firsthand.nn.weights import load

    config = EngineConfig(weights=weights, kv_cache=kv_cache)  # type: ignore[arg-type]
    engine = Engine(load(model, keep_blocks=weights == "auto"), config)
    [scored] = engine.score(ids[:1], [ids[1:]])
    return math.exp(-sum(scored.logprobs) / len(scored.logprobs))


def main() -> None:
    """Print both numbers and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rival-python")
    parser.add_argument("--write-ids", action="store_true")
    arguments = parser.parse_args()
    rivals = {}
    if arguments.rival_python:
        rivals["as it is"] = rival_perplexity(arguments.rival_python, arguments.model, write_ids=arguments.write_ids)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "float32.gguf"
            write_float32(arguments.model, copy)
            rivals["weights and cache in float32"] = rival_perplexity(arguments.rival_python, copy, write_ids=False)
    ids = json.loads((DATA / "dickens_1859.ids.json").read_text())
    ours = our_perplexity(arguments.model, ids)
    rounded = our_perplexity(arguments.model, ids, as_llama_cpp_rounds=True)
    print(f"{len(ids)} tokens of {arguments.model.name}")
    print(f"firsthand: {ours:.4f} in float32, {rounded:.4f} with llama.cpp's roundings")
    for weights, kv_cache in ENGINES:
        found = engine_perplexity(arguments.model, ids, weights=weights, kv_cache=kv_cache)
        print(f"engine, weights {weights}, kv_cache {kv_cache}: {found:.4f}, {100 * (found / ours - 1):+.2f} %")
    for what, rival in rivals.items():
        print(
            f"llama.cpp, {what}: {rival:.4f}; firsthand / llama.cpp = {ours / rival:.5f}, {rounded / rival:.5f} rounded"
        )


if __name__ == "__main__":
    main()
