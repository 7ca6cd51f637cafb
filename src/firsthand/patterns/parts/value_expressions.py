"""Tells whether a number is a part of a larger expression: 5 in `\\frac{x}{5}`, `x_5`, `2**5`, `√5`, `5 × 10^3` and `5 1/2`.

Looks at the signs and commands around the number, and not at words; `value_words.py` does.
"""

from __future__ import annotations

import re

HARMLESS_COMMANDS = frozenset({
    "text", "textbf", "textit", "mathrm", "mathbf", "boxed", "fbox", "circ", "degree", "left", "right", "quad", "qquad",
    "approx", "displaystyle", "bf", "rm", "operatorname", "mbox", "underline", "emph", "therefore", "implies", "Rightarrow",
    "rightarrow", "to", "because", "colon", "Longrightarrow", "longrightarrow", "equiv", "pmod", "in", "begin", "end", "tag",
    "blacksquare", "square", "large", "Large",
})  # fmt: skip
"""Commands of LaTeX before or around a number that leave its value."""
BESIDE_CHARS = 200
_BLANKS = " \t\n([*$\"'“‘«"
_FRACTION = re.compile(r"[ \t]*(?:[½⅓⅔¼-¾⅐-⅞]|\\[dtc]?frac(?![A-Za-z])|[ \t]\d{1,9}[ \t]?[/⁄][ \t]?\d{1,9}(?![/\d]))")
_BEFORE = re.compile(
    r"(?:[√∛∜][\s({]*|\w_|\^[ \t]*[-+(]?|\d\.\(|[\d)}|][ \t]*(?:\*{1,2}|[+×·⋅∗÷/⁄∕])[ \t]*|\d[ \t]+[xX][ \t]+"
    r"|\d[xX]|(?<!\w)0[xob])$"
)
_COMMAND = re.compile(r"\\([A-Za-z]+)((?:[ \t]*[_^](?:\{[^{}]*\}|\w))*)[\s(]*$")
_AFTER = re.compile(
    r"[ \t]*(?:\^|\*\*)[ \t]*[\w{(+-]|[⁰¹²³⁴-⁹]|_[\w{]|!(?=[\d/*^+(])|[ \t]*[*×·⋅∗÷+/⁄∕][ \t]*\$?\.?\d|[ \t]+[xX][ \t]+\d"
    r"|[ \t]*\\(?:times|cdot|div|pm|mp|bmod|pmod|mod)(?![A-Za-z])|\.?[eE][-+]?\d"
)


def part_of_expression(before: str, after: str) -> bool:
    """Return whether the number between the two texts is an operand, an argument, a digit or a factor of something."""
    before, after = before[-BESIDE_CHARS:], after[:BESIDE_CHARS]
    if _BEFORE.search(before) or _AFTER.match(after) or _FRACTION.match(after) or _in_braces(before):
        return True
    command = _COMMAND.search(before)
    return command is not None and (bool(command[2]) or command[1] not in HARMLESS_COMMANDS)


def _in_braces(before: str) -> bool:
    """True if the text opens a brace behind a command, an argument, a power or a subscript, and does not close it."""
    depth = 0
    for at in range(len(before) - 1, -1, -1):
        depth += {"}": 1, "{": -1}.get(before[at], 0)
        if depth < 0:
            depth = 0
            opened = before[:at].rstrip(_BLANKS)
            command = re.search(r"\\([A-Za-z]+)$", opened)
            if opened[-1:] in ("}", "]", "^", "_") or (command is not None and command[1] not in HARMLESS_COMMANDS):
                return True
    return False
