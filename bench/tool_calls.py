"""Single tool calls by small models, free and under a grammar: how many are valid, of the right tool, and exact.

    python bench/tool_calls.py MODEL.gguf [MODEL.gguf ...]

24 questions, 4 tools, one call each, greedy, free and under a grammar. `native`: the model's own markup, tools in its chat
template, no example, under `tool_grammar(..., choice="required", parallel=False)`. `JSON`: an object, after four worked
examples in one message, under its schema; a fence around it is taken off. `text`: ReAct's action line, after the same
examples as turns, under `action_grammar`. A call is valid if it parses, names a tool, and its arguments pass the tool's
own check; right if it is the tool that the question needs; exact if the arguments are the expected ones, blanks and case
aside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ToolError
from firsthand.grammar import Grammar, json_schema
from firsthand.message import Json, Message, assistant, user
from firsthand.model import Completion, Sampling
from firsthand.patterns.react import parse_action
from firsthand.providers.local import Local
from firsthand.tokens.calls.call_grammar import action_grammar, tool_grammar
from firsthand.tool import Tool, tool


@tool(effect="read")
def calculator(expression: str) -> str:
    """Return the value of an arithmetic expression.

    Args:
        expression: The expression, such as 12 * 30.
    """
    return expression


@tool(effect="read")
def get_weather(city: str) -> str:
    """Return the weather in a city.

    Args:
        city: The city's name.
    """
    return city


@tool(effect="read")
def search(query: str) -> str:
    """Return what an encyclopedia says about something.

    Args:
        query: What to look up.
    """
    return query


@tool(effect="read")
def convert_currency(amount: float, source: str, target: str) -> str:
    """Return an amount of money in another currency.

    Args:
        amount: How much.
        source: The three letters of the currency it is in.
        target: The three letters of the currency that is wanted.
    """
    return f"{amount} {source} {target}"


TOOLS = (calculator, convert_currency, get_weather, search)
CALC, CITY, LOOK, MONEY = "calculator", "get_weather", "search", "convert_currency"
QUESTIONS: tuple[tuple[str, str, Json], ...] = (
    ("What is 17 * 23?", CALC, {"expression": "17 * 23"}),
    ("What is the weather in Paris?", CITY, {"city": "Paris"}),
    ("Look up Marie Curie.", LOOK, {"query": "Marie Curie"}),
    ("How much is 50 EUR in USD?", MONEY, {"amount": 50, "source": "EUR", "target": "USD"}),
    ("Compute 144 / 12.", CALC, {"expression": "144 / 12"}),
    ("Is it raining in Tokyo?", CITY, {"city": "Tokyo"}),
    ("Search for the Eiffel Tower.", LOOK, {"query": "Eiffel Tower"}),
    ("Convert 200 USD to JPY.", MONEY, {"amount": 200, "source": "USD", "target": "JPY"}),
    ("What is 99 + 101?", CALC, {"expression": "99 + 101"}),
    ("How is the weather in Rome today?", CITY, {"city": "Rome"}),
    ("Find information about photosynthesis.", LOOK, {"query": "photosynthesis"}),
    ("Change 75 GBP into EUR.", MONEY, {"amount": 75, "source": "GBP", "target": "EUR"}),
    ("Calculate 8 * (3 + 4).", CALC, {"expression": "8 * (3 + 4)"}),
    ("What is the temperature in Cairo?", CITY, {"city": "Cairo"}),
    ("Who was Alan Turing? Look him up.", LOOK, {"query": "Alan Turing"}),
    ("How much is 1000 JPY in GBP?", MONEY, {"amount": 1000, "source": "JPY", "target": "GBP"}),
    ("What is 512 - 75?", CALC, {"expression": "512 - 75"}),
    ("Will I need an umbrella in London?", CITY, {"city": "London"}),
    ("Look up the French Revolution.", LOOK, {"query": "French Revolution"}),
    ("Convert 30 CHF to EUR.", MONEY, {"amount": 30, "source": "CHF", "target": "EUR"}),
    ("What is 2 ** 10?", CALC, {"expression": "2 ** 10"}),
    ("What is the weather like in Sydney?", CITY, {"city": "Sydney"}),
    ("Search for black holes.", LOOK, {"query": "black holes"}),
    ("How much is 12.5 USD in CHF?", MONEY, {"amount": 12.5, "source": "USD", "target": "CHF"}),
)
EXAMPLES: tuple[tuple[str, str, Json], ...] = (
    ("What is 6 * 7?", CALC, {"expression": "6 * 7"}),
    ("What is the weather in Berlin?", CITY, {"city": "Berlin"}),
    ("Look up Isaac Newton.", LOOK, {"query": "Isaac Newton"}),
    ("How much is 10 USD in EUR?", MONEY, {"amount": 10, "source": "USD", "target": "EUR"}),
)


WAYS = ("native, free", "native, grammar", "JSON, free", "JSON, grammar", "text, free", "text, grammar")


@dataclass(frozen=True)
class Row:
    """How one model did in one way of asking."""

    model: str
    way: str
    valid: int
    right: int
    exact: int
    cut: int
    """Answers that ran into max_tokens, most of them inside a string: they are not valid."""
    tokens: int


def written(name: str, arguments: Json) -> str:
    """An action as ReAct writes it."""
    given = json.dumps(arguments) if len(arguments) > 1 else next(iter(arguments.values()))
    return f"Action: {name}[{given}]"


def text_prompt(question: str) -> list[Message]:
    """The question after worked examples."""
    listed = "\n".join(
        f"- {each.name}[{', '.join(each.spec.parameters['properties'])}]: {each.spec.description}" for each in TOOLS
    )
    opening = f"Answer with one Action line that calls the right tool.\nActions:\n{listed}\n\n"
    turns: list[Message] = []
    for asked, name, arguments in EXAMPLES:
        turns += [user(f"{opening}Question: {asked}"), assistant(written(name, arguments))]
        opening = ""
    return [*turns, user(f"Question: {question}")]


def json_prompt(question: str) -> list[Message]:
    """The question after worked examples in one message, for a JSON object."""
    listed = "\n".join(json.dumps(each.spec.to_json()["function"]) for each in TOOLS)
    shown = "\n".join(
        f"Question: {asked}\n{json.dumps({'name': name, 'arguments': given})}" for asked, name, given in EXAMPLES
    )
    return [user(f"Choose a tool and answer in JSON.\n{listed}\n\n{shown}\nQuestion: {question}\n")]


def json_grammar() -> Grammar:
    """An object with the name of a tool and its arguments."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": each.name}, "arguments": each.spec.parameters},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for each in TOOLS
    ]
    return json_schema({"anyOf": calls})


