"""Imports run downhill, and nothing but the tensor rooms needs torch."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import firsthand
from firsthand import catalog

ROOT = Path(firsthand.__file__).parent

NOUNS = [
    "errors",
    "message",
    "chat_messages",
    "grammar",
    "sampling",
    "model",
    "loop.request_key",
    "loop.prompt_size",
    "loop.warm_up",
    "loop.reply_body",
    "loop.endpoint_pace",
    "loop.concurrency",
    "declaration",
    "tool_arguments",
    "tool",
    "tool_source",
    "loop.max_wait",
    "task",
    "loop.journal",
    "loop.asked_at",
    "trace_body",
    "trace",
    "tool_calls",
    "loop.private_texts",
    "preference",
    "loop.protection",
    "loop.listener",
    "loop.budget",
    "loop.call_cost",
    "benchmark",
    "loop.form",
    "loop.approval",
    "guard",
    "memory",
    "loop.pattern_options",
    "agent",
    "loop.attempt_memory",
    "loop.open_sources",
    "loop.attempt",
    "loop.borders",
    "loop.calling",
    "loop.tool_call",
    "loop.world_model",
    "loop.consultation",
    "context",
    "rollout",
]
"""Level 0, each importing only those before it."""
ANYWHERE = ["system", "config", "catalog", "loop.concurrency", "__version__"]
EDGES = {
    # 1 tensors
    "formats": "",
    "kernels": "",
    "nn": "formats kernels",
    "tokens": "formats",
    "engine": "nn kernels tokens",
    "embed": "nn tokens formats",
    "measure": "engine embed nn kernels",
    # 2 hands
    "hub": "formats measure embed nn tokens",
    "providers": "hub engine embed nn tokens",
    "sandbox": "",
    "tools": "sandbox",
    "runs": "",
    "telemetry": "",
    "cluster": "runs providers engine hub",
    # 3 thinking
    "safety": "",
    "messaging": "runs",
    "patterns": "tokens messaging safety",
    "retrieval": "tools kernels providers patterns tokens hub sandbox",
    "reading": "retrieval",
    "memories": "runs retrieval providers",
    "ingest": "runs safety tools",
    # 4 judging
    "stats": "runs",
    "scorers": "stats patterns sandbox tools providers",
    "show": "stats scorers runs",
    # 5 content
    "perturbations": "scorers stats",
    "experiment": "scorers runs providers hub cluster telemetry retrieval stats",
    "bridges": "scorers stats sandbox tools runs safety providers",
    "worlds": "scorers patterns providers tools sandbox tokens",
    "benchmarks": "bridges scorers patterns providers hub tools sandbox tokens retrieval worlds perturbations reading",
    # 6 learning
    "train": "nn formats runs benchmarks engine hub providers tokens retrieval patterns cluster worlds",
    "interp": "nn train tokens engine hub stats formats patterns",
    # 7 questions
    "arena": "benchmarks patterns stats runs",
    "boards": "benchmarks scorers stats runs show",
    "contamination": "kernels stats scorers",
    "claims": "arena benchmarks boards contamination engine experiment hub interp kernels memories messaging nn patterns"
    " providers retrieval runs safety scorers show stats tokens tools train",
    # 8 doors
    "__init__": "experiment ingest",
    "serve": "cluster telemetry tokens retrieval experiment runs stats tools",
    "studio": "stats show runs ingest arena experiment scorers",
    "commands": "studio arena experiment train serve show stats scorers patterns cluster telemetry runs providers hub"
    " measure embed engine retrieval memories tools tokens worlds ingest safety bridges interp boards contamination reading"
    " claims",
    "cli": "",
    "__main__": "cli",
}
"""The rooms that a room may import besides level 0."""
TORCH_FREE = (
    "interp.feature_files",
    "interp.rule_explanations",
    "interp.sae_shelf",
    "nn.architecture",
    "nn.encoder_decoder_architecture",
    "nn.families",
    "nn.families.bart",
    "nn.families.bert",
    "nn.families.bloom",
    "nn.families.deepseek",
    "nn.families.deepseek_gguf",
    "nn.families.gemma",
    "nn.families.gemma2",
    "nn.families.gpt2",
    "nn.families.gpt_oss",
    "nn.families.llama",
    "nn.families.mixtral",
    "nn.families.mpt",
    "nn.families.olmo2",
    "nn.families.phi3",
    "nn.families.qwen",
    "nn.families.qwen_moe",
    "nn.families.rope_config",
    "nn.families.shared_fields",
    "nn.families.smollm3",
    "nn.families.stablelm",
    "nn.families.starcoder2",
    "nn.families.t5",
    "nn.matrices",
    "nn.gguf_recipes",
    "nn.model_config",
    "nn.packed_format",
    "nn.sites",
    "nn.weight_layout",
    "nn.weight_names",
    "train.adapters",
    "train.adapters.adapter_settings",
    "train.adapters.lora_config",
    "train.advantages",
    "train.data_order",
    "train.doctor",
    "train.episodes",
    "train.importance",
    "train.live_line",
    "train.policy_streams",
    "train.preference_settings",
    "train.recipe_settings",
    "train.recipes",
    "train.recipes.cispo",
    "train.recipes.dapo",
    "train.recipes.distill",
    "train.recipes.dpo",
    "train.recipes.dr_grpo",
    "train.recipes.grpo",
    "train.recipes.gspo",
    "train.recipes.ipo",
    "train.recipes.kto",
    "train.recipes.orpo",
    "train.recipes.ppo",
    "train.recipes.pretrain",
    "train.recipes.reinforce",
    "train.recipes.rejection",
    "train.recipes.reward",
    "train.recipes.rloo",
    "train.recipes.selfrag",
    "train.recipes.sft",
    "train.recipes.simpo",
    "train.recipes.toy_player",
    "train.recipes.toy_reasoner",
    "train.recipes.toy_writer",
    "train.rollout_settings",
    "train.scaling",
    "train.scaling.bootstrap_fit",
    "train.scaling.compute_frontier",
    "train.scaling.compute_planner",
    "train.scaling.flop_counts",
    "train.scaling.hidden_markov",
    "train.scaling.laws",
    "train.scaling.parametric_fit",
    "train.scaling.scaling_points",
    "train.scaling.sweep_config",
    "train.schedules",
    "train.streams",
    "train.sweep",
    "train.sweep_space",
)
"""Modules of tensor rooms that import without torch: readers and declarations."""
LAZY_ROOMS = ("claims",)
"""Rooms that import torch inside functions alone, and load without it."""
TENSOR_ROOMS = ("nn", "kernels", "tokens", "engine", "embed", "measure", "train", "interp")


@cache
def imports_of(file: Path) -> frozenset[str]:
    """The firsthand modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] == "firsthand" and "." in name)


