"""A notebook as a page: its text, its code, and what its cells printed and drew, as stored."""

import base64
import json
import re
from pathlib import Path
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def notebook_page(notebook: Path) -> dict[str, str | bytes]:
    """The files of the page by name: ``NAME.md`` and the pictures it shows."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    pictures: dict[str, str | bytes] = {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source:
            parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png")
            if png is None:
                parts.append(f"```text\n{printed(output).rstrip()}\n```")
            else:
                name = f"{notebook.stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(png)
                parts.append(f"![]({name})")
    return {f"{notebook.stem}.md": "\n\n".join(parts), **pictures}


def printed(output: dict[str, Any]) -> str:
    """The plain text of an output."""
    text = output["text"] if "text" in output else output["data"]["text/plain"]
    return ANSI.sub("", "".join(text))
