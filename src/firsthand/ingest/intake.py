"""Everything that receives traces in one process: store, writer, and the keeper that scores, alerts, seals and removes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from firsthand.errors import ConfigError, FirsthandError
from firsthand.ingest.alert_delivery import check_target, deliver
from firsthand.ingest.alert_rules import Alert, AlertRule
from firsthand.ingest.cold_segments import check_cold, read_sealed, remove_orphans, seal_round
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.retention import give_back, remove_beyond, remove_older
from firsthand.ingest.span_writer import SpanWriter
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import FOLDER, SpanPreparer, TraceStore
from firsthand.runs.database import plain
from firsthand.system.lock import claimed
from firsthand.system.own_file import expect_own_folder
from firsthand.tools.web.addresses import Rules

TICK_S = 5.0
RETENTION_S = 60.0
SCORING_ENDS_S = 5.0
"""The longest that closing waits for a scorer that does not let itself be cancelled."""
MAX_ALERTS = 10_000
"""Alerts that are remembered; no size of the store removes them."""
MOST_PAUSE_S = 600.0
"""The longest pause between two tries to deliver an alert."""
OLDEST_WAITING_S = 86_400.0
"""An undelivered alert of before a restart is sent if it is no older than this or than its rule's window."""


@dataclass(frozen=True)
class IntakeSettings:
    """The rules of one intake."""

    keep_s: float | None = None
    """Traces that have been quiet for longer are removed; None keeps all."""
    keep_bytes: int | None = None
    """The longest quiet are removed while more is used; None keeps all."""
    cold_s: float | None = None
    """Traces that have been quiet for longer are sealed into segments; None seals none."""
    redact: tuple[str, ...] = ()
    """Regular expressions whose matches are replaced, besides the built-in rules."""
    evaluation: Evaluation | None = None
    alerts: tuple[AlertRule, ...] = ()
    alert_to: str = ""
    """A file or a webhook."""
    alert_rules: Rules = field(default_factory=Rules)
    """The addresses that a webhook may have."""

    def __post_init__(self) -> None:
        if bool(self.alerts) != bool(self.alert_to):
            raise ConfigError("alert and alert_to go together: give rules, and the file or webhook that gets them")
        if self.alert_to:
            check_target(self.alert_to, self.alert_rules)
        if self.cold_s is not None:
            check_cold()


@dataclass(frozen=True)
class WaitingAlert:
    """An alert that is still to be delivered."""

    alert: Alert
    since_s: float
    due_s: float
    """When it is tried next."""

    def is_due(self, now_s: float) -> bool:
        """True if it is tried now; also if the pause is longer than any is, for then the clock was set back."""
        return not now_s < self.due_s <= now_s + MOST_PAUSE_S

    def after_try(self, now_s: float) -> WaitingAlert:
        """The alert if this try fails: due at the next tick, then after pauses that double, MOST_PAUSE_S at most."""
        since_s = min(self.since_s, now_s)
        return replace(self, since_s=since_s, due_s=now_s + min(now_s - since_s, MOST_PAUSE_S))


