"""Accounts for a Studio that others reach: passwords by scrypt, roles, sessions, API keys, limits on guesses.

A viewer reads; an annotator also rates, notes and votes; an editor also runs models and keeps views, prompts and data sets;
an admin also reads the audit log. Where several Studios share a store, each of them is a project, and an account may have
another role in it, or none. Accounts are made in the terminal, on the machine that holds the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Json
from firsthand.preference import utc_now
from firsthand.studio.studio_store import StoredItem, StudioStore

Role = Literal["viewer", "annotator", "editor", "admin"]
ACCOUNT, KEY = "account", "api-key"
MIN_PASSWORD, MAX_PASSWORD = 12, 1024
SESSION_S = 12 * 3600.0
GUESSES = 5
"""Wrong passwords of one account in GUESS_S, after which even the right one is refused until they are over."""
GUESS_S = 900.0
GUESSES_OF_ADDRESS = 30
"""Wrong passwords from one address in GUESS_S."""
HASHED_AT_ONCE = 2
"""Passwords that are compared at a time: each takes 32 MiB and a tenth of a second of a core."""
REFUSALS_A_MINUTE = 60
"""Refused sign-ins that the audit log takes in a minute; of one address GUESSES_OF_ADDRESS in GUESS_S, then one a minute."""
CHANGES_A_MINUTE = 240
"""Changing requests of one account in a minute."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20, "dklen": 32}


