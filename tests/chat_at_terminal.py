"""A conversation of `firsthand chat` with a scripted model, as with a person at the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.commands.chat import Chat, Config
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.show.chat_screen import Screen


def talk(model: Any = None, *, terminal: bool = True, **config: Any) -> Chat:
    """A conversation with a scripted model, as with a person at the terminal."""
    screen = Screen()
    screen.is_terminal = terminal
    settings = Config("scripted:x", **config)
    model = model or Scripted(["one", "two", "three", "four"], name="scripted:x")
    return Chat(settings, Agent("chat", model, reply, sampling=Sampling(max_tokens=9)), screen)


def use_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder, with a home of its own there; the home."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder / "home"
