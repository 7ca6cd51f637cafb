"""Makes toolcalls.json: what two small models really write when they are given tools and nothing holds them to a grammar.

    python tests/data/make_toolcalls.py MODELS_FOLDER

MODELS_FOLDER holds SmolLM2-135M-Instruct.Q4_1.gguf (the model `smollm2` of `firsthand models pull`) and
qwen2.5-coder-0.5b-instruct.gguf. Each model answers with its own chat template; the text is decoded from its tokens. The
template of SmolLM2 knows no tools, so it is told of them in the system prompt, as firsthand does. Besides the tools, some
questions ask for another family's way of writing calls: told of a format, a model makes the mistakes that are tested here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from firsthand.message import system, user
from firsthand.model import Sampling, ToolSpec
from firsthand.providers.local import Local

MODELS = ("SmolLM2-135M-Instruct.Q4_1.gguf", "qwen2.5-coder-0.5b-instruct.gguf")


def spec(name: str, description: str, **properties: str) -> ToolSpec:
    """A tool whose arguments have these types; all of them are required."""
    schema = {key: {"type": kind} for key, kind in properties.items()}
    return ToolSpec(name, description, {"type": "object", "properties": schema, "required": list(properties)})


TOOLS = (
    spec("get_weather", "The weather in a city.", city="string", unit="string"),
    spec("add", "The sum of two numbers.", a="number", b="number"),
    spec("search", "Search the web.", query="string", limit="integer"),
)
QUESTIONS = (
    "What is the weather in Paris, in celsius?",
    "What is 17.5 + 24?",
    'Find me three pages about the history of "tea" in China.',
    "What is the weather in Oslo and in Rome, in celsius? Use both calls at once.",
    "Say hello.",
)
STYLES = {
    "native": "",
    "json": 'To call a function, reply with a JSON object only: {"name": function, "parameters": {argument: value}}.',
    "fenced": "Think in one sentence, then write the call as JSON with name and arguments in a ```json block.",
    "pythonic": "Call functions as [func_name(param=value, ...), ...] and write nothing else.",
    "tool_code": "Call functions in a ```tool_code block, as Python code with keyword arguments.",
    "mistral": '[TOOL_CALLS] [{"name": function, "arguments": {argument: value}}] is how functions are called.',
}
SETTINGS = ((0.0, 0), (0.8, 1), (1.2, 2))
"""Temperature and seed."""


async def record(folder: Path) -> list[dict[str, object]]:
    """Every model's answer to every question in every style."""
    rows: list[dict[str, object]] = []
    for file in MODELS:
        model = Local(folder / file, free_calls=True)
        tokenizer = (await model._ready()).tokenizer
        for style, words in STYLES.items():
            for temperature, seed in SETTINGS:
                questions = QUESTIONS if style == "native" or temperature == 0.8 else QUESTIONS[:2]
                asked = [[*([system(words)] if words else []), user(question)] for question in questions]
                sampling = Sampling(max_tokens=140, temperature=temperature, seed=seed)
                answers = await asyncio.gather(*(model.complete(each, sampling, tools=TOOLS) for each in asked))
                for question, (completion,) in zip(questions, answers, strict=True):
                    assert completion.message.sampled is not None
                    text = tokenizer.decode(completion.message.sampled.token_ids)
                    row = {"model": file, "style": style, "question": question, "temperature": temperature}
                    rows.append({**row, "seed": seed, "ended": completion.finish_reason != "length", "text": text})
        model.close()
    return rows


if __name__ == "__main__":
    made = asyncio.run(record(Path(sys.argv[1])))
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in made)
    Path(__file__).with_name("toolcalls.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
