"""Our engine on the multiple-choice requests of a spec.

Run by ../multiple_choice.py: `PYTHON run_firsthand_score.py SPEC.json RESULT.json`.

What a benchmark does: `Local.score(context, choices)` for every item, all items under way at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.providers.local import Local


async def score(model: Local, requests: list[list[str]]) -> list[list]:
    """The log-prob of each continuation with whether it is greedy."""
    items = [
        (context, [choice for _, choice in pairs]) for context, pairs in itertools.groupby(requests, key=lambda r: r[0])
    ]
    scored = await asyncio.gather(*(model.score(context, choices) for context, choices in items))
    return [[each.logprob, each.is_greedy] for answer in scored for each in answer.likelihoods]


async def measure(spec: dict) -> dict:
    """Scores of all requests, and the seconds they took."""
    config = EngineConfig(threads=spec["threads"], weights=spec["weights"])
    model = Local(spec["model"], config=config)
    await score(model, [["Question: What is warm?\nAnswer:", " " + word] for word in ("fire", "ice and snow")])
    started = time.perf_counter()
    scores = await score(model, spec["requests"])
    seconds = time.perf_counter() - started
    model.close()
    return {"about": f"weights {spec['weights']}", "scores": scores, "seconds": seconds}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(asyncio.run(measure(json.loads(Path(sys.argv[1]).read_text())))))
