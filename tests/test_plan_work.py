"""A plan's work: it is counted whatever it is made of, ends at a bound, and the event loop has turns meanwhile."""

import asyncio

import pytest

from firsthand import Agent, Task
from firsthand.patterns.plan_mode import plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.plans.labelled import MAX_PARTS, MAX_TEXT, TEXT_PER_PART, Labelled, flat, flattened
from firsthand.safety.plans.plan_interpreter import MAX_WORK, STATEMENT, TURN, PlanRun
from firsthand.safety.plans.plan_program import PlanError, parse_plan

DOUBLED = "a = [1]\n" + "a = a + a\n" * 15
LONG = "a = 'x'\n" + "a = a + a\n" * 19
TIMES = f"for i in [{','.join('1' * 300)}]:\n"
TOO_MUCH = "^the plan handles more than 2000000 values: loop less often, or over smaller values$"


def run(text, done=0, strict=False, **results):
    async def call(name, arguments, labels):
        return Labelled(results[name])

    async def read(text, question, kind):
        return "read"

    plan = PlanRun(call, read, strict=strict)
    plan._work = done
    return asyncio.run(plan.run(parse_plan(text, list(results)))), plan


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        f"{DOUBLED}{TIMES}" + "    b = len(a)\n" * 8,
        f"{DOUBLED}{TIMES}    b = 1 in a\n",
        f"{DOUBLED}{TIMES}    b = sorted(a)\n",
        f"{DOUBLED}{TIMES}    if a:\n        pass\n",
        f"{DOUBLED}{TIMES}    tool(x=a)\n",
        f"{DOUBLED}{TIMES}    read(a, 'q')\n",
        f"{DOUBLED}{TIMES}    b = {{text(a): 1}}\n",
        f"{DOUBLED}[1 for i in [{','.join('1' * 300)}] if a]\n",
        f"{LONG}{TIMES}    b = a + 'y' in a + 'z'\n",
        f"{LONG}{TIMES}    b = a == a\n",
        f"l = [{','.join('1' * 400)}]\n{TIMES}    for j in l:\n        for k in l:\n" + "            pass\n" * 20,
        f"x = tool(x=1)\n{TIMES}" + "    for y in x:\n        pass\n" * 5,
    ],
)
def test_work_of_every_kind_is_counted_and_bounded(text):
    assert len(text) < 2_000
    with pytest.raises(PlanError, match=TOO_MUCH):
        run(text, MAX_WORK - 400_000, tool=[1] * 500)


def test_a_long_plan_within_the_bounds_is_carried_out():
    many = [{"id": n, "text": "word " * 40} for n in range(500)]
    text = "n = 0\nl = []\nfor m in mails():\n    if m.id > 250:\n        l = l + [m.id]\nanswer([len(l), 499 in l])"
    (found, _) = run(text, mails=many)
    assert flat(found)[0] == [249, True]
    pages = ["x" * 16_000] * 400
    assert flat(run("answer(len(unique([p for p in pages()])))", pages=pages)[0])[0] == 1


