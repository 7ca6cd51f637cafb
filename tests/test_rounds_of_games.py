"""Games round by round: Aquawar's fish and turns, a puzzle's questions, and what an attempt in any world counts."""

import asyncio
import json
from random import Random

import pytest

from firsthand.worlds.aquawar.aquawar_baselines import Baseline2, SeeingPlayer
from firsthand.worlds.aquawar.aquawar_rules import KINDS, STATE_LIMIT, AquawarGame, FishMove
from firsthand.worlds.aquawar.aquawar_world import AquawarSetup, AquawarWorld
from firsthand.worlds.puzzles.puzzle import Puzzle
from firsthand.worlds.puzzles.puzzle_judge import Hosted
from firsthand.worlds.puzzles.puzzle_world import HINT, PuzzleWorld
from firsthand.worlds.world import InvalidAction, RefusedAction, WorldCall, WorldEnvironment, failure_reason

ENEMY = ("eel", "flame", "sunfish", "spray")


def healths(game: AquawarGame) -> list[list[int]]:
    return [[fish.hp for fish in team] for team in game.teams]


def game(first: int = 0) -> AquawarGame:
    return AquawarGame.between(KINDS, ENEMY, first)


def test_each_action_costs_the_fish_that_it_should():
    made = game()
    assert made.guess(1, "eel") is False
    assert (made.phase, made.turn, made.states, healths(made)) == ("act", 0, 1, [[400] * 4] * 2)
    made.act(FishMove(0, "normal", 0))  # an eel passes 30 of 100 on to three others
    assert healths(made) == [[400] * 4, [330, 390, 390, 390]]
    assert (made.passives, made.phase, made.turn) == ([(1, 0, "Deflect")], "guess", 1)
    assert made.guess(2, "eel") is True
    assert (made.teams[0][2].exposed, healths(made)[0]) == (True, [350] * 4)
    made.act(FishMove(1, "active", 2))  # a flame infights its sunfish for attack
    assert (healths(made)[1], made.teams[1][1].atk, made.teams[1][2].wound) == ([330, 390, 315, 390], 340, 85)
    made.no_guess()
    made.act(FishMove(2, "active", 0))  # an eel hits all for 70; eel and sunfish pass on 21 // 3
    assert healths(made)[1] == [330 - 49 - 7, 390 - 70 - 14, 315 - 49 - 7, 390 - 70 - 14]
    made.no_guess()
    made.teams[0][1].hp = 119  # below 0.3 of 400 after the blow: the spray strikes back, the flame itself does not
    made.act(FishMove(3, "normal", 1))
    assert (made.teams[0][1].hp, made.teams[1][3].hp) == (19, 306 - 30)
    assert made.passives == [(0, 0, "Counter")]
    edge = game()
    edge.no_guess()
    edge.teams[1][1].hp = 220  # 120 is not below
    edge.act(FishMove(1, "normal", 1))
    assert (edge.passives, edge.teams[0][1].hp) == ([], 400)
    eel, flame = edge.teams[0][2], edge.teams[0][1]
    for damage, after in ((199, (199, 200)), (1, (0, 240)), (650, (50, 360))):  # 40 for each 200, the rest is kept
        edge._damage(eel, None, damage)
        assert (eel.wound, eel.atk) == after
    edge._damage(flame, None, 200)
    assert (flame.wound, flame.atk) == (200, 200)
    twin = edge.copy()
    twin.teams[0][0].hp = 1
    twin.passives.append((0, 0, "x"))
    assert (edge.teams[0][0].hp, edge.passives) == (400, [])


