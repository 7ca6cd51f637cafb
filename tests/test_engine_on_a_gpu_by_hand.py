"""What an engine does where there is a GPU, on a stand-in of `torch.cuda`: devices, their memory, and captured steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from firsthand.engine.compute import devices
from firsthand.engine.compute.static_step import GraphCapture, without_capture
from firsthand.errors import ConfigError

BUILD = "torch was built without CUDA"


def cuda(patch: pytest.MonkeyPatch, *, built: str | None, gpus: int) -> None:
    """Have `torch.cuda` say that it was built for a version of CUDA, and that there are so many GPUs."""
    patch.setattr(torch.version, "cuda", built)
    patch.setattr(torch.cuda, "is_available", lambda: built is not None and gpus > 0)
    patch.setattr(torch.cuda, "device_count", lambda: gpus)
    patch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    patch.setattr(torch.cuda, "mem_get_info", lambda device: (7 + torch.device(device).index, 90))


def refused(name: str) -> str:
    with pytest.raises(ConfigError) as told:
        devices.pick_device(name)
    return str(told.value)


def test_auto_takes_a_gpu_that_is_there_and_a_missing_one_is_refused_by_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda(monkeypatch, built="12.4", gpus=2)
    assert [devices.pick_device(name) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")] == [
        "cuda", "cpu", "cuda", "cuda:0", "cuda:1",
    ]  # fmt: skip
    assert refused("cuda:2") == "device is 'cuda:2', and there are 2 GPUs here, from cuda:0 on"
    assert devices.device_line("cuda:1") == "; computed on GPU cuda:1, CUDA 12.4" and devices.device_line("cpu") == ""
    second = torch.device("cuda", 1)
    assert devices.torch_name(second) == f"torch {torch.__version__} on GPU cuda:1"
    assert (
        devices.free_bytes_on(second) == 8
        and devices.kv_bytes_on(second, SimpleNamespace(mem_get_info=lambda _: (9, 90))) == 4
    )
    cuda(monkeypatch, built="12.4", gpus=0)
    assert devices.pick_device("auto") == devices.pick_device("cpu") == "cpu"
    assert refused("cuda") == (
        "device is 'cuda', and there is no CUDA here: torch finds no GPU that it can use; leave it at cpu"
    )
    cuda(monkeypatch, built=None, gpus=0)
    assert devices.pick_device("auto") == "cpu" and refused("cuda:0") == (
        f"device is 'cuda:0', and there is no CUDA here: {BUILD} (it is {torch.__version__}); install torch's CUDA build "
        "(https://pytorch.org/get-started), or leave it at cpu"
    )


class Stream:
    """A stream that writes down whom it waits for."""

    def __init__(self, name: str, done: list[Any]):
        self.name, self.done = name, done

    def wait_stream(self, other: Stream) -> None:
        self.done.append((self.name, "waits for", other.name))


def test_a_step_is_run_twice_beside_then_captured_for_this_thread_alone_and_replayed_by_each_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Any] = []
    current = Stream("current", done)

    class Graph:
        def replay(self) -> None:
            done.append("replay")
            result.add_(1)

    @contextmanager
    def within(name: str, *given: Any, **options: Any) -> Iterator[None]:
        done.append((name, *(type(each).__name__ for each in given), options))
        yield
        done.append(f"end of {name}")

    put: dict[str, Callable[..., Any]] = {
        "graph_pool_handle": lambda: "pool",
        "Stream": lambda: Stream("beside", done),
        "current_stream": lambda: current,
        "CUDAGraph": Graph,
        "stream": lambda stream: within("stream", stream),
        "graph": lambda graph, **options: within("graph", graph, **options),
    }
    for name, made in put.items():
        monkeypatch.setattr(torch.cuda, name, made)
    result = torch.zeros(2)

    def compute() -> torch.Tensor:
        done.append("compute")
        return result

    replay = GraphCapture()(compute)
    assert done == [
        ("beside", "waits for", "current"),
        ("stream", "Stream", {}), "compute", "compute", "end of stream",
        ("current", "waits for", "beside"),
        ("graph", "Graph", {"pool": "pool", "capture_error_mode": "thread_local"}), "compute", "end of graph",
    ]  # fmt: skip
    done.clear()
    assert replay() is result and replay() is result and result.tolist() == [2.0, 2.0]
    assert done == ["replay", "replay"], "nothing is computed anew"
    assert without_capture(compute) is compute
