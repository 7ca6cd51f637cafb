"""What a GPU does, held to the plain way: all but the capture of graphs on the CPU, the rest where there is a GPU."""

import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from random import Random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine_tiny import VOCAB, drain, logprobs, tiny_model, tokens
from firsthand import catalog, cli
from firsthand.engine.compute.devices import kv_bytes_on, pick_device
from firsthand.engine.compute.module_runner import kernel_error, summary
from firsthand.engine.compute.runner import Runner
from firsthand.engine.compute.static_step import SIZES, StaticAttend, StaticStep, without_capture
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.engine.decoding.sampler import choose
from firsthand.errors import ConfigError
from firsthand.kernels.attention import gather
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import Cache

HAS_CUDA = torch.cuda.is_available()
BLOCK = 8
"""No multiple of 16, so the model goes through its modules on the CPU too, as on a GPU."""
SETTINGS = [
    Sampling(temperature=1.0, seed=5),
    Sampling(temperature=0.7, top_p=0.9, seed=6),
    Sampling(temperature=1.5, top_k=12, min_p=0.01, seed=7),
    Sampling(),
    Sampling(temperature=1.0, repetition_penalty=1.3, top_logprobs=2, seed=8),
    Sampling(temperature=0.0, logit_bias=((3, 2.0),)),
]


def engine(graphs: str, *, window: int | None = None, device: str = "cpu", **settings: object) -> Engine:
    config = EngineConfig(
        block_size=BLOCK,
        weights="float32",
        kv_cache="float32",
        kv_memory_bytes=1 << 21,
        graphs=graphs,
        **settings,  # type: ignore[arg-type]
    )
    return Engine(tiny_model(window=window).to(device), config)


class Gpus:
    """Two GPUs of 80 GiB, with 10 GiB free on the first and 70 on the second."""

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return (10 << 30, 70 << 30)[device.index], 80 << 30


def test_memory_for_keys_and_values_is_a_share_of_the_gpus_own() -> None:
    assert kv_bytes_on(torch.device("cuda", 0), Gpus()) == 5 << 30
    assert kv_bytes_on(torch.device("cuda", 1), Gpus()) == 35 << 30, "neither the host's memory nor the other GPU's"
    assert 1 << 20 < kv_bytes_on(torch.device("cpu"), Gpus()) <= 2 << 30


def served(engine: Engine) -> dict[tuple[int, int], list[Output]]:
    random = Random(3)
    for sampling in SETTINGS * 2:
        prompt = tuple(random.randrange(VOCAB) for _ in range(random.randrange(1, 40)))
        most = random.randrange(1, 60)
        n = random.choice([1, 1, 2])
        engine.add(Request(prompt, Sampling(**{**vars(sampling), "max_tokens": most}), n=n))
    return drain(engine)


def assert_same(one: dict[tuple[int, int], list[Output]], other: dict[tuple[int, int], list[Output]]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert tokens(one[key]) == tokens(other[key])
        assert logprobs(one[key]) == pytest.approx(logprobs(other[key]), abs=1e-4)


def chunk_of(runner: Runner, table: list[int], position: int, token: int = 1) -> SequenceChunk:
    line = Sequence(0, 0, [token] * (position + 1), 1, table=table, num_computed=position)
    return SequenceChunk(line, position, position + 1)


# The padded step on the CPU


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 9])
def test_padded_steps_bring_what_steps_of_any_shape_bring(window: int | None) -> None:
    padded, plain = engine("on", window=window), engine("off", window=window)
    assert padded.runner.fused is None and padded.runner.modules is not None
    assert_same(served(padded), served(plain))
    assert padded.runner.modules.steps is not None and len(padded.runner.modules.steps) > 2
    assert plain.runner.modules is not None and plain.runner.modules.steps is None


