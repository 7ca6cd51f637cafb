"""Prints HELM's mean win rates and MTEB's Borda ranks of a table with ties and missing scores, by their own code.

    pip install --no-deps --target PEERS crfm-helm mteb && pip install --target PEERS polars
    PYTHONPATH=PEERS python bench/rivals/board_formulas.py PEERS

Both packages import a hundred others before the functions can be called, so the functions are cut out of the installed files
and run as they stand. `tests/test_boards.py` compares ours with what this prints.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

N = None
TABLE = [
    [0.8, 0.3, 0.4, 0.3, 0.6, 0.5], [0.8, 0.3, 1.0, 0.9, 0.7, 0.7], [0.1, 0.6, 1.0, 0.9, 0.8, 0.0],
    [0.4, 0.7, N, 0.9, 0.3, 0.2], [0.2, 0.8, 0.1, 0.5, 0.1, 0.7], [0.8, 1.0, 0.6, 0.6, 0.6, 0.2],
    [0.6, 0.5, N, 0.9, 0.8, 0.9], [0.4, 0.3, 0.8, 0.6, 0.6, 0.7], [0.9, 0.1, 0.5, 0.8, 0.7, N],
]  # fmt: skip
LOWER = [False, True, False, False, True, False]


def cut(path: Path, name: str, **known: Any) -> Any:
    """The function of that name out of a file, with these names known to it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name)
    found.returns = None
    for argument in [*found.args.args, *found.args.kwonlyargs]:
        argument.annotation = None
    exec(compile(ast.Module([found], []), str(path), "exec"), known)
    return known[name]


def main() -> None:
    """Print both packages' figures as JSON."""
    from typing import Optional

    import polars as pl

    peers = Path(sys.argv[1])
    typed = {"Dict": dict, "List": list, "Optional": Optional, "defaultdict": defaultdict}
    helm = cut(
        peers / "helm/benchmark/presentation/summarize.py",
        "compute_aggregate_row_win_rates", **typed, mean=mean, median=median,
    )  # fmt: skip
    table = SimpleNamespace(
        header=[SimpleNamespace(lower_is_better=each) for each in LOWER],
        rows=[[SimpleNamespace(value=value) for value in row] for row in TABLE],
    )
    borda = cut(peers / "mteb/benchmarks/_create_table.py", "_borda_rank_from_long", pl=pl)
    long = [
        {"task_name": f"t{i}", "model_name": f"m{j}", "score": value}
        for j, row in enumerate(TABLE)
        for i, value in enumerate(row)
        if value is not None
    ]
    ranked = borda(pl.DataFrame(long), n_models=len(TABLE)).sort("model_name")
    print(json.dumps({"helm": helm(table), "mteb": ranked.to_dicts()}, indent=1))


if __name__ == "__main__":
    main()
