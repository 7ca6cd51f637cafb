"""A small world for tests of the seam: three doors, one of which leads out."""

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.message import Json
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.world import Actions, InvalidAction, WorldCall, WorldEnvironment, failure_reason


class Doors:
    """The way out is behind one door; the others are locked."""

    form = None

    def __init__(self, way_out: str, listed: bool):
        self.way_out, self.listed = way_out, listed
        self.ending: str | None = None
        self.is_open = False

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        return (self.go,)

    async def go(self, door: str) -> str:
        """Go through a door.

        Args:
            door: red, green or blue.
        """
        if door not in ("red", "green", "blue"):
            raise InvalidAction(f"there is no door {door[:20]!r}: write go red, go green or go blue")
        if door != self.way_out:
            return "It is locked."
        self.ending = "won"
        return "You are out."

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    def read(self, action: str) -> WorldCall:
        verb, _, door = action.partition(" ")
        if verb != "go":
            raise InvalidAction(f"{verb[:20]!r} is no action: write go red, go green or go blue")
        return WorldCall("go", {"door": door})

    def admissible(self) -> Sequence[str] | None:
        return ["go red", "go green", "go blue"] if self.listed else None

    def render(self) -> str:
        return "[red] [green] [blue]"

    async def result(self) -> Json:
        return {"out": self.ending == "won"}

    def optimal(self) -> str:
        return f"go {self.way_out}"

    def random(self, rng: Random) -> str:
        return f"go {rng.choice(['red', 'green', 'blue', 'pink'])}"


def out(task: Task, trace: Trace) -> Score:
    """1 if the agent left, with the reason if it did not."""
    won = trace.final_state["result"]["out"]
    return Score("out", float(won), {} if won else {"reason": failure_reason(trace.final_state)})


def doors(*, rounds: int = 4, actions: Actions = "text", listed: bool = True) -> Benchmark:
    """The benchmark, of one task for each door."""
    tasks = [Task(f"doors-{each}", "Leave.", secret={"way_out": each}) for each in ("red", "green", "blue")]
    return Benchmark(
        "doors",
        lambda seed: tasks,
        (out,),
        environment=lambda task: WorldEnvironment(
            Doors(task.secret["way_out"], listed), rounds=rounds, actions=actions
        ),
    )
