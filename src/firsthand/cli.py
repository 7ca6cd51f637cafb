"""The command line: `firsthand COMMAND ...` finds `commands/COMMAND.py`, reads its Config from the words, calls its main.

A command module has a docstring (its help), a frozen dataclass `Config` (its flags), `EXAMPLES`, and `main(config) -> int`,
the exit code: 0 success, 1 an error with one sentence, 2 a command that makes no sense, 3 a finished run with failed
attempts, 4 an inconclusive gate, 130 interrupted, 143 terminated. A command is imported only when it is called. One whose
flags depend on its first word reads its words itself, in a function `dispatch(words) -> int`.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import shutil
import stat
import sys
import textwrap
from collections.abc import Sequence

from firsthand import __version__, catalog
from firsthand.config import parse
from firsthand.errors import ConfigError, FirsthandError, UnknownName, is_of_file_names, reason_of, unknown
from firsthand.system import interruption
from firsthand.system.address_secrets import without_secrets
from firsthand.system.terminal import complain, one_line

COMPLETE = "_FIRSTHAND_COMPLETE"
"""The environment variable in which a shell's completion gives the line so far; see `commands/completion.py`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    _hold_standard_streams()
    words = [_as_utf8(word) for word in sys.argv[1:]] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a model's text may not be encodable
    _show_notes()
    if argv is None:
        interruption.install()
    try:
        _check_has_end(words)
        line = os.environ.get(COMPLETE)
        code = dispatch(words) if line is None else _complete(line)
        print(end="", flush=True)
        if code == 130 and interruption.terminated():
            code = 143
        if code in (130, 143) and argv is None:
            interruption.leave(code)
        return code
    except (ConfigError, UnknownName) as error:
        return _complain(error, 2)
    except FirsthandError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        told, code = ("terminated", 143) if interruption.terminated() else ("interrupted", 130)
        print(f"\nfirsthand: {told}", file=sys.stderr, flush=True)
        if argv is None:
            interruption.leave(code)
        return code
    except ModuleNotFoundError as error:  # of a package that every installation has
        package = (error.name or "firsthand").partition(".")[0]
        if package == "firsthand":
            raise
        return _complain(ImportError(f"the package {package!r} is not installed: pip install {package}"), 1)
    except UnicodeDecodeError as error:  # of a file whose reader did not say which
        return _complain(ValueError(f"a file is not UTF-8 text (byte {error.start} of it): save it as UTF-8"), 1)
    except UnicodeEncodeError as error:
        parts = {part for word in words for part in (word, *re.split("[=:,]", word)) if not part.isascii()}
        if not is_of_file_names(error.encoding) or not any(part in error.object for part in parts):
            raise
        return _complain(ConfigError(f"the file {error.object[:200]!r} cannot be opened: {reason_of(error)}"), 2)
    except RuntimeError as error:
        if "home directory" not in str(error):
            raise
        # of `Path.expanduser`, which does not say whose
        told = "a path begins with ~ and names no user of this machine: give ./~NAME for a file of that name"
        return _complain(ConfigError(told), 2)
    except BrokenPipeError:  # the reader of our output has exited, as `| head` does
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _complain(OSError(f"{error.strerror or error}{_file_of(error)}"), 1)


def _hold_standard_streams() -> None:
    """Open those that were closed before the process started: else the next file that is opened takes their number, and
    gets what is written to them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115


_ENDLESS = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def _check_has_end(words: Sequence[str]) -> None:
    """ConfigError for a word, or a part of one such as `--keys=FILE` or `math:data=FILE`, that is a named pipe, whose
    opening waits for its writer, or a device without an end. `<(command)` and /dev/stdin have a writer."""
    for word in words:
        for name in {word, *re.split("[=:,]", word)}:
            try:
                about = os.stat(name) if name else None  # noqa: PTH116
            except (OSError, ValueError):
                continue
            if about is None or stat.S_ISREG(about.st_mode):
                continue
            real = os.path.realpath(name)
            if stat.S_ISFIFO(about.st_mode) and not real.startswith(("/dev/", "/proc/")):
                raise ConfigError(f"{name!r} is a named pipe, and opening it waits for a writer: give an ordinary file")
            if real in _ENDLESS:
                raise ConfigError(f"{name!r} is the device {real}, which has no end: give an ordinary file")


def _as_utf8(word: str) -> str:
    """A word of the command line, which a locale other than UTF-8 does not decode."""
    return word if word.isascii() or word.isprintable() else os.fsencode(word).decode("utf-8", "surrogateescape")


def _file_of(error: OSError) -> str:
    return f": {error.filename}" if isinstance(error.filename, str) else ""


class _Notes(logging.Handler):
    """Prints the package's log as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"firsthand: {one_line(record.getMessage())}", file=sys.stderr, flush=True)


def _show_notes() -> None:
    logger = logging.getLogger("firsthand")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
        logger.setLevel(logging.INFO)


def dispatch(words: Sequence[str]) -> int:
    """Find the command and call it; returns its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"firsthand {__version__}")
        return 0
    name, *rest = words
    if not catalog.is_ours("command", name):
        raise unknown("command", name, catalog.names("command"), see="firsthand --help")
    module = importlib.import_module(f"firsthand.commands.{name}")
    if hasattr(module, "dispatch"):
        code: int = module.dispatch(rest)
        return code
    config = parse(
        module.Config, rest, prog=f"firsthand {name}", description=module.__doc__ or "", examples=module.EXAMPLES
    )
    code = module.main(config)
    return code


def _complete(line: str) -> int:
    completion = importlib.import_module("firsthand.commands.completion")
    code: int = completion.print_words(line, os.environ.get("_FIRSTHAND_BREAKS", ""))
    return code


def overview() -> str:
    """The text of `firsthand --help`."""
    known = catalog.names("command")
    width = max(map(len, known))
    room = max(shutil.get_terminal_size((132, 24)).columns, 40) if sys.stdout.isatty() else 132
    hanging = " " * (width + 4)
    listed = "\n".join(
        textwrap.fill(f"  {name:<{width}}  {line}", room, subsequent_indent=hanging) for name, line in known.items()
    )
    about = (
        f"firsthand {__version__}: run any model with any reasoning pattern on any task, and see with error bars what it "
        "buys."
    )
    return f"""\
{textwrap.fill(about, room)}

usage: firsthand COMMAND [--help]

commands:
{listed}

examples:
  firsthand quickstart
  firsthand run gsm8k --model smollm2 --pattern direct,cot,self_consistency:samples=8 --limit 100
  firsthand run arithmetic --model ollama:llama3.2 --pattern react
  firsthand show last"""


def _complain(error: Exception, code: int) -> int:
    complain(without_secrets(str(error)))
    return code


def _drop_output() -> None:
    """Discard the rest of the output, which Python would flush at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
