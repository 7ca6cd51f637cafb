"""The SDK's request handler over durable stores: tasks go on after a restart, and webhooks keep to the address rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from a2a.auth.user import User
from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    Message,
    SendMessageRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import InvalidParamsError, TaskNotCancelableError, TaskNotFoundError

from firsthand.runs.database import Database
from firsthand.serve.a2a.sqlite_tasks import SqlitePushConfigs, SqliteTaskStore
from firsthand.serve.a2a.webhooks import WebhookSender, check_webhook
from firsthand.serve.a2a.wire_parts import check_data
from firsthand.tools.web.addresses import Resolver, Rules, resolve

MAX_PARTS = 256
MAX_ID_CHARS = 256
IDLE_S = 60.0
"""Seconds after which a task that waits for input takes no memory any more."""


class ClientUser(User):
    """A client of the server as the SDK's user."""

    def __init__(self, name: str):
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        """True: who has no key does not come so far."""
        return True

    @property
    def user_name(self) -> str:
        """The client's name."""
        return self._name


class A2AHandler(DefaultRequestHandlerV2):
    """Answers the operations of A2A for an executor."""

    def __init__(
        self,
        executor: AgentExecutor,
        database: Database,
        card: AgentCard,
        extended: AgentCard,
        rules: Rules,
        *,
        resolver: Resolver = resolve,
        following: set[str] | None = None,
    ):
        """`following` are the tasks that the executor tells of now; it takes each away when it has told all."""
        self._following: set[str] = set() if following is None else following
        self.tasks, self.webhooks = SqliteTaskStore(database), SqlitePushConfigs(database)
        self.sender = WebhookSender(self.webhooks, rules, resolver=resolver)
        self._rules, self._resolver = rules, resolver
        super().__init__(
            executor,
            self.tasks,
            card,
            push_config_store=self.webhooks,
            push_sender=self.sender,
            extended_agent_card=extended,
            validate_input_modes=False,
            interrupted_task_timeout=IDLE_S,
        )

    async def close(self) -> None:
        """End what runs; open tasks stay open in the store."""
        await self.aclose()
        await self.sender.aclose()

    async def go_on(self, task_id: str) -> None:
        """Let the executor tell of a task that nobody's request is about: after a restart, or an answer given elsewhere."""
        owner = self.tasks.owner_of(task_id)
        if owner is None or task_id in self._following:
            return
        context = ServerCallContext(user=ClientUser(owner))
        task = await self.tasks.get(task_id, context)
        if task is None:
            return
        self._following.add(task_id)
        try:
            active = await self._active_task_registry.get_or_create(
                task_id, call_context=context, context_id=task.context_id, create_task_if_missing=False
            )
            request = RequestContext(context, None, task_id=task_id, context_id=task.context_id, task=task)
            await active.enqueue_request(request)
        except BaseException:
            self._following.discard(task_id)
            raise

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Message | Task:
        """As the SDK, after a check of what the client sent."""
        await self._check(params, context)
        found: Message | Task = await super().on_message_send(params, context)
        return found

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """As the SDK, after a check of what the client sent."""
        await self._check(params, context)
        async for event in super().on_message_send_stream(params, context):
            yield event

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task | None:
        """As the SDK, but a task that ended before it could be cancelled is said to be so."""
        task: Task | None = await super().on_cancel_task(params, context)
        if task is None:
            raise TaskNotFoundError
        if task.status.state != TaskState.TASK_STATE_CANCELED:
            raise TaskNotCancelableError
        return task

    async def _reject_unsafe_push_url(self, url: str) -> None:
        """The SDK's hook, which sees the URL alone; `_check` and the next method see the whole webhook."""
        await check_webhook(TaskPushNotificationConfig(url=url), self._rules, self._resolver)

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """As the SDK, for a webhook that may be called."""
        if await self.tasks.get(params.task_id, context) is None:
            raise TaskNotFoundError
        await check_webhook(params, self._rules, self._resolver)
        kept: TaskPushNotificationConfig = await super().on_create_task_push_notification_config(params, context)
        return kept

    async def _check(self, params: SendMessageRequest, context: ServerCallContext) -> None:
        """InvalidParamsError for what no client should send. A message to a task belongs to the task's context."""
        message = params.message
        if len(message.parts) > MAX_PARTS:
            raise InvalidParamsError(f"the message has {len(message.parts)} parts: at most {MAX_PARTS} are taken")
        for name in ("message_id", "task_id", "context_id"):
            if len(getattr(message, name)) > MAX_ID_CHARS:
                raise InvalidParamsError(f"{name} has more than {MAX_ID_CHARS} characters")
        check_data(params)
        if params.configuration.HasField("task_push_notification_config"):
            await check_webhook(params.configuration.task_push_notification_config, self._rules, self._resolver)
        if message.task_id and not message.context_id:  # the SDK would make up another one
            task = await self.tasks.get(message.task_id, context)
            message.context_id = "" if task is None else task.context_id


async def go_on_all(handler: A2AHandler) -> None:
    """Tell of every task that was under way when the server was stopped, and of what its webhooks were not told."""
    handler.sender.go_on()
    waiting = (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
    for task_id, (_, task) in handler.tasks.open_tasks().items():
        if task.status.state not in waiting:
            await handler.go_on(task_id)
            await asyncio.sleep(0)