def read(message: Message, way: str) -> tuple[str, Json] | None:
    """The one call in an answer, None if there is none that is valid."""
    if way.startswith("native"):
        if len(message.tool_calls) != 1 or message.tool_calls[0].invalid is not None:
            return None
        name, arguments = message.tool_calls[0].name, message.tool_calls[0].arguments
    elif way.startswith("JSON"):
        try:
            fenced = re.search(r"```(?:json)?\s*(.*?)```", message.text, re.DOTALL)
            body = json.loads(fenced[1] if fenced else message.text)
            name, arguments = body["name"], body["arguments"]
        except (ValueError, KeyError, TypeError):
            return None
    else:
        name, given = parse_action(message.text)
        try:
            arguments = (
                json.loads(given) if given.startswith("{") else {by_name(name).spec.parameters["required"][0]: given}
            )
        except (ValueError, KeyError):
            return None
    try:
        checked = by_name(name).validate(arguments)
    except (ToolError, KeyError):
        return None
    return name, checked


def by_name(name: str) -> Tool:
    """The tool of that name; KeyError if there is none."""
    return {each.name: each for each in TOOLS}[name]


def same(found: Json, expected: Json) -> bool:
    """Whether arguments are equal, blanks and case aside."""

    def plain(value: object) -> str:
        return "".join(str(float(value) if isinstance(value, int | float) else value).split()).lower()

    return {key: plain(value) for key, value in found.items()} == {key: plain(value) for key, value in expected.items()}


async def ask(model: Local, way: str) -> Row:
    """All questions asked in one way."""
    specs = [each.spec for each in TOOLS]
    native = way.startswith("native")
    grammar: Grammar | None = None
    if way.endswith("grammar"):
        loaded = await model._ready()
        markup = loaded.chat.markup or "hermes"
        grammar = (
            tool_grammar(specs, choice="required", parallel=False, markup=markup)
            if native
            else json_grammar()
            if way.startswith("JSON")
            else action_grammar(specs, final=False, thought=False)
        )
    sampling = Sampling(max_tokens=100, grammar=grammar, stop=("\n",) if way.startswith("text") else ())

    async def one(question: str) -> Completion:
        if native:
            return (await model.complete([user(question)], sampling, tools=specs))[0]
        prompt = json_prompt(question) if way.startswith("JSON") else text_prompt(question)
        return (await model.complete(prompt, sampling))[0]

    valid = right = exact = cut = tokens = 0
    said = await asyncio.gather(*(one(question) for question, _, _ in QUESTIONS))
    for completion, (_, name, arguments) in zip(said, QUESTIONS, strict=True):
        tokens += completion.usage.completion_tokens
        cut += completion.finish_reason == "length"
        call = read(completion.message, way)
        valid += call is not None
        right += call is not None and call[0] == name
        exact += call is not None and call[0] == name and same(call[1], arguments)
    return Row(model.name, way, valid, right, exact, cut, tokens)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| model | asked | valid | right tool | exact | cut off | tokens |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        shares = " | ".join(f"{count}/{len(QUESTIONS)}" for count in (row.valid, row.right, row.exact, row.cut))
        lines.append(f"| {row.model} | {row.way} | {shares} | {row.tokens} |")
    return "\n".join(lines)


def main() -> None:
    """Ask each model in each way and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    args = parser.parse_args()
    rows: list[Row] = []
    for path in args.models:
        model = Local(path, name=path.stem, free_calls=True)
        for way in args.ways:
            rows.append(asyncio.run(ask(model, way)))
            print(rows[-1], flush=True)
        model.close()
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
