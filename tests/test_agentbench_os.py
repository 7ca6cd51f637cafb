"""AgentBench's operating-system world: items of our own in the real sandbox, and commands that fork, hang and break out."""

import asyncio
import gc
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench_os import agentbench_os
from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace
from firsthand.worlds.players import play
from firsthand.worlds.shell import spare_boxes as spare_boxes_module
from firsthand.worlds.shell.os_items import OsItem, Script, read_items
from firsthand.worlds.shell.shell_world import LIMITS, ShellWorld, command, spare_boxes
from firsthand.worlds.world import InvalidAction
from namespaces import WHY_NOT

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
REAL = SHARED / "agents" / "agentbench" / "os_interaction"
needs_sandbox = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
EQUAL = "from sys import argv\nexit(0 if argv[1].strip() == argv[2].strip() else 1)"
ITEMS = [
    {
        "description": "How many lines has ~/notes?",
        "create": {"init": {"code": "for i in 1 2 3; do echo $RANDOM; done > ~/notes"}},
        "evaluation": {"check": [None, {"language": "python", "file": "check/equal.py"}], "example": "wc -l < ~/notes"},
    },
    {
        "description": "Make the program hi, which greets the user it is given.",
        "evaluation": {
            "check": {"code": '[ "$(hi Ann)" = "Hello, Ann" ]'},
            "example": {"code": "echo 'echo \"Hello, $1\"' > /usr/local/bin/hi\nchmod +x /usr/local/bin/hi"},
        },
    },
    {"description": "What is the value of x?", "start": "x=12", "evaluation": {"match": "12", "example": "echo $x"}},
    {"description": "How many users are there?", "create": {"init": "useradd jack"}, "evaluation": {"match": "1"}},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AgentBench's layout with four items of our own."""
    made = tmp_path_factory.mktemp("os_interaction")
    (made / "data" / "1").mkdir(parents=True)
    (made / "data" / "1" / "own.json").write_text(json.dumps(ITEMS))
    (made / "scripts" / "1" / "check").mkdir(parents=True)
    (made / "scripts" / "1" / "check" / "equal.py").write_text(EQUAL)
    return made


@pytest.fixture(scope="module")
def machine(folder: Path) -> Benchmark:
    """The benchmark on them; skips where there is no sandbox."""
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)
    return agentbench_os(data=str(folder))


def attempt(benchmark: Benchmark, task: int, *replies: str) -> Trace:
    said = [f"Think: I see.\n\nAct: {reply}" for reply in replies]
    agent = Agent("a", Scripted(said), thought_action, {"constrained": False})
    return asyncio.run(rollout(agent, benchmark.tasks(0)[task], benchmark=benchmark))


def told(trace: Trace) -> list[str]:
    return [call.detail["result"] for call in trace.calls if call.kind == "tool"]


def test_items_that_the_sandbox_cannot_hold_are_counted_by_reason(machine: Benchmark):
    assert [task.id for task in machine.tasks(0)] == ["std-001-own-00000", "std-001-own-00001", "std-001-own-00002"]
    assert "3 of 4 items; not run in the sandbox, by what they need: users 1;" in machine.protocol


@pytest.mark.slow
def test_the_optimal_player_passes_the_checks_and_another_answer_does_not(machine: Benchmark):
    traces = [asyncio.run(play(machine, task, "optimal")) for task in machine.tasks(0)]
    assert [trace.value() for trace in traces] == [1, 1, 1]
    wrong = attempt(machine, 0, "answer(4)")
    assert wrong.value() == 0 and wrong.scores[0].detail["why"] == "check 2 of 2 ended with 1"
    assert attempt(machine, 2, "answer( 12 )").value() == 1


@pytest.mark.slow
def test_one_shell_is_kept_from_command_to_command_and_an_attempt_without_an_end_fails(machine: Benchmark):
    trace = attempt(
        machine,
        1,
        command("mkdir -p ~/a && cd ~/a; y=7; greet() { echo hi $1; }; alias ll='echo long'; export Z=9"),
        command("pwd; echo $y; greet you; ll; sh -c 'echo $Z'"),
        command("exit 3"),
        command("pwd; cat; echo no >&2; false"),
        command("printf '%0900d' 1"),
        command("echo 'echo \"Hello, $1\"' > /opt/bin/hi; chmod +x /opt/bin/hi"),
        "think about it",
        command("true"),
    )
    outputs = told(trace)
    assert outputs[1] == "The output of the OS:\n/root/a\n7\nhi you\nlong\n9\n"
    assert outputs[0] == outputs[2] == "The output of the OS is empty."
    assert outputs[3] == "The output of the OS:\n/root/a\nno\n"
    assert outputs[4].endswith("[truncated because the output is too long]") and outputs[4].count("0") == 780
    assert outputs[6].startswith("Error: 'think about it' is no action: write Act: bash")
    assert trace.final_state["ended"] == "rounds" and trace.value() == 0  # it was right, and it did not say so
    assert trace.scores[0].detail == {
        "rounds": 8, "invalid_actions": 1, "reason": "limit", "why": "it did not end"
    }  # fmt: skip


