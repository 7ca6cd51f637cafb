"""Python code in the sandbox, each call by itself: what it printed, and the value of its last expression."""

from __future__ import annotations

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.sandbox.sandbox import Outcome, available, joined_streams, shared_sandbox
from firsthand.tool import tool

MAX_CHARS = 8_000
"""A longer output keeps its beginning and its end."""
_REASONS = {
    "timeout": "it did not finish within its time and was stopped: use a faster method or smaller numbers",
    "memory": "it used too much memory and was stopped: work on smaller pieces",
    "output": "it printed too much and was stopped: print only what is needed",
}


@tool(effect="read", timeout_s=60.0, ready=available, declares=Declaration(clean=True))
async def python(code: str) -> str:
    """What Python code prints, and the value of its last expression. Nothing is kept from one call to the next; no network.

    Args:
        code: Python 3 source text, several lines if need be. Standard library only.
    """
    outcome = await shared_sandbox().python(unfenced(code), cell=True)
    return output_of(outcome)


def output_of(outcome: Outcome) -> str:
    """The output of a run that succeeded, as text for a model; otherwise a ToolError with output and reason."""
    output = shortened(joined_streams(outcome.stdout, outcome.stderr))
    if outcome.ok:
        return output or "(no output)"
    reason = _REASONS.get(outcome.ended)
    if reason is None and outcome.ended == "killed":
        reason = f"it was ended by signal {-(outcome.exit_status or 0)}"
    if reason is None and not outcome.stderr:
        reason = f"it ended with exit status {outcome.exit_status}"
    raise ToolError("\n".join(part for part in (output, reason) if part))


def shortened(text: str, limit: int = MAX_CHARS) -> str:
    """The text, with its middle left out if it is too long."""
    text = text.rstrip()
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"


def unfenced(code: str) -> str:
    """The code without the Markdown fence around it, if it has one."""
    lines = code.strip().split("\n")
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return code
