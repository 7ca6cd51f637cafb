"""Wraps text that arrives in pieces at words, for a terminal. Fenced code keeps its lines."""

from __future__ import annotations

FENCE = "```"
TAB = 4


class WordWrap:
    """Wraps streamed text at `width` columns. A word is held back until it is whole; `flush` gives what is left."""

    def __init__(self, width: int):
        self.width = max(width, 1)
        self._column = 0
        self._space = 0
        self._word = ""
        self._line = ""
        """The first characters of the line, by which a fence is known."""
        self._in_code = False

    def feed(self, text: str) -> str:
        """The text that may be printed now."""
        return "".join(map(self._char, text))

    def flush(self) -> str:
        """The rest of the word at the end of the text."""
        return self._put_word()

    def _char(self, char: str) -> str:
        from rich.cells import cell_len

        if char == "\n":
            rest = self._put_word()
            if self._line.startswith(FENCE):
                self._in_code = not self._in_code
            self._column, self._space, self._line = 0, 0, ""
            return rest + char
        if len(self._line) < len(FENCE) and not (char.isspace() and not self._line):
            self._line += char
        if self._in_code or self._line.startswith(FENCE):
            return self._put_word() + self._put_spaces() + char
        if char in " \t":
            rest = self._put_word()
            self._space += TAB if char == "\t" else 1
            return rest
        if cell_len(char) == 2:  # text without spaces may be broken between any two characters
            rest = self._put_word()
            self._word = char
            return rest + self._put_word()
        self._word += char
        return self._put_word() if cell_len(self._word) >= self.width else ""

    def _put_word(self) -> str:
        from rich.cells import cell_len

        if not self._word:
            return ""
        word, width = self._word, cell_len(self._word)
        self._word = ""
        if self._column and self._column + self._space + width > self.width:
            self._column, self._space = width, 0
            return f"\n{word}"
        before = self._put_spaces()
        self._column += width
        return before + word

    def _put_spaces(self) -> str:
        spaces, self._space = self._space, 0
        self._column += spaces
        return " " * spaces
