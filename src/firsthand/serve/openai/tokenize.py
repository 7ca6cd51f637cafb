"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.serve.http.refusals import bad
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.models.served_model import Asked, Door
from firsthand.serve.openai import request_parsing
from firsthand.serve.openai.request_schema import DetokenizeRequest, TokenizeRequest, read


async def tokenize(door: Door, asked: Asked) -> Reply:
    """The ids that a text or a chat reaches the model as."""
    wanted = read(TokenizeRequest, asked.json())
    door = door.of(wanted.model)
    door.the_model(wanted.model)
    model = door.token_model("prompt")
    if (wanted.prompt is None) == (wanted.messages is None):
        raise bad("give either prompt, a text, or messages, a chat", "prompt")
    if wanted.tools and wanted.messages is None:
        raise bad("tools are told in a chat: give messages", "tools")
    facts = await model.load()
    if wanted.messages is not None:
        conversation = request_parsing.messages(wanted.messages, thinks=facts.thinks)
        more = {"template": wanted.chat_template_kwargs} if wanted.chat_template_kwargs else {}
        ids = await model.tokenize(conversation, request_parsing.specs(wanted.tools), **more)
    else:
        ids = await model.tokenize(wanted.prompt or "")
    body: Json = {"count": len(ids), "max_model_len": facts.context, "tokens": ids}
    if wanted.return_token_strs:
        body["token_strs"] = [raw.decode("utf-8", "replace") for raw in model.spell(ids)]
    return reply(body)


async def detokenize(door: Door, asked: Asked) -> Reply:
    """The text of ids, control tokens left out."""
    wanted = read(DetokenizeRequest, asked.json())
    door = door.of(wanted.model)
    door.the_model(wanted.model)
    model = door.token_model("tokens")
    door.check_ids(wanted.tokens, "tokens")
    return reply({"prompt": await model.detokenize(wanted.tokens) if wanted.tokens else ""})
