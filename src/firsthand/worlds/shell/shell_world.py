"""AgentBench's operating-system world: bash in a sandbox of the attempt's own, then an answer or `finish`.

The paper keeps one bash open in a container. Here each command is a bash of its own that takes over working directory,
variables, functions, aliases, `shopt`, umask and `$?` of the one before it, and no process outlives its command: one that
forks, hangs or prints without end is stopped, and the next one runs. What `set` and `ulimit` set holds for one command. The
checks run in the same sandbox at the end, apart from the agent's shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.message import Json
from firsthand.sandbox.box import Box
from firsthand.sandbox.sandbox import Outcome, available, joined_streams
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.bounded_search import search
from firsthand.worlds.shell.os_items import OsItem, Script
from firsthand.worlds.shell.spare_boxes import SpareBoxes
from firsthand.worlds.world import InvalidAction, WorldCall

MAX_OUTPUT = 800
"""A longer output is cut after 780 characters, as in the paper."""
LIMITS = RunLimits(
    wall_s=15,
    cpu_s=15,
    memory_bytes=2**29,
    processes=128,
    open_files=256,
    file_bytes=2**26,
    scratch_bytes=2**26,
    output_bytes=2**18,
)
"""Limits of one command."""
HOME = "/root"
GRAMMAR = "Act: bash and then code between ```bash and ```, or Act: finish, or Act: answer(...)"
_SESSION = "/var/tmp/.session"
_SHELL = f"""
exec 2>&1
shopt -s expand_aliases
__save() {{
  builtin set -- "$?" "$(\\builtin umask)"
  {{ builtin local -; builtin set +xCu; }} 2>/dev/null
  builtin umask 077
  {{
    builtin echo shopt -s extglob
    builtin declare -p; builtin declare -f; builtin alias -p; builtin shopt -p
    builtin echo "umask $2"
  }} >{_SESSION} 2>/dev/null
  builtin pwd >{_SESSION}.cwd
  builtin echo "$1" >{_SESSION}.status
  builtin umask "$2"
  return "$1"
}}
__left() {{
  return "$1"
}}
__saved() {{
  case ${{3-}} in
    __save*) ;;
    "") builtin trap __save EXIT ;;
    *) builtin trap -- "__save && :
