"""The phases of the compiled steps in their order: each one's number, matrices, rows, norms and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
from firsthand.kernels.step import decoder_step, expert_step
from firsthand.kernels.step.step_tables import (
    Batch,
    Inputs,
    ModelShape,
    Norms,
    Outputs,
    Product,
    Weights,
    WorkingMemory,
)
from interpreted_kernels import Interpreter

SIZES, FACTORS = np.array([2, 48, 80, 6, 2, 16, 32, 1, 1]), np.array([0.1, 0.2, 0.3], dtype=np.float32)
"""Two layers, 48 wide, 80 inside, 6 and 2 heads of 16."""
PLACES = np.arange(3 * 13).reshape(3, 13) * 10
MEMORY = ("stream", "rest", "rounded", "wide", "partials")
BATCH = (
    np.array([5, 6, 7]),
    *["positions", "places", "tables", "plans", "tasks", "members", "slots", "merged", "wanted"],
)


class Recorder:
    """Stands for phases, and keeps what they were asked to do; the team comes first."""

    def __init__(self, *names: str):
        self.calls: list[tuple[Any, ...]] = []
        self.phases = {name: self.phase(name) for name in names}

    def phase(self, name: str) -> Any:
        def called(team: str, *args: Any) -> None:
            assert team == "team"
            self.calls.append((name, *map(plain, args)))

        return called


def plain(value: Any) -> Any:
    """Tables as what can be compared."""
    if isinstance(value, tuple):
        return (type(value).__name__, *map(plain, value))
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def test_a_decoders_step_is_its_layers_phases_one_after_another() -> None:
    names = ("embed_rows", "products", "adapt", "attend_layer", "enter_rows", "gate_rows", "finish_rows")
    seen = Recorder(*names)
    weights = (["first layer", "second layer"], "columns", PLACES, "vectors", "embed", "layers", "cos", "sin")
    cache, adapted = (
        ("spans", "keys", "values", "key scales", "value scales"),
        ("pieces", ["A", "B", "head"], 16, "l", "m"),
    )
    Interpreter(**seen.phases)(decoder_step.run)(
        "team", 3, SIZES, FACTORS, weights, BATCH, cache, adapted, MEMORY, "hidden"
    )
    shape = plain(ModelShape(*SIZES.tolist(), *FACTORS))
    model, batch, memory = plain(Weights(*weights)), plain(Batch(*BATCH)), plain(WorkingMemory(*MEMORY))
    lora = ("Adapted", *map(plain, adapted))
    hidden_in, heads_in, inner_in = (plain(Inputs("rest", stride, "rounded")) for stride in (48, 96, 80))
    qkv, hidden_out, gate_up = (plain(Outputs("wide", stride)) for stride in (160, 48, 160))
    expected: list[tuple[Any, ...]] = [("embed_rows", 0, 3, [5, 6, 7], shape, model, memory)]
    for layer, (matrix, entries, phase, more) in enumerate(
        [("first layer", "A", 1, 24), ("second layer", "B", 12, 28)]
    ):
        place = PLACES[layer].tolist()
        following = PLACES[1, 0] if layer == 0 else -1

        def times(first: int, last: int, matrix: str = matrix) -> Any:
            return plain(Product(matrix, "columns", first, last))

        def norms(bias: int, out_norm: int, norm: int) -> Any:
            return plain(Norms("vectors", bias, out_norm, norm, FACTORS[0]))

        expected += [
            ("products", phase, 3, times(0, 3), 3, hidden_in, qkv),
            ("adapt", more, lora, entries, times(0, 3), 3, hidden_in, qkv),
            ("attend_layer", phase + 1, 3, layer, shape, model, batch, ("CacheTables", *cache), memory),
            ("products", phase + 5, 3, times(3, 4), 3, heads_in, hidden_out),
            ("adapt", more + 1, lora, entries, times(3, 4), 3, heads_in, hidden_out),
            ("enter_rows", phase + 6, 3, 3, 48, norms(place[9], place[1], place[2]), memory),
            ("products", phase + 7, 3, times(4, 6), 3, hidden_in, gate_up),
            ("adapt", more + 2, lora, entries, times(4, 6), 3, hidden_in, gate_up),
            ("gate_rows", phase + 8, 3, 3, shape, model, place, memory),
            ("products", phase + 9, 3, times(6, 7), 3, inner_in, hidden_out),
            ("adapt", more + 3, lora, entries, times(6, 7), 3, inner_in, hidden_out),
            ("enter_rows", phase + 10, 3, 3, 48, norms(place[12], place[3], int(following)), memory),
        ]
    expected.append(("finish_rows", 23, shape, model, batch, memory, "hidden"))
    assert seen.calls == expected


def test_a_step_of_experts_has_their_phases_in_place_of_the_mlps() -> None:
    names = (
        "embed_rows", "products", "attend_layer", "enter_rows", "route_rows", "group_rows", "gather_rows", "expert_products",
        "gate_sorted_rows", "add_experts", "finish_rows",
    )  # fmt: skip
    seen = Recorder(*names)
    weights = (["first layer", "second layer"], "columns", PLACES, "vectors", "embed", "layers", "cos", "sin")
    cache = ("spans", "keys", "values", "key scales", "value scales")
    kinds = np.array([[0, 4, 2, 1, 0], [5, 4, 3, 0, 0]])
    tables = ("entries", kinds, ["router", "second router"])
    room = ("logits", "chosen", "shares", "places", "starts", "tokens", "owners", "rounded rows", "wide rows", "states")
    Interpreter(**seen.phases)(expert_step.run_experts)(
        "team", 3, SIZES, FACTORS, weights, BATCH, cache, tables, np.array([24, 4, 40, 64, 1, 0]), np.array([2.5]), MEMORY,
        room, "hidden",
    )  # fmt: skip
    shape = plain(ModelShape(*SIZES.tolist(), *FACTORS))
    model, batch, memory = plain(Weights(*weights)), plain(Batch(*BATCH)), plain(WorkingMemory(*MEMORY))
    experts = ("ExpertTables", *map(plain, tables), 24, 4, 40, 64, 1, 0, 2.5)
    own = ("ExpertMemory", *room)
    hidden_in, heads_in = (plain(Inputs("rest", stride, "rounded")) for stride in (48, 96))
    expected: list[tuple[Any, ...]] = [("embed_rows", 0, 3, [5, 6, 7], shape, model, memory)]
    for layer, (matrix, router, phase, rows) in enumerate(
        [("first layer", "router", 1, 9), ("second layer", "second router", 17, 9)]
    ):
        place, kind = PLACES[layer].tolist(), kinds[layer].tolist()
        following = int(PLACES[1, 0]) if layer == 0 else -1
        expected += [
            ("products", phase, 3, plain(Product(matrix, "columns", 0, 3)), 3, hidden_in, plain(Outputs("wide", 160))),
            ("attend_layer", phase + 1, 3, layer, shape, model, batch, ("CacheTables", *cache), memory),
            (
                "products",
                phase + 5,
                3,
                plain(Product(matrix, "columns", 3, 4)),
                3,
                heads_in,
                plain(Outputs("wide", 48)),
            ),
            (
                "enter_rows",
                phase + 6,
                3,
                3,
                48,
                plain(Norms("vectors", place[9], place[1], place[2], FACTORS[0])),
                memory,
            ),
            ("products", phase + 7, 3, ("Product", router, [0], 0, 1), 3, hidden_in, ("Outputs", "logits", 24)),
            ("route_rows", phase + 8, 3, 3, kind, experts, own),
            ("group_rows", phase + 9, 3, kind, experts, own),
            ("gather_rows", phase + 10, 3, rows, 48, "rest", experts, own),
            ("expert_products", phase + 11, 3, kind, experts, own, 0, 2, "states", 48, "wide rows", 80),
            ("gate_sorted_rows", phase + 12, 3, rows, 1, kind, experts, own),
            ("expert_products", phase + 13, 3, kind, experts, own, 2, 3, "wide rows", 80, "states", 48),
            ("add_experts", phase + 14, 3, 3, 48, kind, experts, own, "wide"),
            ("enter_rows", phase + 15, 3, 3, 48, plain(Norms("vectors", -1, place[3], following, FACTORS[0])), memory),
        ]
    expected.append(("finish_rows", 33, shape, model, batch, memory, "hidden"))
    assert seen.calls == expected
    assert (decoder_step.PHASES_OF_A_LAYER, decoder_step.PHASES_BESIDE, decoder_step.PHASES_OF_THE_HEAD) == (11, 2, 3)
    assert (expert_step.PHASES_OF_A_LAYER, expert_step.PHASES_BESIDE) == (16, 2)


def test_the_head_rounds_multiplies_adapts_and_rates_each_row() -> None:
    seen = Recorder("round_rows", "products", "adapt", "wait")
    rated: list[tuple[Any, ...]] = []

    def rate_row(logits: Any, at: int, vocab: int, cap: Any) -> tuple[int, float]:
        rated.append((logits, at, vocab, cap))
        return at + 1, at / 4

    done: list[tuple[Any, ...]] = []
    items = iter(range(9))
    best, normaliser = np.zeros(3, dtype=np.int64), np.zeros(3, np.float32)
    run = Interpreter(
        **seen.phases, rate_row=rate_row, take=lambda team, phase: next(items), done=lambda *args: done.append(args)
    )
    run(decoder_step.head)(
        "team",
        2,
        "entry",
        "hidden",
        48,
        19,
        2.5,
        "rounded",
        "logits",
        32,
        best,
        normaliser,
        ("pieces", "entries", 16, "l", "m"),
    )
    product, states = ("Product", "entry", [0], 0, 1), ("Inputs", "hidden", 48, "rounded")
    assert seen.calls == [
        ("round_rows", 0, 2, 3, "hidden", 48, "rounded"),
        ("products", 1, 2, product, 3, states, ("Outputs", "logits", 32)),
        (
            "adapt",
            3,
            ("Adapted", "pieces", "entries", 16, "l", "m"),
            "entries",
            product,
            3,
            states,
            ("Outputs", "logits", 32),
        ),
        ("wait", 2, 3),
    ]
    assert rated == [("logits", 0, 19, 2.5), ("logits", 32, 19, 2.5), ("logits", 64, 19, 2.5)]
    assert (best.tolist(), normaliser.tolist()) == ([1, 33, 65], [0, 8, 16])
    assert done == [("team", 2)] * 3
