"""ServedSessions: runs the turns of a served agent's sessions, each an attempt in a run, and lets others follow them.

A turn is kept before it is begun, its effects before they are acknowledged, and its trace before it is over. So a server
that is killed goes on with every open turn when it starts again, and repeats nothing that was done.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName
from firsthand.loop.listener import Step
from firsthand.message import Json, Message, assistant, canonical, user
from firsthand.rollout import Place, rollout
from firsthand.runs.run_folder import Run
from firsthand.runs.stored_journal import StoredJournal
from firsthand.serve.admission.charged_steps import Charge, ChargedSteps, charge_nobody
from firsthand.serve.agents.client_memories import ClientMemories
from firsthand.serve.agents.kept_sessions import KeptSessions
from firsthand.serve.agents.parked_approval import ParkedApproval
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionRow, SessionStore, SessionTurn, TurnState
from firsthand.serve.agents.session_trace import HeardSteps, joined, restated
from firsthand.serve.agents.shared_sources import SharedSources
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.serve.agents.turn_slots import TurnSlots
from firsthand.system import conversation_owner
from firsthand.task import Task
from firsthand.trace import Call, Failure, Trace, new_trace_id

SETTING = NamedSetting("served")
"""The benchmark name in the traces of sessions."""
MAX_PROMPT_CHARS = 1_000_000
MAX_NAME_CHARS = 256
"""Of a session's name, as of A2A's ids."""
_MOST_NEWS = 1000
"""Steps that a slow follower may lag behind; of what comes after it misses steps, and no state."""

News = SessionTurn | Step
"""News for a follower of a turn: a new state, or a step of the attempt as a client may read it."""


class TurnOver(FirsthandError):
    """A turn that is over can be neither cancelled nor answered."""


class ServedSessions:
    """The sessions of one agent in one run. Use it inside `running()`."""

    def __init__(
        self,
        agent: Agent,
        run: Run,
        store: SessionStore,
        settings: SessionSettings | None = None,
        *,
        seed: int = 0,
        shared_memory: bool = False,
    ):
        """With `shared_memory`, clients see what others had the agent remember."""
        self.agent, self.run, self.store = agent, run, store
        self.memories = ClientMemories(agent.memory, shared=shared_memory)
        self._shared = SharedSources(agent)
        self.shown = ShownSteps(agent.guards)
        """What clients may read of the attempts."""
        self.settings = settings or SessionSettings()
        self.kept = KeptSessions(store.database)
        self._seed = seed
        self.on_bug: Callable[[str], None] = lambda text: None
        """Told the traceback of a bug that ended a turn."""
        self.charge: Charge = charge_nobody
        """Told the owner of a turn, and the tokens of each model call that ended."""
        self.on_begin: list[Callable[[SessionTurn], None]] = []
        """Each is told when a turn begins or goes on."""
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, asyncio.Task[Trace]] = {}
        self._canceled: set[str] = set()
        self._ending: dict[str, asyncio.Task[None]] = {}
        """By session: the last end of a turn that is being kept; those before it come first."""
        self._followers: dict[str, set[asyncio.Queue[News]]] = {}
        self.slots = TurnSlots(self.settings.max_turns)
        """Handed out to the clients in turn."""
        self._closing = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Go on with all open turns, and take new ones while the block lasts. Open turns stay open after it."""
        with self.run.working():
            for session in dict.fromkeys(turn.session for turn in self.store.unfinished()):
                self._wake(session)
            poll = asyncio.create_task(self._poll())
            try:
                yield
            finally:
                self._closing = True
                poll.cancel()
                tasks = [poll, *self._driving.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                while self._ending:  # one that a client asked for may come while others are kept
                    await asyncio.wait(self._ending.values())
                await self._shared.close()

    # -- for the doors --

    def submit(
        self, owner: str, prompt: str, *, context: str, conversation: Sequence[Message] = (), id: str = ""
    ) -> SessionTurn:
        """A new turn of the client's session `context`; it waits for the turns before it. `conversation` opens a new one."""
        if len(prompt) > MAX_PROMPT_CHARS:
            raise ConfigError(f"the message has {len(prompt):,} characters: at most {MAX_PROMPT_CHARS:,} are taken")
        if len(context) > MAX_NAME_CHARS:
            raise ConfigError(
                f"the session's name has {len(context):,} characters: give it {MAX_NAME_CHARS} at most, or leave it out"
            )
        if context in (".", ".."):
            raise ConfigError(f"the session's name is {context!r}, which no address can hold: give it another one")
        check_text("the session's name", context)
        for text in (prompt, *(each.text for each in conversation)):
            check_text("the message", text)
        self.memories.of(owner)
        mine = self.kept.open_turns(owner)
        if mine >= self.settings.open_turns:
            raise ConfigError(f"{mine} turns are open already: answer or cancel some of them first")
        self.kept.check_room(owner, self.settings.kept_sessions, self.settings.kept_bytes)
        self.kept.check_session(owner, context, self.settings.session_bytes)
        session = self.store.open_session(owner, context, conversation)
        turn = self.store.add_turn(session.id, prompt, id=id)
        self._wake(session.id)
        return turn

    def answer(
        self,
        approval: str,
        allowed: bool,
        *,
        owner: str | None = None,
        by: str,
        reason: str = "",
        content: Json | None = None,
    ) -> SessionTurn:
        """Answer an approval, `content` with the fields of a form; its turn goes on.

        TurnOver if it has an answer, UnknownName if it is another client's, ConfigError if the form takes no such content.
        """
        check_text("the reason", reason)
        check_text("the content", canonical(content))
        asked = self.store.approval(approval, owner)
        if not self.store.answer(approval, allowed, by=by, reason=reason, content=content):
            raise TurnOver(f"{approval} was {self.store.approval(approval).state} before: it is answered once")
        turn = self.store.turn(asked.turn)
        self._wake(turn.session)
        return turn

    async def cancel(self, id: str, owner: str | None = None) -> SessionTurn:
        """Cancel a turn; what it had done is in the session's trace. TurnOver if it is over already."""
        await self._ended(self.store.turn(id, owner).session)
        turn = self.store.turn(id, owner)
        if turn.is_over:
            raise TurnOver(f"the turn {id} is {turn.state}: only an open one can be cancelled")
        if (attempt := self._attempts.get(id)) is not None:
            self._canceled.add(id)
            attempt.cancel()
            async with aclosing(self.follow(id, owner)) as told:
                async for news in told:
                    if isinstance(news, SessionTurn) and news.is_over:
                        break
        else:
            await self._end_waiting(turn)
        found = self.store.turn(id)
        if found.state != "canceled":
            raise TurnOver(f"the turn {id} is {found.state}: it ended before it could be cancelled")
        return found

    async def follow(self, id: str, owner: str | None = None) -> AsyncGenerator[News, None]:
        """The turn's state now, and all news of it until it is settled: over, or waiting for an answer."""
        queue: asyncio.Queue[News] = asyncio.Queue()
        followers = self._followers.setdefault(id, set())
        followers.add(queue)
        try:
            turn = self.store.turn(id, owner)
            yield turn
            while not (turn.is_over or (turn.state == "input_required" and self.store.pending(id))):
                news = await queue.get()
                yield news
                turn = news if isinstance(news, SessionTurn) else turn
        finally:
            followers.discard(queue)
            if not followers:
                self._followers.pop(id, None)

    async def settled(self, id: str) -> SessionTurn:
        """The turn, once it is over or waits for an answer."""
        async for _ in self.follow(id):
            pass
        return self.store.turn(id)

    def is_followed(self, id: str) -> bool:
        """True if somebody follows the turn."""
        return id in self._followers

    def trace(self, session: str) -> Trace | None:
        """The trace of a session as it stands; None before its first turn was attempted."""
        return next(iter(self.run.tries(self._place(session).id, last=True)), None)

    # -- turns --

    def _wake(self, session: str) -> None:
        if session not in self._driving and not self._closing:
            self._driving[session] = asyncio.create_task(self._drive(session), name=f"session {session}")

    async def _poll(self) -> None:
        """Wake sessions whose questions were answered by another process."""
        while True:
            await asyncio.sleep(self.settings.poll_s)
            with suppress(StoreError):
                for session in self.store.answered_elsewhere():
                    self._wake(session)

    async def _drive(self, session: str) -> None:
        """Attempt the session's turns, one after the other, until one has to wait."""
        try:
            while (turn := self.store.next_turn(session)) is not None:
                async with self.slots.taken(turn.owner):
                    await self._attempt(self.store.session(session), turn)
        except StoreError as error:  # what cannot be recorded must not go on
            self.on_bug(str(error))
        finally:
            del self._driving[session]

    async def _attempt(self, session: SessionRow, turn: SessionTurn) -> None:
        history = await asyncio.to_thread(self.history, turn)
        await self._ended(session.id)  # it may have been cancelled while it waited
        if not self._move(turn, "working"):
            return
        for told in self.on_begin:
            told(turn)
        heard, charged = HeardSteps(), ChargedSteps(self.charge, turn.owner)
        ask = ParkedApproval(self.store, turn, heard)

        def hear(step: Step) -> None:
            heard.hear(step)
            charged(step)
            ask.hear(step)
            parked = isinstance(step, Call) and (step.replayed or step.id in ask.waiting)
            if not parked and (told := self.shown.step(step)) is not None:
                self._tell(turn.id, told)

        agent = replace(
            self.agent, approval=replace(self.agent.approval, ask=ask), memory=self.memories.of(session.owner)
        )
        task = Task(
            session.id, turn.prompt, conversation=history, metadata={"owner": session.owner, "turn": turn.number}
        )
        conversation_owner.enter(f"session/{session.id}")
        began = datetime.now(UTC)

        async def attempted() -> Trace:
            return await rollout(
                agent,
                task,
                benchmark=SETTING,
                seed=self._seed + turn.number,
                journal=self._journal(turn),
                listener=hear,
                opened_sources=await self._shared.opened(),
            )

        work = self._attempts[turn.id] = asyncio.create_task(attempted())
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:  # the server stops: the journal has what was done, and the turn stays open
            work.cancel()
            await asyncio.wait({work})
            raise
        finally:
            del self._attempts[turn.id]
        seconds = (datetime.now(UTC) - began).total_seconds()
        canceled = turn.id in self._canceled  # by now nobody adds it
        self._canceled.discard(turn.id)
        if canceled:
            charged.cut()
        if work.cancelled():
            partial = replace(self._empty(turn, "it was cancelled"), duration_s=seconds)
            await self._end(turn, "canceled", None, None, heard.trace(partial), history)
            return
        if (error := work.exception()) is not None:
            await self._fail(turn, error, heard.trace(replace(self._empty(turn, ""), duration_s=seconds)), history)
            return
        trace = work.result()
        if trace.error is not None and trace.error.traceback:
            self.on_bug(trace.error.traceback)
        if canceled:
            await self._end(turn, "canceled", None, None, trace, history)
        elif ask.waiting and self.store.pending(turn.id):
            await self._end(turn, "input_required", None, None, trace, history)
        elif ask.waiting:  # answered by somebody while the attempt was being ended: the next look goes on with it
            self._move(turn, "submitted")
        elif trace.error is not None:
            await self._end(turn, "failed", None, self.shown.error(trace.error), trace, history)
        elif trace.stop_reason == "guard" and not trace.calls:  # before the agent had done anything
            await self._end(turn, "rejected", None, "a guard of the agent refused the question", trace, history)
        elif trace.answer is None:
            await self._end(turn, "failed", None, f"the attempt was ended by {trace.stop_reason}", trace, history)
        else:
            await self._end(turn, "completed", trace.answer, None, trace, history)

    async def _fail(self, turn: SessionTurn, error: BaseException, trace: Trace, history: Sequence[Message]) -> None:
        """End a turn whose attempt could not be made, such as for a full disk."""
        bug = None if isinstance(error, FirsthandError) else "".join(traceback.format_exception(error))[-8000:]
        if bug is not None:
            self.on_bug(bug)
        failure = Failure(type(error).__name__, str(error), bug)
        shown = self.shown.error(failure)
        await self._end(turn, "failed", None, shown, replace(trace, error=failure, stop_reason="error"), history)

    async def _end(
        self,
        turn: SessionTurn,
        state: TurnState,
        answer: str | None,
        error: str | None,
        attempt: Trace,
        history: Sequence[Message] = (),
    ) -> None:
        """Keep the session's trace, then the turn's state: a crash between them repeats the first, from the journal."""
        settled = replace(turn, state=state, answer=answer, error=error)
        await self._keep(settled, lambda before: joined(before, attempt, settled, history))

    async def _end_waiting(self, turn: SessionTurn) -> None:
        """Cancel a turn that is not attempted now; the record of what it had done before it waited stays."""
        canceled = replace(turn, state="canceled", answer=None, error=None)

        def kept(before: Trace | None) -> Trace:
            trace = None if before is None else restated(before, canceled)
            return trace or joined(before, self._empty(turn, "it was cancelled"), canceled, ())

        await self._keep(canceled, kept)

    async def _keep(self, turn: SessionTurn, trace: Callable[[Trace | None], Trace]) -> None:
        """Keep what `trace` makes of the session's trace, in a thread: it may be long, and others are served meanwhile.

        Then move the turn into its state and go on with the session. None of it is cut by a cancellation, and the ends of
        a session are kept one at a time, in the order in which they were asked for: from then on `_ended` waits for each.
        """
        before = self._ending.get(turn.session)

        def append() -> None:
            self.run.append(trace(self.trace(turn.session)))

        async def keep() -> None:
            try:
                if before is not None:
                    await asyncio.wait({before})
                await asyncio.to_thread(append)
                self._move(turn, turn.state)
            finally:
                if self._ending[turn.session] is work:
                    del self._ending[turn.session]
            self._wake(turn.session)

        work = self._ending[turn.session] = asyncio.create_task(keep())
        await asyncio.shield(work)  # `running` waits for it

    async def _ended(self, session: str) -> None:
        """Wait until no turn of the session is being ended."""
        while (work := self._ending.get(session)) is not None:
            await asyncio.wait({work})

    def _move(self, turn: SessionTurn, state: TurnState) -> bool:
        moved = self.store.move(turn.id, state, answer=turn.answer, error=turn.error)
        if moved:
            now = replace(turn, state=state)
            with suppress(UnknownName):  # deleted since: those who follow it are told all the same
                now = self.store.turn(turn.id)
            self._tell(turn.id, now)
        return moved

    def _tell(self, id: str, news: News) -> None:
        for queue in self._followers.get(id, ()):
            if isinstance(news, SessionTurn) or queue.qsize() < _MOST_NEWS:
                queue.put_nowait(news)

    def history(self, turn: SessionTurn) -> tuple[Message, ...]:
        """The messages before a turn. Turns that failed or were cancelled have left none."""
        session = self.store.session(turn.session)
        messages = list(session.conversation)
        for each in self.store.turns(session.id):
            if each.number < turn.number and each.state == "completed":
                messages += [user(each.prompt), assistant(each.answer or "")]
        return tuple(messages)

    def has_acted(self, turn: SessionTurn) -> bool:
        """True if a call of the turn that lasts may have taken effect; another turn would make it again."""
        return self._journal(turn).has_acted()

    def _journal(self, turn: SessionTurn) -> StoredJournal:
        return self.run.journal(f"{self._place(turn.session).id}.{turn.number}")

    def _place(self, session: str) -> Place:
        return Place(self.agent, SETTING, Task(session, "a session"))

    def _empty(self, turn: SessionTurn, why: str) -> Trace:
        """The trace of an attempt in which nothing happened."""
        return Trace(
            id=new_trace_id(),
            place=self._place(turn.session).id,
            benchmark=SETTING.name,
            task_id=turn.session,
            agent=self.agent.to_json(),
            epoch=0,
            seed=self._seed + turn.number,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            duration_s=0.0,
            stop_reason=why or "error",
        )


def check_text(what: str, text: str) -> None:
    """ConfigError for half a surrogate, which neither the store nor a model's tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise ConfigError(f"{what} holds {half}, half of a character: send the whole character") from None
