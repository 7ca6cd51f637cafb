"""The agent that the A2A TCK tests: what its Gherkin scenarios ask for, behind this package's stores, handler and apps.

`python a2a_tck_agent.py FOLDER PORT GRPC_PORT` serves it; the TCK's messageIds begin with the name of a scenario.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.events.event_queue import EventQueue
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types.a2a_pb2 import Part, Task, TaskState, TaskStatus
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from firsthand.agent import Agent
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.serve.a2a.a2a_app import a2a_app
from firsthand.serve.a2a.a2a_handler import A2AHandler
from firsthand.serve.a2a.agent_card import CardFacts, extended_card, make_card
from firsthand.serve.a2a.grpc_door import GrpcDoor
from firsthand.serve.admission.admission_settings import AdmissionSettings
from firsthand.serve.admission.server_admission import Admission
from firsthand.serve.agents.session_store import SessionStore
from firsthand.serve.http.app import ServerApp
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.http.server import serve
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.tools.web.addresses import parse_rules

TEXTS = {
    "tck-artifact-text": "Generated text content",
    "tck-stream-001": "Stream hello from TCK",
    "tck-stream-003": "Stream task lifecycle",
    "tck-stream-ordering-001": "Ordered output",
    "tck-stream-artifact-text": "Streamed text content",
}
FILE = {"filename": "output.txt", "media_type": "text/plain"}


class TckExecutor(AgentExecutor):
    """Does what the scenario of a message asks for."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id and context.context_id and context.message
        name, message = context.message.message_id, context.message
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if name.startswith("tck-message-response"):
            await event_queue.enqueue_event(updater.new_agent_message([Part(text="Direct message response")]))
            return
        if context.current_task is None:
            task = Task(id=context.task_id, context_id=context.context_id, history=[message])
            task.status.CopyFrom(TaskStatus(state=TaskState.TASK_STATE_SUBMITTED))
            task.status.timestamp.GetCurrentTime()
            await event_queue.enqueue_event(task)
        if name.startswith("tck-input-required"):
            await updater.requires_input()
            return
        if name.startswith("tck-reject-task"):
            await updater.reject(updater.new_agent_message([Part(text="rejected")]))
            return
        await updater.start_work()
        text = next((text for prefix, text in TEXTS.items() if name.startswith(prefix)), None)
        if text is not None:
            await updater.add_artifact([Part(text=text)])
        elif name.startswith("tck-artifact-file-url"):
            await updater.add_artifact([Part(url="https://example.com/output.txt", **FILE)])
        elif name.startswith(("tck-artifact-file", "tck-stream-artifact-file")):
            await updater.add_artifact([Part(raw=b"tck", **FILE)])
        elif name.startswith("tck-artifact-data"):
            await updater.add_artifact([Part(data=ParseDict({"key": "value", "count": 42}, Value()))])
        elif name.startswith("tck-stream-artifact-chunked"):
            await updater.add_artifact([Part(text="chunk-1 ")], artifact_id="chunks", append=True)
            await updater.add_artifact([Part(text="chunk-2")], artifact_id="chunks", append=True, last_chunk=True)
        elif name.startswith("test-resubscribe-message-id"):
            await asyncio.sleep(4)
        await updater.complete(updater.new_agent_message([Part(text="Hello from TCK")]))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id and context.context_id
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def main(folder: Path, port: int, grpc_port: int) -> None:
    agent = Agent("tck", Scripted(["never asked"], name="scripted:tck"), react)
    address = ListenAddress(port=port)
    telemetry = ServerTelemetry(TelemetrySettings(log="none"))
    admission = Admission(None, AdmissionSettings(), mean_request_s=telemetry.metrics.mean_request_s)
    card = make_card(agent, f"http://127.0.0.1:{port}", CardFacts(grpc=f"127.0.0.1:{grpc_port}"))
    store = SessionStore(folder, create=True)
    rules = parse_rules("127.0.0.0/8+localhost", "+".join(map(str, (80, 443, *range(1024, 65536)))))
    handler = A2AHandler(TckExecutor(), store.database, card, extended_card(card, agent), rules)
    models = ServedModels(agent.model, name="tck")
    app = ServerApp(
        models, admission, telemetry, [a2a_app(handler, card, grpc=GrpcDoor(address, grpc_port, admission))]
    )
    serve(app, address, on_open=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