def test_padding_touches_no_block_of_a_sequence() -> None:
    runner = Runner(tiny_model(), num_blocks=40, block_size=BLOCK, graphs=True)
    for pages in runner.pages:
        for tensor in pages.tensors:
            tensor.normal_()
            tensor[40] = torch.nan  # what lies in the spare block reaches nobody
    chunks = [chunk_of(runner, [7, 3], 9), chunk_of(runner, [12], 0), chunk_of(runner, [20, 21, 22], 23)]
    before = [[tensor.clone() for tensor in pages.tensors] for pages in runner.pages]
    hidden_ND = runner.hidden(chunks)
    assert hidden_ND.shape[0] == 3 and bool(hidden_ND.isfinite().all())
    for pages, were in zip(runner.pages, before, strict=True):
        keys_BS = (pages.keys != were[0]).any(1).any(1)
        values_BS = (pages.values != were[1]).any(1).any(2)
        for changed_BS in (keys_BS, values_BS):
            assert {tuple(place) for place in changed_BS[:40].nonzero().tolist()} == {(3, 1), (12, 0), (22, 7)}


class Shapes(TorchDispatchMode):
    """Writes down each operation of torch with the shapes that came in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        flat = [*args, *(kwargs or {}).values()]
        self.seen.append((str(func), [tuple(each.shape) for each in flat if isinstance(each, torch.Tensor)]))
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def test_every_replay_of_a_step_is_the_same_operations_on_the_same_shapes_and_memory() -> None:
    runner = Runner(tiny_model(window=9), num_blocks=40, block_size=BLOCK, graphs=True)
    step = StaticStep(
        runner.model, runner.cache, rows=4, width=16, padding_blocks=[40], block_size=BLOCK, decode=gather.decode
    )
    step.fill([chunk_of(runner, [1], 0)])
    without_capture(step.compute)()  # tables of angles are made once
    inputs, seen = step._inputs.data_ptr(), []
    for lengths in ([3], [5, 100, 7, 30], [127, 0]):
        step.fill([chunk_of(runner, list(range(2 + i, 19 + i)), length) for i, length in enumerate(lengths)])
        with Shapes() as shapes:
            step.compute()
        seen.append(shapes.seen)
        assert step._inputs.data_ptr() == inputs
    assert len(seen[0]) > 50 and seen[0] == seen[1] == seen[2]


def test_steps_are_found_by_their_rounded_size_and_larger_ones_run_without() -> None:
    runner = Runner(tiny_model(max_position=2048), num_blocks=300, block_size=BLOCK, graphs=True)
    assert runner.modules is not None and runner.modules.steps is not None
    for rows in (1, 3, 4, 3):
        runner.hidden([chunk_of(runner, [i], 2) for i in range(rows)])
    assert len(runner.modules.steps) == 2  # of 1 and of 4
    runner.hidden([chunk_of(runner, list(range(17)), 130)])
    assert len(runner.modules.steps) == 3  # a wider table
    runner.hidden([chunk_of(runner, [i], 2) for i in range(SIZES[-1] + 1)])
    assert len(runner.modules.steps) == 3
    runner.refresh()
    assert len(runner.modules.steps) == 0


# What a graph can hold


@pytest.mark.parametrize("windows", [(None, None), (9, None)])
@torch.no_grad()
def test_a_step_asks_nothing_back_and_leaves_nothing_on_the_host(windows: tuple[int | None, int | None]) -> None:
    meta = torch.device("meta")  # shapes without memory: a value that is asked for, or a tensor from the host, raises
    model = tiny_model(window=windows[0]).to(meta, torch.bfloat16)
    cache = Cache.empty(model.architecture, 30, 16, torch.bfloat16, meta, num_near=9 if windows[0] else None)
    assert cache.pages[0].keys.stride(2) == 1, "the numbers of a slot lie together"
    ids_N, positions_N = (torch.zeros(4, dtype=torch.long, device=meta) for _ in range(2))
    tables_TNW = torch.zeros(2, 4, 16, dtype=torch.long, device=meta)
    hidden_ND = model(ids_N, positions_N, StaticAttend(cache, tables_TNW, positions_N, 16, gather.decode))
    draws = [
        None,
        DrawSettings(1.0, 0, 0.9, 0.0, 0.5),
        DrawSettings(1.0, 0, 1.0, 0.0, 0.5),
        DrawSettings(1.0, 5, 1.0, 0.1, 0.5),
    ]
    found = summary(model.logits(hidden_ND), draws)
    assert found.is_meta and found.shape == (6, 4)
    with pytest.raises(RuntimeError, match="meta"):
        found[0, 0].item()
    with pytest.raises(RuntimeError, match="meta"):
        found + torch.zeros(6, 4)


def test_many_rows_drawn_at_once_are_what_each_alone_is() -> None:
    random, made = Random(0), torch.Generator().manual_seed(0)
    logits_MV = 3 * torch.randn(400, 500, generator=made)
    draws = [
        DrawSettings(
            random.choice([0.3, 1.0, 2.0]),
            random.choice([0, 0, 1, 7, 900]),
            random.choice([1.0, 1.0, 0.001, 0.4, 0.95]),
            random.choice([0.0, 0.0, 0.05, 1.0]),
            random.random(),
        )
        if random.random() < 0.9
        else None
        for _ in range(400)
    ]
    best_M = logits_MV.argmax(-1)
    drawn = draw_rows(logits_MV, draws, otherwise=best_M)
    found, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
    for row, draw in enumerate(draws):
        if draw is None:
            assert (found[row], logprobs[row]) == (int(best_M[row]), 0.0)
            continue
        sampling = Sampling(temperature=draw.temperature, top_k=draw.top_k, top_p=draw.top_p, min_p=draw.min_p)
        alone = choose(logits_MV[row], sampling, number=draw.number, prompt=(), counts=Counter())
        assert found[row] == alone.token and logprobs[row] == pytest.approx(alone.logprob, abs=1e-5)


def test_logits_that_are_not_numbers_draw_a_token_inside_the_vocabulary() -> None:
    logits_MV = torch.randn(3, 50)
    logits_MV[1, 7], logits_MV[2, 9] = torch.nan, torch.inf
    for draw in (
        DrawSettings(1.0, 0, 1.0, 0.0, 0.999),
        DrawSettings(1.0, 0, 0.5, 0.0, 0.999),
        DrawSettings(1.0, 4, 1.0, 0.1, 0.0),
    ):
        assert all(
            0 <= token < 50
            for token in draw_rows(logits_MV, [draw] * 3, otherwise=logits_MV.argmax(-1)).tokens.tolist()
        )


# Saying where to compute


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU")
def test_without_cuda_a_device_is_refused_in_one_sentence(tmp_path, capsys) -> None:
    from tiny import write_model

    folder = write_model(tmp_path / "model")
    for command in (["run", "arithmetic", "--limit", "1", "--model"], ["serve"], ["chat"], ["bench"]):
        assert cli.main([*command, str(folder), "--device", "cuda"]) != 0
        said = capsys.readouterr().err
        assert "device is 'cuda'" in said and "no CUDA here" in said and "Traceback" not in said
    if torch.version.cuda is None:
        with pytest.raises(ConfigError, match="built without CUDA"):
            pick_device("cuda:1")
    assert pick_device("auto") == "cpu" == catalog.model(str(folder), device="auto").config.device  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="does not run here"):
        catalog.model("openai:gpt@http://localhost:1/v1", device="cuda")


# The Triton kernel, without a GPU

INTERPRETED = """
import torch
from firsthand.engine.compute.module_runner import kernel_error
from firsthand.kernels.attention import gather, paged_triton
from firsthand.kernels.attention.kv_pages import Pages

