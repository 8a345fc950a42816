"""Pages of the site that no file in docs/ is: README as the home page, notebooks, the reference.

A folder in the nav (``results/``) stands for all pages in it, so that only guides need a place.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.notebooks import notebook_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "energydiff"
# Files of the repository and the pages that they are.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what docs/ does not hold, then says where each page stands."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in notebook_page(notebook).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for module in modules():
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module)))
    uris = (file.src_uri for file in files.documentation_pages())
    pages = sorted(uris, key=lambda uri: uri.removesuffix(".md"))
    config.nav = filled(config.nav, pages)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The home page is wide: it has no neighbours to list beside it."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]
    return markdown


def reference(module: str) -> str:
    """A page of all that a module offers, found after the guides that speak of it."""
    return f"---\nsearch: {{boost: 0.3}}\n---\n\n# `{module}`\n\n::: {module}\n"


def modules() -> list[str]:
    """Those with a list of what they offer (``__all__``): the package and its rooms."""
    faces = sorted(PACKAGE.rglob("__init__.py"), key=lambda face: face.parent)
    return [
        ".".join(face.parent.relative_to(ROOT).parts)
        for face in faces
        if "__all__" in face.read_text(encoding="utf-8")
    ]


def filled(nav: Any, pages: list[str]) -> Any:
    """The nav with each folder in it, ``name/``, replaced by the pages of that folder."""
    if isinstance(nav, dict):
        return {title: filled(entry, pages) for title, entry in nav.items()}
    if not isinstance(nav, list):
        return nav
    full: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/"):
            full += [page for page in pages if page.startswith(entry)]
        else:
            full.append(filled(entry, pages))
    return full
