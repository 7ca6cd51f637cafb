"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them.

To clients each adapter is a model of its own. The routes exist only if the server was started with a folder of adapters,
read nothing outside it, and serve only clients whose key allows it (`admission/api_keys.py`).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from firsthand.errors import ConfigError, ModelFileError
from firsthand.model import AdapterModel
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.models.served_models import ServedModels
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_schema import Wire, read

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@:/+-]{1,256}$")]
FILES = ("adapter_config.json", "adapter_model.safetensors")


class LoadAdapterRequest(Wire):
    """The body of /v1/load_lora_adapter."""

    lora_name: AdapterName
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]
    load_inplace: bool = False
    """Replace a loaded adapter of that name."""


class UnloadAdapterRequest(Wire):
    """The body of /v1/unload_lora_adapter."""

    lora_name: AdapterName
    lora_int_id: None = None


async def load_adapter(state: OpenAIState, request: ActiveRequest) -> Reply:
    """Load a LoRA adapter beside the model, from within the operator's folder."""
    _check_allowed(request)
    body = read(LoadAdapterRequest, request.json())
    models, root = state.models, state.settings.adapter_root
    model = _adapter_model(models)
    if body.lora_name in models.names and body.lora_name not in models.adapters:
        raise bad(f"lora_name is {body.lora_name!r}: that is the model's own name", "lora_name")
    async with state.adapter_lock:
        if body.lora_name in models.adapters and not body.load_inplace:
            raise bad(f"the adapter {body.lora_name!r} is loaded already: unload it, or set load_inplace", "lora_name")
        folder = await asyncio.to_thread(inside, root, body.lora_path)
        try:
            await model.load_adapter(body.lora_name, folder, replace=body.load_inplace)
        except ModelFileError as error:
            raise bad(without_root(str(error), root), "lora_path", "invalid_adapter") from None
        except OSError as error:
            raise bad(f"the adapter cannot be read: {error.strerror}", "lora_path", "invalid_adapter") from None
        except ConfigError as error:
            raise bad(without_root(str(error), root), "lora_name", "adapter_refused") from None
    await models.cache_fingerprint(body.lora_name)
    return reply({"status": "loaded", "id": body.lora_name})


async def unload_adapter(state: OpenAIState, request: ActiveRequest) -> Reply:
    """Unload a LoRA adapter. Requests under way end with it; new ones do not find it."""
    _check_allowed(request)
    body = read(UnloadAdapterRequest, request.json())
    model = _adapter_model(state.models)
    if body.lora_name not in state.models.adapters:
        raise Refusal(
            404, f"there is no adapter {body.lora_name!r:.120} here", param="lora_name", code="model_not_found"
        )
    await model.unload_adapter(body.lora_name)
    return reply({"status": "unloaded", "id": body.lora_name})


def inside(root: Path | None, path: str) -> Path:
    """The folder of an adapter, from a path relative to the allowed folder or a whole one. Links are followed first.

    A path outside is refused in the same words whether it exists or not.
    """
    if root is None:
        raise Refusal(404, "adapters cannot be loaded here: the server was started without --adapter-root")
    refusal = bad(
        f"lora_path is {path!r:.200}: give a folder with an adapter within the server's folder of adapters", "lora_path"
    )
    try:
        whole = root.resolve(strict=True)
        folder = (whole / path).resolve(strict=True)
        files = [(folder / name).resolve(strict=True) for name in FILES] if folder.is_relative_to(whole) else []
    except (OSError, RuntimeError, ValueError):
        raise refusal from None
    if not files or not all(file.is_relative_to(whole) and file.is_file() for file in files):
        raise refusal
    return folder


def without_root(text: str, root: Path | None) -> str:
    """The text of an error without the place of the adapter folder, which clients must not learn."""
    return text if root is None else text.replace(f"{root.resolve()}{os.sep}", "")


def _check_allowed(request: ActiveRequest) -> None:
    """Refuse a client whose key does not allow loading adapters."""
    if not request.client.load_adapters:
        raise Refusal(
            403,
            f"the key of {request.client.name!r} is not for loading adapters: ask the server's operator",
            code="adapters_not_allowed",
        )


def _adapter_model(models: ServedModels) -> AdapterModel:
    """The model, if it takes adapters."""
    if models.adapter_model is None:
        raise Refusal(501, f"{models.name} does not run here, or takes no adapters", code="no_adapters")
    return models.adapter_model
