"""Adapters beside the served model: each is a model of its own to clients, and may come and go where the operator allows it.

POST /v1/load_lora_adapter and /v1/unload_lora_adapter are vLLM's. They exist only if the server was started with a folder of
adapters, read nothing outside it, and answer those clients only whom the operator allows it (`keys.py`).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from firsthand.errors import ConfigError, ModelFileError
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.models.served_model import Asked, Door, adapters
from firsthand.serve.openai.request_schema import Wire, read

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@:/+-]{1,256}$")]
FILES = ("adapter_config.json", "adapter_model.safetensors")


class LoadAdapterRequest(Wire):
    """The body of /v1/load_lora_adapter."""

    lora_name: AdapterName
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]
    load_inplace: bool = False
    """Take the place of a loaded adapter of that name."""


class UnloadAdapterRequest(Wire):
    """The body of /v1/unload_lora_adapter."""

    lora_name: AdapterName
    lora_int_id: None = None


async def load_adapter(door: Door, asked: Asked) -> Reply:
    """Load a LoRA adapter beside the model, from within the operator's folder."""
    _check_may(asked)
    wanted = read(LoadAdapterRequest, asked.json())
    model = _model(door)
    if wanted.lora_name in door.names and wanted.lora_name not in adapters(model):
        raise bad(f"lora_name is {wanted.lora_name!r}: that is the model's own name", "lora_name")
    async with door.loading:
        if wanted.lora_name in adapters(model) and not wanted.load_inplace:
            raise bad(
                f"the adapter {wanted.lora_name!r} is loaded already: unload it, or set load_inplace", "lora_name"
            )
        folder = await asyncio.to_thread(inside, door.settings.adapter_root, wanted.lora_path)
        try:
            await model.load_adapter(wanted.lora_name, folder, replace=wanted.load_inplace)
        except ModelFileError as error:
            raise bad(without_root(str(error), door.settings.adapter_root), "lora_path", "invalid_adapter") from None
        except OSError as error:
            raise bad(f"the adapter cannot be read: {error.strerror}", "lora_path", "invalid_adapter") from None
        except ConfigError as error:
            raise bad(without_root(str(error), door.settings.adapter_root), "lora_name", "adapter_refused") from None
    await door.know_fingerprint(wanted.lora_name)
    return reply({"status": "loaded", "id": wanted.lora_name})


async def unload_adapter(door: Door, asked: Asked) -> Reply:
    """Take a LoRA adapter away. Requests under way end with it; new ones do not find it."""
    _check_may(asked)
    wanted = read(UnloadAdapterRequest, asked.json())
    model = _model(door)
    if wanted.lora_name not in adapters(model):
        raise Refusal(
            404, f"there is no adapter {wanted.lora_name!r:.120} here", param="lora_name", code="model_not_found"
        )
    await model.unload_adapter(wanted.lora_name)
    return reply({"status": "unloaded", "id": wanted.lora_name})


def inside(root: Path | None, path: str) -> Path:
    """The folder of an adapter, given within the allowed one or as a whole path; links are followed before it is judged.

    What lies outside is refused in the same words whether it is there or not.
    """
    if root is None:
        raise Refusal(404, "adapters do not come and go here: the server was started without a folder for them")
    refusal = bad(
        f"lora_path is {path!r:.200}: give a folder with an adapter within the server's folder of adapters", "lora_path"
    )
    if "\0" in path:
        raise refusal
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
    """What an error says without where the folder of adapters is, which is no client's business."""
    return text if root is None else text.replace(f"{root.resolve()}{os.sep}", "")


def _check_may(asked: Asked) -> None:
    """Refuse a client whose key is not for this."""
    if not asked.client.load_adapters:
        raise Refusal(
            403,
            f"the key of {asked.client.name!r} is not for loading adapters: ask the server's operator",
            code="adapters_not_allowed",
        )


def _model(door: Door) -> Any:
    """The served model, if adapters can be beside it."""
    if not hasattr(door.model, "load_adapter"):
        raise Refusal(501, f"{door.name} does not run here, or takes no adapters", code="no_adapters")
    return door.model