@dataclass(frozen=True)
class User:
    """Somebody who is signed in."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """True if this role includes another."""
        order = get_args(Role)
        return order.index(self.role) >= order.index(role)


class Accounts:
    """The accounts of a store, and the sessions of one server.

    Args:
        project: The project whose roles count; without one, the role that an account has by itself.
    """

    def __init__(self, store: StudioStore, clock: Callable[[], float] = time.monotonic, *, project: str = ""):
        self.store = store
        self.clock = clock
        self.project = project
        self._lock = threading.Lock()
        self._hashing = threading.Semaphore(HASHED_AT_ONCE)
        self._sessions: dict[bytes, tuple[str, str, float]] = {}
        """Digest of a session -> account, the hash of its password then, and when the session ends."""
        self._wrong: dict[str, list[float]] = {}
        self._refused: dict[str, list[float]] = {}
        """Address -> when refusals of it were added to the audit log."""
        self._not_told = 0
        self._changes: dict[str, list[float]] = {}

    # -- made in the terminal --

    def add(self, name: str, password: str, role: str) -> None:
        """Makes an account, or gives one another password and role; ConfigError if one of them will not do.

        With a project the role is for that project alone: a new account has none elsewhere. ConfigError too if somebody has
        changed the account meanwhile.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:60]!r} is no name of an account: use up to 64 letters, digits and . _ @ -")
        if role not in get_args(Role):
            raise ConfigError(f"role is {role[:40]!r}: give one of {', '.join(get_args(Role))}")
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise ConfigError(f"the password has {len(password)} characters: give {MIN_PASSWORD} to {MAX_PASSWORD}")
        known = self.store.get(ACCOUNT, name)
        begun = {"role": "", "id": secrets.token_hex(8)} if known is None else known.body
        body = {**begun, "hash": hashed(password), "made": utc_now()}
        self.store.put(ACCOUNT, name, self._with_role(body, role), version=0 if known is None else known.version)

    def give_role(self, name: str, role: str) -> None:
        """Gives an account another role, here: `none` is no role at all. UnknownName if there is no such account."""
        if role not in (*get_args(Role), "none"):
            raise ConfigError(f"role is {role[:40]!r}: give one of {', '.join(get_args(Role))} or none")
        item = self.store.get(ACCOUNT, name)
        if item is None:
            raise UnknownName(f"no account {name[:60]!r}")
        self.store.put(ACCOUNT, name, self._with_role(item.body, "" if role == "none" else role), version=item.version)

    def all(self) -> list[User]:
        """All accounts that have a role here, by name."""
        return [user for item in self.store.items(ACCOUNT) if (user := self._user(item)) is not None]

    def remove(self, name: str) -> None:
        """Removes an account with its keys; its sessions end. UnknownName if there is none."""
        if self.store.get(ACCOUNT, name) is None:
            raise UnknownName(f"no account {name[:60]!r}")
        for item in self.store.items(KEY):  # before the account: if this ends halfway, it can be removed again
            if item.body["account"] == name:
                self.store.remove(KEY, item.key)
        self.store.remove(ACCOUNT, name)

    def new_key(self, name: str) -> str:
        """A new API key of an account, of which the store keeps a digest alone; UnknownName if there is no such account."""
        account = self.store.get(ACCOUNT, name)
        if account is None:
            raise UnknownName(f"no account {name[:60]!r}")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        body = {"account": name, "account_id": _id(account), "digest": _digest(secret).hex(), "made": utc_now()}
        self.store.put(KEY, id, body)
        return f"fh_{id}_{secret}"

    # -- asked by the server --

    def sign_in(self, name: str, password: str, address: str) -> str | None:
        """A new session; None if name or password is wrong, or too many were. Both take as long."""
        guess = self._guess(name, address)
        if guess is None:
            return None
        item = self.store.get(ACCOUNT, name) if _NAME.fullmatch(name) else None
        known = item.body["hash"] if item is not None else _NOBODY
        with self._hashing:
            is_right = matches(password[: MAX_PASSWORD + 1], known)
        if not is_right or item is None or self._user(item) is None:
            return None
        with self._lock:  # it was no wrong guess after all
            for key in (f"account {name[:64]}", f"address {address}"):
                with suppress(ValueError):
                    self._wrong.get(key, []).remove(guess)
        session = secrets.token_urlsafe(32)
        with self._lock:
            now = self.clock()
            self._sessions = {key: value for key, value in self._sessions.items() if value[2] > now}
            self._sessions[_digest(session)] = (name, known, now + SESSION_S)
        return session

    def sign_out(self, session: str) -> None:
        """Ends a session."""
        with self._lock:
            self._sessions.pop(_digest(session), None)

    def of_session(self, session: str) -> User | None:
        """Whose session this is; None if it is unknown or over, or the account is gone or has another password."""
        with self._lock:
            found = self._sessions.get(_digest(session))
        if found is None or found[2] <= self.clock():
            return None
        item = self.store.get(ACCOUNT, found[0])
        return None if item is None or item.body["hash"] != found[1] else self._user(item)

    def of_key(self, key: str) -> User | None:
        """Whose API key this is; None if it is none."""
        parts = key.split("_", 2)
        if len(parts) != 3 or parts[0] != "fh" or not re.fullmatch("[0-9a-f]{12}", parts[1]):
            return None
        item = self.store.get(KEY, parts[1])
        digest = item.body["digest"] if item is not None else "0" * 64
        if not hmac.compare_digest(_digest(parts[2]).hex(), digest) or item is None:
            return None
        account = self.store.get(ACCOUNT, item.body["account"])
        if account is None or _id(account) != item.body.get("account_id", ""):
            return None
        return self._user(account)

    def may_change_now(self, user: User) -> bool:
        """True unless the account has made too many changing requests in the last minute; counts this one."""
        now = self.clock()
        with self._lock:
            recent = [each for each in self._changes.get(user.name, ()) if now - each < 60]
            self._changes[user.name] = [*recent, now][-CHANGES_A_MINUTE - 1 :]
        return len(recent) < CHANGES_A_MINUTE

    def audit(self, who: str, what: str, **detail: Json | str | int) -> None:
        """Adds to the audit log."""
        self.store.log("audit", {"who": who[:64], "what": what, **detail})

    def audit_refusal(self, who: str, address: str) -> None:
        """Adds a refused sign-in to the audit log, or counts it for the next entry where there were too many."""
        now = self.clock()
        with self._lock:
            self._refused = {
                key: recent
                for key, times in self._refused.items()
                if (recent := [each for each in times if now - each < GUESS_S])
            }
            told = self._refused.get(address, [])
            in_a_minute = sum(now - each < 60 for times in self._refused.values() for each in times)
            is_one_more = len(told) >= GUESSES_OF_ADDRESS and now - told[-1] < 60
            if is_one_more or in_a_minute >= REFUSALS_A_MINUTE:
                self._not_told += 1
                return
            self._refused[address] = [*told, now][-GUESSES_OF_ADDRESS:]
            before, self._not_told = self._not_told, 0
        what = f"was refused, after {before} refusals that are not listed" if before else "was refused"
        self.audit(who, what, address=address)

    def _user(self, item: StoredItem) -> User | None:
        """An account with its role here; None if it has none."""
        role = item.body.get("projects", {}).get(self.project) if self.project else None
        role = item.body["role"] if role is None else role
        return User(item.key, role) if role else None

    def _with_role(self, body: Json, role: str) -> Json:
        if not self.project:
            return {**body, "role": role}
        return {**body, "projects": {**body.get("projects", {}), self.project: role}}

    def _guess(self, name: str, address: str) -> float | None:
        """Counts a guess as wrong before it is looked at, so that many at once are not more; None beyond the limits."""
        now = self.clock()
        with self._lock:
            self._wrong = {
                key: recent
                for key, times in self._wrong.items()
                if (recent := [each for each in times if now - each < GUESS_S])
            }
            limits = {f"account {name[:64]}": GUESSES, f"address {address}": GUESSES_OF_ADDRESS}
            if any(len(self._wrong.get(key, ())) >= most for key, most in limits.items()):
                return None
            for key in limits:
                self._wrong.setdefault(key, []).append(now)
        return now