def test_the_work_of_a_value_is_its_parts_and_its_characters():
    assert (MAX_WORK, TURN, MAX_TEXT, TEXT_PER_PART) == (2_000_000, 20_000, 20_000_000, 100)
    assert flattened(1).work == 1 and flattened(Labelled([Labelled(1), 2])).work == 5
    assert flattened("x" * 99).work == 1 and flattened("x" * 100).work == 2 and flattened(["x" * 50] * 2).work == 4
    assert flattened({"k" * 200: 1}).work == 4
    assert len(flat(["x" * (MAX_TEXT // 2)] * 2)[0]) == 2
    for many in (["x" * (MAX_TEXT // 2)] * 2 + ["y"], [{"k" * (MAX_TEXT + 1): 1}]):
        with pytest.raises(ValueError):
            flat(many)


def test_the_last_of_the_work_is_done_and_one_more_is_not():
    _, plan = run("pass", MAX_WORK - STATEMENT - 1)
    asyncio.run(plan._spend(1))
    with pytest.raises(PlanError, match=TOO_MUCH):
        asyncio.run(plan._spend(1))


def turns(text, **results):
    """The turns that another task had while a plan ran."""
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def both():
        async def call(name, arguments, labels):
            return Labelled(results[name])

        other = asyncio.create_task(tick())
        await asyncio.sleep(0)
        ticks.clear()
        try:
            plan = PlanRun(call, None)
            await plan.run(parse_plan(text, list(results)))
        except PlanError:
            pass
        finally:
            other.cancel()
        return len(ticks), plan._work

    return asyncio.run(both())


@pytest.mark.slow
def test_the_event_loop_has_a_turn_every_20000_parts():
    for text in ("b = len(a)\n" * 6, "b = " + " and ".join(["a"] * 7), "b = [" + ",".join(["len(a)"] * 6) + "]"):
        ticks, work = turns(f"{DOUBLED}{text}")
        assert work > 250_000 and ticks >= 7, "two doublings and six uses are of more than a turn each"
    numbers = f"all = [{','.join('1' * 100)}]\n"
    ticks, work = turns(f"{numbers}for i in all:\n    for j in all:\n        pass\n")
    assert 200_000 < work < 204_000 and ticks == 10
    assert turns("x = 1") == (0, STATEMENT)


def test_a_branch_that_is_not_taken_is_work_too():
    text = "if 1 == 2:\n" + "    y = 1\n" * 200
    assert run(text, strict=True)[1]._work > 200 * 3


def test_a_plan_that_works_can_be_cancelled():
    async def cancelled():
        plan = "```python\n" + f"{DOUBLED}{TIMES}" + "    b = len(a)\n" * 8 + "```"
        agent = Agent("p", Scripted([plan] * 3), plan_mode)
        running = asyncio.create_task(rollout(agent, Task("1", "Work.")))
        for _ in range(30):
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())


def test_one_item_is_looked_at_without_walking_through_all():
    rows = list(range(40_000))
    for text in ("r()[39999]", "last(r())"):
        found, plan = run(f"answer({text})", r=rows)
        assert found.value == 39_999 and plan._work < 30
    with pytest.raises(PlanError, match="line 1: IndexError"):
        run("answer(r()[40000])", r=rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["x = 1\nfor i in l():\n    x = [x]\nlen(x)" + "\n#", f"x = {'not ' * 900}1", "answer(deep())", "answer(big())"],
)
def test_what_is_nested_too_deep_or_too_large_is_an_error_of_the_plan(text):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PlanError, match=r"^line [14]: (RecursionError|ValueError)$|does not parse$"):
        run(text, l=[1] * 500, deep=deep, big=[1] * (MAX_PARTS + 1))


def test_sorted_and_unique_are_bounded_for_texts_too():
    assert flat(run("answer(sorted('cab'))")[0])[0] == ["a", "b", "c"]
    assert flat(run("answer(unique(t()))", t="ab" * (MAX_PARTS // 2))[0])[0] == ["a", "b"]
    for name in ("sorted", "unique"):
        assert run(f"answer({name}(t()))", t=list(range(1_000)))[1]._work > 1_000 * 10, "by the comparisons of a sort"
        with pytest.raises(PlanError, match="line 1: ValueError"):
            run(f"answer({name}(t()))", t="a" * (MAX_PARTS + 1))


def test_unique_keeps_the_first_of_equal_values_and_is_linear_for_numbers_of_one_hash():
    values = [1, 1.0, True, "1", 0, False, -0.0, 2.5, 2.5, None, None, "a", 10**30, 1e30]
    assert flat(run("answer(unique(t()))", t=values)[0])[0] == list(dict.fromkeys(values))
    same = [n * (2**61 - 1) for n in range(20_000)]
    assert len({hash(n) for n in same}) == 1
    assert flat(run("answer(unique(t()))", t=same)[0])[0] == same
    with pytest.raises(PlanError, match="line 1: TypeError"):
        run("answer(unique(t()))", t=[[1], [1]])


def test_values_that_share_parts_are_counted_as_often_as_they_are_written_out():
    text = f"{LONG}b = [{','.join('a' * 100)}]\nc = text(b)"
    with pytest.raises(PlanError, match=r"^line 22: ValueError$"):
        run(text)
