"""Talk to a model in the terminal: streamed, with tools, branches, and everything on record."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.commands.models import fetch
from firsthand.errors import ConfigError, FirsthandError, StoreError, unknown
from firsthand.hub import model_lookup
from firsthand.loop.approval import Approval, check_rules, parse_rules
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Began, Piece, Step
from firsthand.model import Model, Sampling, Usage
from firsthand.patterns.reply import reply
from firsthand.runs.dialogue import Dialogue
from firsthand.show.trace_tree import as_json_text
from firsthand.system.home import data_home
from firsthand.system.terminal import console, one_line, printable
from firsthand.tool import Tool
from firsthand.trace import Call, Event

EXAMPLES = """
firsthand chat
firsthand chat smollm2 "What is the capital of France?"
firsthand chat qwen2.5-coder.gguf --system "Answer in one sentence." --temperature 0
firsthand chat --tools calculator,files:notes --approve external=ask
printf 'What is 2 + 3?\\nAnd times 4?\\n' | firsthand chat --temperature 0
firsthand chat --load last              # go on with a saved conversation, perhaps with another model
"""
HELP = """\
/fork [NAME]    begin a branch here and go on there; the old one stays as it is
/branches       the branches, and where each stands
/switch NAME    go on with another branch
/clear          begin anew on a branch of its own
/undo           take back the last question and its answer
/retry          take back the last answer and ask the same again
/model [NAME]   who answers; go on with another model
/save [NAME]    keep the conversation as a run that `firsthand show` reads
/load RUN       go on with a saved conversation
/usage          tokens so far
/help           this
/quit           leave, as Ctrl-D does
A line that ends with \\ goes on in the next one; lines between two lines of \"\"\" are one question. // begins a question
with a slash. Ctrl-C stops an answer and keeps what had come of it."""
BLOCK = '"""'


@dataclass(frozen=True)
class Config:
    """Whom to talk to, and how."""

    model: str = field(default="smollm2", metadata={"positional": True})
    """A model: a known name, a .gguf file, a folder, hf:ORG/NAME, or openai:NAME@URL."""
    question: str | None = field(default=None, metadata={"positional": True})
    """Ask this alone, print the answer, and end."""
    device: str = "cpu"
    """Where a model that runs here is computed: cpu, cuda, cuda:N, or auto, which is CUDA where there is one."""
    system: str | None = None
    """A system message that opens the conversation."""
    tools: tuple[str, ...] = ()
    """Tools that the model may call, with what they work on, such as calculator,files:notes,fetch."""
    approve: tuple[str, ...] = ()
    """Which calls run: allow, ask or deny by tool or effect, as in external=ask,fetch=deny; alone it is for irreversible."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = 1024
    """At most this many new tokens in one answer."""
    seed: int = 0
    """All randomness comes from this: the same seed and questions give the same tokens."""
    budget_tokens: int | None = None
    """Tokens (prompt and completion) that the conversation may use."""
    budget_calls: int | None = None
    """Calls that the conversation may make."""
    budget_seconds: float | None = None
    """Seconds that the answers may take, all of them together."""
    budget_usd: float | None = None
    """Money that the conversation may cost."""
    load: str | None = field(default=None, metadata={"bare": "last"})
    """Go on with a saved conversation: its run, or nothing for the last one."""
    save: str | None = field(default=None, metadata={"bare": "chat"})
    """Keep the conversation at its end, as a run of this name."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}: give 1 or more")
        parse_rules(self.approve)


