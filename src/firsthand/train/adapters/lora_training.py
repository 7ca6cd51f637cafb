"""Puts a trainable adapter beside a model's frozen weights, and takes it out again or merges it.

`add_lora` changes a Decoder in place; the result trains like any other, with the adapter's parameters alone asking for
gradients. `adapter_of` is the adapter by itself, for `Engine.load_adapter` and for files (`save_adapter`);
`merged_state` and `merged` are the weights with the adapter in them, for `Engine.load` and `weights.save`.
"""

# D in, O out, r rank

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError, nearest
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import (
    Adapter,
    Base,
    LoRALinear,
    LowRankUpdate,
    attach,
    has_magnitudes,
    read_adapter,
    row_lengths,
    whole_tensor,
)
from firsthand.nn.nf4 import FourBitLinear, to_four_bits
from firsthand.nn.quant import BlockLinear, DenseLinear
from firsthand.nn.routed_lora import RoutedLinear, agents_of, attach_agents
from firsthand.train.adapters.adapter_memory import training_memory
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig


def add_lora(model: Decoder, config: LoRAConfig) -> Decoder:
    """Freezes the model in place and puts a fresh adapter beside it, which changes no output yet; returns the model.

    The weights may be floats or stay in a GGUF file's blocks (`weights.load(path, keep_blocks=True)`). ConfigError for a
    target that the model does not have, or a model that has an adapter.
    """
    frozen(model, config)
    return attach(model, fresh_adapter(model, config), dropout=config.dropout)


def frozen(model: Decoder, config: LoRAConfig) -> Decoder:
    """Freezes the model in place, with its weights as the configuration keeps them; returns it.

    ConfigError for a target that the model does not have, or a model that has an adapter.
    """
    for name in adapted(model, config.targets):
        module = model.get_submodule(name)
        if not isinstance(module, Base):
            raise ConfigError(f"{name} is a {type(module).__name__}: merge the model's adapter before you add another")
    model.requires_grad_(False)
    if config.base != "kept":
        packed = [name for name in model.matrices() if not isinstance(model.get_submodule(name), nn.Linear)]
        if packed:
            raise ConfigError(
                f"{packed[0]} is quantised already: base={config.base!r} needs a model with float weights"
            )
        to_four_bits(model, model.matrices(), levels=config.base)
    return model


def fresh_adapter(model: Decoder, config: LoRAConfig) -> Adapter:
    """Returns an adapter that changes nothing yet."""
    generator = torch.Generator().manual_seed(config.seed)
    targets = adapted(model, config.targets)
    updates = {f"{name}.weight": _fresh(model.get_submodule(name), config, generator) for name in targets}
    return Adapter(Path("fresh"), updates)


def with_adapter(
    model: Decoder, settings: AdapterSettings, *, seed: int, agents: Sequence[str] = (), verbose: bool = True
) -> Decoder:
    """The model as a recipe's settings ask: as it is, or with an adapter, or one for each agent; memory is printed.

    An adapter is fresh, or the one to begin with. ConfigError for blocks that the model's file does not have, and for
    agents without adapters.
    """
    config = settings.config(seed)
    has_blocks = any(isinstance(module, BlockLinear) for module in model.modules())
    if settings.base_weights == "blocks" and not (has_blocks and config):
        raise ConfigError(
            "base_weights is 'blocks', which needs an adapter and a GGUF file with quantised blocks: give --adapter lora "
            "and such a file, or --base-weights nf4"
        )
    if agents and not (config is not None and config.kind == "lora" and not config.dropout):
        raise ConfigError(
            f"agents are {', '.join(agents)}, and each has an adapter beside shared weights: give --adapter lora or rslora, "
            "without dropout"
        )
    if config is None:
        return model
    frozen(model, config)
    if agents:
        attach_agents(model, {name: _first(model, settings, replace(config, seed=seed + at), name)
                              for at, name in enumerate(agents)})  # fmt: skip
    else:
        attach(model, _first(model, settings, config), dropout=config.dropout)
    if verbose:
        print(training_memory(model))
    return model


def _first(model: Decoder, settings: AdapterSettings, config: LoRAConfig, agent: str = "") -> Adapter:
    """The adapter that training begins with. ConfigError for one of another kind or of other matrices than asked for."""
    if settings.begin_with is None:
        return fresh_adapter(model, config)
    found = read_adapter(first_folder(settings.begin_with, agent), model)
    kind = "dora" if has_magnitudes(found) else "lora"
    if kind != config.kind:
        raise ConfigError(
            f"adapter is {settings.adapter}, and begin_with is an adapter of the kind {kind}: give --adapter {kind}"
        )
    if settings.targets != ("all",):
        places = [name.removesuffix(".weight") for name in found.deltas]
        if set(places) != set(adapted(model, settings.targets)):
            leaves = ", ".join(sorted({place.rpartition(".")[2] for place in places}))
            raise ConfigError(
                f"targets are {', '.join(settings.targets)}, and begin_with is an adapter of other matrices ({leaves}): "
                "leave targets out"
            )
    return found


