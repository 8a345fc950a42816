"""Every paper that the code or a guide cites is in docs/references.md, and every entry is cited."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/references.md"
_NAME = r"(?:(?:Del )?[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’\-]+(?: Van [A-Z]\w+)?|E(?= et al))"
_YEAR = r"(?:18|19|20)\d\d[a-z]?\b"
CITATION = re.compile(
    rf"({_NAME}(?: et al\.|(?:, {_NAME})*,? (?:&|and) (?:Van )?{_NAME})?),?"
    rf" \(?({_YEAR}(?:, {_YEAR})*)"
)
NO_AUTHOR = ("Copyright", "January", "May")


def flat(text: str) -> str:
    """On one line, so that a citation may run over several, in comments too."""
    return re.sub(r"\s+(?:# )?", " ", text)


def citations(text: str) -> set[str]:
    """Keys of all papers cited in a text."""
    found = CITATION.findall(flat(text))
    return {
        f"{authors} {year}"
        for authors, years in found
        for year in years.split(", ")
        if authors not in NO_AUTHOR
    }


def entries() -> dict[str, str]:
    """The page: where each paper is, by its key."""
    row = re.compile(r"^\| ([^|]*\d[a-z]?) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
    rows = row.findall(PAGE.read_text())
    assert len(rows) > 40 and len({key for key, _ in rows}) == len(rows)
    return dict(rows)


def files() -> list[Path]:
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page != PAGE]
    code = [*(ROOT / "energydiff").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    return sorted([*pages, *code, ROOT / "README.md"])


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("as in Karras et al. 2022, eq. 5", {"Karras et al. 2022"}),
        ("(Karras et\n    al. 2022)", {"Karras et al. 2022"}),
        ("# Okabe &\n# Ito 2008", {"Okabe & Ito 2008"}),
        ("(Łoś & Émery 1999)", {"Łoś & Émery 1999"}),
        ("Ho & Salimans (2022)", {"Ho & Salimans 2022"}),
        ("Source: Hopfield 1982, 1984; Song et al. 2021b", {
            "Hopfield 1982", "Hopfield 1984", "Song et al. 2021b",
        }),
        ("Golub & Van Loan 2013, §10.3", {"Golub & Van Loan 2013"}),
        ("Nobody et al. 1999", {"Nobody et al. 1999"}),
        ("2,000 images of 2022", set()),
    ],
)  # fmt: skip
def test_citations_are_found(text: str, keys: set[str]) -> None:
    """Otherwise the next tests could not fail."""
    assert citations(text) == keys


def test_every_citation_is_an_entry() -> None:
    known = entries().keys()
    unknown = {str(f.relative_to(ROOT)): citations(f.read_text()) - known for f in files()}
    assert not any(unknown.values()), {file: keys for file, keys in unknown.items() if keys}


def test_every_entry_is_cited() -> None:
    assert entries().keys() == set().union(*(citations(f.read_text()) for f in files()))


def test_every_entry_says_where_it_is() -> None:
    """By arXiv number or DOI; what has neither says what it is."""
    place = r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|(book|workshop|conference|page): .+"
    assert [key for key, where in entries().items() if not re.fullmatch(place, where)] == []


def test_numbers_in_the_prose_are_those_of_the_page() -> None:
    numbered = re.compile(rf"{CITATION.pattern},? \(?(arXiv:\d{{4}}\.\d{{4,5}})")
    found = [hit for file in files() for hit in numbered.findall(flat(file.read_text()))]
    where = entries()
    assert found
    assert [hit for hit in found if where[f"{hit[0]} {hit[1]}"] != hit[2]] == []


def test_entries_are_sorted_and_a_letter_is_never_alone() -> None:
    keys = list(entries())
    assert keys == sorted(keys)
    papers = Counter(key.rstrip("abcdefgh") for key in keys)
    assert [key for key in keys if key[-1].isalpha() != (papers[key.rstrip("abcdefgh")] > 1)] == []