def hashed(password: str) -> str:
    """The password's scrypt hash with its salt and parameters."""
    salt = secrets.token_bytes(16)
    made = hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, **_SCRYPT)
    return f"scrypt${_SCRYPT['n']}${_SCRYPT['r']}${_SCRYPT['p']}${salt.hex()}${made.hex()}"


def matches(password: str, kept: str) -> bool:
    """True if a password has this hash; False for a hash that is none."""
    try:
        kind, n, r, p, salt, digest = kept.split("$")
        made = hashlib.scrypt(
            password.encode("utf-8", "surrogatepass"), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p),
            maxmem=64 << 20, dklen=32,
        )  # fmt: skip
    except ValueError:
        return False
    return kind == "scrypt" and hmac.compare_digest(made.hex(), digest)


_RUNS_A_MODEL = re.compile(r"/features/[^/]+/live(/[^/]*)?")
"""Pages that are read with a model."""
_RESERVES = re.compile(r"/queues/[^/]+/next")
"""The page that reserves an item of a queue for whoever reads it."""
_RATING = re.compile(
    r"/runs/[^/]+/note|/runs/[^/]+/attempts/[^/]+/notes|/queues/[^/]+/items/[^/]+|/arena/rounds(/[^/]+/(vote|undo|reveal))?"
)
"""Requests that an annotator may send; whatever else changes something is an editor's."""


def needed_role(method: str, path: str) -> Role:
    """The role that a request needs."""
    if path.startswith("/audit"):
        return "admin"
    if _RUNS_A_MODEL.fullmatch(path):
        return "editor"
    if method in ("GET", "HEAD"):
        return "annotator" if _RESERVES.fullmatch(path) else "viewer"
    is_rating = method == "POST" and _RATING.fullmatch(path)
    return "annotator" if is_rating else "editor"


def _id(account: StoredItem) -> str:
    """An id that differs from that of a later account of the same name; empty for accounts and keys from before 0.22.0."""
    return str(account.body.get("id", ""))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


_NOBODY = f"scrypt${_SCRYPT['n']}${_SCRYPT['r']}${_SCRYPT['p']}${'00' * 16}${'00' * 32}"
"""No password has this hash; it takes as long to compare as one that somebody has."""
