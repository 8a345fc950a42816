"""Markdown as GitHub and editors read it, where Python-Markdown would read it otherwise.

What belongs to an item of a list is indented by two, not by four; and a role of a docstring,
``:class:`Energy```, is code.
"""

import re
from xml.etree import ElementTree

from markdown import Markdown
from markdown.blockprocessors import ListIndentProcessor
from markdown.extensions import Extension
from markdown.extensions.sane_lists import SaneOListProcessor, SaneUListProcessor
from markdown.inlinepatterns import InlineProcessor
from markdown.util import AtomicString
from mkdocs.config.defaults import MkDocsConfig


class Role(InlineProcessor):
    """The name in ``:class:`~energydiff.energies.Energy``` as code; after ``~`` its last part."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[ElementTree.Element, int, int]:
        code = ElementTree.Element("code")
        name = m[1].rpartition(".")[2] if m[1].startswith("~") else m[1]
        code.text = AtomicString(name)
        return code, m.start(), m.end()


class InsideItem(ListIndentProcessor):
    """What is indented in an item; a next item may follow it without a blank line."""

    NEXT = re.compile(r"\n(?=(?:[-*+]|\d+\.) )")

    def run(self, parent: ElementTree.Element, blocks: list[str]) -> None:
        blocks[:1] = self.NEXT.split(blocks[0], maxsplit=1)
        super().run(parent, blocks)


class AsElsewhere(Extension):
    """The priorities are Python-Markdown's own, but for the role: before code, which is 190."""

    def extendMarkdown(self, md: Markdown) -> None:
        lists = md.parser.blockprocessors
        usual, md.tab_length = md.tab_length, 2  # kept by what is made of the parser now
        lists.register(InsideItem(md.parser), "indent", 90)
        lists.register(SaneOListProcessor(md.parser), "olist", 40)
        lists.register(SaneUListProcessor(md.parser), "ulist", 30)
        md.tab_length = usual
        md.inlinePatterns.register(
            Role(r":(?:class|func|meth|mod|attr):`([^`]+)`", md), "role", 195
        )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds it to the extensions of every page and docstring."""
    config.markdown_extensions.append(AsElsewhere())  # type: ignore[arg-type]
    return config
