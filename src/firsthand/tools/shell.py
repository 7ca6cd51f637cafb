"""A shell command in the sandbox, in an empty folder of its own: what it printed."""

from __future__ import annotations

from firsthand.declaration import Declaration
from firsthand.sandbox.sandbox import available, shared_sandbox
from firsthand.tool import tool
from firsthand.tools.python import output_of


@tool(effect="read", timeout_s=60.0, ready=available, declares=Declaration(clean=True))
async def shell(command: str) -> str:
    """What a shell command prints. It runs in an empty folder that is thrown away afterwards; no network.

    Args:
        command: A command line for sh, such as: printf 'b\\na\\n' | sort
    """
    return output_of(await shared_sandbox().shell(command))