cpu = torch.device("cpu")
assert kernel_error(paged_triton.decode, cpu, torch.float32) < 1e-4
torch.manual_seed(0)
for kv_heads, group, dim, size, dtype, window in [
    (3, 3, 64, 16, torch.float32, None), (2, 7, 80, 16, torch.float32, 20), (1, 1, 128, 8, torch.float16, None),
    (2, 4, 64, 16, torch.int8, 100),
]:
    pages = Pages.empty(60, kv_heads, size, dim, dtype, cpu)
    for tensor in pages.tensors:
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)  # what was never written is never used
    tables, positions = torch.randperm(60)[:36].view(3, 12), torch.tensor([0, 70, 12 * size - 1])
    for table, position in zip(tables, positions.tolist()):
        at = torch.arange(position + 1)
        k, v = torch.randn(2, len(at), kv_heads, dim)
        gather.store(k, v + 1, pages, table[at // size], at % size)
    q = torch.randn(3, kv_heads * group, dim, dtype=torch.float16 if dtype == torch.float16 else torch.float32)
    settings = {"scale": dim**-0.5, "window": window}
    plain = gather.decode(q, pages, tables, positions, **settings)
    found = paged_triton.decode(q, pages, tables, positions, **settings)
    assert (plain - found).abs().max() < (2e-3 if dtype == torch.float16 else 1e-4), (dtype, window)
    alone = paged_triton.decode(q[1:2], pages, tables[1:2], positions[1:2], **settings)
    assert torch.equal(alone[0], found[1])  # whoever is beside it
print("agrees")
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from firsthand.kernels.attention.paged_triton import _piece

for kv, group, dim, window, capability in [("bf16", 3, 64, 0, 90), ("i8", 7, 80, 512, 80)]:
    fixed = dict(num_kv_heads=2, window=window, block_size=16, group=group, head_dim=dim, ROWS=16,
                 WIDTH=triton.next_power_of_2(dim), is_scaled=kv == "i8", SPLITS=16, TILE=64)
    kinds = {"q": "*bf16", "keys": "*" + kv, "values": "*" + kv, "scale": "fp32",
             **dict.fromkeys(["tables", "positions"], "*i64"),
             **dict.fromkeys(["key_scales", "value_scales", "sums", "tops", "weights"], "*fp32")}
    names = _piece.arg_names
    signature = {name: "constexpr" if name in fixed else kinds.get(name, "i32") for name in names}
    source = ASTSource(_piece, signature, {(names.index(name),): value for name, value in fixed.items()})
    made = compile(source, target=GPUTarget("cuda", capability, 32)).asm
    assert "cubin" in made and "mma" in made["ptx"]
print("compiled")
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize(("program", "said", "interpret"), [(INTERPRETED, "agrees", "1"), (COMPILED, "compiled", "0")])
def test_the_triton_kernel(program: str, said: str, interpret: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == said


# On a GPU

gpu = pytest.mark.skipif(not HAS_CUDA, reason="needs a GPU")


@gpu
@pytest.mark.parametrize("window", [None, 9])
def test_graphs_on_a_gpu_bring_what_steps_without_bring_and_what_the_cpu_brings(window: int | None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    plain = served(engine("off", window=window, device="cuda"))
    graphs = engine("on", window=window, device="cuda")
    assert_same(served(graphs), plain)
    assert_same(plain, served(engine("off", window=window)))
    assert graphs.runner.modules is not None and graphs.runner.modules.steps is not None  # nothing fell back
    assert len(graphs.runner.modules.steps) > 2


@gpu
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)])
def test_the_triton_kernel_on_a_gpu_is_plain_attention(dtype: torch.dtype, most: float) -> None:
    from firsthand.kernels.attention import paged_triton

    assert kernel_error(paged_triton.decode, torch.device("cuda"), dtype) < most


@gpu
def test_new_weights_reach_the_graphs() -> None:
    one, other = engine("on", device="cuda"), engine("on", device="cuda")
    served(one)
    state = {name: tensor.cuda() for name, tensor in tiny_model(seed=9).state_dict().items()}
    for each in (one, other):
        each.load(state, version=2)
    prompt = Request((1, 2, 3), Sampling(max_tokens=20))
    assert one.add(prompt) and other.add(prompt) == 0
    (first,), (second,) = drain(one).values(), drain(other).values()
    assert tokens(first) == tokens(second)
