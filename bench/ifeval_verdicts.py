"""IFEval's verdicts beside lm-evaluation-harness's, instruction by instruction, on made-up answers to its 541 prompts.

    python bench/ifeval_verdicts.py FOLDER          # FOLDER holds ifeval/input_data.jsonl, as docs/benchmarks.md says

The rival needs `pip install 'lm-eval[ifeval]'`, and nltk's punkt_tab for the instruction on words in capitals; without it
that one is left out, as are sentences, which our own rule counts. Answers are seeded: pieces that instructions ask for and
near misses, put together at random.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from firsthand.errors import DataError
from firsthand.scorers.instructions import follows, versions

SENTENCES = {"length_constraints:number_sentences"}
SPLIT_BY_PUNKT = {"change_case:capital_word_frequency"}
LITERAL = {"#", "!"}
"""Letters that the harness replaces by a random one."""
WORDS = (
    "the",
    "answer",
    "is",
    "here",
    "and",
    "nobody",
    "asks",
    "why",
    "a",
    "river",
    "runs",
    "to",
    "its",
    "sea",
    "quiet",
)
PIECES = (
    "* one point\n* another point\n", "- a dash\n- two\n- three\n", "*highlighted section*", "**bold words** and *more*",
    "<<A Title>>", "P.S. Do not forget.", "P.P.S. Nor this.", "Section 1\nfirst\nSECTION 2\nsecond\n", '{"key": "value"}',
    '```json\n{"a": 1}\n```', "******", "***", "\n\n***\n\n", "[address] [name] [date]", "My answer is yes.",
    "My answer is no.", "My answer is maybe.", '"quoted"', "Is there anything else I can help with?", "THIS IS LOUD.",
    "this is quiet.", "Das ist ein deutscher Satz.", "Dies, das; jenes!", "no commas here", "with, commas, here", "\n\n",
    "\n", "Paragraph one.\n\nParagraph two.\n\nParagraph three.",
)  # fmt: skip


def made_up(rng: Random, task: dict[str, Any]) -> str:
    """An answer of words, pieces, and the values of the prompt's own instructions, in any case."""
    own = [str(value) for given in task["kwargs"] for value in given.values() if value]
    own += [word for given in task["kwargs"] for value in given.values() if isinstance(value, list) for word in value]
    parts = []
    for _ in range(rng.randint(0, 14)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) + rng.choice(".!?,") + " ")
        elif kind < 0.75 or not own:
            parts.append(rng.choice(PIECES))
        else:
            parts.append(rng.choice(own) + " ")
    text = "".join(parts)
    form = rng.random()
    return text.upper() if form < 0.1 else text.lower() if form < 0.25 else f'"{text.strip()}"' if form < 0.35 else text


def harness_verdicts(utils: Any, task: dict[str, Any], index: int, text: str) -> tuple[bool, bool]:
    """Strict and loose verdict of lm-evaluation-harness on one instruction of a prompt."""
    one = utils.InputExample(task["key"], [task["instruction_id_list"][index]], task["prompt"], [task["kwargs"][index]])
    strict, loose = (
        utils.test_instruction_following_strict(one, text),
        utils.test_instruction_following_loose(one, text),
    )
    return strict.follow_all_instructions, loose.follow_all_instructions


def main(folder: Path, answers: int) -> int:
    """Print how many verdicts are equal; 1 if any is not."""
    logging.disable()  # a warning for each text that is in no language
    utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
    left_out = set(SENTENCES)
    try:
        importlib.import_module("nltk").word_tokenize("a")
    except LookupError:
        left_out |= SPLIT_BY_PUNKT
    try:
        tasks = [json.loads(line) for line in (folder / "ifeval" / "input_data.jsonl").read_text("utf-8").splitlines()]
    except OSError as error:
        raise DataError(
            f"{folder} has no ifeval/input_data.jsonl: {error.strerror}; docs/benchmarks.md says where it is"
        ) from None
    rng, equal, passed, skipped = Random(541), 0, 0, 0
    unequal: Counter[str] = Counter()
    for task in tasks:
        for text in (made_up(rng, task) for _ in range(answers)):
            for index, name in enumerate(task["instruction_id_list"]):
                given = {key: value for key, value in task["kwargs"][index].items() if value}
                if name in left_out or given.get("letter") in LITERAL:
                    skipped += 2
                    continue
                theirs = harness_verdicts(utils, task, index, text)
                strict = bool(text.strip()) and follows(text, name, given)
                loose = any(each.strip() and follows(each, name, given) for each in versions(text))
                for ours, other in zip((strict, loose), theirs, strict=True):
                    equal += ours == other
                    passed += other
                    if ours != other:
                        unequal[name] += 1
    total = equal + sum(unequal.values())
    print(f"{len(tasks)} prompts, {answers} answers each: {equal:,} of {total:,} verdicts are equal")
    print(f"the harness passes {passed / total:.0%}")
    print(f"left out: {skipped:,} on {', '.join(sorted(left_out))} and on the letters # and !")
    for name, count in unequal.most_common():
        print(f"  {name}: {count} differ")
    return int(bool(unequal))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder with ifeval/input_data.jsonl")
    parser.add_argument("--answers", type=int, default=20, help="made-up answers to each prompt")
    given = parser.parse_args()
    raise SystemExit(main(given.folder, given.answers))
