"""The rounds of the arena page: two agents answer a prompt, their text is released at one pace, and a vote is kept.

Names of agents leave a round only once its vote is kept in the run. A vote can be undone for UNDO_S seconds; then, or when
the voter asks for the names, it is kept and final.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from starlette.concurrency import run_in_threadpool

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.loop.listener import Began, Piece, Step
from firsthand.message import Json, canonical
from firsthand.preference import Preference, Winner
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.studio.paced_pair import PacedPair
from firsthand.task import Task

if TYPE_CHECKING:
    from firsthand.arena.blind_battles import BlindBattle

UNDO_S = 5.0
"""A vote can be undone for so long."""
RETRY_S = 5.0
"""Seconds between two tries to keep a vote that the store refused."""
TICK_S = 0.05
"""Text is released at these intervals."""
MOST_UNDER_WAY = 4
"""Rounds whose answers are being made at one time."""
MOST_ROUNDS = 200
"""Rounds that are remembered; older ones without a vote that waits are forgotten, their attempts stay in the run."""
REASONS = ("correct", "complete", "clear", "follows the prompt", "style", "safe")
"""Reasons that a voter may give."""
MAX_PROMPT_CHARS = 20_000


@dataclass
class AnsweringSide:
    """One of the two answers while it is made."""

    agent: Agent
    text: str = ""

    def hear(self, step: Step) -> None:
        """Takes a step of the attempt. A call that begins again voids what was streamed of it."""
        if isinstance(step, Piece):
            self.text += step.text
        elif isinstance(step, Began) and step.kind == "generate":
            self.text = ""


@dataclass
class Round:
    """A prompt with two answers, in the order in which they are shown."""

    id: str
    task: Task
    a: AnsweringSide
    b: AnsweringSide
    pace: PacedPair = field(default_factory=PacedPair)
    battle: BlindBattle | None = None
    problem: str = ""
    """Why no vote can be taken."""
    ready_at: float | None = None
    """When all was shown."""
    winner: Winner | None = None
    reasons: tuple[str, ...] = ()
    by: str = ""
    dwell_s: float = 0.0
    kept: Preference | None = None
    """The vote, once it is final."""
    work: asyncio.Task[None] | None = None
    keeper: asyncio.Task[None] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the vote is changed, and while a thread keeps it."""

    def shown(self, now_s: float) -> tuple[str, str]:
        """The text of each side that may be shown by now."""
        is_done = self.battle is not None
        a, b = self.pace.advance(len(self.a.text), is_done, len(self.b.text), is_done, now_s)
        if self.pace.is_over and self.ready_at is None:
            self.ready_at = now_s
        return self.a.text[:a], self.b.text[:b]


