"""Print a shell's completion script: commands, flags, values, and the names of patterns, benchmarks, models and runs.

The script asks `firsthand` itself for the words that may come next, with the line so far in `_FIRSTHAND_COMPLETE`, so they
are those of the installed version and of the runs on this machine.
"""

from __future__ import annotations

import importlib
import re
import shlex
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand import catalog
from firsthand.config import ConfigField, flag_of, settings_of, split_list
from firsthand.errors import FirsthandError

EXAMPLES = """
source <(firsthand completion bash)          # put this line into ~/.bashrc
source <(firsthand completion zsh)           # into ~/.zshrc, after compinit
firsthand completion fish | source           # into ~/.config/fish/config.fish
"""

BASH = """\
_firsthand() {
  local IFS=$'\\n'
  COMPREPLY=($(_FIRSTHAND_COMPLETE="${COMP_LINE:0:COMP_POINT}" _FIRSTHAND_BREAKS="$COMP_WORDBREAKS" firsthand 2>/dev/null))
  [[ "${COMPREPLY[*]}" == *[=:] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _firsthand firsthand
"""
ZSH = """\
#compdef firsthand
_firsthand() {
  local -a found
  found=("${(@f)$(_FIRSTHAND_COMPLETE="${(j: :)${(@q)words[1,CURRENT]}}" firsthand 2>/dev/null)}")
  if [[ -n "$found" ]]; then
    compadd -Q -S '' -- ${(M)found:#*[=:]}
    compadd -Q -- ${found:#*[=:]}
  else
    _files
  fi
}
compdef _firsthand firsthand
"""
FISH = """\
function __firsthand_complete
    set -lx _FIRSTHAND_COMPLETE (commandline -cp)
    set -l found (firsthand 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c firsthand -f -a '(__firsthand_complete)'
"""


_PLAIN = re.compile(r"[\w.@:=+/][\w.@:=+/-]*", re.ASCII)
"""Names that a shell takes as they are. Folders and files of others may have names such as `$(...)`, which a shell would run
once they stand on its line."""


@dataclass(frozen=True)
class Config:
    """The shell."""

    shell: Literal["bash", "zsh", "fish"] = field(metadata={"positional": True})
    """bash, zsh or fish"""


def main(config: Config) -> int:
    """Print the script."""
    print({"bash": BASH, "zsh": ZSH, "fish": FISH}[config.shell], end="")
    return 0


def complete(line: str, breaks: str = "") -> list[str]:
    """The words that may stand where a command line ends, sorted.

    Readline replaces only what follows the last of the characters `breaks`, so what stands before it is left out.
    """
    words = _words(line)
    if len(words) < 2:
        return []
    last = words[-1]
    begin = max((last.rfind(char) for char in breaks), default=-1) + 1
    return sorted({word[begin:] for word in _candidates(words[1:]) if word.startswith(last)})


def _words(line: str) -> list[str]:
    """The words of a line, the last one empty after a space; an open quote is closed."""
    for closing in ("", '"', "'"):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return [*words, ""] if line[-1:].isspace() and not closing else words
    return line.split()


def _candidates(words: Sequence[str]) -> Iterable[str]:
    """Candidates for the last word, whether or not they fit the part that is typed."""
    command, *before = words[:-1] or [""]
    if len(words) == 1:
        return [*catalog.names("command"), "--help", "--version"]
    if not catalog.is_ours("command", command):
        return []
    module = importlib.import_module(f"firsthand.commands.{command}")
    config_class = module.Config
    if hasattr(module, "subcommands"):
        if not before:
            own = [name for (of, _), names in _NAMES_OF_COMMAND.items() if of == command for name in names()]
            return [*module.subcommands(), *own, "--help"]
        if before[0] in module.subcommands():
            config_class, command = module.subcommand(before[0]).Config, f"{command} {before[0]}"
            before = before[1:]
    elif command == "train" and before and not before[0].startswith("-"):
        if before[0] != "doctor" and not catalog.is_ours("recipe", before[0]):
            return []  # its settings are in its file, which would have to run
        config_class, before = module.config_of(before[0]), before[1:]
    settings = settings_of(config_class)
    flags = {flag_of(each.field): each for each in settings if not each.field.metadata.get("positional")}
    last = words[-1]
    flag, equals, value = last.partition("=")
    if equals and flag in flags:
        return [f"{flag}={each}" for each in _values(flags[flag], value, command)]
    if before and (setting := flags.get(before[-1])) is not None and not _is_bool(setting):
        return _values(setting, last, command)
    if last.startswith("-"):
        return [*flags, "--config", "--help"]
    positionals = [each for each in settings if each.field.metadata.get("positional")]
    count = _num_positionals(before, flags)
    if not positionals or (count >= len(positionals) and typing.get_origin(positionals[-1].hint) is not tuple):
        return []
    return _values(positionals[min(count, len(positionals) - 1)], last, command)


