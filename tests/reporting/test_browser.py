"""The pages in headless Chromium; left out where there is none."""

from pathlib import Path

import pytest

from support.browser import CONTRAST
from support.grids import finish, small_grid, tabulate
from support.marks import quick
from support.run_folders import attacks_record, write_run
from viker_lightning.grids import read_grid
from viker_lightning.reporting import write_comparison, write_report
from viker_lightning.reporting.html import write_attacks_page
from viker_lightning.storage.files import write_json

pytestmark = pytest.mark.extended


@pytest.fixture
def visit(chromium):
    """Opens a file and watches: whatever the page says on the console or asks of a network is an error."""
    complaints, contexts = [], []

    def open_page(file, width=1280, scheme="light"):
        view = {"width": width, "height": 900}
        contexts.append(chromium.new_context(viewport=view, color_scheme=scheme, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(f"request: {r.url}"))
        page.goto(Path(file).resolve().as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.mark.parametrize(
    ("width", "scheme"), quick([(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], [(1280, "light")])
)
def test_report_is_readable(run, visit, width, scheme):
    page = visit(write_report(run), width, scheme)
    assert page.title() == "ViKeR · run & <b>co"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.locator("svg").count() >= 4 and page.locator(".big").first.is_visible()
    assert page.evaluate(CONTRAST) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, paper[4:-1].split(","))) < 60) == (scheme == "dark")
    ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (min(map(int, ink[4:-1].split(","))) > 120) == (scheme == "dark"), "plots follow the scheme"


OUTSIDE = """() => [...document.querySelectorAll("body *")].filter(e =>
  // shown, in no box that scrolls, and beyond an edge of the page
  e.checkVisibility() && !e.closest("svg, .skip, .strip") && !e.parentElement.closest(".scroll, nav ul, pre") &&
  (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
).map(e => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`)"""
OVERLAPPING = """() => [...document.querySelectorAll(".cards, .people, .plots, .beside")].flatMap(grid => {
  const boxes = [...grid.children].map(e => e.getBoundingClientRect());
  return boxes.filter((a, i) => boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1 &&
    a.top < b.bottom - 1 && b.top < a.bottom - 1));
}).length"""


@pytest.mark.parametrize("width", [1280, 1024, 400])
def test_nothing_is_clipped(run, visit, width):
    (run / "attacks").mkdir()
    write_json(run / "attacks/attacks.json", attacks_record(0.4))
    for file in (write_report(run), write_attacks_page(run, "run " * 9)):
        page = visit(file, width)
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert page.evaluate(OUTSIDE) == [] and page.evaluate(OVERLAPPING) == 0
        table = page.locator("#attacks .scroll").first
        assert width < 1000 or table.evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize("width", [1280, 390])
def test_keys_reach_the_tokens(run, visit, width):
    page = visit(write_report(run), width)
    page.locator("#tokens .tok[tabindex]").first.focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    token, tip = page.locator("#tokens .tok.private[tabindex]").first, page.locator("[role=tooltip]:visible")
    assert token.evaluate("e => e === document.activeElement")
    assert tip.count() == 1 and "entropy 2.000 nats" in tip.inner_text() and "Rome" in tip.inner_text()
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    page.keyboard.press("Tab")  # to the table of the same answer
    assert tip.count() == 0
    page.keyboard.press("Enter")
    assert page.get_by_role("region", name="Tokens of the answer about 000").first.is_visible()


def test_pointing_at_a_token_explains_it(run, visit):
    page = visit(write_report(run))
    assert page.locator("[role=tooltip]:visible").count() == 0
    page.locator("#tokens .tok.private[tabindex]").first.hover()
    assert "Rome" in page.locator("[role=tooltip]:visible").inner_text()