def test_a_game_is_won_by_the_last_team_alive_or_at_the_limit_by_what_is_left():
    made = game()
    for fish in made.teams[1]:
        fish.hp = 1
    made.guess(3, "spray")
    assert (made.winner, [fish.dead for fish in made.teams[1]], made.damage_dealt(0)) == (0, [True] * 4, 1600)
    for turn in (0, 1):  # all are gone at once: the team whose turn it is wins
        none = game(first=turn)
        for fish in (*none.teams[0], *none.teams[1]):
            fish.hp = 0
        none.no_guess()
        assert none.winner == turn
    for change, winner in (
        (lambda each: None, 1),
        (lambda each: setattr(each.teams[0][0], "hp", 0), 1),
        (lambda each: setattr(each.teams[1][2], "hp", 399), 0),
        (lambda each: [setattr(each.teams[0][0], "hp", 390), setattr(each.teams[0][1], "hp", 410)], 0),
    ):
        late = game()
        late.states = STATE_LIMIT - 2
        late.no_guess()
        assert late.winner is None
        change(late)
        late.phase = "guess"
        late.no_guess()
        assert late.winner == winner
    moves = list(game().legal_moves())
    assert moves[:5] == [*(FishMove(0, "normal", each) for each in range(4)), FishMove(0, "active", 0)]
    assert moves[9:12] == [FishMove(1, "active", each) for each in (0, 2, 3)]
    assert len(moves) == 4 * 4 + 1 + 3 + 1 + 3


def test_the_second_baseline_finishes_hits_all_or_strikes_back_and_guesses_from_clues():
    made = game(first=1)
    player = Baseline2(Random(1), 1)
    made.no_guess()
    assert player.move(made) == FishMove(3, "active", 0)  # the spray before the eel
    made.teams[0][2].hp = 100
    assert player.move(made) == FishMove(0, "normal", 2)
    made.teams[0][2].hp = 101
    assert player.move(made) == FishMove(3, "active", 0)
    for place in (0, 1, 2):
        made.teams[0][place].dead = True
    made.teams[0][3].hp = 300
    assert player.move(made) == FishMove(0, "normal", 3)
    both = game()
    both.no_guess()
    both.act(FishMove(1, "active", 3))
    player.saw(both, FishMove(1, "active", 3))
    assert (player.struck, player.clues) == (1, {0: set(), 1: {"Infight"}, 2: set(), 3: set()})
    both.passives = [(0, 1, "Counter"), (1, 2, "Deflect")]
    player.saw(both, None)
    assert player.guess(both) == (1, "flame")
    both.teams[0][1].exposed = True
    place, kind = player.guess(both)
    assert place in (0, 2, 3)
    assert kind != "flame"


def world(first: int = 0, baseline: int = 2) -> AquawarWorld:
    made = AquawarWorld(AquawarSetup(ENEMY, baseline, first, 3))
    asyncio.run(made.open())
    return made


def test_a_turn_is_a_guess_and_an_action_and_tells_what_the_enemy_did():
    made = world()
    assert made.log == []
    fish = [{"POSITION": str(n), "ID": kind, "HP": "400", "ATK": "200"} for n, kind in enumerate(KINDS)]
    hidden = [{**each, "ID": "unknown", "ATK": "unknown"} for each in fish]
    assert made.opening() == json.dumps({"You": fish, "Enemy": hidden}) + "\nNow guess."
    with pytest.raises(InvalidAction, match=r'^guess first: \{"guess_type": "spray", "target_position": 0\}$'):
        asyncio.run(made.move("spray", "normal", 0))
    with pytest.raises(InvalidAction, match=r"^'cod' at 1 cannot be guessed: give one of spray, .* \(0, 1, 2, 3\)$"):
        asyncio.run(made.guess("cod", 1))
    lost = [{**each, "HP": "350"} for each in hidden]
    lost[1]["ID"] = "flame"
    assert asyncio.run(made.guess("flame", 1)) == (
        "Your guess was right: position 1 holds the flame, and each enemy fish loses 50 health.\n"
        + json.dumps({"You": fish, "Enemy": lost}) + "\nNow act."
    )  # fmt: skip
    with pytest.raises(InvalidAction, match=r'^you have guessed in this turn: act now, as in \{"pick_fish": "spray"'):
        asyncio.run(made.guess("eel", 0))
    with pytest.raises(
        InvalidAction, match=r"^'flame' 'active' at 1 is not possible: give one of your living fish, and "
    ):
        asyncio.run(made.move("flame", "active", 1))
    said = asyncio.run(made.move("spray", "active", 3)).splitlines()
    assert said[:3] == [
        "You: spray at 0 uses its ability.", "Passive ability of the enemy fish 0: Deflect.",
        "Passive ability of the enemy fish 2: Deflect.",
    ]  # fmt: skip
    assert said[3].startswith("The enemy guessed ")
    assert said[4] == "The enemy: a hidden fish at 3 uses its ability."
    assert said[-1] == "Now guess."
    assert said[:-2] == made.log
    health = made.game.teams[1][1].hp
    assert made.render().splitlines()[5] == f"enemy 1 flame    {'#' * (health * 20 // 400):<20} {health:>3}"
    with pytest.raises(InvalidAction, match=r"and a hidden living enemy's position \(0, 2, 3\)$"):
        asyncio.run(made.guess("flame", 1))
    asyncio.run(made.guess("flame", 0))
    asyncio.run(made.move("flame", "active", 3))
    assert made.log[0] == "You: flame at 1 uses its ability, target 3."
    result = asyncio.run(made.result())
    assert result == {"won": False, "damage": made.game.damage_dealt(0), "states": 8}


