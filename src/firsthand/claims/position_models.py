"""Small models that differ in their positions alone, trained on texts of one length and tried on longer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from firsthand.claims.lab import Lab
from firsthand.nn.architecture import Rope

if TYPE_CHECKING:
    from firsthand.nn.decoder import Decoder

TRAINED = 32
"""Tokens of a training text."""
VOCABULARY = 64
STEPS = 250
BATCH = 32


def position_model(lab: Lab, kind: str) -> Decoder:
    """The model of `kind` (rope, alibi, absolute, none), trained once a seed and then kept in the lab's folder."""
    import torch

    from firsthand.claims.small_decoders import kept_weights, small_decoder

    slopes = tuple(2.0 ** -(2 * (head + 1)) for head in range(4))
    changes: dict[str, object] = {} if kind == "rope" else {"ropes": (Rope(kind="none"),) * 2}
    if kind == "alibi":
        changes["alibi_slopes"] = slopes
    if kind == "absolute":
        changes["learned_positions"] = changes["max_position"] = 4 * TRAINED
    model = small_decoder(lab.seed, std=0.02, vocab_size=VOCABULARY, num_kv_heads=4, **changes)
    path = lab.folder / f"positions-{kind}-{lab.seed}-{STEPS}.safetensors"

    def train() -> None:
        torch.set_num_threads(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
        rng = Random(lab.seed)
        for _ in range(STEPS):
            optimizer.zero_grad()
            _losses(model, texts(rng, TRAINED, BATCH)).mean().backward()
            optimizer.step()
            schedule.step()

    return kept_weights(path, model, train)


def with_rope(model: Decoder, **changes: object) -> Decoder:
    """A copy of a trained model whose rotations have other settings, such as YaRN's; its weights are the same."""
    from firsthand.nn.decoder import Decoder

    a = model.architecture
    copy = Decoder(replace(a, ropes=tuple(replace(rope, **changes) for rope in a.ropes)))  # type: ignore[arg-type]
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def texts(rng: Random, length: int, count: int) -> list[list[int]]:
    """Each token follows from the one two places before, by a fixed table, nine times of ten; else it is drawn."""
    table = list(range(VOCABULARY))
    Random(7).shuffle(table)
    found = []
    for _ in range(count):
        text = [rng.randrange(VOCABULARY), rng.randrange(VOCABULARY)]
        while len(text) < length:
            text.append(table[text[-2]] if rng.random() < 0.9 else rng.randrange(VOCABULARY))
        found.append(text)
    return found


def loss_by_length(model: Decoder, lengths: Sequence[int], *, seed: int = 0, count: int = 24) -> dict[int, float]:
    """Length -> mean loss, in nats, of the last eight tokens of fresh texts of that length."""
    import torch

    found = {}
    with torch.inference_mode():
        for length in lengths:
            rows = _losses(model, texts(Random(f"{seed}-{length}"), length, count)).view(count, -1)
            found[length] = float(rows[:, -8:].mean())
    return found


def _losses(model: Decoder, batch: list[list[int]]):  # type: ignore[no-untyped-def]
    import torch

    from firsthand.nn.blocks.attention import Packed

    length = len(batch[0])
    ids_N = torch.tensor([token for text in batch for token in text])
    positions_N = torch.arange(length).repeat(len(batch))
    logits_BTV = model.logits(model(ids_N, positions_N, Packed([length] * len(batch)))).view(len(batch), length, -1)
    targets_BT = ids_N.view(len(batch), length)[:, 1:]
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1), reduction="none"
    )