def _num_positionals(words: Sequence[str], flags: dict[str, ConfigField]) -> int:
    count, expects_value = 0, False
    for word in words:
        is_flag = word.startswith("-")
        count += not (is_flag or expects_value)
        expects_value = is_flag and word in flags and not _is_bool(flags[word])
    return count


def _is_bool(setting: ConfigField) -> bool:
    return setting.hint is bool


def _values(setting: ConfigField, typed: str, command: str) -> list[str]:
    """The values of a command's setting; of one that is a list, with the values before the last comma in front."""
    kinds = [setting.hint, *typing.get_args(setting.hint)]
    found = [str(value) for kind in kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)]
    name = setting.field.name
    names = _NAMES_OF_COMMAND.get((command, name)) or _NAMES.get(name)
    if names is not None:
        found += [each for each in names() if _PLAIN.fullmatch(each)]
    pieces = split_list(typed)
    here = pieces[-1]
    if name == "pattern" and ":" in here:
        found += _options(here)
    before = typed[: len(typed) - len(here)]
    return [before + each for each in found]


def _options(text: str) -> list[str]:
    """The keywords of a pattern after its name: `cot:samples=`; none of one that is not ours, which would have to run."""
    head, _, _ = text.rpartition(":")
    name = head.partition(":")[0].partition("(")[0]
    known = catalog.options("pattern", name) if catalog.is_ours("pattern", name) else {}
    return [f"{head}:{option}=" for option in known]


def _runs() -> list[str]:
    from firsthand.runs.run_names import run_ids
    from firsthand.system.home import data_home

    return ["last", *run_ids(data_home())]


def _models() -> list[str]:
    from firsthand.hub.model_lookup import installed

    return [
        *dict.fromkeys(
            [*(each.name for each in installed()), "smollm2", "hf:", "openai:", "anthropic:", "google:", "ollama:"]
        )
    ]


def _chunkers() -> list[str]:
    from firsthand.retrieval.chunking.chunkers import CHUNKERS

    return list(CHUNKERS)


def _actions_of_memory() -> list[str]:
    from firsthand.commands.memory import Action

    return list(typing.get_args(Action))


def _actions_of_studio() -> list[str]:
    from firsthand.commands.studio import ACTIONS

    return [words[0] for words, _ in ACTIONS]


def _boards() -> list[str]:
    from firsthand.boards.board_spec import board_names

    return [*board_names(), *_runs()]


def _claims() -> list[str]:
    from firsthand.claims.all_claims import claim_names

    sections = claim_names()
    return ["all", *sections, *(name for names in sections.values() for name in names)]


def _steps() -> list[str]:
    from firsthand.reading.tour_steps import tour_steps

    return ["next", *(step.id for step in tour_steps())]


def _worlds() -> list[str]:
    folder = Path(__file__).parents[1] / "benchmarks"
    files = {name: folder / f"{name}.py" for name in catalog.names("benchmark")}
    return [name for name, path in files.items() if path.is_file() and "firsthand.worlds" in path.read_text("utf-8")]


def _known(kind: catalog.Kind) -> Callable[[], Iterable[str]]:
    return lambda: catalog.names(kind)


_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "pattern": _known("pattern"),
    "benchmark": _known("benchmark"),
    "benchmarks": _known("benchmark"),
    "tools": _known("tool"),
    "guard": _known("guard"),
    "memory": _known("memory"),
    "with_": lambda: catalog.scorers(),
    "chunker": _chunkers,
    **dict.fromkeys(("model", "embedder"), _models),
    **dict.fromkeys(("run", "runs", "baseline", "candidate", "resume", "load", "replay"), _runs),
}
"""The names that a setting takes, by the setting."""
_NAMES_OF_COMMAND: dict[tuple[str, str], Callable[[], Iterable[str]]] = {
    ("arena", "models"): _models,
    ("board", "sources"): _boards,
    ("claims", "names"): _claims,
    ("claims run", "names"): _claims,
    ("memory", "action"): _actions_of_memory,
    ("play", "world"): _worlds,
    ("studio", "action"): _actions_of_studio,
    ("tour", "step"): _steps,
    ("train", "recipe"): lambda: [*catalog.names("recipe"), "doctor"],
}
"""The names that a setting of one command takes, by the command and the setting."""


def print_words(line: str, breaks: str) -> int:
    """Print the words that may come next, one a line; none where the line makes no sense. The exit code is 0."""
    try:
        found = complete(line, breaks)
    except (FirsthandError, OSError, ImportError):
        found = []
    print("".join(f"{word}\n" for word in found), end="")
    return 0