def test_a_commands_own_exit_trap_runs_and_loses_no_state(machine: Benchmark):
    trace = attempt(
        machine,
        1,
        command("trap 'echo bye $?; n=2' EXIT; cd /tmp; n=1; (trap 'echo sub' 0; cd /; exit 1)"),
        command("pwd; echo $n; set -e; trap 'echo left $?; exit 5' EXIT; cd /; n=3; false; n=4"),
        command("pwd; echo $n; trap 'echo a' 0; trap - 0; n=5; trap 'echo dbg' DEBUG; true"),
        command("echo $n; set -u; trap - EXIT; trap '' EXIT; trap 'echo b' EXIT; n=6; exit 3"),
        command("echo $n; trap 'exit 1' EXIT; n=7"),
        command("set +u; (trap 'echo sub' EXIT; n=8; exit 1); kill -9 $$"),
        command("echo $n"),
    )
    assert [each.removeprefix("The output of the OS:\n") for each in told(trace)] == [
        "sub\nbye 1\n", "/tmp\n2\nleft 1\n", "/\n3\ndbg\ndbg\n", "5\nb\n", "6\n", "sub\n\n[it was killed]", "7\n"
    ]  # fmt: skip


def after(*codes: str) -> list[str]:
    """What each of the commands prints."""

    async def run() -> list[str]:
        world = ShellWorld(OsItem("kept", "?", (), "", match="1"))
        await world.open()
        outputs = [await world.bash(code) for code in codes]
        await world.close()
        return [re.sub(r"The output of the OS(:\n| is empty\.)", "", each) for each in outputs]

    return asyncio.run(run())


@needs_sandbox
def test_the_status_of_a_command_is_known_to_the_next_one():
    codes = [
        "echo $?",
        "false",
        "echo $?; (exit 3)",
        "[ $? = 3 ] && echo three; exit 4",
        "echo $?; kill -9 $$",
        "echo $?",
    ]
    assert after(*codes, "echo $?") == ["0\n", "", "1\n", "three\n", "4\n\n[it was killed]", "137\n", "0\n"]


@needs_sandbox
def test_state_is_kept_whatever_a_command_names_its_functions_and_sets():
    assert after("alias cat='cat -n' builtin='echo bad'; x=1; (exit 5)", "echo $? $x") == ["", "5 1\n"]
    assert after("echo() { printf '<%s>' \"$@\"; }; x=2; (exit 6)", "echo $? $x") == ["", "<6><2>"]
    assert after("IFS=1370; x=3; (exit 137)", 'echo "$? $x"; umask') == ["", "137 3\n0022\n"]
    assert after("set -C; x=4; cd /tmp; false", "echo $? $x; pwd") == ["", "1 4\n/tmp\n"]
    traced, then = after("set -x; x=5; false", "echo $? $x")
    assert then == "1 5\n" and "umask 077" not in traced and traced.startswith("++ x=5\n")


@needs_sandbox
def test_umask_the_last_folder_and_options_of_the_shell_are_kept():
    assert after("umask 077; cd /tmp", "touch q; stat -c %a q; cd -; umask 777", "umask; umask 022; cd -", "umask") == [
        "", "600\n/root\n", "0777\n/tmp\n", "0022\n"
    ]  # fmt: skip
    assert after("umask 777; trap 'touch made' EXIT; x=1", "umask; echo $x; stat -c %a made") == ["", "0777\n1\n0\n"]
    written = [
        "shopt -s extglob nullglob",
        "touch a b; f() { echo !(a) no*; }; alias g=f",
        "f; shopt -u extglob nullglob",
    ]
    assert after(*written, "g; echo no*; shopt -q extglob || echo off") == ["", "", "b\n", "!(a) no*\nno*\noff\n"]