class Intake:
    """Receives the traces of a data home. One process does at a time; ConfigError if another one does."""

    def __init__(
        self,
        home: Path,
        settings: IntakeSettings | None = None,
        *,
        on_problem: Callable[[str], None] = lambda text: None,
    ):
        self.settings = settings or IntakeSettings()
        self.on_problem = on_problem
        redactor = Redactor(self.settings.redact)
        expect_own_folder(home / FOLDER)
        (home / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = ExitStack()
        busy = f"traces in {home} are received by another process"
        self._held.enter_context(
            claimed(home / FOLDER / "intake.lock", lambda holder: ConfigError(f"{busy} ({holder})"))
        )
        try:
            self.store = TraceStore(home, create=True)
            self._keeping = TraceStore(home)  # a connection of its own, so that the writer does not wait for the keeper
            self._keeping.read_sealed = self.store.read_sealed = read_sealed
            remove_orphans(self.store)
        except BaseException:
            self._held.close()
            raise
        self.writer = SpanWriter(self.store, SpanPreparer(redactor))
        self._end = threading.Event()
        self._fired: dict[str, bool] = {}
        self._waiting: dict[str, WaitingAlert] = {}
        """The newest undelivered alert of a rule, by the rule's text."""
        self._keeper = threading.Thread(target=self._keep, name="trace-keeper", daemon=True)
        self._keeper.start()
        self._scoring: tuple[asyncio.AbstractEventLoop, asyncio.Task[object]] | None = None
        self._scorer = threading.Thread(target=self._score, name="trace-scorer", daemon=True)
        if self.settings.evaluation is not None:  # by itself: a slow judge holds up neither alerts nor retention
            self._scorer.start()

    def close(self) -> None:
        """Write what waits, and end; a trace that is being scored is scored by the next intake."""
        self._end.set()
        self.writer.close()
        self._keeper.join()
        given_up_s = time.monotonic() + SCORING_ENDS_S
        while self._scorer.is_alive() and time.monotonic() < given_up_s:  # a round may be about to begin
            self._cancel_scoring()
            self._scorer.join(0.05)
        self._keeping.close()
        self.store.close()
        self._held.close()

    def tick(self, now_s: float) -> None:
        """Alert once; problems are told and do not end anything."""
        for rule in self.settings.alerts:  # each by itself: one that fails leaves the others their turn
            self._tried(partial(self._look, rule, now_s))
            self._tried(partial(self._deliver, rule, now_s))

    def score(self, now_s: float) -> None:
        """Score once, some of the traces that are due; problems are told and do not end anything."""
        self._tried(lambda: asyncio.run(self._scored(now_s)))

    def keep(self, now_s: float) -> None:
        """Seal and remove once, as the settings say."""
        settings = self.settings
        if settings.cold_s is not None:
            cold_s = settings.cold_s
            self._tried(lambda: seal_round(self._keeping, cold_s, now_s=now_s))
        if settings.keep_s is not None:
            keep_s = settings.keep_s
            self._tried(lambda: remove_older(self._keeping, keep_s, now_s=now_s))
        if settings.keep_bytes is not None:
            most = settings.keep_bytes
            self._tried(lambda: remove_beyond(self._keeping, most))
        if settings.keep_s is not None or settings.keep_bytes is not None or settings.cold_s is not None:
            self._tried(lambda: give_back(self._keeping))

    def _keep(self) -> None:
        next_keep = 0.0
        while not self._end.wait(TICK_S if next_keep else 0.1):
            now = time.time()
            self.tick(now)
            if time.monotonic() >= next_keep:
                self.keep(now)
                next_keep = time.monotonic() + RETENTION_S

    def _score(self) -> None:
        while not self._end.wait(TICK_S):
            self.score(time.time())

    async def _scored(self, now_s: float) -> None:
        assert self.settings.evaluation is not None
        work = asyncio.ensure_future(self.settings.evaluation.score_some(self._keeping, now_s=now_s))
        self._scoring = asyncio.get_running_loop(), work
        with suppress(asyncio.CancelledError):
            await work

    def _cancel_scoring(self) -> None:
        if self._scoring is not None:
            loop, work = self._scoring
            with suppress(RuntimeError):  # the loop of a round that has ended
                loop.call_soon_threadsafe(work.cancel)

    def _look(self, rule: AlertRule, now_s: float) -> None:
        """Lets an alert wait if a rule holds that did not before; at the first look also one of before a restart."""
        if rule.text not in self._fired and (earlier := self._undelivered(rule, now_s)) is not None:
            self._waiting.setdefault(rule.text, earlier)
        alert = rule.check(self._keeping, now_s)
        if alert is not None and not self._is_known(rule, alert, now_s):
            older = self._waiting.get(rule.text) or WaitingAlert(alert, now_s, now_s)
            self._waiting[rule.text] = replace(older, alert=alert)
        self._fired[rule.text] = alert is not None

    def _deliver(self, rule: AlertRule, now_s: float) -> None:
        """Delivers the alert of a rule that waits and is due, whether or not the rule still holds."""
        waiting = self._waiting.get(rule.text)
        if waiting is None or not waiting.is_due(now_s):
            return
        self._waiting[rule.text] = waiting.after_try(now_s)
        why = asyncio.run(deliver(waiting.alert, self.settings.alert_to, self.settings.alert_rules))
        if why:
            self.on_problem(f"an alert was not delivered to {self.settings.alert_to}, and is tried again: {why}")
        else:
            del self._waiting[rule.text]
        if not why or now_s == waiting.since_s:  # of the tries that fail the first is kept
            self._note(waiting.alert, why, now_s)

    def _undelivered(self, rule: AlertRule, now_s: float) -> WaitingAlert | None:
        """The newest alert of a rule if it could not be delivered, as before a restart; None if it is too old to tell."""
        sql = "SELECT value, said, at_s, delivered FROM alerts WHERE rule = ? ORDER BY seq DESC LIMIT 1"
        for value, said, at_s, delivered in self._keeping.database.read(sql, (plain(rule.text),)):
            if delivered != "yes" and now_s - at_s <= max(rule.window_s, OLDEST_WAITING_S):
                return WaitingAlert(Alert(rule.text, value, said, at_s), at_s, at_s)
        return None

    def _is_known(self, rule: AlertRule, alert: Alert, now_s: float) -> bool:
        """True if the rule held at the last look; at the first look, if an alert was delivered within its window.

        One that was delivered after now does not count: the clock was ahead then.
        """
        held = self._fired.get(rule.text)
        if held is not None:  # False: it was over, and what is delivered already was another outage
            return held
        sql = "SELECT 1 FROM alerts WHERE rule = ? AND at_s > ? AND at_s <= ? AND delivered = 'yes' LIMIT 1"
        return bool(self._keeping.database.read(sql, (plain(alert.rule), now_s - rule.window_s, now_s)))

    def _note(self, alert: Alert, why: str, now_s: float) -> None:
        with self._keeping.database.write() as connection:
            connection.execute(
                "INSERT INTO alerts (rule, value, said, at_s, delivered) VALUES (?, ?, ?, ?, ?)",
                (plain(alert.rule), alert.value, plain(alert.said), now_s, plain(why) or "yes"),
            )
            connection.execute("DELETE FROM alerts WHERE seq <= last_insert_rowid() - ?", (MAX_ALERTS,))

    def _tried(self, work: Callable[[], object]) -> None:
        try:
            work()
        except FirsthandError as error:
            self.on_problem(str(error))
        except Exception as error:  # the keeper goes on: what it missed is due again
            self.on_problem(f"{type(error).__name__}: {error}"[:300])


def parse_alerts(texts: Sequence[str]) -> tuple[AlertRule, ...]:
    """The rules of these texts."""
    return tuple(AlertRule.parse(text) for text in texts)
