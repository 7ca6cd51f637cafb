"""Quantises one model to each GGUF type, beside llama.cpp: size, time, perplexity and KL divergence from the source.

    python bench/quantization.py MODEL.gguf [--types Q4_K_M,Q8_0] [--rival-python /path/to/venv/bin/python]

MODEL should be a float file. The rival needs `pip install llama-cpp-py-sync numpy` in a virtual environment of its own. The
text is the first `--tokens` of tests/data/dickens_1859.txt by the model's tokenizer, in one window. Our files are scored in
float32 by our decoder and by llama.cpp, and so are llama.cpp's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from firsthand.nn.blocks.attention import Packed
from firsthand.nn.gguf_quantizer import quantise_model
from firsthand.nn.gguf_recipes import FILE_TYPES
from firsthand.nn.weights import load
from firsthand.tokens import pretrained

TEXT = Path(__file__).parent.parent / "tests" / "data" / "dickens_1859.txt"
RIVAL = """
import json, sys, time
import numpy as np
from llama_cpp_py_sync._cffi_bindings import ffi, get_lib
lib = get_lib()
from llama_cpp_py_sync.llama import Llama
job = json.loads(sys.argv[1])
found = {}
if "file_type" in job:
    params = ffi.new("llama_model_quantize_params *", lib.llama_model_quantize_default_params())
    params.ftype, params.allow_requantize, params.nthread = job["file_type"], True, job["threads"]
    began = time.perf_counter()
    assert lib.llama_model_quantize(job["source"].encode(), job["model"].encode(), params) == 0
    found["seconds"] = time.perf_counter() - began
ids = job["ids"]
llm = Llama(job["model"], n_ctx=2048, n_batch=2048)
batch = lib.llama_batch_init(len(ids), 0, 1)
batch.n_tokens = len(ids)
for i, token in enumerate(ids):
    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
assert lib.llama_decode(llm._ctx, batch) == 0
loss = 0.0
for i in range(len(ids) - 1):
    row = np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(llm._ctx, i), 4 * llm.n_vocab), dtype=np.float32)
    row = row.astype(np.float64)
    loss -= row[ids[i + 1]] - row.max() - np.log(np.exp(row - row.max()).sum())
found["perplexity"] = float(np.exp(loss / (len(ids) - 1)))
print(json.dumps(found))
"""


def rival(python: str, ids: list[int], **job: object) -> dict[str, float]:
    """llama.cpp's answers to a job."""
    command = [python, "-c", RIVAL, json.dumps({**job, "ids": ids})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def logprobs(path: Path, ids: list[int]) -> torch.Tensor:
    """Log-probs of every next token: N V."""
    model, ids_N = load(path), torch.tensor(ids)
    with torch.no_grad():
        hidden_ND = model(ids_N, torch.arange(len(ids)), Packed([len(ids)]))
        return torch.log_softmax(model.logits(hidden_ND[:-1]), -1)


def perplexity(logprobs_NV: torch.Tensor, ids: list[int]) -> float:
    """exp of the mean loss."""
    targets_N = torch.tensor(ids[1:])
    return float(torch.exp(-logprobs_NV.gather(1, targets_N[:, None]).double().mean()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--types", default="Q8_0,Q6_K,Q5_K_M,Q5_0,Q4_K_M,Q4_K_S,Q4_1,Q4_0,Q3_K_M,Q2_K")
    parser.add_argument("--rival-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    options = parser.parse_args()
    ids = pretrained.load(options.model).encode(TEXT.read_text(encoding="utf-8"))[: options.tokens]
    source = logprobs(options.model, ids)
    print("| type | MB | seconds | perplexity | KL x 1000 | llama.cpp: seconds | its perplexity of ours | own | KL |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(f"| source | {options.model.stat().st_size / 1e6:.1f} | | {perplexity(source, ids):.3f} | 0 | | | | |")

    def divergence(path: Path) -> tuple[float, float]:
        found = logprobs(path, ids)
        return perplexity(found, ids), 1000 * float((source.exp() * (source - found)).sum(1).mean())

    with tempfile.TemporaryDirectory() as folder:
        for name in options.types.split(","):
            path, other = Path(folder) / "ours.gguf", Path(folder) / "theirs.gguf"
            seconds = []
            for _ in range(2):
                path.unlink(missing_ok=True)
                began = time.perf_counter()
                quantise_model(options.model, path, name, threads=options.threads)
                seconds.append(time.perf_counter() - began)
            ours, kl = divergence(path)
            row = [name, f"{path.stat().st_size / 1e6:.1f}", f"{min(seconds):.2f}", f"{ours:.3f}", f"{kl:.2f}"]
            if options.rival_python:
                job = {"file_type": FILE_TYPES[name], "source": str(options.model), "model": str(other)}
                tries = [rival(options.rival_python, ids, **job, threads=options.threads) for _ in range(2)]
                made = min(tries, key=lambda each: each["seconds"])
                read = rival(options.rival_python, ids, model=str(path))
                row += [f"{made['seconds']:.2f}", f"{read['perplexity']:.3f}", f"{made['perplexity']:.3f}"]
                row.append(f"{divergence(other)[1]:.2f}")
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
