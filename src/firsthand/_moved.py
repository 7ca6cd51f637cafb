"""Modules that moved in 0.7.0: the old names are imported from their new places, with a DeprecationWarning, until 0.10.0."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = ("evals", "replicas", "nn.kernels", "engine.measuring")
"""Packages that are gone; only the modules they held are found."""
MOVED = {
    "approval": "loop.approval",
    "asker": "system.request_owner",
    "attempt": "loop.attempt",
    "benchmarks.arc": "benchmarks.sources.arc_files",
    "benchmarks.competition": "benchmarks.protocols.competition",
    "benchmarks.data": "benchmarks.sources.datasets",
    "benchmarks.evalplus": "benchmarks.sources.evalplus",
    "benchmarks.haystack": "benchmarks.long_context.haystack",
    "benchmarks.inspect_results": "bridges.inspect.sample_scores",
    "benchmarks.inspect_sandbox": "bridges.inspect.sample_sandboxes",
    "benchmarks.lengths": "benchmarks.long_context.lengths",
    "benchmarks.lm_eval_files": "bridges.lm_eval.task_files",
    "benchmarks.lm_eval_results": "bridges.lm_eval.document_scores",
    "benchmarks.multiple_choice": "benchmarks.protocols.multiple_choice",
    "benchmarks.own": "benchmarks.sources.own",
    "benchmarks.protocol": "benchmarks.protocols.protocol",
    "benchmarks.ruler_counting": "benchmarks.long_context.ruler_counting",
    "benchmarks.ruler_needles": "benchmarks.long_context.ruler_needles",
    "benchmarks.ruler_qa": "benchmarks.long_context.ruler_qa",
    "benchmarks.ruler_sample": "benchmarks.long_context.ruler_sample",
    "benchmarks.swe_environment": "benchmarks.swe.swe_environment",
    "benchmarks.swe_tasks": "benchmarks.swe.swe_tasks",
    "benchmarks.tables": "benchmarks.sources.tables",
    "benchmarks.tot_data": "benchmarks.sources.tot_data",
    "benchmarks.votes": "benchmarks.protocols.vote_sets",
    "budget": "loop.budget",
    "commands.cluster": "experiment.on_cluster",
    "commands.lineup": "experiment.named_agents",
    "commands.recorded": "experiment.recorded",
    "commands.results": "commands.print_run",
    "concurrency": "loop.concurrency",
    "engine.adapters": "engine.compute.adapter_slots",
    "engine.arrivals": "engine.core.admission",
    "engine.blocks": "engine.memory.blocks",
    "engine.checks": "engine.core.request_checks",
    "engine.devices": "engine.compute.devices",
    "engine.drafts": "engine.decoding.drafts",
    "engine.drawing": "engine.decoding.batched_sampler",
    "engine.embedding": "embed.embedding",
    "engine.engine": "engine.core.engine",
    "engine.grammar": "engine.decoding.constraint",
    "engine.holds": "engine.memory.pinned_prefixes",
    "engine.inbox": "engine.core.output_delivery",
    "engine.live": "engine.core.live_requests",
    "engine.loading": "engine.compute.device_weights",
    "engine.masking": "engine.decoding.mask_kernel",
    "engine.measuring.agent_workloads": "measure.agent_workloads",
    "engine.measuring.attention": "measure.attention_bench",
    "engine.measuring.documents": "measure.embedding_documents",
    "engine.measuring.limits": "measure.speed_bounds",
    "engine.measuring.machine": "measure.machine",
    "engine.measuring.measured": "measure.measurements",
    "engine.measuring.scoring": "measure.choice_workload",
    "engine.measuring.speeds": "measure.machine_speeds",
    "engine.measuring.workloads": "measure.workloads",
    "engine.mixed": "engine.memory.window_pool",
    "engine.modules": "engine.compute.module_runner",
    "engine.outputs": "engine.core.outputs",
    "engine.packing": "engine.compute.packing",
    "engine.parts": "engine.core.assembly",
    "engine.permits": "engine.decoding.token_filter",
    "engine.plan": "engine.core.step_plan",
    "engine.prefix": "engine.memory.prefix_cache",
    "engine.reading": "engine.decoding.token_choice",
    "engine.recipe": "embed.embedding_config",
    "engine.runner": "engine.compute.runner",
    "engine.sampler": "engine.decoding.sampler",
    "engine.scheduler": "engine.core.scheduler",
    "engine.sequence": "engine.core.sequence",
    "engine.settings": "engine.core.engine_config",
    "engine.speculative": "engine.decoding.speculative",
    "engine.static_step": "engine.compute.static_step",
    "engine.stats": "engine.core.engine_stats",
    "engine.step": "engine.core.step",
    "engine.waiting": "engine.core.request_queue",
    "engine.worker": "engine.core.engine_thread",
    "evals.agreement": "stats.rater_agreement",
    "evals.assertion": "scorers.assertion",
    "evals.board_table": "show.board_table",
    "evals.bootstrap": "stats.bootstrap",
    "evals.cells": "stats.breakdown",
    "evals.choice": "scorers.choice",
    "evals.code": "scorers.code",
    "evals.contained": "scorers.contained",
    "evals.critical_path": "loop.critical_path",
    "evals.design": "stats.comparison_design",
    "evals.diff": "show.answer_diff",
    "evals.differential": "scorers.differential",
    "evals.effective": "stats.effective_length",
    "evals.equal": "experiment.equal_budget",
    "evals.figure_stats": "stats.figure_stats",
    "evals.figures": "stats.figures",
    "evals.formulas": "stats.corpus_formulas",
    "evals.frontier": "stats.pareto",
    "evals.function_calls": "scorers.function_calls",
    "evals.gate": "stats.non_inferiority",
    "evals.gate_report": "show.gate_report",
    "evals.heat": "show.heatmap",
    "evals.instructions": "scorers.instructions",
    "evals.intervals": "stats.intervals",
    "evals.judge": "scorers.model_judge",
    "evals.latex": "scorers.mathematics.latex",
    "evals.leaderboard": "show.board",
    "evals.match": "scorers.match",
    "evals.multiplicity": "stats.multiple_comparisons",
    "evals.oracle": "scorers.programs.oracle",
    "evals.pages": "show.html_page",
    "evals.paired": "stats.paired",
    "evals.patch": "scorers.patches.patch",
    "evals.power": "stats.power_analysis",
    "evals.report": "show.html_report",
    "evals.rescore": "experiment.rescore",
    "evals.resolved": "scorers.resolved",
    "evals.scatter": "show.scatter",
    "evals.stats": "stats.score_statistics",
    "evals.stored_figures": "stats.stored_figures",
    "evals.summary": "stats.run_summary",
    "evals.symbolic": "scorers.symbolic",
    "evals.testlogs": "scorers.patches.test_logs",
    "evals.text": "scorers.text",
    "evals.unit_runner": "scorers.programs.unit_runner",
    "evals.unit_tests": "scorers.unit_tests",
    "evals.votes": "scorers.human_votes",
    "evals.words": "show.board_words",
    "evals.written": "scorers.written",
    "home": "system.home",
    "journal": "loop.journal",
    "kinds": "system.field_types",
    "listener": "loop.listener",
    "lock": "system.lock",
    "modelfile": "formats.model_files",
    "nn.adapters": "nn.batched_lora",
    "nn.attention": "nn.blocks.attention",
    "nn.bert": "nn.encoder",
    "nn.blockwise": "kernels.products.blockwise",
    "nn.compiled_bert": "nn.compiled_encoder",
    "nn.fields": "formats.fields",
    "nn.fused": "nn.compiled_decoder",
    "nn.gemma": "nn.families.gemma",
    "nn.kernels.adapt": "kernels.step.lora_products",
    "nn.kernels.attention": "kernels.attention.paged_cpu",
    "nn.kernels.choice": "kernels.step.token_sampling",
    "nn.kernels.codes": "kernels.products.tile_codes",
    "nn.kernels.dense": "kernels.products.float_products",
    "nn.kernels.dots": "kernels.products.dot_instructions",
    "nn.kernels.encoder": "kernels.step.encoder_ops",
    "nn.kernels.gather": "kernels.attention.gather",
    "nn.kernels.jit": "kernels.jit",
    "nn.kernels.loops": "kernels.products.inner_loops",
    "nn.kernels.paged_attention": "kernels.attention.paged_attention",
    "nn.kernels.paged_triton": "kernels.attention.paged_triton",
    "nn.kernels.pages": "kernels.attention.kv_pages",
    "nn.kernels.phases": "kernels.step.phases",
    "nn.kernels.plan": "kernels.attention.work_split",
    "nn.kernels.products": "kernels.products.blockwise_products",
    "nn.kernels.rounded": "kernels.products.rounded_rows",
    "nn.kernels.rows": "kernels.step.row_ops",
    "nn.kernels.segments": "kernels.attention.segments",
    "nn.kernels.shorts": "kernels.products.int16_products",
    "nn.kernels.step": "kernels.step.decoder_step",
    "nn.kernels.team": "kernels.step.thread_team",
    "nn.kernels.tiled": "kernels.products.tiled_weights",
    "nn.kernels.tiles": "kernels.attention.query_tiles",
    "nn.kernels.vectors": "kernels.vectors",
    "nn.llama": "nn.families.llama",
    "nn.mlp": "nn.blocks.mlp",
    "nn.names": "nn.weight_names",
    "nn.norm": "nn.blocks.norm",
    "nn.qwen": "nn.families.qwen",
    "nn.rope": "nn.blocks.rope",
    "nn.rope_config": "nn.families.rope_config",
    "patterns.actions": "patterns.parts.actions",
    "patterns.answers": "patterns.parts.answers",
    "patterns.branches": "patterns.parts.sub_patterns",
    "patterns.choosing": "patterns.parts.label_choice",
    "patterns.feedback": "patterns.parts.feedback",
    "patterns.judging": "patterns.parts.judge_protocols",
    "patterns.self_tests": "patterns.parts.self_tests",
    "patterns.thoughts": "patterns.parts.thoughts",
    "patterns.verdicts": "patterns.parts.verdicts",
    "patterns.voting": "patterns.parts.voting",
    "protection": "loop.protection",
    "providers.contents": "hub.content_hash",
    "providers.download": "hub.download",
    "providers.encoder_planner": "hub.encoder_planner",
    "providers.hub": "hub.model_lookup",
    "providers.inspect_registry": "bridges.inspect.model_provider",
    "providers.inspect_wire": "bridges.inspect.messages",
    "providers.inspection": "hub.inspection",
    "providers.local_answers": "providers.local_completions",
    "providers.local_memory": "providers.local_shared",
    "providers.local_scores": "providers.local_scoring",
    "providers.planner": "hub.planner",
    "providers.repository": "hub.hf_repository",
    "providers.structured": "providers.output_validation",
    "providers.twentyfour": "providers.game24_solver",
    "providers.wheel": "hub.wheel",
    "replicas.adapters": "cluster.replicas.replica_adapters",
    "replicas.beside": "cluster.replicas.in_process",
    "replicas.fleet": "cluster.replicas.fleet",
    "replicas.on_ray": "cluster.replicas.ray_replicas",
    "replicas.replicated": "cluster.replicas.replicated_model",
    "replicas.resume": "cluster.replicas.resume",
    "replicas.router": "cluster.replicas.router",
    "replicas.slots": "cluster.replicas.replica_slots",
    "replicas.wire": "cluster.replicas.replica_messages",
    "replicas.worker": "cluster.replicas.replica_worker",
    "runs.branches": "show.trace_shape",
    "runs.compare": "runs.pairing",
    "runs.distribute": "cluster.spread.distribute",
    "runs.fork": "runs.forking",
    "runs.genai": "telemetry.genai",
    "runs.home": "runs.run_names",
    "runs.journal": "runs.stored_journal",
    "runs.on_ray": "cluster.spread.ray_workers",
    "runs.otel": "telemetry.otlp_export",
    "runs.outbox": "cluster.outbox",
    "runs.sending": "telemetry.live_export",
    "runs.show": "show.trace_tree",
    "runs.spans": "telemetry.trace_spans",
    "runs.totals": "runs.score_totals",
    "runs.watch": "show.live_tree",
    "runs.worker": "cluster.spread.run_worker",
    "serve.adapters": "serve.openai.adapter_routes",
    "serve.app": "serve.old_door",
    "serve.asking": "serve.openai.request_parsing",
    "serve.body": "serve.http.request_body",
    "serve.chat": "serve.openai.chat_completions",
    "serve.choices": "serve.openai.choices",
    "serve.completions": "serve.openai.completions",
    "serve.door": "serve.old_door",
    "serve.embeddings": "serve.openai.embeddings",
    "serve.gate": "serve.admission.admission_middleware",
    "serve.keys": "serve.admission.api_keys",
    "serve.log": "serve.telemetry.request_log",
    "serve.metrics": "serve.telemetry.metrics",
    "serve.openapi": "serve.openai.openapi",
    "serve.refusals": "serve.http.refusals",
    "serve.replicas": "serve.models.replica_status",
    "serve.replies": "serve.http.replies",
    "serve.responses": "serve.openai.responses",
    "serve.responses_wire": "serve.openai.responses_schema",
    "serve.server": "serve.old_door",
    "serve.settings": "serve.old_door",
    "serve.spans": "serve.telemetry.request_spans",
    "serve.splitting": "serve.openai.reasoning_split",
    "serve.spoken": "serve.openai.sampled_turns",
    "serve.stored": "serve.openai.stored_responses",
    "serve.tokenizing": "serve.openai.tokenize",
    "serve.wire": "serve.openai.request_schema",
    "spec": "system.option_spec",
    "terminal": "system.terminal",
    "tokens.callends": "tokens.calls.call_source",
    "tokens.callregion": "tokens.calls.call_region",
    "tokens.callvalue": "tokens.calls.call_value",
    "tokens.chat": "tokens.templates.chat_template",
    "tokens.conversation": "tokens.templates.template_messages",
    "tokens.grammars": "tokens.grammar_compiler",
    "tokens.lenient": "tokens.calls.lenient_json",
    "tokens.masks": "tokens.templates.untrusted_text",
    "tokens.meters": "tokens.templates.meters",
    "tokens.pieces": "tokens.token_bytes",
    "tokens.presplit": "tokens.pretokenizers",
    "tokens.sandbox": "tokens.templates.template_sandbox",
    "tokens.stream": "tokens.incremental_decoding",
    "tokens.toolcalls": "tokens.calls.call_parser",
    "tokens.toolgrammar": "tokens.calls.call_grammar",
    "tokens.variables": "tokens.templates.template_variables",
    "tool_call": "loop.tool_call",
    "tools.addresses": "tools.web.addresses",
    "tools.box": "sandbox.box",
    "tools.box_inside": "sandbox.programs.box_inside",
    "tools.bubblewrap": "sandbox.bubblewrap",
    "tools.checker": "sandbox.programs.checker",
    "tools.container": "sandbox.container",
    "tools.dockerfile": "sandbox.dockerfile",
    "tools.html": "tools.web.html",
    "tools.inside": "sandbox.programs.inside",
    "tools.inspect_demands": "bridges.inspect.sandbox_requirements",
    "tools.inspect_registry": "bridges.inspect.sandbox_registry",
    "tools.inspect_sandbox": "bridges.inspect.sandbox_provider",
    "tools.keeping": "sandbox.programs.keeping",
    "tools.limits": "sandbox.sandbox_limits",
    "tools.monty": "sandbox.monty",
    "tools.repository": "sandbox.git_repository",
    "tools.rooted": "tools.folders.rooted",
    "tools.sandbox": "sandbox.sandbox",
    "tools.search": "retrieval.tools.search",
    "tools.seccomp": "sandbox.seccomp",
    "tools.worker": "sandbox.programs.worker",
    "tools.workplace": "sandbox.repository_workspace",
    "traceparent": "system.trace_context",
}
"""Old name -> new name, both below `firsthand`."""


class _Alias(Loader):
    """Loads a moved module under its old name: the very same module object."""

    def __init__(self, new: str):
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at its new place."""
        module = importlib.import_module(self.new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Put back the module's own spec, which the import of the old name has replaced; it has run already."""
        module.__spec__ = self.spec


class _Empty(Loader):
    """Loads a package that is gone, so that the modules below it can be looked for."""

    def create_module(self, spec: ModuleSpec) -> None:
        """The default: an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """An empty package has nothing to run."""


class MovedModules(MetaPathFinder):
    """Finds the old names. It is asked last, so a module that is there under a name comes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a moved module, or None."""
        root, _, old = fullname.partition(".")
        if root != "firsthand":
            return None
        if old in PACKAGES:
            return ModuleSpec(fullname, _Empty(), is_package=True)
        if old not in MOVED:
            return None
        new = f"firsthand.{MOVED[old]}"
        warnings.warn(f"{fullname} has moved to {new}; the old name goes in 0.10.0", DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, _Alias(new))


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a `__getattr__` for a module: old names give the renamed objects, with a DeprecationWarning.

    A new name with dots is one of another module, below `firsthand`.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", names[name], stacklevel=3)
        there, _, new = names[name].rpartition(".")
        return getattr(importlib.import_module(f"firsthand.{there}") if there else sys.modules[module], new)

    return get


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Warn the caller of a deprecated name; `stacklevel` as in `warnings.warn`, counted from here."""
    warnings.warn(f"{old} is now {new}; the old name goes in 0.10.0", DeprecationWarning, stacklevel=stacklevel)


def install() -> None:
    """Have Python look for the old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
