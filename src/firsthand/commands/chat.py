"""Chat with a model in the terminal: streamed, with tools and branches, and everything recorded."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.config import refuse_given
from firsthand.errors import ConfigError, FirsthandError, StoreError, UnknownName, unknown
from firsthand.experiment.named_agents import open_tools
from firsthand.hub.fetch_model import fetch_named
from firsthand.loop.approval import Approval, parse_rules
from firsthand.loop.budget import Limits
from firsthand.model import BASE_MODEL, Model, Sampling, TokenCapability, Usage
from firsthand.patterns.reply import reply
from firsthand.runs.dialogue import Dialogue
from firsthand.runs.run_names import KEPT
from firsthand.show.chat_screen import Screen
from firsthand.system import interruption
from firsthand.system.address_secrets import without_secrets_in
from firsthand.system.home import data_home
from firsthand.system.interruption import terminated
from firsthand.system.plurals import count_of
from firsthand.system.terminal import one_line, printable
from firsthand.trace import Call

EXAMPLES = """
firsthand chat
firsthand chat smollm2 "What is the capital of France?"
firsthand chat qwen2.5-coder.gguf --system "Answer in one sentence." --temperature 0
firsthand chat --tools calculator,files:notes --approve external=ask
printf 'What is 2 + 3?\\nAnd times 4?\\n' | firsthand chat --temperature 0
firsthand chat --continue               # the last conversation, with this or another model
cat notes.txt | firsthand chat smollm2 "Summarise this."
"""
HELP = """\
/fork [NAME]    start a branch here and switch to it; the old one stays as it is
/branches       list the branches
/switch NAME    switch to another branch
/clear          start an empty branch
/undo           remove the last question and its answer
/retry          remove the last answer and ask again
/model [NAME]   show the model, or switch to another
/save [NAME]    save the conversation as a run, for `firsthand show`
/load RUN       load a saved conversation
/usage          tokens used so far
/help           this help
/quit           quit, as Ctrl-D does
A line ending in \\ continues on the next line; lines between two lines of \"\"\" are one question. // starts a question
with a slash. Ctrl-C stops an answer and keeps what had arrived."""
BLOCK = '"""'
_NOT_SETTINGS = ("load", "save", "continue_", "keep")
MAX_INPUT = 4_000_000
"""Characters that may be piped in before a question."""

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class Config:
    """The model, its tools and limits, and where the conversation is stored."""

    model: str = field(default=DEFAULT_MODEL, metadata={"positional": True})
    """A model: a known name, a .gguf file, a folder, hf:ORG/NAME, openai:NAME@URL, anthropic:NAME or google:NAME."""
    question: str | None = field(default=None, metadata={"positional": True})
    """Ask this one question, print the answer, and exit; several words in place of the model are a question too."""
    device: str = "cpu"
    """Device for a model that runs here: cpu, cuda, cuda:N, or auto (CUDA if available)."""
    system: str | None = None
    """A system message at the start of the conversation."""
    tools: tuple[str, ...] = ()
    """Tools that the model may call, with their arguments, such as calculator,files:notes,fetch."""
    approve: tuple[str, ...] = ()
    """Approvals: allow, ask or deny by tool or effect, as in external=ask,fetch=deny; a bare word is for irreversible."""
    temperature: float | None = None
    """Sampling temperature; 0 is greedy. By default what the model's authors recommend, or 0.7."""
    max_tokens: int | None = None
    """At most this many new tokens in one answer; by default what the model's authors recommend, or 1024."""
    seed: int = 0
    """Seed of all randomness: the same seed and questions give the same tokens."""
    budget_tokens: int | None = None
    """Tokens (prompt and completion) that the conversation may use."""
    budget_calls: int | None = None
    """Calls that the conversation may make."""
    budget_seconds: float | None = None
    """Seconds that all answers together may take."""
    budget_usd: float | None = None
    """Money that the conversation may cost."""
    continue_: bool = False
    """Continue the last conversation."""
    load: str | None = field(default=None, metadata={"bare": "last"})
    """Continue a saved conversation: its run, or nothing for the last one."""
    save: str | None = field(default=None, metadata={"bare": "chat"})
    """Name the run that the conversation is kept as."""
    keep: bool = True
    """Keep the conversation on exit as a run, which --continue goes on with."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 or more")
        if self.continue_ and self.load is not None:
            raise ConfigError("--continue and --load both name a conversation: leave one out")
        if self.question is None and _is_question(self.model):
            object.__setattr__(self, "question", self.model)
            object.__setattr__(self, "model", DEFAULT_MODEL)
        if self.save is not None and not self.keep:
            raise ConfigError("--save keeps the conversation and --no-keep does not: leave one out")
        parse_rules(self.approve)


def _is_question(text: str) -> bool:
    """True for a text of several words that names no model: no file, nothing like `openai:NAME`."""
    return len(text.split()) > 1 and not re.match(r"[a-z]+:\S", text) and not Path(text).exists()


class Chat:
    """Carries out questions and commands, one after the other."""

    def __init__(self, config: Config, agent: Agent, screen: Screen):
        self.config = config
        self.agent = agent
        self.screen = screen
        self.failed = False
        self.was_asked = False
        self.is_saved = True
        self._loaded: object = None
        """The model whose recommended settings are in use."""
        self.dialogue = Dialogue(agent, seed=config.seed, listener=screen.listen)
        self._left: list[Dialogue] = []
        """Conversations before another one was loaded."""
        self.commands: dict[str, Callable[[str], object]] = {
            "help": lambda rest: self.screen.say(HELP),
            "fork": self.fork,
            "branches": lambda rest: self.branches(),
            "switch": self.switch,
            "clear": lambda rest: self.clear(rest),
            "undo": lambda rest: self.undo(),
            "model": self.model,
            "save": self.save,
            "load": self.load,
            "usage": lambda rest: self.screen.say(self.usage()),
        }

    def run(self, runner: interruption.Runner) -> None:
        """Talk until the input ends."""
        for text in self.questions():
            if not text.strip():
                continue
            self.was_asked = True
            try:
                if text in ("/quit", "/exit"):
                    return
                if text == "/retry":
                    self.ask(runner, self.undo())
                elif text.startswith("/") and not text.startswith("//"):
                    name, _, rest = text[1:].partition(" ")
                    if name not in self.commands:
                        raise unknown("command", f"/{name}", [f"/{each}" for each in self.commands], see="/help")
                    self.commands[name](rest.strip())
                else:
                    self.ask(runner, text[1:] if text.startswith("//") else text)
            except FirsthandError as error:
                self.failed = True
                self.screen.complain(error)
            except KeyboardInterrupt:
                if not self.screen.is_terminal or terminated():
                    raise
                self.screen.fact("stopped; what had arrived of the answer is kept")

    def questions(self) -> Iterator[str]:
        """The questions and commands, as they are typed or piped in."""
        if self.config.question is not None:
            return iter([with_input(self.config.question)])
        return questions(self.prompt if self.screen.is_terminal else None)

    def prompt(self) -> str:
        """The prompt shown before a question."""
        branch = self.dialogue.current
        return f"{'' if branch == 'main' else f'({printable(branch)}) '}> "

    def ask(self, runner: interruption.Runner, text: str) -> None:
        """Ask, and show the answer while it streams."""
        before, writing_s = len(self.dialogue.calls), self.screen.writing_s
        self.is_saved = False
        self.load_model(runner)
        try:
            runner.run(self.dialogue.ask(text))
        finally:
            self.screen.end_line()
        self.screen.fact(facts(self.dialogue.calls[before:], self.screen.writing_s - writing_s))

    def load_model(self, runner: interruption.Runner) -> None:
        """Load a model that runs here, take over what its authors recommend, and say so if it is a base model."""
        model = self.agent.model
        if model is self._loaded or not isinstance(model, TokenCapability):
            return
        facts, self._loaded = runner.run(model.load()), model
        if not facts.has_template:
            self.screen.note(BASE_MODEL.format(name=model.name))
        sampling = sampling_of(self.config, facts.recommended)
        if sampling != self.agent.sampling:
            self.agent = replace(self.agent, sampling=sampling)
            self.dialogue.use(self.agent)

    def fork(self, name: str) -> None:
        """Start a branch."""
        self.dialogue.fork(name or self.dialogue.free_name())
        self.screen.fact(f"on branch {self.dialogue.current}; /switch main returns")

    def switch(self, name: str) -> None:
        """Switch to another branch."""
        self.dialogue.switch(name)
        self.screen.fact(f"on branch {name}: {self._position(name)}")

    def branches(self) -> None:
        """List the branches."""
        for name in self.dialogue.branches:
            mark = "*" if name == self.dialogue.current else " "
            self.screen.say(f"{mark} {one_line(name)}: {self._position(name)}")

    def _position(self, name: str) -> str:
        messages = self.dialogue.branches[name].messages
        words = one_line(messages[-1].text)[:60] if messages else ""
        return count_of(len(messages), "message") + (f", the last: {words}" if words else "")

    def clear(self, name: str) -> None:
        """Start an empty branch."""
        self.dialogue.clear(name or self.dialogue.free_name())
        self.screen.fact(f"on the empty branch {self.dialogue.current}; /switch main returns")

    def undo(self) -> str:
        """Remove the last question and its answer; returns the question."""
        question = self.dialogue.undo()
        if question is None:
            raise ConfigError("this branch has no question to remove")
        self.screen.fact(f"removed: {one_line(question)[:80]}")
        return question

    def model(self, name: str) -> None:
        """Show the model, or switch to another."""
        before = self.agent.model
        if not name:
            self.screen.say(before.name)
            return
        self.agent = replace(self.agent, model=open_model(name, self.config.device))
        self.dialogue.use(self.agent)
        if (close := getattr(before, "close", None)) is not None:
            close()
        self.screen.fact(f"switched to {self.agent.model.name}")

    def usage(self) -> str:
        """Calls and tokens so far, in one line."""
        used, calls = self.dialogue.usage, len(self.dialogue.calls)
        cost = f", {used.cost_usd:.4f} USD" if used.cost_usd else ""
        if calls and not cost and self.config.budget_usd is not None:
            cost = ", no cost reported, so --budget-usd limits nothing"
        counts = f"{used.prompt_tokens} tokens in ({used.cached_tokens} cached), {used.completion_tokens} out"
        return f"{count_of(calls, 'call')}, {counts}{cost}"

    def close(self, runner: interruption.Runner) -> None:
        """Close what tools hold open, such as MCP servers."""
        for dialogue in (*self._left, self.dialogue):
            runner.run(dialogue.close())

    def keep(self) -> None:
        """Keep the conversation at its end, if it has a new answer. That it cannot be is said, and is no failure."""
        answered = any(call.kind == "generate" and call.error is None for call in self.dialogue.calls)
        if self.is_saved or not answered or not self.config.keep:
            return
        try:
            self._save(self.config.save or KEPT)
            self.screen.fact("kept: `firsthand chat --continue` goes on, `firsthand runs` lists it")
        except StoreError as error:
            self.screen.complain(error)

    def save(self, name: str) -> None:
        """Save the conversation as a run."""
        run_id, place = self._save(name or "chat")
        self.screen.say(f"saved: firsthand show {run_id} {place[:8]}")

    def _save(self, name: str) -> tuple[str, str]:
        from firsthand.runs import store

        trace, place = self.dialogue.trace(), self.dialogue.place
        given = {key: value for key, value in asdict(self.config).items() if key not in _NOT_SETTINGS}
        said = ("question", "system")  # what the model was told stays as it is
        about = {"chat": {key: value if key in said else without_secrets_in(value) for key, value in given.items()}}
        with store.create(data_home(), about, name, command=["firsthand", "chat"]) as run:
            run.add_tasks(trace.benchmark, [place.task])
            run.add_agent(trace.agent_name, trace.agent)
            with run.working():
                run.append(trace)
            self.is_saved = True
            return run.id, trace.place

    def load(self, ref: str) -> None:
        """Load a saved conversation: a run, and the attempt if it holds several."""
        from firsthand.runs import store

        where, _, which = (ref or "last").partition(" ")
        with store.open_run(where, data_home()) as run:
            traces = [run.trace(which.strip())] if which.strip() else list(run.traces())
            if len(traces) != 1:
                raise StoreError(f"{run.id} holds {len(traces)} attempts: name one, as in /load {run.id} ID")
            self._left.append(self.dialogue)
            self.dialogue = Dialogue(
                self.agent, seed=self.config.seed, listener=self.screen.listen, origin=traces[0], run=run.id
            )
        self.is_saved = True
        self.screen.fact(f"on branch {self.dialogue.current}: {self._position(self.dialogue.current)}")


def main(config: Config) -> int:
    """Chat; returns 1 if a question failed and no person was at the terminal."""
    if config.load is not None or config.continue_:
        refuse_given(config, {"system"}, "a conversation that is continued keeps its own system message")
    screen = Screen()
    agent = make_agent(config)
    chat = Chat(config, agent, screen)
    if config.load is not None or config.continue_:
        chat.load(config.load or last_conversation())
    if screen.is_terminal:
        _use_line_editing()
        load_in_background(agent.model)
        screen.fact(f"{agent.model.name}: ask a question, /help for commands, Ctrl-D to quit")
    with interruption.Runner() as runner:
        try:
            chat.run(runner)
            if not (chat.was_asked or screen.is_terminal):
                raise ConfigError(
                    f"nothing was asked: give a question, as in `firsthand chat {shlex.quote(config.model)} QUESTION`"
                )
        finally:
            if config.save is not None and not chat.is_saved:
                chat.save(config.save)
            chat.keep()
            chat.close(runner)
    return 1 if chat.failed and not screen.is_terminal else 0


def last_conversation() -> str:
    """The id of the newest run that is a conversation; UnknownName if there is none."""
    from firsthand.runs import store

    for info in store.list_runs(data_home()):
        if "chat" in info.config:
            return info.id
    raise UnknownName(f"there is no conversation in {data_home() / 'runs'} yet: `firsthand chat` keeps one")


def load_in_background(model: Model) -> None:
    """Begin to load a model that runs here, while the first question is typed. An error shows when it is asked."""
    if not isinstance(model, TokenCapability):
        return

    def load() -> None:
        with contextlib.suppress(FirsthandError):
            interruption.run(model.load())

    threading.Thread(target=load, name="firsthand-load", daemon=True).start()


def with_input(question: str) -> str:
    """The question, after what is piped in, if anything is; ConfigError if that is more than MAX_INPUT characters."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return question
    text = "\n".join(itertools.islice(_piped(), MAX_INPUT))
    if len(text) > MAX_INPUT:
        raise ConfigError(
            f"standard input has more than {MAX_INPUT:,} characters: give less, or a tool that reads files"
        )
    return f"{text.rstrip()}\n\n{question}" if text.strip() else question