def nodes_of(path: Path, pattern: str) -> list[ast.AST]:
    """The nodes of a file's tree; none, without parsing it, if no line of the file fits a regular expression."""
    text = path.read_text()
    return list(ast.walk(ast.parse(text))) if re.search(pattern, text, re.MULTILINE) else []


def room_of(module: str) -> str:
    return module.split(".")[1]


def files() -> list[tuple[str, Path]]:
    return [(".".join(p.relative_to(ROOT.parent).with_suffix("").parts), p) for p in sorted(ROOT.rglob("*.py"))]


def test_every_file_has_its_place_in_the_house():
    known = {"__init__", *(noun.split(".")[0] for noun in NOUNS), *ANYWHERE, *EDGES}
    assert {room_of(name) for name, _ in files()} <= known


def place(module: str) -> str:
    """The noun, or else the room, that a module or a name in a module belongs to."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if ".".join(parts[:2]) in (*NOUNS, *ANYWHERE) else parts[0]


def is_allowed(importer: str, imported: str) -> bool:
    source, target = place(importer), place(imported)
    if source == target or target in ANYWHERE or target == "loop":
        return True
    if source in NOUNS:
        return target in NOUNS and NOUNS.index(target) < NOUNS.index(source)
    return target in NOUNS or target in EDGES.get(source, "").split()


def test_imports_run_downhill():
    uphill = [f"{name} imports {to}" for name, path in files() for to in imports_of(path) if not is_allowed(name, to)]
    assert uphill == []


def test_the_edges_between_rooms_have_no_circle():
    order: list[str] = []
    left = {room: set(below.split()) for room, below in EDGES.items()}
    while left:
        free = [room for room, below in left.items() if below <= set(order)]
        assert free, f"these import each other: {sorted(left)}"
        order += free
        left = {room: below for room, below in left.items() if room not in free}


def test_no_modules_import_each_other():
    paths = {name.removesuffix(".__init__"): path for name, path in files()}
    edges = {name: imports_of(path) & paths.keys() - {name} for name, path in paths.items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        raise AssertionError(f"these import each other: {' <- '.join(error.args[1])}") from None


def test_every_allowed_edge_is_used():
    used = {(place(name), place(imported)) for name, path in files() for imported in imports_of(path)}
    idle = [
        f"{room} -> {target}" for room, below in EDGES.items() for target in below.split() if (room, target) not in used
    ]
    assert idle == []


FINDERS = ("firsthand", "firsthand.catalog", "firsthand.cli", "firsthand.commands.completion")
"""The files that find modules by name: things by place, and the public names."""


def test_a_file_is_parsed_where_a_line_fits(tmp_path: Path):
    (tmp_path / "a.py").write_text("x = 1\nimport torch\n")
    assert [type(node) for node in nodes_of(tmp_path / "a.py", r"^import\b")][:3] == [
        ast.Module,
        ast.Assign,
        ast.Import,
    ]
    assert nodes_of(tmp_path / "a.py", r"^from\b") == []


def test_no_edge_hides_in_a_string():
    rooms = "|".join([*EDGES, "loop", "system"])
    hidden = [
        f"{name}: {node.value}"
        for name, path in files()
        for node in nodes_of(path, r"['\"]firsthand\.\w")
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.match(rf"firsthand\.({rooms})(\.|$)", node.value)
        and name.removesuffix(".__init__") not in FINDERS
    ]
    assert hidden == []


SAME_NAME: dict[str, str] = {
    "toolformer.py": "the recipe, and the pattern that decodes with its models; both are typed by the paper's name",
}
"""File names that may occur twice, each with the reason; a command's file is named after what is typed."""


