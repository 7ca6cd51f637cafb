"""`firsthand play`: a person at the keyboard, and the two scripted players."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_a_person_plays_by_number_and_by_text_and_is_told_what_is_wrong(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1\nattack!\n1\nquit\n"))
    code, out, _ = cli("play", "agentbench_dcg")
    assert code == 0 and out.rstrip().endswith("the game was left before its end")
    assert '  1 {"guess_type": "spray", "target_position": 0}' in out
    assert "this is no move: write a JSON object" in out.replace("\n", " ") and "enemy 3 ?" in out


WITH_A_POLICY = """
from dataclasses import replace
from firsthand.message import system
from world_of_doors import doors

def guarded():
    policy = (system("The policy: leave."),)
    return replace(doors(), tasks=lambda seed: [replace(task, conversation=policy) for task in doors().tasks(seed)])
"""


def test_a_person_reads_the_instructions_that_an_agent_reads(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "guarded.py").write_text(WITH_A_POLICY)
    monkeypatch.setattr("sys.stdin", io.StringIO("go blue\n"))
    code, out, _ = cli("play", str(tmp_path / "guarded.py"))
    assert code == 0 and out.index("The policy: leave.") < out.index("Leave.\n")


def test_the_end_of_the_input_leaves_the_game(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, _ = cli("play", "agentbench_dcg:split=dev")
    assert code == 0 and "the game was left before its end" in out


@pytest.mark.slow
def test_players_report_the_score_with_its_interval_and_the_reasons_of_failure(cli: Cli):
    code, out, _ = cli("play", "agentbench_dcg:split=dev", "--player", "optimal", "--limit", "4", "--json")
    body = json.loads(out)
    assert code == 0 and body["score"] == 1 and body["low"] < 1 and body["tasks"] == 4 and body["reasons"] == {}
    code, out, _ = cli("play", "agentbench_dcg:split=dev", "--player", "random", "--limit", "6", "--seed", "2")
    assert code == 0 and "95% interval" in out and "wrong end" in out and "rounds for each task" in out


def test_the_idle_player_does_nothing_and_players_are_compared(cli: Cli):
    code, out, _ = cli("play", "agentbench_dcg:split=dev", "--player", "optimal,random,idle", "--limit", "2", "--json")
    optimal, random, idle = json.loads(out)
    assert code == 0 and [each["player"] for each in (optimal, random, idle)] == ["optimal", "random", "idle"]
    assert optimal["won"] == 2 and optimal["won_low"] < 1 and optimal["longest"] * 2 >= optimal["rounds"] > 0
    assert idle["score"] == idle["won"] == idle["rounds"] == 0 and idle["errors"] == [] and idle["won_high"] > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("play", "gsm8k:data=packaged"), "has no world to play"),
        (("play", "agentbench_dcg", "--task", "seed0-baseline1-first-00"), "did you mean 'seed0-baseline1-first-0'"),
        (("play", "agentbench_dcg", "--json"), "name the players"),
        (("play", "agentbench_dcg", "--player", "person,idle"), "a person plays alone"),
        (("play", "agentbench_dcg", "--limit", "-1"), "limit is -1"),
        (("play", "agentbench_xyz"), "no benchmark"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(cli: Cli, words: tuple[str, ...], message: str):
    code, _, err = cli(*words)
    assert code == 2 and message in err and len(err.strip().splitlines()) <= 2
