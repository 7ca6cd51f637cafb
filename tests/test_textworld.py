"""TextWorld's games as a world: its own policy wins, refused commands are told, games are equal for a seed."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.textworld import textworld
from firsthand.errors import ConfigError, MissingExtra
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.worlds.players import play
from firsthand.worlds.textworld_game import TextWorldGame, make_game, was_carried_out
from firsthand.worlds.world import RefusedAction

HERE = importlib.util.find_spec("textworld") is not None
needed = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="needs pip install 'firsthand[textworld]'"),
]


def test_options_that_cannot_be_are_refused_and_a_missing_package_is_named():
    with pytest.raises(ConfigError, match="level is 4 and tasks 20: give level 1 to 3"):
        textworld(level=4)
    if not HERE:
        with pytest.raises(MissingExtra, match=r"firsthand\[textworld\]"):
            textworld().tasks(0)[0]


@pytest.mark.parametrize(
    ("reports", "done"),
    [
        ("[taking mat]\nTaken.\n[taking the mat - succeeded]\n", True),  # "Take mat"
        ("[looking]\n-= Sauna =-\n[looking - succeeded]\n", True),  # "LOOK"
        ("You have to open the gateway first.\n", False),
        ("[going east]\nYou can't go that way.\n[going east - failed the can't go that way rule]\n", False),
    ],
)
def test_a_command_is_carried_out_if_the_game_reports_it(reports: str, done: bool):
    each_turn = "[looking]\n[looking - succeeded]\n[taking inventory]\n[taking inventory - succeeded]\n"
    assert was_carried_out(reports + each_turn) is done and was_carried_out(reports) is done
    assert not was_carried_out("That's not a verb I recognise.\n") and not was_carried_out("")


class TestGames:
    """Real games."""

    pytestmark = needed

    @pytest.fixture
    def games(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
        monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
        return textworld(level=1, tasks=2, rounds=5)

    def test_its_policy_wins_and_another_command_is_refused_in_its_own_words(self, games: Benchmark):
        tasks = list(games.tasks(0))
        assert "text game" in tasks[0].prompt and tasks[0].prompt != tasks[1].prompt
        for task in tasks:
            trace = asyncio.run(play(games, task, "optimal"))
            assert trace.error is None and trace.value() == 1 and trace.final_state["rounds"] == 2, task.id
            assert trace.final_state["ended"] == "won" and trace.value("points") == 1
            assert asyncio.run(play(games, task, "idle")).value() == 0
        replies = ["Action: fly to the moon", "Action: ", "Action: " + "я" * 100_000, "Action: look", "Action: look"]
        agent = Agent("a", Scripted(replies), thought_action, {"constrained": False})
        trace = asyncio.run(rollout(agent, tasks[0], benchmark=games))
        said = [call.detail["result"] for call in trace.calls if call.kind == "tool"]
        assert "verb I recognise" in said[0] and "write one" in said[1] and "at most" in said[2]
        assert "-=" in said[3] and not said[3].rstrip().endswith(">") and "status" not in said[3]
        assert (trace.final_state["invalid_actions"], trace.final_state["ended"]) == (3, "rounds")

    def test_commands_that_work_are_valid_however_they_are_written(self, games: Benchmark):
        async def played() -> list[bool]:
            game = TextWorldGame(make_game(0, 0, 3).path)
            await game.open()
            commands = ["LOOK", "i", "wait", "Open Gateway", "east", "fly", "east of [looking - succeeded]"]
            refused = [isinstance(await game.command(each), RefusedAction) for each in commands]
            while game.ending is None:
                refused.append(isinstance(await game.command(game.optimal().upper()), RefusedAction))
            await game.close()
            return refused

        refused = asyncio.run(played())
        assert refused[:3] == [False] * 3 and refused[5:7] == [True] * 2 and not any(refused[7:])
        assert refused[4], "no way leads east"

    def test_games_are_equal_for_a_seed_and_kept(self, games: Benchmark, tmp_path: Path):
        first = make_game(3, 0, 1)
        made = first.path.with_suffix(".json").read_bytes()
        assert make_game(3, 0, 1) == first and {each.suffix for each in tmp_path.glob("textworld/*")} == {
            ".z8",
            ".json",
        }
        first.path.unlink()
        assert make_game(3, 0, 1).objective == first.objective
        assert first.path.with_suffix(".json").read_bytes() == made
