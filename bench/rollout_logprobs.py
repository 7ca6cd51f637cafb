"""How far the log-probs that an engine gives while it samples are from those of other forward passes over the same tokens.

    python bench/rollout_logprobs.py MODEL.gguf [--answers 2] [--tokens 64]

For each way to keep weights, keys and values the engine samples answers, and the tokens are rated again: by `Engine.score`,
by one call of the modules of the same packed model (`model(...)`, which keeps keys and values as it computes them), and by
one call of the float32 model, which is what a trainer computes. The first must give the same bits.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder

WAYS = (("auto", "auto"), ("float16", "auto"), ("float16", "float32"), ("float32", "auto"))
PROMPTS = ("The harbour of Lisbon was", "def total_price(items):", "Q: What is 12 + 30?\nA:", "In the beginning")


@dataclass(frozen=True)
class Answer:
    """A sampled answer and the log-probs that came with it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Distance:
    """Between two lists of log-probs, in nats."""

    largest: float
    mean: float

    def __str__(self) -> str:
        return "0" if self.largest == 0 else f"{self.largest:.1e} ({self.mean:.1e})"


def sample(engine: Engine, prompts: list[tuple[int, ...]], *, answers: int, tokens: int) -> list[Answer]:
    """Several answers of each prompt, of so many tokens, at temperature 1."""
    ids = {
        engine.add(Request(prompt, Sampling(max_tokens=tokens, temperature=1.0, seed=seed), n=answers)): prompt
        for seed, prompt in enumerate(prompts)
    }
    found: dict[tuple[int, int], tuple[list[int], list[float]]] = {}
    while engine.has_work:
        for output in engine.step():
            chosen, logprobs = found.setdefault((output.request_id, output.index), ([], []))
            chosen += output.token_ids
            logprobs += output.logprobs
    return [Answer(ids[key[0]], tuple(chosen), tuple(logprobs)) for key, (chosen, logprobs) in sorted(found.items())]


def scored(engine: Engine, answer: Answer) -> tuple[float, ...]:
    """What `Engine.score` says of an answer."""
    return engine.score(answer.prompt, [answer.tokens])[0].logprobs


@torch.no_grad()
def forward(model: Decoder, answer: Answer) -> tuple[float, ...]:
    """What one call of a model's modules says of an answer."""
    ids = torch.tensor([*answer.prompt, *answer.tokens])
    hidden_ND = model(ids, torch.arange(len(ids)), Packed([len(ids)]))
    rows = slice(len(answer.prompt) - 1, len(ids) - 1)
    logprobs_TV = model.logits(hidden_ND[rows]).log_softmax(-1)
    return tuple(logprobs_TV.gather(1, ids[len(answer.prompt) :, None])[:, 0].tolist())


def distance(answers: list[Answer], others: list[tuple[float, ...]]) -> Distance:
    """How far other log-probs are from those of the answers."""
    ours = torch.tensor([x for answer in answers for x in answer.logprobs], dtype=torch.float64)
    theirs = torch.tensor([x for each in others for x in each], dtype=torch.float64)
    differences = (ours - theirs).abs()
    return Distance(differences.max().item(), differences.mean().item())


def main() -> None:
    """Print the table of docs/engine.md."""
    from firsthand.nn import weights
    from firsthand.tokens import pretrained

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--answers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    tokenizer = pretrained.load(options.model)
    prompts = [tuple(tokenizer.encode(text)) for text in PROMPTS]
    trainer = weights.load(options.model)
    print("| weights | keys and values | `Engine.score` | `model(...)`, the same weights | `model(...)`, float32 |")
    print("|---|---|---|---|---|")
    for kept, kv_cache in WAYS:
        model = weights.load(options.model, keep_blocks=kept == "auto")
        engine = Engine(model, EngineConfig(weights=kept, kv_cache=kv_cache, kv_memory_bytes=1 << 28))  # type: ignore[arg-type]
        answers = sample(engine, prompts, answers=options.answers, tokens=options.tokens)
        again = distance(answers, [scored(engine, answer) for answer in answers])
        own = distance(answers, [forward(model, answer) for answer in answers])
        far = distance(answers, [forward(trainer, answer) for answer in answers])
        dtype = str(engine.runner.pages[0].keys.dtype).removeprefix("torch.")
        print(f"| `{kept}` | `{dtype}` | {again} | {own} | {far} |", flush=True)


if __name__ == "__main__":
    main()