def first_folder(folder: Path, agent: str = "") -> Path:
    """The folder of the adapter to begin with; of several agents, that of one."""
    if not agent:
        return folder
    return next((each for each in (folder / "adapters" / agent, folder / agent) if each.is_dir()), folder / agent)


def adapted(model: Decoder, targets: tuple[str, ...]) -> list[str]:
    """Returns the places of the matrices that the names mean, in the model's order; ConfigError for an unknown name."""
    places = list(model.matrices())
    if not model.architecture.tie_embeddings:
        places.append("lm_head")
    chosen: set[str] = set()
    for target in targets:
        found = [place for place in places if f".{place}".endswith(f".{target}")]
        if target == "all":
            found = list(model.matrices())
        if target == "lm_head" and not found:
            raise ConfigError("lm_head shares its matrix with the embedding in this model: it cannot be adapted alone")
        if not found:
            leaves = sorted({place.rpartition(".")[2] for place in places})
            close = nearest(target, leaves)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(f"the model has no matrix {target[:80]!r};{hint} it has {', '.join(leaves)}, or all")
        chosen |= set(found)
    return [place for place in places if place in chosen]


def _fresh(module: nn.Module, config: LoRAConfig, generator: torch.Generator) -> LowRankUpdate:
    """An update of 0: A is drawn, B is 0, and with DoRA each row has its own length."""
    assert isinstance(module, Base)
    weight_OD = module.weight.detach()
    outputs, inputs = weight_OD.shape
    if config.init == "kaiming":  # kaiming_uniform(a=sqrt(5)) is uniform within 1 / sqrt(inputs)
        a_rD = (torch.rand(config.rank, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
    else:
        a_rD = torch.randn(config.rank, inputs, generator=generator) / config.rank
    magnitude = row_lengths(weight_OD) if config.kind == "dora" else None
    device, dtype = weight_OD.device, weight_OD.dtype
    b_Or = torch.zeros(outputs, config.rank, device=device, dtype=dtype)
    return LowRankUpdate(a_rD.to(device, dtype), b_Or, config.scale, magnitude)


def adapter_of(model: Decoder, path: Path | str = "trained", *, agent: str = "") -> Adapter:
    """Returns a copy of the model's adapter, or of an agent's, as it stands; ConfigError if it has none."""
    known = agents_of(model)
    if known and agent not in known:
        raise ConfigError(f"no agent {agent!r} has an adapter: there are {', '.join(known)}")
    if known:
        routed = {name: each for name, each in model.named_modules() if isinstance(each, RoutedLinear)}
        updates = {f"{name}.weight": each.adapter(agent).update() for name, each in routed.items()}
        return Adapter(Path(path), updates)
    updates = {
        f"{name}.weight": module.update() for name, module in model.named_modules() if isinstance(module, LoRALinear)
    }
    if not updates:
        raise ConfigError("the model has no adapter: put one beside it with add_lora")
    return Adapter(Path(path), updates)


@torch.no_grad()
def merged_state(model: Decoder, *, adapted: bool = True) -> dict[str, Tensor]:
    """Returns the state of a plain model with the adapter in its weights; the model keeps its own.

    With `adapted` False the adapter stays out; so do those of several agents, none of which is the model's.
    """
    state: dict[str, Tensor] = {}
    beneath = {f"{name}.base" for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    routed = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, RoutedLinear))
    for name, module in model.named_modules():
        if name in beneath or name.startswith(routed):
            continue
        if isinstance(module, LoRALinear | RoutedLinear):
            weight_OD = whole_tensor(module.base.weight)
            state[f"{name}.weight"] = (
                module.update().applied(weight_OD) if adapted and isinstance(module, LoRALinear) else weight_OD.clone()
            )
            if module.base.bias is not None:
                state[f"{name}.bias"] = whole_tensor(module.base.bias).clone()
        elif isinstance(module, FourBitLinear | BlockLinear | DenseLinear):
            state[f"{name}.weight"] = module.weight
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.detach().clone()
        else:
            own = module.named_parameters(prefix=name, recurse=False)
            state |= {place: whole_tensor(parameter).clone() for place, parameter in own}
    return state


def merged(model: Decoder) -> Decoder:
    """Returns a new float model with the adapter in its weights; quantised weights are dequantised."""
    with torch.device("meta"):
        plain = Decoder(model.architecture)
    plain.load_state_dict(merged_state(model), assign=True)
    plain.tie()
    return plain.requires_grad_(True).train(model.training)