def test_the_enemy_that_moves_first_does_so_once_and_the_seeing_player_wins():
    made = world(first=1, baseline=1)
    assert (made.game.states, made.game.turn, made.game.phase, len(made.log) >= 2) == (2, 0, "guess", True)
    made.begin()
    assert made.game.states == 2
    calls = {
        "I say {'guess_type': 'eel', 'target_position': '2'}": WorldCall(
            "guess", {"guess_type": "eel", "target_position": 2}
        ),
        '{"x": 1} {"pick_fish": "eel", "action": "normal", "target_position": 3}': WorldCall(
            "move", {"pick_fish": "eel", "action": "normal", "target_position": 3}
        ),
    }
    for text, call in calls.items():
        assert made.read(text) == call
    for text in (
        "{}",
        '{"guess_type": "eel", "target_position": -1}',
        '{"guess_type": "eel", "target_position": 1000}',
        "",
    ):
        with pytest.raises(
            InvalidAction, match=r'^this is no move: write a JSON object such as \{"guess_type": "spray"'
        ):
            made.read(text)
    while made.ending is None:
        call = made.read(made.optimal())
        asyncio.run(made.guess(**call.arguments) if call.name == "guess" else made.move(**call.arguments))
    assert (made.ending, made.admissible()) == ("won", [])
    assert made._state().endswith("}")
    seeing = game()
    seeing.guess(*SeeingPlayer().guess(seeing))
    assert seeing.teams[1][0].exposed


class ListHost:
    """A host that answers from a list."""

    def __init__(self, *replies: Hosted) -> None:
        self.replies, self.asked = list(replies), list[tuple[str, list[str], list[int]]]()

    async def answer(self, puzzle, question, known, left):  # type: ignore[no-untyped-def]
        self.asked.append((question, list(known), list(left)))
        return self.replies.pop(0)


def test_questions_are_counted_once_and_points_found_until_none_is_left():
    puzzle = Puzzle("A man drinks water.", "He had hiccups.", ("A man drinks.",), ("He had hiccups.", "He was scared;"))
    host = ListHost(
        Hosted("yes", ()),
        Hosted("no", ()),
        Hosted("yes", (1,)),
        Hosted("yes", ()),
        Hosted("irrelevant", ()),
        Hosted("yes", (0,)),
    )
    made = PuzzleWorld(puzzle, host, 25)
    assert made.optimal() == "Is it true that He had hiccups?"

    def asked(question: str) -> str:
        return asyncio.run(made.ask(question))

    assert asked("Does a man drink?") == "This information is already in the story, please ask a new question."
    assert asked("Is he  dead?") == "No."
    assert asked("is HE dead?") == "This is a question that has already been asked. Please ask a new question."
    assert asked("Was he scared?") == "Yes."
    assert asked("Was it loud?") == "Yes."
    assert asked("Red?") == "Irrelevant."
    for text, told in (
        ("Why did he?", f"make a guess of your own: {HINT}"),
        ("Shall we play a NEW  game?", f"the game goes on with this story: {HINT}"),
    ):
        with pytest.raises(InvalidAction) as refused:
            asked(text)
        assert str(refused.value) == told
    assert (made.strikes, made.ending, made.left) == (5, "aborted", [0])
    assert host.asked[3:] == [
        ("Was it loud?", ["Was he scared?"], [0]),
        ("Red?", ["Was he scared?", "Was it loud?"], [0]),
    ]
    assert asyncio.run(made.result()) == {
        "found": 1, "points": 2, "asked": 8, "yes": 2, "no": 1, "irrelevant": 1, "finish_round": 25
    }  # fmt: skip
    assert made.render() == (
        "A man drinks water.\n  does a man drink? - story\n  is he dead? - no\n  was he scared? - yes\n  was it loud? - "
        "yes\n  red? - irrelevant\n1 of 2 points found"
    )
    assert asked("Hiccups?") == "Yes."
    assert (made.ending, asyncio.run(made.result())["finish_round"]) == ("won", 9)


