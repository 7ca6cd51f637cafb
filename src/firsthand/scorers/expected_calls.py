"""Checks the functions and accepted calls that `function_calls` compares an answer's calls with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from firsthand.scorers.function_calls import TYPES

KINDS = ("calls", "none", "some")


def check_calls(given: object) -> None:
    """Raise ValueError unless this is `{"kind": KIND, "functions": [...], "accepted": [{name: {argument: [values]}}]}`.

    KIND is `calls`, or, without accepted calls, `none` where no call is right and `some` where any is.
    """
    if not isinstance(given, Mapping) or given.get("kind") not in KINDS:
        raise ValueError(
            f'an object with "kind" (one of {", ".join(KINDS)}), "functions" and "accepted" was expected, '
            f"not {str(given)[:60]}"
        )
    functions, accepted = given.get("functions", []), given.get("accepted", [])
    if not isinstance(functions, list) or not isinstance(accepted, list):
        raise ValueError('"functions" and "accepted" are lists')
    for function in functions:
        check_function(function)
    if bool(accepted) is not (given["kind"] == "calls"):
        raise ValueError(
            f"the kind is {given['kind']!r} and there are {len(accepted)} accepted calls: only calls has any"
        )
    check_accepted(accepted, functions)


def check_function(function: object) -> None:
    """Raise ValueError unless a function has a name and parameters, each of a type that is known."""
    name = function.get("name") if isinstance(function, Mapping) else None
    parameters = function.get("parameters") if isinstance(function, Mapping) else None
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping) or not isinstance(parameters, Mapping) or not isinstance(name, str):
        raise ValueError("a function has no name, or no parameters with properties")
    for argument, schema in properties.items():
        if not _typed(schema):
            raise ValueError(f"argument {argument!r} of {name} has no type of {', '.join(TYPES)}")
    required = parameters.get("required", [])
    if not isinstance(required, list) or not properties.keys() >= set(map(str, required)):
        raise ValueError(f"what {name} requires is {str(required)[:60]}, and a list of its arguments was expected")


def check_accepted(accepted: Sequence[object], functions: Sequence[Mapping[str, object]]) -> None:
    """Raise ValueError unless each accepted call is `{name: {argument: [values]}}`, of one of the functions."""
    names = {function["name"] for function in functions}
    for each in accepted:
        arguments = next(iter(each.values()), None) if isinstance(each, dict) and len(each) == 1 else None
        if not isinstance(arguments, dict) or not all(isinstance(values, list) for values in arguments.values()):
            raise ValueError(f"an accepted call is not {{name: {{argument: [values]}}}}: {str(each)[:80]}")
        assert isinstance(each, dict)
        if not names & each.keys():
            raise ValueError(f"the accepted call {next(iter(each))!r} is not of an offered function")


def _typed(schema: object) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type") not in TYPES:
        return False
    items = schema.get("items")
    return schema["type"] not in ("array", "tuple") or (isinstance(items, Mapping) and items.get("type") in TYPES)