def test_policy_keeps_a_page_from_any_network(run, chromium):
    """Were a text ever to become an element, the browser itself would refuse to load what it names."""
    page = chromium.new_page()
    page.goto(write_report(run).resolve().as_uri())
    refused = page.evaluate(
        """() => new Promise(done => {
             document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
             document.body.append(Object.assign(new Image(), {src: "https://example.invalid/x.png"})); })"""
    )
    assert refused == "img-src"
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_comparison_is_readable(tmp_path, visit, width, scheme):
    runs = [write_run(tmp_path / name, i, 4 - i, name) for i, name in enumerate(("ViKeR", "NPO", "$x_1$ <i>"))]
    page = visit(write_comparison(runs, tmp_path / "comparison.html"), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert {"vanilla", "ViKeR", "NPO", "$x_1$ <i>"} <= set(page.locator("svg text").all_text_contents())
    assert page.locator(".best").count() > 3


TWELVE = {
    "forget": {"keyword_match": "Keywords", "accuracy": "MC", "rouge_l": "ROUGE-L"},
    "test": {"keyword_match": "Keywords", "accuracy": "MC", "coherence": "Coherence", "kl_gold": "KL to gold"},
    "retain": {"keyword_match": "Keywords", "accuracy": "MC", "rouge_l": "ROUGE-L"},
    "real": {"keyword_match": "Keywords", "accuracy": "MC"},
}
HIDDEN = """() => [...document.querySelectorAll(".scroll")].filter(box => {
  // what is at the right of a table, and cannot be brought into its box by scrolling there
  const cell = box.querySelector("tr").lastElementChild;
  box.scrollLeft = box.scrollWidth;
  return cell.checkVisibility() && cell.getBoundingClientRect().right > box.getBoundingClientRect().right + 1;
}).map(box => box.ariaLabel)"""


@pytest.mark.parametrize("width", [1300, 390])
def test_no_column_is_out_of_reach(tmp_path, visit, monkeypatch, width):
    """A table of twelve columns with intervals, as the demo has."""
    monkeypatch.chdir(Path(__file__).parents[2])
    grid = read_grid(small_grid(tmp_path, columns=TWELVE), "mini", 1)
    for cell in grid.cells(tmp_path / "runs"):
        finish(cell)
    tabulate(grid, tmp_path / "runs", tmp_path)
    page = visit(tmp_path / "small-mini.html", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.evaluate(HIDDEN) == []
    box = page.locator(".scroll.numbers").first
    assert width < 1000 or box.evaluate("box => box.scrollWidth <= box.clientWidth"), "it fits without scrolling"
    name = box.locator("tbody th").first
    assert name.bounding_box()["x"] >= box.bounding_box()["x"], "its row is named wherever one has scrolled to"


@pytest.fixture(scope="module")
def table_pages(tmp_path_factory):
    """The page of a table of methods, and that of a sweep."""
    out = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        for file in (small_grid(out), Path("experiments/k.yaml")):
            grid = read_grid(file, "mini", 1)
            for cell in grid.cells(out / file.stem):
                finish(cell, told=cell.row in ("NPO", "k = 1"), key_tokens=cell.row != "NPO")
            tabulate(grid, out / file.stem, out)
    return out


@pytest.mark.parametrize(
    ("width", "scheme"), quick([(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], [(1280, "light")])
)
def test_table_is_readable(table_pages, visit, width, scheme):
    page = visit(table_pages / "small-mini.html", width, scheme)
    assert page.title() == "Small"
    shown = {part: page.locator(f"#{part} svg").count() for part in ("numbers", "tokens", "curves")}
    assert shown == dict.fromkeys(shown, 2), "trade-off, gradient weight and KL to ideal, for each block"
    assert {"Vanilla", "Gold", "NPO", "ViKeR"} <= set(page.locator("svg text").all_text_contents())
    assert page.locator("#tuning td").first.is_hidden() and page.locator("#runs code").first.is_hidden()
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.locator("#tuning td").first.is_visible() and page.locator("#runs code").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)") and page.locator("img").count()
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(
        "(ids => new Set(ids).size == ids.length)([...document.querySelectorAll('[id]')].map(e => e.id))"
    )


def test_tokens_of_a_table_say_what_the_ideal_distribution_would(table_pages, visit):
    page = visit(table_pages / "small-mini.html", 390)
    token = page.locator("#tokens .tok.private", has_text="Oslo0").first
    assert token.locator(".tip").is_hidden()
    token.focus()
    assert token.locator(".tip").is_visible() and "Rome" in token.locator(".tip").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_keys_open_what_is_collapsed(table_pages, visit):
    page = visit(table_pages / "small-mini.html", 390)
    page.locator("#runs summary").focus()
    page.keyboard.press("Enter")
    assert page.get_by_role("region", name="Commands").is_visible()


def test_sweep_is_readable(table_pages, visit):
    page = visit(table_pages / "k-mini.html", 390, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CONTRAST) == []
    texts = page.locator("svg text").all_text_contents()
    assert {"1", "3", "5", "10", "k, number of irrelevant images", "test: keyword match"} <= set(texts)
