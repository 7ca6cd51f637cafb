"""Registers our sandbox with Inspect: `inspect eval task.py --sandbox firsthand`.

Inspect finds this module through our package's `inspect_ai` entry point.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):
    from inspect_ai.util import sandboxenv

    from firsthand.bridges.inspect.sandbox_provider import NAME, sandbox_environment

    sandboxenv(name=NAME)(sandbox_environment())
