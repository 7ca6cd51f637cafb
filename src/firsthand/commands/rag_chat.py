"""Chat with an index in the terminal: every answer cites its passages, and follow-up questions are understood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from firsthand.commands.rag_ask import NONE, AnswerFlags, RagSampling
from firsthand.errors import ConfigError, FirsthandError, unknown
from firsthand.message import Json
from firsthand.system import interruption
from firsthand.system.interruption import terminated

EXAMPLES = """
firsthand rag chat --index docs
firsthand rag chat --index docs --model qwen2.5-coder.gguf --variant advanced
printf 'How do I resume a run?\\nAnd a training run?\\n' | firsthand rag chat --index docs
"""
HELP = """\
/show    the passages of the last answer, with their scores
/clear   forget the conversation
/help    this help
/quit    quit, as Ctrl-D does
A line ending in \\ continues on the next line; // starts a question with a slash. Ctrl-C stops an answer."""


@dataclass(frozen=True)
class Config:
    """The index, and how questions are answered."""

    index: Path = field(default=Path())
    """As of `rag ask`."""
    answer: AnswerFlags = field(default_factory=AnswerFlags)
    sampling: RagSampling = field(default_factory=RagSampling)

    def __post_init__(self) -> None:
        if self.answer.model == NONE:
            raise ConfigError(
                "chat needs a model that rewrites follow-up questions: without one, use firsthand rag ask"
            )


class RagChat:
    """Answers questions one after the other, each with the turns before it."""

    def __init__(self, config: Config) -> None:
        from firsthand.commands.rag_ask import rag_model, sampling_of
        from firsthand.show.chat_screen import Screen

        self.screen = Screen()
        self.model, self.sampling = rag_model(config.answer, config.index), sampling_of(config.sampling)
        self.history: list[tuple[str, str]] = []
        self.last: Json | None = None
        self.failed = self.was_asked = False

    def run(self, runner: interruption.Runner, questions: Iterator[str]) -> None:
        """Answer until the input ends or /quit."""
        for text in questions:
            try:
                if text in ("/quit", "/exit"):
                    return
                self.was_asked = True
                if text.startswith("/") and not text.startswith("//"):
                    self.command(text)
                else:
                    self.ask(runner, text[1:] if text.startswith("//") else text)
            except FirsthandError as error:
                self.failed = True
                self.screen.complain(error)
            except KeyboardInterrupt:
                if not self.screen.is_terminal or terminated():
                    raise
                self.screen.fact("stopped; the question is not kept")

    def ask(self, runner: interruption.Runner, question: str) -> None:
        """Answer a question and keep the turn."""
        from firsthand.commands.rag_ask import print_answer

        body = runner.run(self.model.ask(question, self.history, sampling=self.sampling))
        if "question" in body:
            self.screen.fact(f"searched for: {body['question']}")
        print_answer(body)
        self.history.append((question, body["text"]))
        self.last = body

    def command(self, text: str) -> None:
        """Carry out a line that begins with a slash."""
        from firsthand.commands.rag_ask import print_passages

        name = text[1:].strip()
        if name == "show":
            if self.last is None:
                raise ConfigError("there is no answer yet whose passages could be shown")
            print_passages(self.last)
        elif name == "clear":
            self.history.clear()
            self.last = None
            self.screen.fact("the conversation is forgotten")
        elif name == "help":
            self.screen.say(HELP)
        else:
            raise unknown("command", text, ["/show", "/clear", "/help", "/quit"], see="/help")


def run(config: Config) -> int:
    """Chat; returns 1 if a question failed and no person was at the terminal."""
    from firsthand.commands.chat import questions
    from firsthand.retrieval.corpus import check_index, close_corpora, nearby_index

    config = replace(config, index=nearby_index(config.index))
    check_index(config.index)
    chat = RagChat(config)
    if chat.screen.is_terminal:
        chat.screen.fact(
            f"{chat.model.base.name} over {config.index}: ask a question, /help for commands, Ctrl-D to quit"
        )
    with interruption.Runner() as runner:
        try:
            chat.run(runner, questions((lambda: "> ") if chat.screen.is_terminal else None))
            if not (chat.was_asked or chat.screen.is_terminal):
                raise ConfigError("nothing was asked: type a question, or pipe questions in, a line each")
        finally:
            chat.model.close()
            close_corpora()
    return 1 if chat.failed and not chat.screen.is_terminal else 0
