"""The A2A door of a served agent: its card, its handler, and the app that holds them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from a2a.utils.errors import A2AError

from firsthand.serve.a2a.a2a_app import a2a_app
from firsthand.serve.a2a.a2a_handler import A2AHandler
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.a2a.agent_card import CardFacts, extended_card, make_card, read_signing_key, sign
from firsthand.serve.a2a.grpc_door import GrpcDoor
from firsthand.serve.a2a.turn_executor import TurnExecutor
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.tools.web.addresses import Resolver, parse_rules, resolve


def a2a_door(
    sessions: ServedSessions,
    admission: Admission,
    address: ListenAddress,
    settings: A2ASettings,
    *,
    url: str,
    description: str = "",
    examples: tuple[str, ...] = (),
    resolver: Resolver = resolve,
) -> MountedApp:
    """The app that serves an agent's sessions over A2A at `url`."""
    logging.getLogger("a2a").setLevel(logging.CRITICAL)  # the SDK logs each refusal with a traceback
    grpc = None if settings.grpc_port is None else GrpcDoor(address, settings.grpc_port, admission)
    facts = CardFacts(
        description,
        examples,
        needs_key=bool(admission.keys.clients),
        grpc="" if grpc is None else f"{address.host}:{grpc.open_port()}",
    )
    card = make_card(sessions.agent, settings.public_url or url, facts)
    extended = extended_card(card, sessions.agent)
    if settings.card_key is not None:
        pem = read_signing_key(settings.card_key)
        for each in (card, extended):
            sign(each, pem, key_id=settings.card_key_id)
    executor = TurnExecutor(sessions)
    rules = parse_rules(settings.webhook_allow, settings.webhook_ports)
    handler = A2AHandler(
        executor, sessions.store.database, card, extended, rules, resolver=resolver, following=executor.following
    )
    handler.sender.on_failure = lambda task, why: sessions.on_bug(
        f"the webhook of the task {task} was not called: {why}"
    )
    going: set[asyncio.Task[None]] = set()

    async def go_on(id: str) -> None:
        with suppress(A2AError):
            await handler.go_on(id)

    def begun(turn: SessionTurn) -> None:
        """Tell of a turn that goes on although no request of A2A is about it."""
        if handler.tasks.owner_of(turn.id) is not None:
            task = asyncio.create_task(go_on(turn.id))
            going.add(task)
            task.add_done_callback(going.discard)

    sessions.on_begin.append(begun)
    return a2a_app(handler, card, grpc=grpc)
