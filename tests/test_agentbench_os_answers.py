"""AgentBench's operating-system world: answers of any text are judged."""

import asyncio

import pytest

from firsthand.errors import DataError
from firsthand.worlds.shell.os_items import OsItem, Script
from firsthand.worlds.shell.shell_world import ShellWorld
from namespaces import WHY_NOT

needs_sandbox = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("answer", ["a\x00b", "\x00", "5\ud800", "5\x01"])
def test_an_answer_that_no_argument_can_hold_is_wrong_and_has_a_score(answer):
    async def judged(check: Script, said: str) -> dict[str, object]:
        world = ShellWorld(OsItem("x", "?", check=(check,)))
        await world.open()
        try:
            await world.answer_question(said)
            return await world.result()
        finally:
            await world.close()

    check = Script("bash", '[ "$1" = 5 ]')
    wrong, right = (asyncio.run(judged(check, said)) for said in (answer, "5"))
    assert wrong["passed"] is False and right["passed"] is True
    assert ("zero byte" in str(wrong["why"])) is ("\x00" in answer)


@pytest.mark.slow
@needs_sandbox
def test_a_check_that_prints_a_zero_byte_for_the_next_one_is_not_passed():
    item = OsItem("x", "?", check=(Script("bash", "cat ~/it"), Script("bash", "true")))

    async def judged(code: str) -> tuple[bool, str]:
        world = ShellWorld(item)
        await world.open()
        try:
            await world.bash(code)
            await world.finish()
            result = await world.result()
            return result["passed"], result["why"]
        finally:
            await world.close()

    assert asyncio.run(judged("printf 'a\\0b' > ~/it")) == (False, "check 2 of 2 would be given a zero byte")
    assert asyncio.run(judged("printf 'ab' > ~/it")) == (True, "all checks passed")


@needs_sandbox
def test_an_item_whose_script_holds_a_zero_byte_is_named():
    async def judged() -> None:
        world = ShellWorld(OsItem("os-7", "?", check=(Script("bash", "true \x00"),)))
        await world.open()
        try:
            await world.finish()
            await world.result()
        finally:
            await world.close()

    with pytest.raises(DataError, match="a script of the item os-7 holds a zero byte"):
        asyncio.run(judged())