class Screen:
    """Shows a conversation: on a terminal with colour and facts; elsewhere only answers go to the output."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self._out, self._err = console(), console(stderr=True)
        self._is_open = False  # a line of an answer that has no end yet
        self._first_s: dict[str, float] = {}
        self.writing_s = 0.0
        """Seconds between the first and the last token of answers, all of them together."""

    def listen(self, step: Step) -> None:
        """Show a step of an answer."""
        match step:
            case Piece(text=text):
                self._first_s.setdefault(step.id, time.perf_counter())
                self._write(printable(text))
            case Call(kind="generate"):
                self.writing_s += time.perf_counter() - self._first_s.pop(step.id, time.perf_counter())
            case Began(kind="tool", detail=detail):
                self.note(f"→ {detail.get('name')}({as_json_text(detail.get('arguments'))})")
            case Call(kind="tool", detail=detail):
                self.note(f"← {detail.get('result')}")
            case Event(kind="retry"):
                self.end_line()
                self.note(f"again: {step.data.get('error')}")

    def _write(self, text: str) -> None:
        self._is_open = self._is_open or bool(text)
        self._out.print(text, end="", markup=False, soft_wrap=True)
        self._out.file.flush()

    def end_line(self) -> None:
        """End the line of an answer."""
        if self._is_open:
            self._is_open = False
            self._out.print()

    def note(self, text: str) -> None:
        """A fact about the answer, in a line on standard error."""
        self.end_line()
        self._err.print(one_line(text)[:500], style="dim" if self.is_terminal else None, markup=False, soft_wrap=True)

    def fact(self, text: str) -> None:
        """A fact that only a person at a terminal wants to see."""
        self.end_line()
        if self.is_terminal:
            self.note(text)

    def say(self, text: str) -> None:
        """What a command gives."""
        self.end_line()
        self._out.print(printable(text), markup=False, soft_wrap=True)

    def complain(self, error: BaseException) -> None:
        """An error, in a sentence on standard error."""
        self.end_line()
        print(f"firsthand: {one_line(str(error))}", file=sys.stderr, flush=True)


class Chat:
    """Questions and commands, one after the other."""

    def __init__(self, config: Config, agent: Agent, screen: Screen):
        self.config = config
        self.agent = agent
        self.screen = screen
        self.failed = False
        self.is_saved = True
        self.dialogue = Dialogue(agent, seed=config.seed, listener=screen.listen)
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

    def run(self, runner: asyncio.Runner) -> None:
        """Talk until the input ends."""
        for text in self.questions():
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
                if not self.screen.is_terminal:
                    raise
                self.screen.fact("stopped; what had come of the answer is kept")

    def questions(self) -> Iterator[str]:
        """What is asked and commanded."""
        if self.config.question is not None:
            return iter([self.config.question])
        return questions(self.prompt if self.screen.is_terminal else None)

    def prompt(self) -> str:
        """What stands before a question."""
        branch = self.dialogue.current
        return f"{'' if branch == 'main' else f'({printable(branch)}) '}> "

    def ask(self, runner: asyncio.Runner, text: str) -> None:
        """Ask, and show the answer while it comes."""
        before, writing_s = len(self.dialogue.calls), self.screen.writing_s
        self.is_saved = False
        try:
            runner.run(self.dialogue.ask(text))
        finally:
            self.screen.end_line()
        self.screen.fact(facts(self.dialogue.calls[before:], self.screen.writing_s - writing_s))

    def fork(self, name: str) -> None:
        """Begin a branch."""
        self.dialogue.fork(name or self.dialogue.free_name())
        self.screen.fact(f"on branch {self.dialogue.current}; /switch main goes back")

    def switch(self, name: str) -> None:
        """Go on with another branch."""
        self.dialogue.switch(name)
        self.screen.fact(f"on branch {name}, after {self._stands(name)}")

    def branches(self) -> None:
        """List the branches."""
        for name in self.dialogue.branches:
            mark = "*" if name == self.dialogue.current else " "
            self.screen.say(f"{mark} {one_line(name)}: {self._stands(name)}")

    def _stands(self, name: str) -> str:
        messages = self.dialogue.branches[name].messages
        words = one_line(messages[-1].text)[:60] if messages else ""
        return f"{len(messages)} messages" + (f", the last: {words}" if words else "")

    def clear(self, name: str) -> None:
        """Begin anew."""
        self.dialogue.clear(name or self.dialogue.free_name())
        self.screen.fact(f"on branch {self.dialogue.current}, with nothing said; /switch main goes back")

    def undo(self) -> str:
        """Take back the last question, and give it."""
        question = self.dialogue.undo()
        if question is None:
            raise ConfigError("there is no question to take back on this branch")
        self.screen.fact(f"taken back: {one_line(question)[:80]}")
        return question

    def model(self, name: str) -> None:
        """Say who answers, or let another model go on."""
        before = self.agent.model
        if not name:
            self.screen.say(before.name)
            return
        self.agent = replace(self.agent, model=open_model(name, self.config.device))
        self.dialogue.use(self.agent)
        if (close := getattr(before, "close", None)) is not None:
            close()
        self.screen.fact(f"{self.agent.model.name} goes on")

    def usage(self) -> str:
        """Tokens and calls so far."""
        used, calls = self.dialogue.usage, len(self.dialogue.calls)
        cost = f", {used.cost_usd:.4f} USD" if used.cost_usd else ""
        counts = f"{used.prompt_tokens} tokens in ({used.cached_tokens} cached), {used.completion_tokens} out"
        return f"{calls} calls, {counts}{cost}"

    def save(self, name: str) -> None:
        """Keep the conversation as a run."""
        from firsthand.runs import store

        trace, place = self.dialogue.trace(), self.dialogue.place
        about = {"chat": {key: value for key, value in asdict(self.config).items() if key not in ("load", "save")}}
        with store.create(data_home(), about, name or "chat", command=["firsthand", "chat"]) as run:
            run.add_tasks(trace.benchmark, [place.task])
            run.add_agent(trace.agent_name, trace.agent)
            with run.working():
                run.append(trace)
            self.is_saved = True
            self.screen.say(f"saved: firsthand show {run.id} {trace.place[:8]}")

    def load(self, ref: str) -> None:
        """Go on with a saved conversation: a run, and an attempt of it where it holds several."""
        from firsthand.runs import store

        where, _, which = (ref or "last").partition(" ")
        with store.open_run(where, data_home()) as run:
            traces = [run.trace(which.strip())] if which.strip() else list(run.traces())
            if len(traces) != 1:
                raise StoreError(f"{run.id} holds {len(traces)} attempts: say which, as in /load {run.id} ID")
            self.dialogue = Dialogue(
                self.agent, seed=self.config.seed, listener=self.screen.listen, origin=traces[0], run=run.id
            )
        self.is_saved = True
        self.screen.fact(f"on branch {self.dialogue.current}, after {self._stands(self.dialogue.current)}")


def main(config: Config) -> int:
    """Talk, and say at the end whether anything failed."""
    screen = Screen()
    agent = make_agent(config)
    chat = Chat(config, agent, screen)
    if config.load is not None:
        chat.load(config.load)
    if screen.is_terminal:
        _use_line_editing()
        screen.fact(f"{agent.model.name}: ask, /help for commands, Ctrl-D to leave")
    with asyncio.Runner() as runner:
        try:
            chat.run(runner)
        finally:
            if config.save is not None:
                chat.save(config.save)
    if screen.is_terminal and not chat.is_saved and config.save is None:
        screen.fact("not saved: /save keeps a conversation")
    return 1 if chat.failed and not screen.is_terminal else 0


def make_agent(config: Config) -> Agent:
    """Who answers."""
    tools: tuple[Tool, ...] = tuple(tool for text in config.tools for tool in catalog.tools(text))
    rules = parse_rules(config.approve)
    check_rules(rules, tools)
    limits = Limits(config.budget_tokens, config.budget_calls, config.budget_seconds, config.budget_usd)
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature)
    model = open_model(config.model, config.device)
    return Agent("chat", model, reply, {}, tools, sampling, config.system, limits=limits, approval=Approval(rules))


def open_model(name: str, device: str) -> Model:
    """The model of that name, fetched first if it is a known one that is not here."""
    if name in model_lookup.KNOWN or name.startswith("hf:"):
        fetch(name)
    return catalog.model(name, device=device)


def facts(calls: list[Call], writing_s: float) -> str:
    """What an answer cost: tokens and, from the first one on, their speed; how much of the prompt was not computed again."""
    answers = [call for call in calls if call.kind == "generate"]
    usage = sum((call.usage for call in answers), Usage())
    waited_s = max(sum(call.duration_s for call in answers) - writing_s, 0.0)
    further = usage.completion_tokens - len(answers)
    speed = f", {further / writing_s:.1f} tokens/s" if writing_s > 0 and further > 0 else ""
    counts = f"{usage.prompt_tokens} in the prompt, {usage.cached_tokens} of them cached"
    return f"{usage.completion_tokens} tokens{speed}, the first after {waited_s:.2f} s; {counts}"


def questions(prompt: Callable[[], str] | None) -> Iterator[str]:
    """What is typed or comes through a pipe: one line each, or several where they are marked so; blank ones are left out."""
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
    """Lines from a person; Ctrl-C begins the line again, Ctrl-D ends."""
    while True:
        try:
            yield input(prompt())
        except KeyboardInterrupt:
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
    """Arrow keys and history, where Python has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
