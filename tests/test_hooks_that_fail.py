"""Tests that methods of a user's own memories, worlds and guards that fail are named in one sentence."""

import asyncio
from pathlib import Path

import pytest

from firsthand import Agent, Task
from firsthand.cli import main
from firsthand.context import Context
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.message import Message
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout

OWN = """
from firsthand import Benchmark, Score, Task
from firsthand.memory import MemoryItem

class Base:
    def __init__(self, *, lifetime: str = "run"):
        self.lifetime, self.items = lifetime, {}
    async def write(self, item): self.items[item.id] = item; return item.id
    async def search(self, query, k): return list(self.items.values())[:k]
    async def forget(self, id): self.items.pop(id, None)
    async def list(self): return sorted(self.items.values(), key=lambda item: item.id)
    def snapshot(self):
        made = type(self)(lifetime=self.lifetime); made.items = dict(self.items); return made
class Raises(Base):
    def learn(self, trace): raise ValueError("lost")
class Nothing(Base):
    def learn(self, trace): return None
class Words(Base):
    def learn(self, trace): return ["text"]
class Waits(Base):
    async def learn(self, trace): return [MemoryItem.of("a fact", {})]
class Snaps(Base):
    def snapshot(self): raise ValueError("gone")
class Empty(Base):
    def snapshot(self): return None
class Later(Base):
    async def snapshot(self): return self
empty, later = Empty, Later
raises, nothing, words, waits, snaps = Raises, Nothing, Words, Waits, Snaps

def right(task, trace): return Score("right", 1.0)
def room(task): raise OSError("no room")
def tasks(seed): return [Task("1", "q"), Task("2", "q")]
def plain(): return Benchmark("plain", tasks, scorers=(right,), protocol="p")
def world(): return Benchmark("world", tasks, scorers=(right,), protocol="p", environment=room)
"""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["plain", "--memory", "own.py:raises"], "the memory Raises: learn failed with ValueError: lost"),
        (["plain", "--memory", "own.py:nothing"], "the memory Nothing: learn failed with TypeError: "),
        (["plain", "--memory", "own.py:words"], "the memory Words: learn gave 'text' where a MemoryItem was expected"),
        (["plain", "--memory", "own.py:snaps"], "the memory Snaps: snapshot failed with ValueError: gone"),
        (["plain", "--memory", "own.py:empty"], "the memory Empty: snapshot gave None where a memory was expected"),
        (["plain", "--memory", "own.py:later"], "the memory Later: snapshot gave <coroutine object Later.snapshot at"),
        (["world"], "the environment of world failed with OSError: no room"),
    ],
)
def test_what_fails_is_named(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "own.py").write_text(OWN)
    assert main(["run", f"own.py:{words[0]}", "--model", "scripted:echo", *words[1:]]) not in (0, 3)
    said = " ".join(capsys.readouterr().err.split())
    assert text in said and "Traceback" not in said


def test_learn_may_be_async(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "own.py").write_text(OWN)
    assert main(["run", "own.py:plain", "--model", "scripted:echo", "--memory", "own.py:waits"]) == 0


@pytest.mark.parametrize("value", ["text", None, 7, ["a"]])
def test_a_prompt_that_is_no_messages_is_told_of(value: object) -> None:
    class Odd:
        def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
            return GuardVerdict.replaced("odd", value)

    async def asks(task: Task, ctx: Context) -> str:
        return (await ctx.say("x").generate()).text

    trace = asyncio.run(rollout(Agent("c", Scripted(["a"]), asks, guard=Odd()), Task("1", "x")))
    assert trace.error is not None and "the guard Odd replaced prompt by" in trace.error.message
