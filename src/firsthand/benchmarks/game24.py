"""Game of 24: make 24 of four numbers with + - * / (Yao et al., 2023, Tree of Thoughts)."""

from __future__ import annotations

import hashlib

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.data import contents, located
from firsthand.benchmarks.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.tables import read_table
from firsthand.errors import DataError
from firsthand.evals.symbolic import makes_24

PROTOCOLS = {
    "tot": Protocol(
        "Tree of Thoughts: puzzles 901 to 1,000 of 4nums.com, by how hard people find them; any right equation counts",
        query="Use the numbers {numbers} and the operations + - * / to obtain 24. Each number must be used exactly once. "
        'End with the line "Answer: " and the equation, such as "Answer: (1 + 2 + 3) * 4 = 24".',
        scorers=(makes_24,),
        continuation=None,
        chat=True,
    ),
    "all": Protocol(
        "no published number: all 1,362 puzzles",
        query="Use the numbers {numbers} and the operations + - * / to obtain 24. Each number must be used exactly once. "
        'End with the line "Answer: " and the equation, such as "Answer: (1 + 2 + 3) * 4 = 24".',
        scorers=(makes_24,),
        continuation=None,
        chat=True,
    ),
}
PATH = "reasoning/game24.csv"


def game24(*, protocol: str = "", data: str = "") -> Benchmark:
    """The benchmark. `data` is a folder that holds `game24.csv` of princeton-nlp/tree-of-thought-llm."""
    name, chosen = choose("game24", PROTOCOLS, protocol)
    path = located(PATH, data)
    if path is None:
        raise DataError(
            "game24 needs the authors' file: give data=FOLDER that holds game24.csv (github.com/princeton-nlp/"
            "tree-of-thought-llm, src/tot/data/24/24.csv)"
        )
    rows = read_table(path)
    tasks = []
    for index, row in enumerate(rows):
        numbers = str(row.columns.get("Puzzles", "")).split()
        if len(numbers) != 4 or not all(each.isdecimal() for each in numbers):
            raise DataError(
                f"{row.where}: the column 'Puzzles' holds {' '.join(numbers)!r}, and four numbers were expected"
            )
        fields = {"numbers": " ".join(numbers), "question": f"Make 24 of {' '.join(numbers)} with + - * /."}
        secret = {"numbers": sorted(map(int, numbers))}
        tasks.append(make_task(Item(f"rank-{index + 1:04d}", fields, secret=secret), chosen, hint="an equation"))
    return make_benchmark(
        "game24",
        PROTOCOLS,
        protocol,
        tasks[900:1000] if name == "game24" else tasks,
        description="Make 24 of four numbers (Yao et al., 2023).",
        origin=f"the authors' file, {len(tasks):,} puzzles",
        licence="MIT",
        sha256=hashlib.sha256(contents(path)).hexdigest(),
    )
