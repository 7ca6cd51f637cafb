"""Reads source code. The language is that of the suffix; citations name lines."""

from __future__ import annotations

from pathlib import PurePosixPath

from firsthand.retrieval.document import Document
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript",
    ".ts": "typescript", ".tsx": "typescript", ".java": "java", ".kt": "kotlin", ".scala": "scala", ".c": "c",
    ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cu": "cuda", ".cs": "csharp", ".go": "go",
    ".rs": "rust", ".rb": "ruby", ".php": "php", ".swift": "swift", ".m": "objective-c", ".r": "r", ".jl": "julia",
    ".lua": "lua", ".pl": "perl", ".sh": "shell", ".bash": "shell", ".sql": "sql", ".hs": "haskell",
    ".ml": "ocaml", ".ex": "elixir", ".erl": "erlang", ".clj": "clojure", ".dart": "dart", ".zig": "zig",
    ".proto": "protobuf", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".ini": "ini", ".cfg": "ini",
    ".css": "css", ".tf": "terraform", ".sol": "solidity", ".f90": "fortran", ".vue": "vue", ".svelte": "svelte",
}  # fmt: skip


def read_code(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The source as it stands; its title is the path, by which people ask for it."""
    text, notes = decode(data)
    text, _, dropped = clean(text)
    meta = {"kind": "code", "language": LANGUAGES.get(PurePosixPath(name).suffix.lower(), "")}
    return FileContent((Document(name, text, name, meta=meta),), tuple(notes + dropped))
