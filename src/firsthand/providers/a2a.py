"""A remote agent as a Model, over A2A 1.0: `a2a:URL`, where URL serves a card at /.well-known/agent-card.json.

A conversation that goes on stays in the remote agent's context, which no other client of a server goes on in, and no other
branch: where several go on from one answer, the first has its context, and the others tell theirs in a new one. What it asks
back (input-required) is an answer like any other, and the next message goes to the task that asked. The key in
FIRSTHAND_A2A_KEY is sent to the card's own host and no other: a card that names another one is refused. Bytes, events and
time of an answer are bounded, and an answer that breaks off is looked up by its task rather than asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from firsthand.errors import ConfigError, FirsthandError, MissingExtra, ModelError, Unreachable
from firsthand.message import Message, assistant, canonical
from firsthand.model import Completion, Delta, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers.a2a_answer import STUCK, Answer
from firsthand.providers.a2a_transport import bounded_client
from firsthand.providers.endpoint_clients import together
from firsthand.providers.endpoint_secrets import hide
from firsthand.providers.openai_wire import clip
from firsthand.providers.supported_settings import check_supported, no_scores
from firsthand.system import conversation_owner
from firsthand.system.normalised_text import has_long_marks
from firsthand.system.poll_pause import MAX_PAUSE_S, pause_s

if TYPE_CHECKING:
    import httpx
    from a2a.client import Client
    from a2a.types.a2a_pb2 import AgentCard, SendMessageRequest

KEY_VARIABLE = "FIRSTHAND_A2A_KEY"
_SUPPORTED = ("max_tokens", "temperature", "seed")
"""Settings that every agent has and a remote one decides itself."""
_MOST_THREADS = 10_000
_POLL_S, _LOST_S, _CANCEL_S = 0.2, 10.0, 3.0
_SOON_S, _SOON_MAX_S = 0.02, 2.0
"""The first and the longest pause after a poll of a task that does not stream, whose answer is late by a pause at most."""
_GROWTH = 1.2
"""Each pause after a poll that was answered is as many times the one before."""


def open_model(rest: str) -> RemoteAgent:
    """Returns the remote agent named `a2a:URL`; no request is made. ConfigError for any other form."""
    return RemoteAgent(rest)


class _Thread(NamedTuple):
    """The remote side of a conversation."""

    context: str = ""
    task: str = ""
    """The task that waits for input; empty if none does."""


class RemoteAgent:
    """A Model whose answers are a remote agent's.

    `trusted` are public keys in PEM by key id: the agent's card must be signed by one of them.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        trusted: Mapping[str, str | bytes] | None = None,
        timeout_s: float = 600.0,
        idle_s: float = 120.0,
    ):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigError(f"a2a:{clip(url, 120)} has no address: write a2a:http://HOST:PORT")
        self._url = url.rstrip("/")
        self._key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self._trusted = trusted
        self._timeout_s, self._idle_s = timeout_s, idle_s
        self._threads: OrderedDict[str, deque[_Thread]] = OrderedDict()
        self._num_threads = 0

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return f"a2a:{self._url}"

    @property
    def fingerprint(self) -> str:
        """The address: no agent says what decides its answers."""
        return f"a2a:{hashlib.sha256(self._url.encode()).hexdigest()[:16]}"

    def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
        """ConfigError for settings that A2A has no field for."""
        if scores:
            raise ConfigError(no_scores(self.name))
        check_supported(self.name, sampling, _SUPPORTED)

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers, each a task of its own."""
        return await together(self._one, [(prompt, sampling, tools)] * n, attrgetter("usage"))

    async def _one(self, asked: tuple[Prompt, Sampling, Sequence[ToolSpec]]) -> Completion:
        prompt, sampling, tools = asked
        found = [delta.completion async for delta in self.stream(prompt, sampling, tools=tools)][-1]
        assert found is not None
        return found

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """The answer, a piece for each artifact chunk as it comes. A closed iterator cancels the remote task.

        Where the agent replaces what it has sent, the last text is the whole answer, and the last piece `is_revised`.
        Unreachable if the agent could not be asked; ModelError if it failed, broke the protocol, or gave no answer in time.
        """
        self.check_request(sampling)
        if tools:
            raise ConfigError(f"{self.name} is an agent with tools of its own and takes none: leave out tools")
        messages = [] if isinstance(prompt, str) else list(prompt)
        owner = conversation_owner.current()
        thread, text = self._message(owner, prompt if isinstance(prompt, str) else "", messages)
        answer, shown, is_done = Answer(self.name, self._quote), list[str](), False
        try:
            async with asyncio.timeout(self._timeout_s), aclosing(self._asked(thread, text, answer)) as pieces:
                async for _ in pieces:
                    if fresh := answer.news():
                        yield Delta(fresh)
                        shown.append(fresh)
            if answer.state in STUCK:
                state = answer.state.removeprefix("TASK_STATE_").lower().replace("_", " ")
                said = self._quote(answer.said or "it gives no reason", 500)
                raise ModelError(f"{self.name} ended with {state}: {said}")
            is_done = True
        except TimeoutError:
            raise ModelError(f"{self.name} gave no answer within {self._timeout_s:g} s: {answer.where}") from None
        finally:
            if not is_done and thread.context:  # so that asking again goes on there, but not in a task that ended
                is_waiting = not answer.task or answer.state == "TASK_STATE_AUTH_REQUIRED"
                self._keep(owner, messages[:-1], thread if is_waiting else _Thread(thread.context))
        waits = answer.state == "TASK_STATE_INPUT_REQUIRED"
        text, streamed = answer.text, "".join(shown)
        is_revised = not text.startswith(streamed)
        rest = f"\n\n{text}" if is_revised else text[len(streamed) :]
        for said in dict.fromkeys((text, streamed + rest)):  # a caller that goes on tells either
            self._keep(owner, [*messages, assistant(said)], _Thread(answer.context, answer.task if waits else ""))
        if rest:
            yield Delta(rest)
        yield Delta("", Completion(assistant(text), "stop", Usage()), is_revised=is_revised)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """ConfigError: agents give no log-probs."""
        raise ConfigError(no_scores(self.name))

    # -- one answer --

    async def _asked(self, thread: _Thread, text: str, answer: Answer) -> AsyncGenerator[None, None]:
        """Yields whenever more of the answer has come, until it is settled."""
        try:
            import a2a.client
            import httpx
            from a2a.types.a2a_pb2 import Message as WireMessage
            from a2a.types.a2a_pb2 import Part, Role, SendMessageRequest
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "a2a", self.name) from None
        del a2a
        async with bounded_client(self._key, self._idle_s, self._url) as http:
            client, streams = await self._connected(http)
            message = WireMessage(message_id=secrets.token_hex(12), role=Role.ROLE_USER, parts=[Part(text=text)])
            message.context_id, message.task_id = thread.context, thread.task
            answer.context = thread.context
            came = asyncio.Event()
            request = SendMessageRequest(message=message)
            # of an agent that does not stream, the task is asked for at once: by its id it is cancelled, and looked up.
            # A task that goes on has its id already, and what came at once could be its state from before.
            request.configuration.return_immediately = not streams and not thread.task
            reading = asyncio.create_task(self._read(client, request, answer, came))
            try:
                while not reading.done() and not answer.is_settled:
                    came.clear()
                    waking = asyncio.create_task(came.wait())
                    await asyncio.wait({reading, waking}, return_when=asyncio.FIRST_COMPLETED)
                    waking.cancel()
                    yield
                broke = reading.exception() if reading.done() else None
                if isinstance(broke, FirsthandError):
                    raise broke
                if broke is not None and not answer.task:
                    was_sent = not any(isinstance(each, httpx.ConnectError) for each in _causes(broke))
                    raise self._fault(broke, was_sent=was_sent) from None
                async for _ in self._looked_up(client, answer, streams=streams):
                    yield
            except (asyncio.CancelledError, GeneratorExit, FirsthandError) as error:
                if not isinstance(error, FirsthandError):
                    answer.task = answer.task or thread.task
                await self._canceled(client, answer, reading)
                raise
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, client: Client, request: SendMessageRequest, answer: Answer, came: asyncio.Event) -> None:
        """Take the events of an answer until it is settled or they end."""
        async with aclosing(client.send_message(request)) as events:  # type: ignore[type-var]
            async for event in events:
                answer.take(event)
                came.set()
                if answer.is_settled:
                    return

    async def _looked_up(self, client: Client, answer: Answer, *, streams: bool = True) -> AsyncGenerator[None, None]:
        """Follow a task whose stream broke off, or that has none. ModelError if the agent does not come back."""
        from a2a.types.a2a_pb2 import GetTaskRequest

        lost_s, (grown_s, most_s) = 0.0, (_POLL_S, MAX_PAUSE_S) if streams else (_SOON_S, _SOON_MAX_S)
        while not answer.is_settled:
            if not answer.task:
                raise ModelError(f"{self.name} ended its answer without saying anything: ask it again")
            began_s = time.thread_time()
            try:
                task = await client.get_task(GetTaskRequest(id=answer.task))
                answer.take_task(task)
                lost_s, wait_s, grown_s = 0.0, grown_s, min(most_s, grown_s * _GROWTH)
            except Exception as error:
                if (ours := next((each for each in _causes(error) if isinstance(each, ModelError)), None)) is not None:
                    raise ours from None
                if lost_s >= _LOST_S:
                    raise ModelError(
                        f"{self.name} broke off and did not come back ({self._reason(error)}): {answer.where}"
                    ) from None
                wait_s = _POLL_S
                lost_s += wait_s
            yield
            await asyncio.sleep(pause_s(wait_s, time.thread_time() - began_s))

    async def _canceled(self, client: Client, answer: Answer, reading: asyncio.Task[None]) -> None:
        """Cancel the remote task of an answer that nobody waits for any more, once its id has come."""
        from a2a.types.a2a_pb2 import CancelTaskRequest

        with suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(_CANCEL_S):
                while not answer.task and not reading.done():
                    await asyncio.sleep(0.01)
                if answer.task and not answer.is_settled:
                    await client.cancel_task(CancelTaskRequest(id=answer.task))

    async def _connected(self, http: httpx.AsyncClient) -> tuple[Client, bool]:
        """Return a client of the agent, by its card, and True if the agent streams."""
        from a2a.client import A2ACardResolver, ClientConfig, ClientFactory

        config = ClientConfig(httpx_client=http, supported_protocol_bindings=["JSONRPC", "HTTP+JSON"])
        try:
            card = await A2ACardResolver(http, self._url).get_agent_card()
            self._check(card)
            return ClientFactory(config).create(card), card.capabilities.streaming
        except (asyncio.CancelledError, FirsthandError):
            raise
        except Exception as error:
            raise self._fault(error, was_sent=False) from None

    def _check(self, card: AgentCard) -> None:
        """Refuse a card that sends its readers, and their key, to another host, or that nobody trusted has signed."""
        home = urlsplit(self._url)
        for interface in card.supported_interfaces:
            if interface.protocol_binding == "GRPC":
                continue
            there = urlsplit("" if has_long_marks(interface.url) else interface.url)
            elsewhere = (there.scheme, there.hostname, there.port) != (home.scheme, home.hostname, home.port)
            if elsewhere or "@" in there.netloc:  # a user name would take the place of the key
                raise ModelError(
                    f"the card of {self.name} sends its clients to {self._quote(interface.url, 120)!r}, another address: "
                    "give that one if you trust it"
                )
        if self._trusted is not None:
            verify_card(card, self._trusted)

    def _fault(self, error: BaseException, *, was_sent: bool) -> ModelError:
        """The error for a request that failed: Unreachable only where nothing was asked yet, so that a retry is safe."""
        ours = next((each for each in _causes(error) if isinstance(each, ModelError)), None)
        if ours is not None:
            return ours
        status = getattr(error, "status_code", None)
        said = f"{self.name} could not be asked ({self._reason(error)})"
        if was_sent:
            return ModelError(
                f"{self.name} broke off or broke the protocol ({self._reason(error)}): see on its side what was done"
            )
        if status in (401, 403):
            return ModelError(f"{said}: put its key into {KEY_VARIABLE}")
        if status is not None and 400 <= status < 500:
            return ModelError(f"{said}: give the address of an A2A agent")
        kinds = {kind.__name__ for each in _causes(error) for kind in type(each).__mro__}
        network = bool(kinds & {"TransportError", "OSError"})
        if network or (status is not None and status >= 500):
            return Unreachable(f"{said}: check that it runs, and its address")
        return ModelError(f"{said}: its card is not one of A2A 1.0")

    def _reason(self, error: BaseException) -> str:
        return self._quote(f"{type(error).__name__}: {error}", 200)

    def _quote(self, words: str, most: int = 300) -> str:
        """Words from outside as one short line, without our key."""
        return clip(hide(words, (self._key,), 4 * most), most)

    # -- conversations --

    def _message(self, owner: str, text: str, messages: Sequence[Message]) -> tuple[_Thread, str]:
        """The remote side of a conversation and the text to send: all of it, where the agent does not know the beginning.

        The remote side is taken: the next conversation with these texts gets another one.
        """
        if not messages:
            return _Thread(), text
        last, before = messages[-1], messages[:-1]
        if (thread := self._taken(_digest(owner, before))) is not None:
            return thread, last.text
        if not before:
            return _Thread(), last.text
        lines = [f"{each.role}: {each.text}" for each in before if each.text]
        return _Thread(), "\n\n".join(["The conversation so far:", *lines, "The message to answer:", last.text])

    def _taken(self, digest: str) -> _Thread | None:
        """The remote side that was kept first, which is kept no more."""
        if (kept := self._threads.get(digest)) is None:
            return None
        thread = kept.popleft()
        self._num_threads -= 1
        if not kept:
            del self._threads[digest]
        return thread

    def _keep(self, owner: str, messages: Sequence[Message], thread: _Thread) -> None:
        """Keep the remote side of a conversation for the next message; branches of equal texts have one each."""
        self._threads.setdefault(_digest(owner, messages), deque()).append(thread)
        self._num_threads += 1
        if self._num_threads > _MOST_THREADS:
            self._taken(next(iter(self._threads)))


def verify_card(card: AgentCard, trusted: Mapping[str, str | bytes]) -> None:
    """ModelError unless a signature of the card is of one of these public keys, by key id.

    Keys come from the caller alone: a card that names where its own key is proves nothing.
    """
    from a2a.utils.signing import SignatureVerificationError, create_signature_verifier
    from jwt.exceptions import InvalidKeyError

    def key_of(key_id: object, jku: object) -> str | bytes:
        if not isinstance(key_id, str) or key_id not in trusted:  # a header may hold any JSON
            raise InvalidKeyError(f"no key {key_id!r}")
        return trusted[key_id]

    try:
        create_signature_verifier(key_of, ["ES256"])(card)
    except (SignatureVerificationError, ValueError) as error:
        raise ModelError(f"the card of {card.name[:80]!r} is not signed by a key that you trust: {error}") from None


def _digest(owner: str, messages: Sequence[Message]) -> str:
    body = canonical([owner, [[each.role, each.text.strip()] for each in messages]])
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came from."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__
    return found