class ArenaRounds:
    """The rounds of one Studio, and the run that keeps their votes."""

    def __init__(self, home: Path, agents: Mapping[str, Agent], *, seed: int = 0):
        self.home = home
        self.agents = dict(agents)
        self.seed = seed
        self.run: Run | None = None
        """The run of the votes; None before the first round."""
        self._claim = ExitStack()
        self._opening = asyncio.Lock()
        self._rounds: OrderedDict[str, Round] = OrderedDict()
        self._number = 0
        self._starting = 0
        """Rounds that have a place and are not yet among the others."""

    def get(self, id: str) -> Round:
        """The round of that id; UnknownName if it is not remembered."""
        found = self._rounds.get(id)
        if found is None:
            raise UnknownName("this round is not known any more: start a new one")
        return found

    async def start(self, prompt: str) -> Round:
        """Begins a round; ConfigError if the prompt is empty or too long, or too many rounds are under way."""
        from firsthand.arena.blind_battles import battles_of, prompt_task
        from firsthand.arena.pair_choice import choose_pair

        if len(self.agents) < 2:
            raise ConfigError(
                "the arena needs two models: start the Studio with two or more, as in `firsthand studio --model A,B`"
            )
        if len(prompt) > MAX_PROMPT_CHARS:
            raise ConfigError(f"the prompt has {len(prompt):,} characters: at most {MAX_PROMPT_CHARS:,} are taken")
        task = prompt_task(prompt)
        import numpy as np

        with self._place():
            async with self._opening:
                run = await run_in_threadpool(self._open)
                number, self._number = self._number, self._number + 1
            table, _ = await run_in_threadpool(battles_of, run, tuple(self.agents))
            first, second = choose_pair(table, np.random.default_rng([self.seed, number]))
            a, b = (AnsweringSide(self.agents[table.models[place]]) for place in (first, second))
            made = Round(secrets.token_urlsafe(16), task, a, b)
            self._rounds[made.id] = made
        for old in list(self._rounds.values())[: max(0, len(self._rounds) - MOST_ROUNDS)]:
            if old.winner is None or old.kept is not None:  # a vote that waits to be kept is not forgotten
                del self._rounds[old.id]
        made.work = asyncio.create_task(self._fight(made, run, number))
        return made

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Holds a place for a round until it is among the others; ConfigError if none is free."""
        under_way = sum(each.battle is None and not each.problem for each in self._rounds.values())
        if under_way + self._starting >= MOST_UNDER_WAY:
            raise ConfigError(f"{MOST_UNDER_WAY} rounds are under way: wait for one of them to end")
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1

    async def _fight(self, made: Round, run: Run, number: int) -> None:
        from firsthand.arena.blind_battles import fight, shown_text

        try:
            battle = await fight(
                run, made.a.agent, made.b.agent, made.task, number=number, seed=self.seed,
                listeners=(made.a.hear, made.b.hear),
            )  # fmt: skip
        except Exception as error:  # the page must hear of it, whatever it is
            made.problem = f"The round ended without answers: {error}"
            return
        if battle.failure:
            made.problem = f"{battle.failure.removesuffix('.')}. No vote is taken."
            return
        made.a.text, made.b.text = shown_text(battle.a) or "(no answer)", shown_text(battle.b) or "(no answer)"
        made.battle = battle

    async def events(self, made: Round, *, tick_s: float = TICK_S) -> AsyncIterator[Json]:
        """The events that a page gets of a round: `text` of a side from a place on, then `ready` or `problem`."""
        sent = ["", ""]
        while True:
            if made.problem:
                yield {"problem": made.problem}
                return
            for side, text in enumerate(made.shown(time.monotonic())):
                place = _common_prefix(sent[side], text)
                if text != sent[side]:
                    yield {"side": "ab"[side], "from": place, "text": text[place:]}
                    sent[side] = text
            if made.ready_at is not None:
                yield {"ready": True}
                return
            await asyncio.sleep(tick_s)

    def vote(self, made: Round, winner: str, reasons: Sequence[str], by: str, *, undo_s: float = UNDO_S) -> None:
        """Takes a vote, or another reason for it, which is kept after `undo_s` seconds; ConfigError if none can be taken."""
        if made.kept is not None:
            raise ConfigError("the vote of this round is kept already: start a new one")
        if made.ready_at is None or made.battle is None:
            raise ConfigError("both answers must be complete before the vote")
        if winner not in get_args(Winner):
            raise ConfigError(f"winner is {winner[:40]!r}: it is one of {', '.join(get_args(Winner))}")
        if unknown := [each for each in reasons if each not in REASONS]:
            raise ConfigError(f"reason is {unknown[0][:40]!r}: it is one of {', '.join(REASONS)}")
        with _changing(made):
            if made.winner is None:
                made.dwell_s = time.monotonic() - made.ready_at
            made.winner, made.reasons, made.by = winner, tuple(dict.fromkeys(reasons)), by  # type: ignore[assignment]
        if made.keeper is not None:
            made.keeper.cancel()
        made.keeper = asyncio.create_task(self._keep_later(made, undo_s))

    def undo(self, made: Round) -> None:
        """Takes a vote back; ConfigError once it is kept."""
        if made.kept is not None:
            raise ConfigError(f"the vote was kept, {UNDO_S:.0f} s after it was given or when the names were shown")
        with _changing(made):
            if made.keeper is not None:
                made.keeper.cancel()
            made.winner, made.reasons, made.keeper = None, (), None

    def reveal(self, made: Round) -> Json:
        """Keeps the vote, and says who answered; ConfigError before a vote, unless the round failed. For any thread."""
        if made.problem:
            return self._names(made)
        try:
            self._keep(made)
        except StoreError as error:
            raise StoreError(f"the vote is not kept yet, and is tried again every {RETRY_S:.0f} s: {error}") from error
        if made.kept is None:
            raise ConfigError("the names are shown after the vote")
        assert self.run is not None
        void = str((made.kept.detail or {}).get("void") or "")
        return self._names(made) | {"void": void, "run": self.run.id, "attempts": [made.kept.a, made.kept.b]}

    def close(self) -> None:
        """Keep the votes that wait, and close the run."""
        for made in self._rounds.values():
            if made.keeper is not None:
                made.keeper.cancel()
            if made.winner is not None:
                with suppress(StoreError):
                    self._keep(made)
        self._claim.close()
        if self.run is not None:
            self.run.close()
            self.run = None

    def _names(self, made: Round) -> Json:
        return {"a": made.a.agent.name, "b": made.b.agent.name, "winner": made.winner}

    async def _keep_later(self, made: Round, undo_s: float) -> None:
        """Keeps the vote after `undo_s` seconds; while the store refuses it, such as on a full disk, tries again."""
        await asyncio.sleep(undo_s)
        while made.kept is None:
            try:
                await run_in_threadpool(self._keep, made)
            except StoreError:
                await asyncio.sleep(RETRY_S)

    def _keep(self, made: Round) -> None:
        from firsthand.arena.blind_battles import vote

        with made.lock:
            if made.kept is None and made.winner is not None:
                assert self.run is not None and made.battle is not None
                made.kept = vote(
                    self.run, made.battle, made.winner, by=made.by, dwell_s=made.dwell_s, reasons=made.reasons
                )

    def _open(self) -> Run:
        """The run of the votes: the last one of the Studio with these agents that no process holds, or a new one."""
        if self.run is not None:
            return self.run
        agents = {name: agent.to_json() for name, agent in self.agents.items()}
        settings = json.loads(
            canonical({"arena": {"models": sorted(agents), "agents": agents, "by": "studio", "seed": self.seed}})
        )
        run = self._of_before(settings)
        if run is None:
            run = store.create(self.home, settings, "arena")
            self._claim.enter_context(run.working())
        for name, body in agents.items():
            run.add_agent(name, body)
        self._number = 1 + max((row.epoch for row in run.rows()), default=-1)
        self.run = run
        return run

    def _of_before(self, settings: Json) -> Run | None:
        for info in store.list_runs(self.home):
            if info.config == settings and self._claimed(run := store.open_run(info.id, self.home)):
                return run
        return None

    def _claimed(self, run: Run) -> bool:
        try:
            self._claim.enter_context(run.working())
        except ConfigError:  # another Studio works on it
            run.close()
            return False
        return True


@contextmanager
def _changing(made: Round) -> Iterator[None]:
    """Holds the vote of a round while it is changed; ConfigError once it is kept, or while a thread keeps it."""
    if not made.lock.acquire(blocking=False):
        raise ConfigError("the vote of this round is being kept: look again in a moment")
    try:
        if made.kept is not None:
            raise ConfigError("the vote of this round is kept already: start a new one")
        yield
    finally:
        made.lock.release()


def _common_prefix(a: str, b: str) -> int:
    if b.startswith(a):
        return len(a)
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
