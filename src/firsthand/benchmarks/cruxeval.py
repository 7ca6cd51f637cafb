"""CRUXEval: predict a Python function's output for an input, or an input for an output (Gu et al., 2024)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Source, load, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.assertion import cruxeval_assertion
from firsthand.scorers.code import parsed

_OUTPUT = (
    "You are given a Python function and an assertion containing an input to the function. "
    "Complete the assertion with a "
    "literal (no unsimplified expressions, no function calls) containing the output when "
    "executing the provided code on the "
    "given input, even if the function is incorrect or incomplete. Do NOT output any extra information. "
)
_INPUT = "You will be given a function f and an output in the form f(??) == output. "
_ASKED_OUTPUT = "[PYTHON]\n{code}\nassert f({input}) == ??\n[/PYTHON]\n"
_ASKED_INPUT = "[PYTHON]\n{code}\nassert f(??) == {output}\n[/PYTHON]\n"
_OUTPUT_DIRECT = (
    f"{_OUTPUT}Provide the full assertion with the correct output in [ANSWER] and [/ANSWER] "
    "tags, following the examples.\n\n"
    "[PYTHON]\ndef f(n):\n    return n\nassert f(17) == ??\n[/PYTHON]\n[ANSWER]\nassert f(17) == 17\n[/ANSWER]\n\n"
    '[PYTHON]\ndef f(s):\n    return s + "a"\nassert f("x9j") == ??\n[/PYTHON]\n[ANSWER]\nassert f("x9j") == "x9ja"\n'
    "[/ANSWER]\n\n"
)
_OUTPUT_COT = (
    f"{_OUTPUT}Execute the program step by step before arriving at an answer, and provide the "
    "full assertion with the correct "
    "output in [ANSWER] and [/ANSWER] tags, following the examples.\n\n"
    '[PYTHON]\ndef f(s):\n    s = s + s\n    return "b" + s + "a"\nassert f("hi") == ??\n[/PYTHON]\n[THOUGHT]\n'
    "Let's execute the code step by step:\n\n"
    "1. The function f is defined, which takes a single argument s.\n"
    '2. The function is called with the argument "hi", so within the function, s is initially "hi".\n'
    '3. Inside the function, s is concatenated with itself, so s becomes "hihi".\n'
    '4. The function then returns a new string that starts with "b", followed by the value of '
    's (which is now "hihi"), and '
    'ends with "a".\n'
    '5. The return value of the function is therefore "bhihia".\n'
    '[/THOUGHT]\n[ANSWER]\nassert f("hi") == "bhihia"\n[/ANSWER]\n\n'
)
_INPUT_DIRECT = (
    f"{_INPUT}Find any input such that executing f on the input leads to the given output. "
    "There may be multiple answers, but "
    "you should only output one. In [ANSWER] and [/ANSWER] tags, complete the assertion with "
    "one such input that will produce "
    "the output when executing the function.\n\n"
    "[PYTHON]\ndef f(my_list):\n    count = 0\n    for i in my_list:\n        if len(i) % 2 == "
    "0:\n            count += 1\n"
    '    return count\nassert f(??) == 3\n[/PYTHON]\n[ANSWER]\nassert f(["mq", "px", "zy"]) == 3\n[/ANSWER]\n\n'
    '[PYTHON]\ndef f(s1, s2):\n    return s1 + s2\nassert f(??) == "banana"\n[/PYTHON]\n[ANSWER]\n'
    'assert f("ba", "nana") == "banana"\n[/ANSWER]\n\n'
)
_INPUT_COT = (
    f"{_INPUT}Your task is to find any input such that executing f on the input leads to the "
    "given output. There may be "
    "multiple answers, but only output one. First, think step by step. You MUST surround the answer with [ANSWER] and "
    "[/ANSWER] tags. Express your answer as a passing assertion containing the input and the given output.\n\n"
    "[PYTHON]\ndef f(x):\n    return x + 1\nassert f(??) == 17\n[/PYTHON]\n[THOUGHT]\n"
    "To find an input such that executing f on the input leads to the given output, we can "
    "work backwards from the given "
    "assertion. We know that f(??) == 17. \n\n"
    "Since the function f(x) returns x + 1, for f(??) to be equal to 17, the value of ?? should be 16. \n"
    "[/THOUGHT]\n[ANSWER]\nassert f(16) == 17\n[/ANSWER]\n\n"
)


def _protocol(reproduces: str, header: str, query: str) -> Protocol:
    return Protocol(
        reproduces,
        header=header,
        query=query,
        examples="in the header",
        scorers=(cruxeval_assertion,),
        continuation=None,
        stop=("[/ANSWER]",),
        max_tokens=1024,
    )


PROTOCOLS = {
    "output-direct": _protocol(
        "the CRUXEval paper's pass@1 for CRUXEval-O, greedy where the paper takes ten samples",
        _OUTPUT_DIRECT,
        f"{_ASKED_OUTPUT}[ANSWER]\n",
    ),
    "output-cot": _protocol(
        "the CRUXEval paper's pass@1 for CRUXEval-O with chain of thought, greedy where the paper takes ten samples",
        _OUTPUT_COT,
        f"{_ASKED_OUTPUT}[THOUGHT]\n",
    ),
    "input-direct": _protocol(
        "the CRUXEval paper's pass@1 for CRUXEval-I, greedy where the paper takes ten samples",
        _INPUT_DIRECT,
        f"{_ASKED_INPUT}[ANSWER]\n",
    ),
    "input-cot": _protocol(
        "the CRUXEval paper's pass@1 for CRUXEval-I with chain of thought, greedy where the paper takes ten samples",
        _INPUT_COT,
        f"{_ASKED_INPUT}[THOUGHT]\n",
    ),
}
SOURCE = Source(
    path="code/cruxeval.jsonl",
    rows=800,
    licence="MIT",
    dataset="cruxeval-org/cruxeval",
    config="default",
    split="test",
    from_hub=lambda row: {key: row[key] for key in ("code", "input", "output", "id")},
)


def cruxeval(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the benchmark over all 800 functions. `data` is a folder, a file, or `hub`."""
    name, chosen = choose("cruxeval", PROTOCOLS, protocol)
    rows = load(SOURCE, data)
    predict = "input" if "@input" in name else "output"
    return make_benchmark(
        "cruxeval",
        PROTOCOLS,
        protocol,
        [make_task(_item(row, rows.where(index), predict), chosen) for index, row in enumerate(rows.rows)],
        description="Predict a short Python function's output, or an input for an output (Gu et al., 2024).",
        origin=rows.origin,
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )


def _item(row: Json, where: str, predict: str) -> Item:
    code, output = text_field(row, "code", where), text_field(row, "output", where)
    given = row.get("input")
    if not isinstance(given, str):  # empty where the function takes no arguments
        raise DataError(f"{where}: the field 'input' holds {str(given)[:60]!r}, and text was expected")
    for name, source in (("code", code), ("output", f"({output})"), ("input", f"f({given})")):
        try:
            parsed(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DataError(f"{where}: the field {name!r} is not Python ({error})") from None
    shown = f"assert f({given}) == ??" if predict == "output" else f"assert f(??) == {output}"
    return Item(
        text_field(row, "id", where),
        {"question": f"{code}\n{shown}\nWhat stands for ??", "code": code, "input": given, "output": output},
        secret={"code": code, "output": output, "input": given, "predict": predict},
    )
