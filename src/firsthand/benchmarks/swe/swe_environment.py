"""Environment of a software task: a working copy at a commit, tools to change it, and the diff at the end."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.sandbox.repository_workspace import Workplace, work
from firsthand.sandbox.sandbox import joined_streams
from firsthand.scorers.patches.patch import MAX_BYTES, MAX_FILES
from firsthand.scorers.resolved import COMMANDS, TaskWorkplaces
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.tools.python import shortened

MAX_READ = 4 * 2**20
_ENDS = {
    "timeout": f"it did not finish within {COMMANDS.wall_s:g} s and was stopped",
    "memory": "it used too much memory or made too many files, and was stopped",
    "output": "it printed too much and was stopped",
}


class Checkout:
    """Environment whose tools work in the attempt's own sandbox or container; its `.git` is not trusted."""

    def __init__(self, task: Task, places: TaskWorkplaces):
        self.task, self.places = task, places
        self.place: Workplace | None = None
        self.submitted: Json | None = None

    def ready(self) -> None:
        """SandboxError if the task cannot be opened on this machine."""
        self.places.ready(self.task)

    async def open(self) -> None:
        """Check out the commit."""
        self.place = await self.places.open(self.task)

    async def final_state(self) -> Json:
        """Return the attempt's result.

        `diff` is the patch of changed text files; `left_out` the other changed files, with reasons; `submitted` whether the
        agent called submit, after which changes do not count; `problem` why there is no diff, if there is none.
        """
        if self.submitted is not None:
            return self.submitted
        try:
            return {**await self._diff(), "submitted": False}
        except ToolError as error:
            return {"diff": "", "submitted": False, "problem": str(error)}

    async def close(self) -> None:
        """Close the workplace and delete its files."""
        if self.place is not None:
            await self.place.close()

    async def _diff(self) -> Json:
        assert self.place is not None
        given = {"base": self.place.base, "most_bytes": MAX_BYTES - 1, "most_files": MAX_FILES}
        found: Json = await work(self.place, "diff", **given)
        return found

    def _open_place(self) -> Workplace:
        if self.submitted is not None:
            raise ToolError("the work has been submitted: nothing more can be changed, end with your final answer")
        assert self.place is not None
        return self.place

    @property
    def tools(self) -> Sequence[Tool]:
        """Tools shell, view, edit, create and submit."""

        @tool(effect="write", timeout_s=COMMANDS.wall_s + 60)
        async def shell(command: str) -> str:
            """What a shell command prints, and its exit status. It begins in /testbed, the repository; no network.

            Args:
                command: A command line, such as: grep -rn 'def parse' src | head
            """
            outcome = await self._open_place().shell(command, limits=COMMANDS)
            said = shortened(joined_streams(outcome.stdout, outcome.stderr)) or "(no output)"
            if outcome.ok:
                return said
            return f"{said}\n[{_ENDS.get(outcome.ended, f'exit status {outcome.exit_status}')}]"

        @tool(effect="read", timeout_s=180)
        async def view(path: str, start: int = 1, lines: int = 400) -> str:
            """The lines of a file, numbered; or what is in a folder.

            Args:
                path: The file or folder, relative to /testbed.
                start: The number of the first line that is wanted.
                lines: How many lines are wanted.
            """
            if start < 1 or lines < 1:
                raise ToolError(f"start is {start} and lines is {lines}: give 1 or more")
            given = {"path": path, "start": start, "lines": min(lines, 10_000), "most": MAX_READ}
            return str(await work(self._open_place(), "view", **given))

        @tool(effect="write", timeout_s=180)
        async def edit(path: str, old: str, new: str) -> str:
            """Replace a text that occurs once in a file with another.

            Args:
                path: The file, relative to /testbed.
                old: The text as it is, without line numbers, with enough around it to occur only once.
                new: What shall stand there instead.
            """
            return str(await work(self._open_place(), "edit", path=path, old=old, new=new, most=MAX_READ))

        @tool(effect="write", timeout_s=180)
        async def create(path: str, text: str) -> str:
            """Write a new file, and the folders on its way.

            Args:
                path: The file, relative to /testbed.
                text: What it shall hold.
            """
            return str(await work(self._open_place(), "create", path=path, text=text))

        @tool(effect="write", timeout_s=180)
        async def submit() -> str:
            """Hand in the changes as they are. Nothing can be changed after it."""
            self._open_place()
            found = await self._diff()
            self.submitted = {**found, "submitted": True}
            files = found["diff"].count("\ndiff --git ") + found["diff"].startswith("diff --git ")
            left = f"; left out: {', '.join(f'{path} ({why})' for path, why in found['left_out'][:5])}"
            return f"submitted: {files} files changed{left if found['left_out'] else ''}. Give your final answer now."

        return (shell, view, edit, create, submit)
