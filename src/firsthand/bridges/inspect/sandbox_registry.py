"""Our sandbox as a provider of Inspect: `inspect eval task.py --sandbox firsthand`.

Inspect finds this module by an entry point `inspect_ai` of our package.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):
    from inspect_ai.util import sandboxenv

    from firsthand.bridges.inspect.sandbox_provider import NAME, sandbox_environment

    sandboxenv(name=NAME)(sandbox_environment())
