"""A small reader of passages, trained here, and its fine-tuned copies: the two arms of the claims on RAG and fine-tuning.

The reader learns to answer from a passage, on people and facts that are drawn anew each step, so that it knows no fact by
heart. The RAG arm is the reader with passages from an index; the fine-tuning arm is a copy trained on questions and answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from firsthand.claims.fact_language import FIRST, LAST, RELATIONS, VALUES, WORDS, encoded, question, sentence
from firsthand.claims.lab import Lab

if TYPE_CHECKING:
    from firsthand.nn.decoder import Decoder

READER_STEPS = 150
BATCH = 64
TUNING_BATCH = 128


class Sample(NamedTuple):
    """A prompt and the answer that is to follow, in words."""

    prompt: str
    answer: str


def reader(lab: Lab) -> Decoder:
    """The reader, trained once a seed and then kept in the lab's folder."""
    from firsthand.claims.small_decoders import kept_weights, small_decoder

    model, rng = small_decoder(lab.seed, std=0.1, vocab_size=len(WORDS), num_kv_heads=4), Random(f"reader-{lab.seed}")
    path = lab.folder / f"fact-reader-{lab.seed}-{READER_STEPS}.safetensors"
    return kept_weights(path, model, lambda: _train(model, lambda: [_reading(rng) for _ in range(BATCH)], READER_STEPS))


def tuned(lab: Lab, samples: Sequence[Sample], *, steps: int) -> Decoder:
    """A copy of the reader, all of whose weights were trained on samples of one length; kept in the lab's folder."""
    from firsthand.claims.small_decoders import kept_weights

    copy = reader(lab)
    text = f"{samples} {steps} {READER_STEPS} {BATCH} {TUNING_BATCH}"
    path = lab.folder / f"fact-tuned-{lab.seed}-{sha256(text.encode()).hexdigest()[:16]}.safetensors"
    return kept_weights(path, copy, lambda: train(copy, samples, steps=steps, seed=lab.seed))


def train(model: Decoder, samples: Sequence[Sample], *, steps: int, seed: int) -> None:
    """Train all weights of the model on samples of one length, in place."""
    rng = Random(f"tuning-{seed}")
    _train(model, lambda: rng.choices(samples, k=TUNING_BATCH), steps)
    model.eval()


def epochs(samples: Sequence[Sample], count: int = 40) -> int:
    """Steps in which each sample is drawn `count` times on average, and at least a hundred."""
    return max(100, count * len(samples) // TUNING_BATCH)


def answers(model: Decoder, prompts: Sequence[str], words: int = 1) -> list[str]:
    """The most likely continuation of each prompt, of so many words."""
    import torch

    from firsthand.nn.blocks.attention import Packed

    groups: dict[int, list[int]] = {}
    rows = [encoded(prompt) for prompt in prompts]
    for at, ids in enumerate(rows):
        groups.setdefault(len(ids), []).append(at)
    with torch.inference_mode():
        for places in groups.values():
            for first in range(0, len(places), 256):
                part = places[first : first + 256]
                for _ in range(words):
                    length = len(rows[part[0]])
                    ids_N = torch.tensor([token for at in part for token in rows[at]])
                    hidden = model(ids_N, torch.arange(length).repeat(len(part)), Packed([length] * len(part)))
                    chosen = model.logits(hidden.view(len(part), length, -1)[:, -1]).argmax(-1).tolist()
                    for at, token in zip(part, chosen, strict=True):
                        rows[at].append(token)
    return [" ".join(WORDS[token] for token in ids[-words:]) for ids in rows]


def _reading(rng: Random) -> Sample:
    """A sentence, and the question that it answers, with the answer."""
    person, relation, value = (rng.choice(FIRST), rng.choice(LAST)), rng.choice(RELATIONS), rng.choice(VALUES)
    return Sample(f"{sentence(person, relation, value)} {question(person, relation)}", f"{value} .")


def _train(model: Decoder, batch: Callable[[], Sequence[Sample]], steps: int, rate: float = 3e-3) -> None:
    import torch

    from firsthand.nn.blocks.attention import Packed

    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        samples = batch()
        rows = [encoded(f"{each.prompt} {each.answer}") for each in samples]
        length, prompt = len(rows[0]), len(samples[0].prompt.split())
        ids_N = torch.tensor([token for ids in rows for token in ids])
        hidden = model(ids_N, torch.arange(length).repeat(len(rows)), Packed([length] * len(rows)))
        logits_BTV = model.logits(hidden).view(len(rows), length, -1)[:, prompt - 1 : -1]
        targets_BT = ids_N.view(len(rows), length)[:, prompt:]
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