@pytest.mark.slow
@needs_sandbox
def test_commands_that_fork_hang_print_or_break_things_are_stopped_and_the_next_one_runs():
    limits = replace(LIMITS, wall_s=0.8, cpu_s=0.8, processes=40)
    item = OsItem("x", "?", check=(Script("bash", "true"),))

    async def try_it() -> list[str]:
        world = ShellWorld(item, spare_boxes(limits))
        await world.open()
        try:
            said = []
            for code in (
                ":(){ :|:& };:",
                "sleep 60",
                "yes",
                "rm -rf --no-preserve-root / 2>/dev/null; echo done",
                "head -c 1G /dev/zero > ~/big; ls",
                "curl -s http://10.0.0.1 || echo no network",
                "echo still here",
            ):
                said.append(await world.bash(code))
            await world.finish()
            return [*said, (await world.result())["why"]]
        finally:
            await world.close()

    said = asyncio.run(try_it())
    assert "did not end within" in said[1] and "printed too much" in said[2] and "no network" in said[5]
    assert said[6] == "The output of the OS:\nstill here\n" and said[7] == "all checks passed"


@needs_sandbox
def test_a_zero_byte_is_an_invalid_action():
    async def try_it() -> None:
        world = ShellWorld(OsItem("x", "?", match="1"))
        await world.open()
        try:
            await world.bash("echo \x00")
        finally:
            await world.close()

    with pytest.raises(InvalidAction, match="zero byte"):
        asyncio.run(try_it())


@pytest.mark.parametrize(
    ("action", "name", "argument"),
    [
        ("bash\n\n```bash\nls\npwd\n```", "bash", "ls\npwd"),
        ("bash\n```\nls\n```\n```sh\npwd\n```", "bash", "ls\n\npwd"),
        ("answer(f(x) = 2)", "answer_question", "f(x) = 2"),
        ("Answer (да)", "answer_question", "да"),
        ("finish", "finish", None),
    ],
)
def test_the_papers_three_actions_are_read(action: str, name: str, argument: str | None):
    call = ShellWorld(OsItem("x", "?", match="1")).read(action)
    assert (call.name, list(call.arguments.values())) == (name, [] if argument is None else [argument])
    assert re.fullmatch(ShellWorld.form, command("ls")) and re.fullmatch(ShellWorld.form, "answer(1)")


@pytest.mark.parametrize("action", ["bash", "bash ls", "answer 3", "answer)(", "", "выход", "rm"])
def test_any_other_action_is_invalid_and_told_the_grammar(action: str):
    with pytest.raises(InvalidAction, match="write Act: bash"):
        ShellWorld(OsItem("x", "?", match="1")).read(action)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"evaluation": {"match": "1"}}, "an object with a description"),
        ({"description": "d", "evaluation": {}}, "neither match nor check"),
        ({"description": "d", "evaluation": {"check": [None]}}, "uses an example"),
        ({"description": "d", "evaluation": {"check": {"file": "../../../etc/passwd"}}}, "lies outside"),
        ({"description": "d", "evaluation": {"check": {"file": "gone.py"}}}, "cannot be read"),
        ({"description": "d", "evaluation": {"check": {"code": "1", "language": "perl"}}}, "bash or python"),
        ({"description": "d", "evaluation": {"match": {}}}, "nothing to compare"),
    ],
)
def test_a_bad_item_is_named_by_file_and_place(tmp_path: Path, item: object, message: str):
    (tmp_path / "data" / "1").mkdir(parents=True)
    (tmp_path / "scripts" / "1").mkdir(parents=True)
    (tmp_path / "data" / "1" / "a.json").write_text(json.dumps([ITEMS[2], item]))
    with pytest.raises(DataError, match=message) as error:
        list(read_items(tmp_path, "standard"))
    assert "a.json, item 2" in str(error.value)


def test_missing_data_and_options_are_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    with pytest.raises(ConfigError, match="give dev or standard"):
        agentbench_os(split="test")  # type: ignore[arg-type]
    if WHY_NOT is None:
        with pytest.raises(DataError, match="give data=FOLDER"):
            agentbench_os(data=str(tmp_path))


@pytest.mark.skipif(not REAL.is_dir(), reason="AgentBench's items are not here")
def test_the_real_items_are_all_read_and_119_of_144_run_here():
    standard, dev = list(read_items(REAL, "standard")), list(read_items(REAL, "dev"))
    assert (len(standard), len(dev)) == (144, 26)
    assert sum(item.why_not_here() is None for item in standard) == 119
    assert all(OsItem.from_json(json.loads(json.dumps(item.to_json()))) == item for item in standard)


