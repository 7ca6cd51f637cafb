"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.http.refusals import bad
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_schema import DetokenizeRequest, TokenizeRequest, read


async def tokenize(state: OpenAIState, request: ActiveRequest) -> Reply:
    """The token ids of a text or a chat, as the model gets them."""
    body = read(TokenizeRequest, request.json())
    model = state.models.find(body.model).token_model("prompt")
    if (body.prompt is None) == (body.messages is None):
        raise bad("give either prompt, a text, or messages, a chat", "prompt")
    if body.tools and body.messages is None:
        raise bad("tools are rendered in a chat: give messages", "tools")
    facts = await model.load()
    if body.messages is not None:
        conversation = request_parsing.messages(body.messages, thinks=facts.thinks)
        options = request_parsing.template_options(body.chat_template_kwargs)
        ids = await model.tokenize(conversation, request_parsing.specs(body.tools), **options)
    else:
        ids = await model.tokenize(body.prompt or "")
    answer: Json = {"count": len(ids), "max_model_len": facts.context, "tokens": ids}
    if body.return_token_strs:
        answer["token_strs"] = [raw.decode("utf-8", "replace") for raw in model.spell(ids)]
    return reply(answer)


async def detokenize(state: OpenAIState, request: ActiveRequest) -> Reply:
    """The text of token ids, control tokens left out."""
    body = read(DetokenizeRequest, request.json())
    served = state.models.find(body.model)
    model = served.token_model("tokens")
    served.check_ids(body.tokens, "tokens")
    return reply({"prompt": await model.detokenize(body.tokens) if body.tokens else ""})