${{3-}}
__save || :" EXIT ;;
  esac
}}
trap() {{
  case $BASH_SUBSHELL$* in
    0*[Ee][Xx][Ii][Tt]*|0*0*) builtin trap "$@" && eval "__saved $(\\builtin trap -p EXIT)" ;;
    *) builtin trap "$@" ;;
  esac
}}
cd "$(cat {_SESSION}.cwd 2>/dev/null || echo {HOME})" 2>/dev/null
mv -f {_SESSION}.status {_SESSION}.left 2>/dev/null || echo 0 >{_SESSION}.left
echo 137 >{_SESSION}.status
[ -f {_SESSION} ] && . {_SESSION} >/dev/null 2>&1
\\builtin trap __save EXIT
__left "$(<{_SESSION}.left)"
\\builtin eval "$1"
"""
# The session comes after `cd`, which sets OLDPWD; functions with patterns such as `!(a)` are read under `extglob` alone.
# 137 stays where a command is killed, and so saves nothing. The agent's own functions and aliases, such as `echo` or `cat`,
# and its `IFS`, `set -C` and `set -x` must change nothing here: what follows the session is builtin, without aliases.
# A command's own EXIT trap would replace ours: `trap` puts `__save` around it, in front too, as it may end with `exit`.
# `&& :` keeps `$?` for it under `set -e`. Other traps are the builtin's alone: DEBUG would see more.
_CODE = re.compile(r"```(?:bash|sh)?[ \t]*\n(.*?)```", re.DOTALL)
_ENDS = {
    "timeout": f"[it did not end within {LIMITS.wall_s:g} s and was stopped]",
    "memory": "[it used too much memory or made too many files, and was stopped]",
    "output": "[it printed too much and was stopped]",
    "killed": "[it was killed]",
}
_LOOKS = ("ls -la", "pwd", "ls /", "ls ~ | wc -l", "cat /etc/hostname", "find . | head", "nproc")


class ShellWorld:
    """A World of one item."""

    form = "(bash\\n\\n```bash\\n(.|\\n){1,800}\\n```|finish|answer\\([^\\n]{0,200}\\))"
    examples = ("bash\n\n```bash\nls -1 /etc | wc -l\n```", "answer(220)")

    def __init__(self, item: OsItem, boxes: SpareBoxes | None = None):
        self.item, self.boxes = item, boxes or spare_boxes()
        self.ending: str | None = None
        self.answer: str | None = None
        self.commands: list[str] = []
        self.last_output = ""
        self._box: Box | None = None
        self._preparing: asyncio.Task[None] | None = None

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The command, the answer and the end."""
        return (self.bash, self.answer_question, self.finish)

    async def bash(self, code: str) -> str:
        """Run bash code; returns what it prints. Working directory and variables are kept. It gets no input.

        Args:
            code: One or more lines of bash.
        """
        if not code.strip():
            raise InvalidAction(f"there is no code: write {GRAMMAR}")
        if "\x00" in code:
            raise InvalidAction(f"the code holds a zero byte, which no command can: write {GRAMMAR}")
        await self.prepared()
        self.commands.append(code)
        outcome = await self._run(["bash", "-c", _SHELL, "bash", code], "/")
        said = joined_streams(outcome.stdout, outcome.stderr)
        self.last_output = said
        if len(said) > MAX_OUTPUT:
            said = said[: MAX_OUTPUT - 20] + "\n[truncated because the output is too long]"
        if (end := _ENDS.get(outcome.ended)) is not None:
            said = f"{said}\n{end}".lstrip("\n")
        return f"The output of the OS:\n{said}" if said else "The output of the OS is empty."

    async def answer_question(self, answer: str) -> str:
        """Give the answer to the question, which ends the task.

        Args:
            answer: The answer alone.
        """
        self.answer, self.ending = answer, "answered"
        return "The answer is taken."

    async def finish(self) -> str:
        """End the task, where something was to be done and not to be answered."""
        self.ending = "finished"
        return "It is finished."

    def ready(self) -> None:
        """SandboxError if there is no sandbox."""
        available()

    async def open(self) -> None:
        """Begin to open the sandbox and to run the item's scripts, while the agent reads the task."""
        self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        seed = zlib.crc32(self.item.id.encode()) % 32768
        self._box = await self.boxes.take()
        for script in self.item.init:
            prepared = Script("bash", f"RANDOM={seed}\n{script.code}") if script.language == "bash" else script
            outcome = await self._script(prepared)
            if outcome.ended not in ("done", "error"):
                raise SandboxError(f"the script that prepares {self.item.id} was stopped: {outcome.ended}")
        if self.item.start:
            await self._run(["bash", "-c", _SHELL, "bash", self.item.start], "/")
        self.boxes.refill()

    async def prepared(self) -> None:
        """Wait until the first command can run; SandboxError, which ends the attempt, if the item's scripts fail."""
        assert self._preparing is not None, "the world is open"
        try:
            await asyncio.shield(self._preparing)
        except SandboxError:
            self.ending = "sandbox failed"
            raise

    async def close(self) -> None:
        """End the sandbox, with all that runs in it."""
        if self._preparing is not None:
            self._preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError, SandboxError):
                await self._preparing
        if self._box is not None:
            await self._box.close()

    def read(self, action: str) -> WorldCall:
        """The code in an action's blocks, `finish`, or what is in the parentheses of `answer(...)`."""
        kind = action.lstrip().lower()
        if kind.startswith("bash"):
            if not (blocks := _CODE.findall(action)):
                raise InvalidAction(f"the action has no ```bash block: write {GRAMMAR}")
            return WorldCall("bash", {"code": "\n\n".join(each.rstrip(" \t").removesuffix("\n") for each in blocks)})
        if kind.startswith("finish"):
            return WorldCall("finish", {})
        if kind.startswith("answer") and "(" in action and action.rfind(")") > action.find("("):
            return WorldCall("answer_question", {"answer": action[action.find("(") + 1 : action.rfind(")")]})
        raise InvalidAction(f"{action[:40]!r} is no action: write {GRAMMAR}")

    def admissible(self) -> None:
        """Return None: commands cannot be listed."""
        return

    def render(self) -> str:
        """The last command and what it printed."""
        if not self.commands:
            return f"{HOME}$"
        return f"$ {self.commands[-1]}\n{self.last_output[:4000].rstrip()}"

    async def result(self) -> Json:
        """The answer, and whether it and the state pass the item's checks; an attempt that did not end does not."""
        await self.prepared()
        passed, why = (False, "it did not end") if self.ending is None else await self._judge()
        return {"answer": self.answer, "passed": passed, "why": why, "commands": len(self.commands)}

    def typed(self, line: str) -> str:
        """The action that a person means: a command, `answer(...)` or `finish`."""
        return line if line.lower().startswith(("bash\n", "finish", "answer")) else command(line)

    def optimal(self) -> str:
        """The published solution as one command, and then its output as the answer."""
        item = self.item
        if item.example is not None and not self.commands:
            return command(item.example.code)
        if item.match is not None or item.regex is not None:
            return f"answer({item.match})"
        said = self.last_output.strip().split("\n")[-1]  # before it may stand what went to stderr
        return f"answer({said})" if None in item.check or "answer" in _used(item) else "finish"

    def random(self, rng: Random) -> str:
        """A look around, a number as the answer, or the end."""
        drawn = rng.randrange(len(_LOOKS) + 3)
        if drawn < len(_LOOKS):
            return command(_LOOKS[drawn])
        return ("finish", f"answer({rng.randrange(20)})", "answer(yes)")[drawn - len(_LOOKS)]

    async def _judge(self) -> tuple[bool, str]:
        """The paper's judgement: an exact answer, a regular expression, or scripts that must all end with status 0."""
        item = self.item
        if item.match is not None:
            return (self.answer or "").strip() == item.match, "compared with the expected answer"
        if item.regex is not None:
            return await asyncio.to_thread(_fits, item.regex, self.answer or "")
        given = [str(self.answer)]
        for place, script in enumerate(item.check, 1):
            if "\x00" in given[-1]:
                return False, f"check {place} of {len(item.check)} would be given a zero byte"
            outcome = await self._script(script or _example(item), *given)
            if not outcome.ok:
                return False, f"check {place} of {len(item.check)} ended with {outcome.exit_status or outcome.ended}"
            given.append(outcome.stdout)
        return True, "all checks passed"

    async def _script(self, script: Script, *given: str) -> Outcome:
        if script.language == "python":
            return await self._run(["python3", "-c", script.code, *given], HOME)
        return await self._run(["bash", "-c", script.code, *(["--", *given] if given else [])], HOME)

    async def _run(self, words: Sequence[str], folder: str) -> Outcome:
        assert self._box is not None
        if any("\x00" in word for word in words):  # actions and answers with one did not come here
            raise DataError(f"a script of the item {self.item.id} holds a zero byte, which no command can: remove it")
        return await self._box.exec(words, folder=folder)


def spare_boxes(limits: RunLimits = LIMITS) -> SpareBoxes:
    """Sandboxes for items."""
    return SpareBoxes(HOME, limits)


def command(code: str) -> str:
    """The action that runs bash code."""
    return f"bash\n\n```bash\n{code}\n```"


def _example(item: OsItem) -> Script:
    if item.example is None:
        raise ConfigError(f"the item {item.id} has no example, and its check uses one")
    return item.example


def _fits(regex: str, answer: str) -> tuple[bool, str]:
    """Return if an answer has what an item's expression describes, and why; an answer that takes it too long has not."""
    try:
        return search(regex, answer, most=1).times > 0, "compared with a regular expression"
    except DataError as error:
        return False, str(error)


def _used(item: OsItem) -> set[str]:
    """`answer` if the first check reads its argument."""
    first = item.check[0] if item.check else None
    reads = first is not None and ("argv[1]" in first.code or "$1" in first.code) and first.language == "python"
    return {"answer"} if reads else set()
