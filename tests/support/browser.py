"""Headless Chromium; what needs it is left out where there is none."""

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SYSTEM = next((path for name in NAMES if (path := shutil.which(name))), None)

CONTRAST = """() => {
  // WCAG 2 contrast of every shown text with the background it stands on, all layers painted over each other
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, under) => under.map((u, i) => top[i] * top[3] + u * (1 - top[3]));
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("svg, title, [aria-hidden]")) continue;
    const layers = [];
    for (let p = e; p; p = p.parentElement) layers.unshift(parse(getComputedStyle(p).backgroundColor));
    const paper = layers.reduce((under, top) => over(top, under), [255, 255, 255]);
    const [a, b] = [light(paper), light(over(parse(getComputedStyle(e).color), paper))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.push(`${e.className}: ${walker.currentNode.data.trim().slice(0, 30)}`);
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def chromium():
    """A browser: the machine's own, or the one playwright has brought."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=SYSTEM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
