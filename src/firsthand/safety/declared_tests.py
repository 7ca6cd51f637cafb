"""Writes tests from the declarations of an agent's tools: each fact, and the rule of its guard that acts on it.

The tests decide on calls and make none. They fail when a declaration, a rule or the guard is taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.agent import Agent
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, unknown
from firsthand.message import Json, ToolCall
from firsthand.safety.policy import CallPolicy
from firsthand.safety.rules.case import CallCase, Earlier, PolicyBounds, defaults_of
from firsthand.safety.rules.policies import policies_named
from firsthand.safety.rules.rewritten_call import rewritten
from firsthand.tool import Tool
from firsthand.tool_arguments import as_json_data
from firsthand.tool_source import source_name

STRANGER = "stranger-7431"
"""A value that nobody named."""
OUTSIDE = "../outside-7431"


def rules_against(
    agent: Agent, tool: str, arguments: Json, *, user: str = "", made: Sequence[ToolCall] = ()
) -> dict[str, str]:
    """The rules of the agent's policy guard that are against a call, and their verdicts: `ask` or `deny`.

    `user` are the user's words, `made` the calls that were made before. No tool is called. ConfigError if the agent has no
    policy guard, UnknownName if it has no such tool.
    """
    guard, tools = policy_of(agent), {each.name: each for each in agent.own_tools}
    if tool not in tools:
        raise unknown("tool", tool, tools, see="the agent's file")
    bounds = PolicyBounds(frozenset(guard.plan) or None, guard.calls, guard.writes, guard.spend, guard.recipients)
    if guard.plan == ("model",):
        bounds = PolicyBounds(None, guard.calls, guard.writes, guard.spend, guard.recipients)
    checked = as_json_data(tools[tool].validate(arguments))
    case = CallCase(tools[tool], checked, (user,), tuple(_made(tools[each.name], each) for each in made), bounds)
    _, found = rewritten(case, (*policies_named(guard.rules), *guard.policies))
    return {each.rule: each.action for each in found if each.action in ("ask", "deny")}


def policy_of(agent: Agent) -> CallPolicy:
    """The agent's policy guard. ConfigError if it has none."""
    guard = next((each for each in agent.guards if isinstance(each, CallPolicy)), None)
    if guard is None:
        raise ConfigError(f'the agent {agent.name} has no policy guard: write guard = ["policy"] in its file')
    return guard


def _made(tool: Tool, call: ToolCall) -> Earlier:
    return Earlier(call.name, tool.effect, tool.declares, call.arguments, "", False, defaults_of(tool))


def generated_tests(agent: Agent, path: Path) -> str:
    """A file for pytest with a test for each fact that the agent's tools declare and its guard acts on."""
    rules = policy_of(agent).rules
    parts = []
    for tool in agent.own_tools:
        arguments = {name: sample(schema, tool.spec.parameters) for name, schema in _properties(tool).items()}
        try:
            tool.validate(arguments)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:90]
            parts.append(f"# {tool.name} has no test: a sample of its arguments was refused ({reason})")
            continue
        for name, body in _checks(tool, arguments, agent):
            if body[0] in rules:
                parts.append(f"def test_{tool.name.replace('-', '_')}_{name}():\n    {body[1]}")
    for source in (each for each in agent.tools if not isinstance(each, Tool)):
        parts.append(f"# {source_name(source)} has no tests: its tools are known when it is opened")
    return _HEAD.format(path=str(path), name=agent.name) + "\n\n\n".join(parts) + "\n"


_HEAD = '''"""The guard of {name}, by what its tools declare. Written by: firsthand safety tests {path}"""

from pathlib import Path

from firsthand.message import ToolCall
from firsthand.safety.declared_tests import rules_against
from firsthand.serve.agents.agent_file import open_agent, read_agent_file

AGENT = open_agent(read_agent_file(Path({path!r})))


'''


def _checks(tool: Tool, arguments: Json, agent: Agent) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name, rule and assertion of each check."""
    declares, name = tool.declares or Declaration(), tool.name
    plan = policy_of(agent).plan
    call = f"rules_against(AGENT, {name!r}, {arguments!r}"
    words = " ".join(_texts(arguments))

    def fact(rule: str, verdict: str, more: str = "") -> tuple[str, str]:
        return rule, f"assert {call}{more})[{rule!r}] == {verdict!r}"

    if tool.declares is None:
        yield "declares_nothing_and_is_refused", fact("declared", "deny")
    if plan and plan != ("model",) and name not in plan:
        yield "is_not_in_the_plan", fact("plan_lock", "ask")
    if declares.powers and set(declares.powers) & set(arguments):
        yield "asks_about_a_power_that_nobody_named", fact("authority_from_trusted", "ask")
        named = f"assert 'authority_from_trusted' not in {call}, user={words!r})"
        yield "takes_a_power_from_the_user", ("authority_from_trusted", named)
    for at in declares.paths:
        outside = f"assert rules_against(AGENT, {name!r}, {arguments | {at: OUTSIDE}!r})['path_inside'] == 'deny'"
        yield f"keeps_{at}_inside", ("path_inside", outside)
    earlier = f"ToolCall('1', {name!r}, {arguments!r})"
    if declares.rate is not None:
        yield "is_limited_by_its_rate", fact("budget", "deny", f", made=[{earlier}] * {declares.rate}")
    if declares.grants and name not in plan:
        yield "asks_before_it_gives_a_permission", fact("no_new_permissions", "ask")
    if tool.effect in ("external", "irreversible"):
        yield "is_not_repeated", fact("once_only", "deny", f", made=[{earlier}]")
    if tool.effect == "irreversible":
        yield "cannot_be_undone", fact("dry_run_first", "deny" if declares.dry_run is None else "ask")


def _properties(tool: Tool) -> Mapping[str, Json]:
    properties: Mapping[str, Json] = tool.spec.parameters["properties"]
    required = tool.spec.parameters.get("required", ())
    powers = {path.partition(".")[0] for path in tool.declares.powers} if tool.declares else set[str]()
    return {name: schema for name, schema in properties.items() if name in required or name in powers}


def sample(schema: Json, whole: Json) -> Any:
    """A value that fits a JSON schema; a text that nobody named where any text will do."""
    if "$ref" in schema:
        return sample(whole.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {}), whole)
    for word in ("anyOf", "oneOf", "allOf"):
        if options := [each for each in schema.get(word, ()) if each.get("type") != "null"]:
            return sample(options[0], whole)
    if "const" in schema or schema.get("enum"):
        return schema.get("const", (schema.get("enum") or [None])[0])
    match schema.get("type"):
        case "integer" | "number":
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return min(max(7431, least), schema.get("maximum", max(7431, least)))
        case "boolean":
            return True
        case "array":
            return [sample(schema.get("items", {}), whole)]
        case "object":
            properties = schema.get("properties", {})
            return {name: sample(properties[name], whole) for name in schema.get("required", ()) if name in properties}
    return STRANGER


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    else:
        yield str(value)
