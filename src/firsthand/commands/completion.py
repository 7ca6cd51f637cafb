"""Print a shell's completion script: commands, flags, and the names of patterns, benchmarks, tools and models."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from firsthand import catalog

EXAMPLES = """
source <(firsthand completion bash)          # put this line into ~/.bashrc
source <(firsthand completion zsh)           # into ~/.zshrc, after compinit
firsthand completion fish | source           # into ~/.config/fish/config.fish
"""

BASH = """\
_firsthand() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "$previous" in
{values}
  esac
  if [ -z "$words" ]; then
    if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; else
      case "${{COMP_WORDS[1]}}" in
{flags}
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ ${{#COMPREPLY[@]}} -eq 0 ] && COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _firsthand firsthand
"""


@dataclass(frozen=True)
class Config:
    """The shell."""

    shell: Literal["bash", "zsh", "fish"] = field(metadata={"positional": True})
    """bash, zsh or fish"""


def main(config: Config) -> int:
    """Print the script."""
    script = fish() if config.shell == "fish" else bash()
    if config.shell == "zsh":
        script = f"autoload -U +X bashcompinit && bashcompinit\n{script}"
    print(script, end="")
    return 0


def flags() -> dict[str, list[str]]:
    """The flags of each command."""
    found = {}
    for name in catalog.names("command"):
        config_class = importlib.import_module(f"firsthand.commands.{name}").Config
        fields = [each for each in dataclasses.fields(config_class) if not each.metadata.get("positional")]
        found[name] = ["--" + each.name.replace("_", "-") for each in fields] + ["--config", "--help"]
    return found


def values() -> dict[str, list[str]]:
    """The words that may follow a flag, or stand somewhere after a command that takes names."""
    models = ["smollm2", "hf:", "openai:"]
    return {
        "--pattern": sorted(catalog.names("pattern")),
        "--model": models,
        "--tools": sorted(catalog.names("tool")),
        "--guard": sorted(catalog.names("guard")),
        "--memory": sorted(catalog.names("memory")),
        "run": sorted(catalog.names("benchmark")),
        "list": ["patterns", "benchmarks", "scorers", "tools", "guards", "memories", "models"],
        "models": ["list", "pull", "inspect", "remove"],
        "completion": ["bash", "zsh", "fish"],
    }


def bash() -> str:
    """The script for bash, which zsh can run too."""
    known, by_command = values(), flags()
    after_flag = {flag: names for flag, names in known.items() if flag.startswith("--")}
    after_command = {name: known.get(name, []) + each for name, each in by_command.items()}
    return BASH.format(
        values=_cases(after_flag, indent=4), commands=" ".join(by_command), flags=_cases(after_command, indent=8)
    )


def _cases(words: Mapping[str, Sequence[str]], indent: int) -> str:
    lines = [f"{word}) words={shlex.quote(' '.join(names))} ;;" for word, names in words.items()]
    return textwrap.indent("\n".join(lines), " " * indent)


def fish() -> str:
    """The script for fish."""
    by_command = flags()
    lines = [f"complete -c firsthand -n __fish_use_subcommand -f -a {shlex.quote(' '.join(by_command))}"]
    for name, each in by_command.items():
        here = f"-n '__fish_seen_subcommand_from {name}'"
        known = values()
        for flag in each:
            words = f" -x -a {shlex.quote(' '.join(known[flag]))}" if flag in known else ""
            lines.append(f"complete -c firsthand {here} -l {flag.removeprefix('--')}{words}")
        if name in known:
            lines.append(f"complete -c firsthand {here} -a {shlex.quote(' '.join(known[name]))}")
    return "\n".join(lines) + "\n"
