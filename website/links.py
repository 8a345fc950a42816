"""Links as a reader of the repository follows them, made to lead somewhere on the site too.

A page links to files: ``docs/train.md`` from README, ``../CHANGELOG.md`` from a guide. What is a
page of the site becomes that page; any other file or folder of the repository, its place there.
"""

import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from website.pages import PAGES, ROOT

# Code first, so that what looks like a link there is passed over.
LINK = re.compile(r"```.*?^ *```|`[^`\n]+`|(\]\()([^)#:\s]+)([^)\s]*\))", re.MULTILINE | re.DOTALL)
FILES = {page: name for name, page in PAGES.items()}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text with every link to a file made one to a page or to the repository."""
    here = page.file.src_uri
    elsewhere = here if here.startswith("notebooks/") else f"docs/{here}"
    source = FILES.get(here, elsewhere)

    def link(found: re.Match[str]) -> str:
        opening, target, rest = found.groups()
        if target is None:
            return found[0]
        return f"{opening}{led(target, source, here, config.repo_url)}{rest}"

    return LINK.sub(link, markdown)


def led(target: str, source: str, here: str, repository: str) -> str:
    """What a link to ``target`` in the repository's file ``source`` is on the page ``here``."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).exists():
        return target  # for MkDocs to complain about
    page = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if path.endswith(".ipynb"):
        page = path.replace(".ipynb", ".md")
    if page is None:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{repository}/{kind}/main/{path}"
    return posixpath.relpath(page, posixpath.dirname(here) or ".")
