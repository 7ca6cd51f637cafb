"""A game of TextWorld as a World: its own parser, its admissible commands, its quest as the goal (Côté et al., 2018).

The package makes a game from a seed and compiles it, which takes seconds, so games are kept in the data home. The Z-machine
that plays it is the package's as well. The optimal player follows the policy that TextWorld knows.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from firsthand.errors import ConfigError, MissingExtra
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.system.home import data_home
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall

TEXTWORLD_VERSION = 1
MAX_COMMAND = 200
_STATUS = re.compile(r"(?<!\s)\s*\n>[^\n]*\Z")
"""The prompt after each observation, with the status line that a terminal shows at its top."""
_SUCCEEDED = re.compile(r"\[([^\[\]]{1,200}) - succeeded\]")
"""Inform's report of an action that was carried out, which TextWorld has it print."""
_EACH_TURN = ["looking", "taking inventory"]
"""Actions that TextWorld has the game carry out at the end of each turn."""
_MAKING = threading.Lock()


class GameSize(NamedTuple):
    """Rooms, objects, and the commands that the quest takes."""

    rooms: int
    objects: int
    quest: int


GAME_LEVELS: Mapping[int, GameSize] = {1: GameSize(1, 4, 2), 2: GameSize(4, 8, 4), 3: GameSize(8, 14, 7)}


class GameFile(NamedTuple):
    """A compiled game, and what it asks for."""

    path: Path
    objective: str


def make_game(seed: int, index: int, level: int) -> GameFile:
    """Game `index` of a seed and level, made now or kept from before; ConfigError if TextWorld cannot make it."""
    textworld = ready()
    size, folder = GAME_LEVELS[level], data_home() / "textworld"
    path = folder / f"v{TEXTWORLD_VERSION}-level{level}-seed{seed}-{index:04d}.z8"
    with _MAKING:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            options = textworld.GameOptions()
            options.seeds = Random(f"{seed} {index} {level}").randrange(2**31)
            options.nb_rooms, options.nb_objects, options.quest_length = size
            with tempfile.TemporaryDirectory(dir=folder) as work:
                options.path = str(Path(work) / path.name)
                try:
                    textworld.make(options)
                except Exception as error:
                    raise ConfigError(f"TextWorld cannot make game {path.stem}: {str(error)[:300]}") from None
                for ending in (".json", ".z8"):  # the game last: it says that all is there
                    Path(options.path).with_suffix(ending).replace(path.with_suffix(ending))
        return GameFile(path, str(textworld.Game.load(str(path.with_suffix(".json"))).objective))


class TextWorldGame:
    """A game. `World` describes the interface."""

    form = None

    def __init__(self, path: Path) -> None:
        """A compiled game; nothing is started yet."""
        self.path = path
        self._game: Any = None
        self._state: Any = None
        self._seen = ""

    async def open(self) -> None:
        """Start the game."""
        await in_thread(self._start)

    def _start(self) -> None:
        textworld = ready()
        asked = textworld.EnvInfos(
            admissible_commands=True, policy_commands=True, won=True, lost=True, score=True, max_score=True,
            description=True, inventory=True,
        )  # fmt: skip
        self._game = textworld.start(str(self.path), asked)
        self._state = self._game.reset()
        self._seen = str(self._state.description).strip()

    async def close(self) -> None:
        """End the game."""
        game, self._game = self._game, None
        if game is not None:
            game.close()

    @property
    def ending(self) -> str | None:
        """`won` once the quest is done, `lost` if it cannot be done any more."""
        if self._state is None:
            return None
        return "won" if self._state.won else "lost" if self._state.lost else None

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The command."""
        return (self.command,)

    async def command(self, text: str) -> str:
        """Give a command to the game, such as take lamp from table, open door, go east, look or inventory.

        Args:
            text: One command.
        """
        if not (words := " ".join(text.split())) or len(words) > MAX_COMMAND or not words.isprintable():
            raise InvalidAction(
                f"{words[:40]!r} ({len(words)} characters) is no command: write one, such as take lamp from table, at most "
                f"{MAX_COMMAND} characters"
            )
        listed = self.admissible()
        self._state, _, _ = self._game.step(words)
        self._seen = _STATUS.sub("", str(self._state.feedback)).strip()
        is_done = words in listed or ("[" not in words and was_carried_out(str(self._state.get("raw") or "")))
        return self._seen if is_done else RefusedAction(self._seen)

    def read(self, action: str) -> WorldCall:
        """The command."""
        return WorldCall("command", {"text": action})

    def admissible(self) -> Sequence[str]:
        """The commands that do something now."""
        return sorted(self._state.admissible_commands) if self._state is not None else ()

    def render(self) -> str:
        """The last observation, the place, and what is carried."""
        place, carried = str(self._state.description).strip(), str(self._state.inventory).strip()
        return "\n".join(dict.fromkeys((self._seen, place, carried)))

    async def result(self) -> Json:
        """If the quest is done, and the game's own score."""
        if self._state is None:
            return {"won": False, "score": 0, "max_score": 0}
        return {
            "won": bool(self._state.won),
            "score": int(self._state.score or 0),
            "max_score": int(self._state.max_score or 0),
        }

    def optimal(self) -> str:
        """The next command of TextWorld's own policy."""
        return str(next(iter(self._state.policy_commands or ()), "look"))

    def random(self, rng: Random) -> str:
        """One of the commands that do something now."""
        return rng.choice(self.admissible())


def was_carried_out(raw: str) -> bool:
    """True if the game carried out an action of the player's, by the text that it printed with Inform's reports."""
    done = _SUCCEEDED.findall(raw)
    return bool(done[:-2] if done[-2:] == _EACH_TURN else done)


def ready() -> Any:
    """The package; MissingExtra without it."""
    try:
        import textworld
    except ImportError:
        raise MissingExtra("textworld", "textworld", "the benchmark textworld") from None
    return textworld
