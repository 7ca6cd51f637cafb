"""Rewrites a call until no policy changes it further, so that what is judged, shown and rehearsed is what the tool gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firsthand.errors import ToolError
from firsthand.message import canonical
from firsthand.safety.rules.case import CallCase
from firsthand.safety.rules.policies import Policy, Ruling, deny, rulings
from firsthand.tool_arguments import as_json_data

MAX_REWRITES = 8
"""The most rewrites of one call, after which it is denied."""


def rewritten(case: CallCase, policies: Sequence[Policy]) -> tuple[CallCase, list[Ruling]]:
    """The call after its rewrites and the rulings on these arguments, followed by the rewrites that led to them.

    In each round the first rewrite that has arguments counts, and a policy that denies in any round denies the call.
    """
    made: list[Ruling] = []
    for _ in range(MAX_REWRITES + 1):
        found = rulings(case, policies)
        wanted = next((each for each in found if each.action == "rewrite" and each.arguments), None)
        if wanted is None or wanted.arguments is None or any(each.action == "deny" for each in found):
            break
        try:
            arguments = as_json_data(case.tool.validate(dict(wanted.arguments)))
        except (ToolError, TypeError, ValueError) as error:
            found.append(replace(deny(f"the arguments as rewritten are refused: {error}"[:300]), rule=wanted.rule))
            break
        if canonical(arguments) == canonical(case.arguments):
            break
        made.append(wanted)
        case = replace(case, arguments=arguments)
    else:
        found.append(replace(deny(f"its rewrites go on after {MAX_REWRITES}"), rule=made[-1].rule))
    said = {each.rule for each in found}
    return case, [*found, *(each for each in {each.rule: each for each in made}.values() if each.rule not in said)]
