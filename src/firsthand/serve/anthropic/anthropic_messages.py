"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API, answered as a chat."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.model import TokenCounter
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.anthropic.message_events import message_events
from firsthand.serve.anthropic.message_parts import ended_json, message_json, tool_input, tool_use_id, usage_json
from firsthand.serve.anthropic.messages_schema import CountRequest, MessagesRequest, as_chat
from firsthand.serve.http.refusals import bad, in_names_of
from firsthand.serve.http.replies import Events, Reply, reply
from firsthand.serve.openai.chat_completions import ChatJob, chat_job, gather_answers, split_reasoning
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_parsing import template_options
from firsthand.serve.openai.request_schema import ChatRequest, read


async def messages(state: OpenAIState, request: ActiveRequest) -> Reply | Events:
    """The model's message, whole or as a stream of events."""
    body = read(MessagesRequest, request.json())
    job = await _job(state, request, body)
    if body.stream:
        prompt_tokens = await _count(job) if job.served.tokens is not None else 0
        return await Events.begin(request, message_events(state, request, job, prompt_tokens), done=False)
    (answer,) = await gather_answers(state, request, job)
    completion = answer.whole
    reasoning, text = split_reasoning(job, answer.text)
    content: list[Json] = [{"type": "thinking", "thinking": reasoning, "signature": ""}] if reasoning else []
    if text:
        content.append({"type": "text", "text": text, "citations": None})
    for at, (call, told) in enumerate(zip(completion.message.tool_calls, answer.arguments(), strict=True)):
        id, given = tool_use_id(job.marks.of(at)), tool_input(call, told)
        content.append({"type": "tool_use", "id": id, "name": call.name, "input": given})
    ended, usage = ended_json(job, completion), usage_json(completion.usage)
    return reply(message_json(request, job, content, ended, usage))


async def count_tokens(state: OpenAIState, request: ActiveRequest) -> Reply:
    """The tokens of a prompt, which is not answered."""
    return reply({"input_tokens": await _count(await _job(state, request, read(CountRequest, request.json())))})


async def _job(state: OpenAIState, request: ActiveRequest, body: CountRequest) -> ChatJob:
    """The request as a chat that was checked."""
    (chat, names), thinking = as_chat(body), body.thinking
    if thinking is not None and (thinking.type == "enabled" or thinking.budget_tokens is not None):
        raise bad(
            'thinking.budget_tokens is not supported: the model decides itself how long it thinks, so give {"type": '
            '"adaptive"}', "thinking", "unsupported_parameter",
        )  # fmt: skip
    if thinking is not None and thinking.type == "disabled" and state.models.find(body.model).thinks:
        chat["chat_template_kwargs"] = {**chat.get("chat_template_kwargs", {}), "enable_thinking": False}
    with in_names_of(names):
        return await chat_job(state, request, read(ChatRequest, chat))


async def _count(job: ChatJob) -> int:
    """The tokens of the prompt of a job."""
    model, tools = job.served.model, job.tools.specs
    if job.served.tokens is not None:
        options = template_options(job.body.chat_template_kwargs)
        return len(await job.served.tokens.tokenize(job.messages, tools, **options))
    if isinstance(model, TokenCounter):
        return await model.count_tokens(job.messages, tools)
    raise bad(f"{job.served.name} does not run here and counts no tokens: ask its own endpoint", "model")
