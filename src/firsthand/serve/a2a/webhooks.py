"""Push notifications, to public addresses only or those the operator allows, and to no other that a name turns into.

A webhook's URL is a client's, and the server is inside a network that the client is not. So the address is checked when the
webhook is set, and once more when a connection is opened, which goes to the checked address; redirects are not followed, an
answer is not read, and whatever fails is tried again a few times and then given up. Events are kept until they were sent, in
order: the next server sends what a killed one had not, and what that was sending may arrive twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from a2a.server.tasks.push_notification_sender import PushNotificationEvent, PushNotificationSender
from a2a.types.a2a_pb2 import TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict

from firsthand.errors import ToolError
from firsthand.serve.a2a.sqlite_tasks import SqlitePushConfigs
from firsthand.tools.fetch import read_url
from firsthand.tools.web.addresses import Resolver, Rules, checked_addresses, read_host, resolve
from firsthand.tools.web.webhook import call_webhook

MAX_HEADER_CHARS = 4096


async def check_webhook(config: TaskPushNotificationConfig, rules: Rules, resolver: Resolver = resolve) -> None:
    """InvalidParamsError for a webhook that may not be called, or whose headers could not be sent.

    A name that is not known now is taken: it is checked again before each call.
    """
    try:
        url = read_url(config.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        rules.check_port(port)
        read_host(url.host)
        await checked_addresses(url.host, port, rules, resolver)
    except ToolError as error:
        if " is not known: " not in str(error):
            raise InvalidParamsError(f"the push notification URL was refused: {error}") from None
    for value in (config.token, config.authentication.scheme, config.authentication.credentials):
        if len(value) > MAX_HEADER_CHARS or not value.isascii() or not value.isprintable():
            raise InvalidParamsError("token, scheme and credentials are printable ASCII of at most 4,096 characters")


class WebhookSender(PushNotificationSender):
    """Calls the webhooks of a task with each of its events, in order, without holding up the task."""

    def __init__(
        self,
        configs: SqlitePushConfigs,
        rules: Rules,
        *,
        resolver: Resolver = resolve,
        on_failure: Callable[[str, str], None] = lambda task, why: None,
    ):
        self._configs, self._rules, self._resolver, self.on_failure = configs, rules, resolver, on_failure
        self._workers: dict[str, asyncio.Task[None]] = {}

    async def send_notification(self, task_id: str, event: PushNotificationEvent) -> None:
        """Queue an event for the task's webhooks."""
        if not await self._configs.get_info_for_dispatch(task_id):
            return
        self._configs.queue(task_id, json.dumps(MessageToDict(to_stream_response(event))).encode())
        self._begin(task_id)

    def go_on(self) -> None:
        """Send what an earlier server had not sent."""
        for task_id in self._configs.queued_tasks():
            self._begin(task_id)

    def _begin(self, task_id: str) -> None:
        if task_id not in self._workers:
            self._workers[task_id] = asyncio.create_task(self._work(task_id))

    async def aclose(self) -> None:
        """Stop sending; what is queued stays for the next server."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, task_id: str) -> None:
        try:
            while (first := self._configs.first_queued(task_id)) is not None:
                place, body = first
                configs = await self._configs.get_info_for_dispatch(task_id)
                await asyncio.gather(*(self._call(config, body) for config in configs))
                self._configs.sent(place)
        finally:
            self._workers.pop(task_id, None)

    async def _call(self, config: TaskPushNotificationConfig, body: bytes) -> None:
        """Call one webhook, a few times if need be."""
        headers = [(b"x-a2a-notification-token", config.token.encode())] if config.token else []
        if config.authentication.scheme and config.authentication.credentials:
            value = f"{config.authentication.scheme} {config.authentication.credentials}"
            headers.append((b"authorization", value.encode()))
        why = await call_webhook(
            config.url, body, self._rules, self._resolver, content_type="application/a2a+json", headers=headers
        )
        if why:
            self.on_failure(config.task_id, why)
