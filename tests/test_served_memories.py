"""The memory of a served agent by client: each sees its own, and where there are no keys there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.memories.notes import Notes
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.agent_file import open_agent, read_agent_file
from firsthand.serve.agents.client_memories import ClientMemories
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from served_agent import Desk, clerk, within_sessions


async def keeper(task: Any, ctx: Any) -> str:
    """Remembers what begins with `keep`, and answers with all that it recalls."""
    if task.question.startswith("keep "):
        await ctx.remember(task.question[5:])
        return "kept"
    return "; ".join(sorted(each.text for each in await ctx.recall("pin", k=9))) or "nothing known"


def heard(memory: Any, folder: Path, *said: tuple[str, str]) -> list[str | None]:
    """The answers to what clients say in turn."""
    agent = replace(clerk(Desk()), pattern=keeper, memory=memory, tools=(), options={})

    async def use(sessions: ServedSessions) -> list[str | None]:
        turns = [(await sessions.settled(sessions.submit(who, text, context=text).id)) for who, text in said]
        return [turn.answer for turn in turns]

    return list(within_sessions(agent, folder, use))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["notes", "semantic", "file", "owner"])
def test_clients_with_keys_do_not_see_each_others_memory(tmp_path: Path, kind: str) -> None:
    file = str(tmp_path / "m.db")
    memory: Any = {
        "notes": lambda: Notes("agent"),
        "semantic": lambda: semantic(shown=0),
        "file": lambda: semantic(file, shown=0),
        "owner": lambda: semantic(file, owner="desk", shown=0),
    }[kind]()
    answers = heard(
        memory, tmp_path, ("alice", "keep my pin is 4711"), ("bob", "pin"), ("alice", "pin"), ("bob", "keep pin 0815"),
        ("anyone", "pin"), ("env", "keep the pin of all"), ("alice", "the pin"), ("bob", "my pin"), ("anyone", "its pin"),
    )  # fmt: skip
    assert answers == [
        "kept", "nothing known", "my pin is 4711", "kept", "nothing known", "kept", "my pin is 4711", "pin 0815",
        "the pin of all",
    ]  # fmt: skip
    if kind in ("file", "owner"):
        owners = {owner for owner, _, _ in memory.file.scopes()}
        assert owners == ({"", "alice", "bob"} if kind == "file" else {"desk", "desk/alice", "desk/bob"})
        again = semantic(file, owner=memory.owner, shown=0)
        assert heard(again, tmp_path / "again", ("bob", "pin"), ("eve", "pin")) == ["pin 0815", "nothing known"]


def test_a_memory_that_keeps_nothing_or_is_shared_is_one_for_all(tmp_path: Path) -> None:
    for memory in (None, Notes("attempt"), Notes("run")):
        assert ClientMemories(memory).of("alice") is memory
    memory = Notes("agent")
    assert ClientMemories(memory, shared=True).of("alice") is memory
    own = ClientMemories(memory)
    assert own.of("anyone") is own.of("env") is memory is not own.of("alice") is own.of("alice") is not own.of("bob")
    agent = replace(clerk(Desk()), memory=memory)
    with opened_sessions(agent, tmp_path, tmp_path / "s", SessionSettings(), shared_memory=True) as sessions:
        assert sessions.memories.of("alice") is memory


def test_a_clients_memory_is_under_the_name_of_its_owner_and_of_the_client() -> None:
    for owner, name in (("desk", "desk/alice"), ("", "alice")):
        memory: Any = ClientMemories(semantic(owner=owner)).of("alice")
        assert memory.owner == name


class Bare:
    """A memory without owners."""

    name, lifetime = "bare", "agent"

    async def write(self, item: MemoryItem) -> str:
        return item.id

    async def search(self, query: str, k: int) -> list[MemoryItem]:
        return []

    async def forget(self, id: str) -> None: ...

    async def list(self) -> list[MemoryItem]:
        return []

    def snapshot(self) -> Bare:
        return self


def test_a_memory_without_owners_is_refused_for_clients_with_keys(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^memory is bare:lifetime=agent, which cannot be kept apart .* shared-memory"
    ):
        heard(Bare(), tmp_path, ("alice", "pin"))
    assert heard(Bare(), tmp_path, ("anyone", "pin")) == ["nothing known"]


def test_an_agents_file_says_that_its_memory_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('model = "scripted:echo"\nmemory = "notes:lifetime=agent"\n')
    assert read_agent_file(path).shared_memory is False
    path.write_text('model = "scripted:echo"\nmemory = "notes:lifetime=agent"\nshared-memory = true\n')
    file = read_agent_file(path)
    assert file.shared_memory is True and open_agent(file).memory is not None
