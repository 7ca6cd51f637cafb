"""MBPP+: basic Python problems tested on 35 times as many inputs (Austin et al., 2021; Liu et al., 2023).

One input is left out, the largest of Mbpp/255: its output has 128 million elements, too many to pass between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source
from firsthand.benchmarks.sources.evalplus import chat, completed, make

PROTOCOLS = {
    "evalplus-chat": chat(
        "EvalPlus 0.3's leaderboard for chat models, prompted as by its openai backend, greedy; the answer stands alone"
    ),
    "evalplus-base": completed(
        "EvalPlus 0.3's leaderboard for base models, greedy: the prompt, completed",
        ('\n"""', "\nassert"),
    ),
}
SOURCE = Source(
    path="code/MbppPlus.jsonl",
    rows=378,
    licence="Apache-2.0 (MBPP: CC BY 4.0)",
    dataset="evalplus/mbppplus",
    config="default",
    split="test",
    from_hub=lambda row: row,
)
RULES = {
    "are_equivalent": "any",
    "sum_div": "zero_or_equal",
    "surface_Area": "pyramid",
    "digit_distance_nums": "digits",
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "not_none"),
    **dict.fromkeys(
        (
            "similar_elements",
            "find_char_long",
            "common_in_nested_lists",
            "extract_singly",
            "larg_nnum",
            "intersection_array",
            "find_dissimilar",
            "Diff",
        ),
        "set",
    ),
}
"""Functions whose outputs are not compared for equality -> the rule: EvalPlus 0.3's special oracles."""

TOO_LARGE = ("Mbpp/255", [["Dog", "Cat", "CatBird", "Bird", "Fish"], 77])


def mbpp_plus(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the benchmark over all 378 problems. `data` is EvalPlus's file or its folder."""
    return make(
        "mbpp_plus",
        SOURCE,
        PROTOCOLS,
        protocol,
        data,
        url="https://github.com/evalplus/mbppplus_release/releases",
        rules=RULES,
        typed=typed,
        description="Basic Python problems tested on 35 times as many inputs, 378 of them (Liu et al., 2023).",
    )


def typed(task_id: str, inputs: Sequence[Any]) -> list[Any]:
    """Restore the tuples, sets and complex numbers that JSON cannot hold, as EvalPlus 0.3 does."""
    number = task_id.rpartition("/")[2]
    shape = _SHAPES.get(int(number)) if number.isdecimal() else None
    kept = [case for case in inputs if (task_id, case) != TOO_LARGE]
    return [list(case) if shape is None else list(shape(case)) for case in kept]


def _tuples(values: Sequence[Any]) -> list[Any]:
    return [tuple(each) for each in values]


def _deep(value: Any) -> Any:
    return tuple(_deep(each) for each in value) if isinstance(value, list) else value


def _sets(values: Sequence[Any]) -> list[Any]:
    return [set(each) if isinstance(each, list) and each else {} for each in values]


_Shape = Callable[[Sequence[Any]], Sequence[Any]]
_KINDS: tuple[tuple[_Shape, tuple[int, ...]], ...] = (
    (_tuples, (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424)),
    (_tuples, (429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809)),
    (lambda case: [_tuples(each) for each in case], (63, 64, 70, 94, 120, 237, 272, 299)),
    (lambda case: [_tuples(each) for each in case], (400, 409, 417, 438, 473, 614, 780)),
    (lambda case: [_tuples(case[0]), case[1]], (75, 413, 444, 753)),
    (lambda case: [case[0], tuple(case[1])], (106, 750)),
    (lambda case: [_sets(case[0])], (115,)),
    (lambda case: [float(case[0]), complex(case[1])], (124,)),
    (lambda case: [tuple(case[0]), case[1]], (250, 405, 446, 617, 720, 763, 808)),
    (lambda case: [tuple(_tuples(each)) for each in case], (259, 401, 445)),
    (lambda case: [tuple(tuple(each) if isinstance(each, list) else each for each in case[0])], (278,)),
    (lambda case: [tuple(case[0]), case[1], case[2]], (307,)),
    (lambda case: [{key: tuple(value) for key, value in case[0].items()}, *case[1:]], (722,)),
    (lambda case: [complex(case[0])], (252,)),
    (_deep, (580, 615, 791)),
)
_SHAPES: dict[int, _Shape] = {number: shape for shape, numbers in _KINDS for number in numbers}