def make_agent(config: Config) -> Agent:
    """The agent that answers."""
    tools = open_tools(config.tools, config.approve)
    rules = parse_rules(config.approve)
    limits = Limits(config.budget_tokens, config.budget_calls, config.budget_seconds, config.budget_usd)
    model = open_model(config.model, config.device)
    return Agent(
        "chat", model, reply, {}, tools, sampling_of(config, {}), config.system, limits=limits, approval=Approval(rules)
    )


def sampling_of(config: Config, recommended: Mapping[str, float]) -> Sampling:
    """The flags' settings, or what the model's authors recommend; with --temperature, of that only the length."""
    most = config.max_tokens or int(recommended.get("max_tokens", 1024))
    if config.temperature is not None:
        return Sampling(max_tokens=most, temperature=config.temperature)
    settings: dict[str, Any] = {"temperature": 0.7, **recommended, "max_tokens": most}
    return Sampling(**settings)


def open_model(name: str, device: str) -> Model:
    """The model of that name, fetched first if it is a known one that is not on disk."""
    fetch_named(name)
    return catalog.model(name, device=device)


def facts(calls: list[Call], writing_s: float) -> str:
    """One line on an answer: tokens, decoding speed, time to first token, prompt tokens and those from the cache."""
    answers = [call for call in calls if call.kind == "generate"]
    usage = sum((call.usage for call in answers), Usage())
    waited_s = max(sum(call.duration_s for call in answers) - writing_s, 0.0)
    further = usage.completion_tokens - len(answers)
    speed = f", {further / writing_s:.1f} tokens/s" if writing_s > 0 and further > 0 else ""
    counts = f"{usage.prompt_tokens} prompt tokens, {usage.cached_tokens} cached"
    return f"{usage.completion_tokens} tokens{speed}, first after {waited_s:.2f} s; {counts}"


def questions(prompt: Callable[[], str] | None) -> Iterator[str]:
    """Questions that are typed or piped in: a line each, or several joined by \\ or \"\"\" lines; blank ones are skipped."""
    read = _typed(prompt) if prompt is not None else _piped()
    for line in read:
        lines = [line]
        if line.strip() == BLOCK:
            lines = []
            for more in read:
                if more.strip() == BLOCK:
                    break
                lines.append(more)
        else:
            while lines[-1].endswith("\\"):
                lines[-1] = lines[-1][:-1]
                lines.append(next(read, ""))
        text = "\n".join(lines).strip()
        if text:
            yield text


def _typed(prompt: Callable[[], str]) -> Iterator[str]:
    """Lines from a person; Ctrl-C starts the line again, Ctrl-D ends."""
    while True:
        try:
            yield input(prompt())
        except KeyboardInterrupt:
            if terminated():
                raise
            print()
        except EOFError:
            print()
            return


def _piped() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin or ():
        yield line.rstrip("\r\n")


def _use_line_editing() -> None:
    """Enable arrow keys and history, and pasted lines as one question, if Python has readline."""
    with contextlib.suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