def test_a_question_in_the_words_of_the_story_counts_where_it_finds_a_point():
    puzzle = Puzzle("A man drinks water.", "He had hiccups.", (), ("He drinks.", "He had hiccups."))
    made = PuzzleWorld(puzzle, ListHost(Hosted("yes", (0,))), 5)
    assert asyncio.run(made.ask("Does a man drink?")) == "Yes."
    assert (made.left, made.counts, made.known) == ([1], {"yes": 1, "no": 0, "irrelevant": 0}, ["Does a man drink?"])


class CountWorld:
    """A world that counts."""

    form = None

    def __init__(self) -> None:
        self.count, self.ending = 0, None

    def admissible(self) -> None:
        return None

    @property
    def moves(self):  # type: ignore[no-untyped-def]
        return (self.add,)

    async def add(self, number: int) -> str:
        """Add.

        Args:
            number: How much.
        """
        self.count += number
        self.ending = "full" if self.count > 9 else None
        return RefusedAction("no") if number == 0 else f"{self.count}"

    def read(self, action: str) -> WorldCall:
        if not action.isdigit():
            raise InvalidAction("digits")
        return WorldCall("add", {"number": int(action)})

    async def result(self) -> dict[str, object]:
        return {"count": self.count}


def test_an_attempt_counts_rounds_invalid_actions_and_the_longest_loop():
    made = WorldEnvironment(CountWorld(), rounds=9)  # type: ignore[arg-type]

    def acted(action: str) -> str:
        return asyncio.run(made.act(action))

    assert [acted(each) for each in ("0", "0", "1", "0", "0", "0")] == ["no", "no", "1", "no", "no", "no"]
    assert (made.rounds, made.invalid_actions, made.longest_loop, made.ended) == (6, 5, 3, None)
    with pytest.raises(InvalidAction, match=r"^digits$"):
        acted("x")
    assert acted("8") == "9"
    assert acted("1") == "10\n[the task is over: full]"
    assert asyncio.run(made.final_state()) == {
        "rounds": 9, "limit": 9, "invalid_actions": 6, "longest_loop": 3, "ended": "full", "result": {"count": 10}
    }  # fmt: skip
    other = WorldEnvironment(CountWorld(), rounds=9)  # type: ignore[arg-type]
    assert [asyncio.run(other.act("1")) for _ in range(3)] == ["1", "2", "3"]
    assert other.longest_loop == 1  # another observation is no loop
    for _ in range(2):
        with pytest.raises(InvalidAction):
            asyncio.run(other.act("x"))
    assert (other.longest_loop, other.invalid_actions) == (2, 2)
    last = WorldEnvironment(CountWorld(), rounds=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidAction, match=r"^digits\n\[the task is over: rounds\]$"):
        asyncio.run(last.act("x"))
    with pytest.raises(Exception, match=r"^the task is over \(rounds\): no further action is taken$"):
        asyncio.run(last.act("1"))
    assert (last.rounds, last.tools, last.version) == (1, (), "rounds")
    state = {"rounds": 4, "longest_loop": 0, "invalid_actions": 1, "ended": "rounds"}
    assert failure_reason(state) == "limit"
    assert failure_reason({**state, "invalid_actions": 2}) == "invalid action"
    assert failure_reason({**state, "ended": "stopped"}) == "wrong end"
    assert failure_reason({**state, "ended": "stopped"}, "tokens") == "limit"
    assert failure_reason({}, "guard") == "wrong end"