def test_no_two_files_have_one_name():
    by_name: dict[str, list[str]] = {}
    commands = catalog.names("command")
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py" and not (path.parent == ROOT / "commands" and path.stem in commands):
            by_name.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: places for name, places in by_name.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in SAME_NAME} == {}
    assert set(SAME_NAME) <= set(twice), "an exception that is no longer needed is taken out"


def test_only_benchmarks_lie_flat_in_their_room():
    flat = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__")
    assert flat == sorted(catalog.names("benchmark"))


def test_relative_imports_do_not_hide_an_edge():
    hidden = [
        name
        for name, path in files()
        for node in nodes_of(path, r"\bfrom\s*\.")
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert hidden == []


def test_only_tensor_rooms_import_torch():
    for name, path in files():
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in nodes_of(path, r"\btorch\b")
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        if any(module and module.split(".")[0] == "torch" for module in imported):
            assert room_of(name) in (*TENSOR_ROOMS, *LAZY_ROOMS) or name == "firsthand.providers.local", (
                f"{name} imports torch"
            )


@pytest.mark.slow
def test_everything_else_imports_without_torch():
    light = [
        name.removesuffix(".__init__")
        for name, _ in files()
        if room_of(name) not in (*TENSOR_ROOMS, "__main__") and name != "firsthand.providers.local"
    ] + [f"firsthand.{name}" for name in TORCH_FREE]
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import importlib\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_and_its_help_import_nothing_heavy():
    heavy = "torch numpy scipy pydantic rich numba httpx jinja2 tokenizers sqlite3"
    code = (
        "import sys, firsthand, firsthand.cli\n"
        "firsthand.cli.main(['--help'])\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:] + done.stderr


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    assert dir(firsthand) == sorted([*firsthand.__all__, "__version__"])
    assert all(getattr(firsthand, name) is not None for name in firsthand.__all__)


def test_names_of_0_6_are_not_found() -> None:
    with pytest.raises(AttributeError, match="module 'firsthand' has no attribute 'run'"):
        firsthand.run  # noqa: B018
    for name in ("firsthand.budget", "firsthand.evals.stats", "firsthand.serve.door"):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{name.rpartition('.')[0]}"):
            importlib.import_module(name)
