"""Docstrings as the reference shows them: all of the first paragraph is the summary."""

from typing import Any

import griffe


class WholeSummaries(griffe.Extension):
    """Summaries are cut at the first line: makes the first paragraph one line, unless it is set."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return
        first, blank, rest = obj.docstring.value.partition("\n\n")
        if not any(line.startswith((" ", "- ")) for line in first.splitlines()):
            obj.docstring.value = " ".join(first.splitlines()) + blank + rest