@pytest.mark.slow
@needs_sandbox
@pytest.mark.skipif(not REAL.is_dir(), reason="AgentBench's items are not here")
def test_the_published_solutions_pass_their_checks_on_the_dev_items():
    benchmark = agentbench_os(split="dev", data=str(REAL))
    traces = [asyncio.run(play(benchmark, task, "optimal")) for task in benchmark.tasks(0)[::2]]
    assert [trace.task_id for trace in traces if trace.value() != 1] == []


@pytest.mark.slow
@needs_sandbox
def test_an_items_scripts_run_while_the_agent_reads_and_the_first_command_finds_them_done():
    scripts = (Script("bash", "sleep 0.3; echo $RANDOM > ~/a"), Script("python", "open('b', 'w').write('b')"))
    world = ShellWorld(
        OsItem("own", "?", init=scripts, start="x=12", match="12"), spare_boxes(replace(LIMITS, wall_s=5))
    )

    async def visit() -> tuple[float, str, list[str]]:
        began = time.monotonic()
        await world.open()
        opened = time.monotonic() - began
        said = await world.bash("ls; echo $x")
        await world.close()
        return opened, said, world.commands

    opened, said, commands = asyncio.run(visit())
    assert opened < 0.2 and said.split()[-3:] == ["a", "b", "12"] and commands == ["ls; echo $x"]


@pytest.mark.slow
@needs_sandbox
def test_scripts_that_fail_end_the_attempt_with_an_error_and_a_world_that_is_closed_early_leaves_nothing():
    item = OsItem("own", "?", init=(Script("bash", "while true; do :; done"),), match="12")
    limits = replace(LIMITS, wall_s=0.5)

    async def fails() -> None:
        world = ShellWorld(item, spare_boxes(limits))
        await world.open()
        try:
            with pytest.raises(SandboxError, match="was stopped: timeout"):
                await world.bash("ls")
            assert world.ending == "sandbox failed"
            with pytest.raises(SandboxError, match="was stopped: timeout"):
                await world.result()
        finally:
            await world.close()

    async def early() -> float:
        world = ShellWorld(item, spare_boxes(replace(LIMITS, wall_s=60)))
        await world.open()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await world.close()
        assert world._preparing is not None
        assert world._preparing.done()
        return time.monotonic() - began

    asyncio.run(fails())
    assert asyncio.run(early()) < 10


@pytest.mark.slow
@needs_sandbox
def test_sandboxes_are_started_ahead_once_attempts_follow_each_other_and_used_once():
    boxes = spare_boxes()

    def filled() -> int:
        while boxes._filling:
            time.sleep(0.01)
        return len(boxes._spare)

    async def visit(mark: str) -> str:
        world = ShellWorld(OsItem("own", "?", match="12"), boxes)
        await world.open()
        said = await world.bash(f"echo {mark} >> ~/marks; cat ~/marks; ls -d /opt/bin")
        await world.close()
        return said.split("OS:\n")[-1]

    assert asyncio.run(visit("a")) == "a\n/opt/bin\n" and filled() == 0, "one attempt needs no others"
    assert asyncio.run(visit("b")) == "b\n/opt/bin\n" and filled() == 1
    ahead = boxes._spare[0]
    worker = ahead._sandbox._pool.idle[0].pid
    assert asyncio.run(visit("c")) == "c\n/opt/bin\n" and filled() == 2 and ahead not in boxes._spare
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert asyncio.run(visit("d")) == "d\n/opt/bin\n" and filled() == 3
    assert asyncio.run(visit("e")) == "e\n/opt/bin\n" and filled() == 3, "no more than three"
    workers = [box._sandbox._pool.idle[0].pid for box in boxes._spare]
    boxes._drop(boxes._taken - 1)
    assert len(boxes._spare) == 3, "one was taken since"
    boxes._drop(boxes._taken)
    assert not boxes._spare
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.slow
@needs_sandbox
def test_sandboxes_that_nobody_asks_for_are_closed(monkeypatch):
    monkeypatch.setattr(spare_boxes_module, "IDLE_S", 0.2)
    boxes = spare_boxes()

    async def twice() -> None:
        for _ in range(2):
            await (await boxes.take()).close()

    asyncio.run(twice())
    boxes.refill()
    ends = time.monotonic() + 20
    while (boxes._filling or boxes._spare) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not boxes._spare
    workers = [each._sandbox._pool.idle[0].pid for each in boxes._spare]
    del boxes._spare[:]
    gc.collect()
    for each in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(each, 0)
