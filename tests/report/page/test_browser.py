"""The page in a real browser, with the network off: no errors, hover, choice and switch work."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from energydiff.evaluation.records import Comparison, CurvePoint
from energydiff.report.page import PageModel, write_page


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page on a desktop, freshly loaded; what it complains of fails the test."""
    resize(browser, 1280)
    browser.get(page.as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.fixture(scope="module")
def wide(models: list[PageModel], comparison: Comparison, tmp_path_factory: Any) -> Path:
    """A page with long names, large numbers, and costs and distances that lie close together."""
    trace = models[0].trace
    assert trace is not None
    large = {name: 1e5 * array for name, array in trace.arrays().items() if name != "sigma"}
    names = "icons_energy_unet_64px_seed0", "icons_baseline_unet_64px_seed0"
    trace = replace(trace, **large, digest="")
    named = [replace(m, name=name) for m, name in zip(models, names, strict=True)]
    named[0] = replace(named[0], trace=trace, metrics={"quality/frechet": [(1e6, 123456.0)]})
    arms = [
        replace(
            arm,
            name=name,
            curve=[CurvePoint(s, replace(arm.cost, nfe=2 * s), 123456.0 + s) for s in (16, 17, 18)],
        )
        for arm, name in zip((comparison.a, comparison.b), names, strict=True)
    ]
    out: Path = tmp_path_factory.mktemp("wide") / "report.html"
    write_page(named, replace(comparison, a=arms[0], b=arms[1]), {}, out)
    return out


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shown(browser: Any) -> dict[str, Any]:
    """What the page shows of the chosen sample."""
    return browser.execute_script(
        """return {
          text: document.getElementById("chosen").textContent,
          pressed: [...document.querySelectorAll("[aria-pressed=true]")].map((button) =>
            button.dataset.sample),
          strips: [...document.querySelectorAll(".strip")].map((s) =>
            data.strips.map((all) => all.findIndex((uri) =>
              s.style.getPropertyValue("--sprite").includes(uri)))),
          lines: [...document.querySelectorAll(".traces .trace")].flatMap((line, i) =>
            line.hasAttribute("data-chosen") ? [i] : []),
          frames: [...document.querySelectorAll(".frame")].flatMap((frame, i) =>
            frame.classList.contains("now") ? [i] : []),
          label: document.querySelector(".traces .hovertext")?.textContent,
        }"""
    )


def test_every_figure_is_drawn(opened: Any, models: list[PageModel]) -> None:
    drawn = opened.execute_script(
        """return [...document.querySelectorAll(".plot")].map((plot) =>
          plot.querySelectorAll(".trace").length)"""
    )
    assert models[0].certificate is not None
    marks = models[0].certificate.rises > 0
    assert drawn == [5 + marks, 2, 1, 1, 1]


def test_nothing_is_asked_of_the_network(opened: Any) -> None:
    asked = "return performance.getEntriesByType('resource').map(entry => entry.name.slice(0, 5))"
    assert set(opened.execute_script(asked)) <= {"data:"}


def test_pointing_at_a_curve_shows_its_sample_and_its_way(
    opened: Any, models: list[PageModel]
) -> None:
    """The mouse goes to the highest curve, at the fifth point."""
    assert models[0].trace is not None
    sample = int(models[0].trace.free_energy[4].argmax())
    where = opened.execute_script(
        """const plot = document.getElementById("traces-figure-0");
        plot.scrollIntoView({ block: "center" });
        const { xaxis, yaxis, _size } = plot._fullLayout, curve = plot.data[arguments[0]];
        const box = plot.getBoundingClientRect();
        return { x: box.left + _size.l + xaxis.d2p(curve.x[4]),
                 y: box.top + _size.t + yaxis.d2p(curve.y[4]) };""",
        sample,
    )
    for offset in (2, 0):
        event = {"type": "mouseMoved", "x": where["x"] + offset, "y": where["y"] - offset}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        time.sleep(0.2)
    now = shown(opened)
    assert now["label"].startswith(f"sample {sample}")
    assert now["text"].startswith(f"Sample {sample}:")
    assert now["lines"] == [sample]
    assert now["strips"] == [[sample, -1], [-1, sample]]
    assert now["frames"] == [4, 19 + 4]


def test_choosing_a_sample_of_either_model_picks_its_curve(opened: Any) -> None:
    for button, sample in ((3, 3), (5 + 2, 2)):
        opened.execute_script(
            "document.querySelectorAll('[data-sample]')[arguments[0]].click()", button
        )
        now = shown(opened)
        assert now["pressed"] == [str(sample)] * 2
        assert now["lines"] == [sample]
        assert now["strips"] == [[sample, -1], [-1, sample]]
        assert now["frames"] == []


def test_the_choice_outlives_a_change_of_width(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('[data-sample]')[4].click()")
    resize(opened, 700)
    time.sleep(0.5)
    assert shown(opened)["lines"] == [4]


def test_cost_switches_between_its_three_kinds(opened: Any) -> None:
    axis = """const plot = document.getElementById("cost-figure");
        return [plot.data.map((c) => [...c.x]), plot.layout.xaxis.title.text,
                plot.querySelector(".xtitle").textContent];"""
    seen = []
    for kind in ("seconds", "forward_equivalents", "nfe"):
        opened.execute_script(f"document.querySelector('input[value={kind}]').click()")
        values, title, drawn = opened.execute_script(axis)
        assert title == drawn
        seen.append((title, values[0]))
    assert seen == [
        ("seconds per sample", [0.004, 0.008, 0.016]),
        ("forward passes per sample", pytest.approx([16.24, 32.48, 64.96])),
        ("evaluations per sample", [8, 16, 32]),
    ]


def test_the_page_is_no_wider_than_the_screen(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (1280, 390):
        resize(opened, width)
        time.sleep(0.3)
        page, screen = opened.execute_script(
            "return [document.documentElement.scrollWidth, innerWidth]"
        )
        assert page <= screen == width


def test_nothing_is_cut_off_however_long_the_names_and_narrow_the_screen(
    opened: Any, wide: Path
) -> None:
    """No table has to be pushed aside to see what is better, and no label loses its first digit."""
    for width in (1280, 390):
        resize(opened, width)
        opened.get(wide.as_uri())
        opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        time.sleep(0.5)
        page, pushed, cut = opened.execute_script(
            """const inside = (small, large) =>
              small.left >= large.left - 0.5 && small.right <= large.right + 0.5 &&
              small.top >= large.top - 0.5 && small.bottom <= large.bottom + 0.5;
            const box = (element) => element.getBoundingClientRect();
            return [document.documentElement.scrollWidth,
              [...document.querySelectorAll(".scroll")].filter((table) =>
                table.scrollWidth > table.clientWidth).map((table) => table.ariaLabel),
              [...document.querySelectorAll(".plot text")].filter((text) =>
                box(text).width && !inside(box(text), box(text.closest(".plot"))))
                .map((text) => text.textContent)];"""
        )
        assert page <= width
        assert (pushed, cut) == ([], [])
        verdicts = opened.execute_script(
            """return [...document.querySelectorAll("td")].filter((cell) =>
              ["better", "not separable"].includes(cell.textContent)).map((cell) => {
                const { left, right, height } = cell.getBoundingClientRect();
                return [left >= 0, right <= innerWidth, height > 0];
              })"""
        )
        assert verdicts == [[True] * 3] * 2


def test_the_titles_of_axes_do_not_lie_upon_their_numbers(opened: Any, wide: Path) -> None:
    opened.get(wide.as_uri())
    time.sleep(0.5)
    gaps = opened.execute_script(
        """return [...document.querySelectorAll(".plot")].flatMap((plot) => {
          const title = plot.querySelector(".ytitle"), ticks = [...plot.querySelectorAll(".ytick")];
          if (!title) return [];
          const left = Math.min(...ticks.map((tick) => tick.getBoundingClientRect().left));
          return [left - title.getBoundingClientRect().right];
        })"""
    )
    assert len(gaps) == 2 and min(gaps) > 0


def test_the_cost_chart_has_three_ticks_at_least(opened: Any, page: Path, wide: Path) -> None:
    for file in (page, wide):
        opened.get(file.as_uri())
        for kind in ("nfe", "forward_equivalents", "seconds"):
            opened.execute_script(f"document.querySelector('input[value={kind}]').click()")
            time.sleep(0.1)
            ticks = opened.execute_script(
                """return [...document.querySelectorAll("#cost-figure .xtick")].filter((tick) =>
                  getComputedStyle(tick).opacity > 0).map((tick) => tick.textContent)"""
            )
            assert len(set(ticks)) >= 3


def test_it_follows_the_colour_scheme(opened: Any) -> None:
    """Figures as well: what plotly writes has the ink of the page."""
    papers = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        paper, ink, tick = opened.execute_script(
            """const body = getComputedStyle(document.body);
            const tick = getComputedStyle(document.querySelector("#cost-figure .xtick text"));
            return [body.backgroundColor, body.color, tick.fill];"""
        )
        assert tick == ink != paper
        papers.append(paper)
    assert papers[0] == "rgb(255, 255, 255)" != papers[1]
