"""Our sandbox as a sandbox of Inspect: its own conformance checks, what it refuses, and what attackers find in it."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from namespaces import WHY_NOT

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.util import OutputLimitExceededError, SandboxUserUnsupportedError
from inspect_ai.util._sandbox import self_check

from firsthand.providers.inspect_demands import Bare, demanded
from firsthand.providers.inspect_sandbox import sandbox_environment

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
Ours = sandbox_environment()
OTHER_USERS = {"test_exec_as_user"}
"""The one check that we do not pass: the sandbox has no root, and says so with SandboxUserUnsupportedError."""
CHECKS = [name for name in self_check.__all__ if name not in OTHER_USERS]
WAITING = {name for name in CHECKS if "timeout" in name}


async def opened(config=None):
    environments = await Ours.sample_init("task", config, {})
    return next(iter(environments.values()))


async def closed(environment) -> None:
    await Ours.sample_cleanup("task", None, {"default": environment}, False)


@needs_bwrap
@pytest.mark.parametrize(
    "names", [[name for name in CHECKS if name not in WAITING], pytest.param(sorted(WAITING), marks=pytest.mark.slow)]
)
def test_inspects_own_checks_of_a_sandbox_pass(names) -> None:
    async def main() -> None:
        environment = await opened()
        failed = {}
        for name in names:
            try:
                await getattr(self_check, name)(environment)
            except Exception as error:
                failed[name] = repr(error)
        await closed(environment)
        assert failed == {}

    assert names
    asyncio.run(main())
