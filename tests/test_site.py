"""The documentation site builds strictly, loads nothing from elsewhere, and its links lead on."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown import Markdown
from markdown_it import MarkdownIt

import energydiff.energies

pytest.importorskip("material", reason="the docs extra is not installed")
from mkdocs.commands.build import build
from mkdocs.config import load_config

from website.links import led
from website.markdown_as_elsewhere import AsElsewhere
from website.pages import filled

ROOT = Path(__file__).parents[1]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# What a browser fetches without being asked.
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Html(HTMLParser):
    """Where a page's links go, what it loads and what may be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given["id"] or ""} if "id" in given else set()
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if given.get(LOADS.get(tag, "")):
            self.loads.append(given[LOADS[tag]] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Html]:
    """The pages of the built site; a warning of the build fails it."""
    folder = tmp_path_factory.mktemp("site").resolve()
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return {page: Html(page.read_text()) for page in folder.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: dict[Path, Html]) -> None:
    loads = {load for page in site.values() for load in page.loads}
    assert len(loads) > 40
    assert not [load for load in loads if urlsplit(load).scheme or load.startswith("//")]
    component = re.compile(r'data-md-component="source"')  # it asks the repository's host
    assert not [page for page in site if component.search(page.read_text())]


def test_links_lead_to_files_and_places_that_exist(site: dict[Path, Html]) -> None:
    checked = 0
    for page, html in site.items():
        for link in {*html.links, *html.loads}:
            parts = urlsplit(link)
            if parts.scheme or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{page.name} links to {link}"
            if parts.fragment and target.suffix == ".html":
                place = unquote(parts.fragment)
                assert place in site[target].ids | {"__top"}, f"{page.name} links to {link}"
            checked += 1
    assert checked > 2000


def test_every_page_and_everything_offered_is_there(site: dict[Path, Html]) -> None:
    (root,) = {page.parent for page in site if page.name == "404.html"}
    pages = {str(page.relative_to(root)) for page in site}
    for text in (ROOT / "docs").rglob("*.md"):
        assert str(text.relative_to(ROOT / "docs").with_suffix(".html")) in pages
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}.html" in pages
    offered = site[root / "reference/energydiff.energies.html"].ids
    assert {f"energydiff.energies.{name}" for name in energydiff.energies.__all__} <= offered
    assert "nats" in (root / "reference/energydiff.html").read_text()


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_a_text_reads_on_the_site_as_it_does_elsewhere(text: Path) -> None:
    """Lists, code and tables as CommonMark has them: what another reader makes of them."""

    def blocks(html: str) -> Counter[str]:
        return Counter(re.findall(r"<(pre|ul|ol|li|table|tr|td|h\d|img|blockquote)\b", html))

    elsewhere = MarkdownIt("gfm-like", {"linkify": False}).render(text.read_text())
    reader = Markdown(extensions=["tables", "sane_lists", "fenced_code", AsElsewhere()])
    assert blocks(reader.convert(text.read_text())) == blocks(elsewhere)


def test_roles_are_code_and_code_belongs_to_its_item() -> None:
    reader = Markdown(extensions=[AsElsewhere()])
    assert reader.convert("of :class:`~energydiff.energies.Energy`, :meth:`build`") == (
        "<p>of <code>Energy</code>, <code>build</code></p>"
    )
    html = reader.convert("- an item\n\n      code of it\n\n  more\n- another")
    assert html.count("<li>") == 2 and "<pre><code>code of it\n</code></pre>" in html


@pytest.mark.parametrize(
    ("target", "source", "here", "link"),
    [
        ("docs/train.md", "README.md", "index.md", "train.md"),
        ("../README.md", "docs/train.md", "train.md", "index.md"),
        ("../../CHANGELOG.md", "docs/results/soak.md", "results/soak.md", "../changelog.md"),
        ("../images/soak.png", "docs/results/soak.md", "results/soak.md", "../images/soak.png"),
        ("../configs", "docs/train.md", "train.md", "https://x/tree/main/configs"),
        ("../train.py", "docs/train.md", "train.md", "https://x/blob/main/train.py"),
        ("gone.md", "docs/train.md", "train.md", "gone.md"),
    ],
)
def test_links_are_led_to_pages_or_to_the_repository(
    target: str, source: str, here: str, link: str
) -> None:
    assert led(target, source, here, "https://x") == link


def test_a_folder_in_the_nav_is_its_pages() -> None:
    nav = [{"Home": "index.md"}, {"Results": ["results/", "a.md"]}]
    pages = ["a.md", "index.md", "results/b.md", "results/c.md"]
    assert filled(nav, pages) == [
        {"Home": "index.md"},
        {"Results": ["results/b.md", "results/c.md", "a.md"]},
    ]
