"""The page in headless Chromium; left out where there is none."""

import pytest

from support.browser import CONTRAST
from support.marks import quick
from viker_lightning.cli.chat.desk import OWN
from viker_lightning.cli.chat.spoken_tokens import Token

pytestmark = pytest.mark.extended

CHATTER = "Method not implemented."
"""What Gradio's own upload says on the console."""


@pytest.fixture
def visit(chromium, served):
    """Opens the page and watches: whatever it says on the console or asks of another address is an error."""
    complaints, contexts = [], []

    def open_page(width=1280, scheme="light"):
        view = {"width": width, "height": 900}
        contexts.append(chromium.new_context(viewport=view, color_scheme=scheme, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.on("console", lambda m: m.text == CHATTER or complaints.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        known = (served[0] + "/", "data:", f"blob:{served[0]}/")
        page.on("request", lambda r: r.url.startswith(known) or complaints.append(f"request: {r.url}"))
        page.goto(served[0])
        page.get_by_role("button", name="Ask").wait_for()
        page.locator(".talk img.photo").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def ask(page, cards):
    """Asks, and waits until so many cards are there."""
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function("n => document.querySelectorAll('.talk article').length == n", arg=cards)


def coloured(page):
    """Heat, entropy and probability of every token of all answers, as the page has them."""
    found = page.evaluate(
        """[...document.querySelectorAll('.talk .tokens .tok')].map(e =>
             [e.className.match(/\\bh(\\d+)/)[1], ...e.textContent.match(/\\d\\.\\d{3}/g).slice(-2)].map(Number))"""
    )
    return [tuple(one) for one in found]


@pytest.mark.parametrize(
    ("width", "scheme"), quick([(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], [(1280, "light")])
)
def test_answers_are_readable(visit, width, scheme):
    page = visit(width, scheme)
    ask(page, 4)
    assert page.title() == "Ask <b>it" and page.locator("h1").inner_text() == "Ask <b>it"
    headings = page.locator(".talk h3").all_inner_texts()
    assert headings == ["True answer", "Vanilla", "Unlearned (ViKeR)", "Gold"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    page.mouse.move(1, 1)  # away from the button, which has a colour of its own under it
    page.wait_for_timeout(500)
    assert page.evaluate(CONTRAST) == []
    if width == 1280:
        tops = [box["y"] for box in (page.locator(".talk article").nth(i).bounding_box() for i in (1, 2, 3))]
        assert len({*tops}) == 1, "side by side"


def test_colours_and_tips(visit, desk, monkeypatch):
    tokens = [Token("She", 0.1, 0.9), Token(" lives", 1.3, 0.62), Token(".", 4.0, 0.05)]
    monkeypatch.setattr(desk.speakers, "answer", lambda picture, question: {"Vanilla": tokens})
    page = visit()
    ask(page, 2)
    said = coloured(page)
    assert len(said) == 3 and all(abs(h - min(10, 10 * entropy / 2)) < 0.52 for h, entropy, _ in said)
    page.get_by_label("probability").check()
    page.get_by_text("probability 1").first.wait_for()
    again = coloured(page)
    assert [numbers for _, *numbers in again] == [numbers for _, *numbers in said], "nobody was asked again"
    assert all(abs(h - 10 * (1 - p)) < 0.52 for h, _, p in again) and again != said
    page.locator(".talk .tokens .tok").first.focus()
    tip = page.locator("[role=tooltip]:visible")
    assert tip.count() == 1 and "entropy" in tip.inner_text() and "probability" in tip.inner_text()


def test_another_person_and_ones_own_question(visit, photos):
    page = visit()
    page.get_by_label("retain").check()
    first = photos["retain"][0]
    page.wait_for_function("text => document.querySelector('textarea').value == text", arg=first.questions[0].question)
    box = page.get_by_label("Question: picked, changed, or your own")
    ask(page, 4)
    box.fill("Is it raining?")
    ask(page, 3)
    assert page.locator(".talk .asked").inner_text() == "Is it raining?"


def test_a_picture_of_ones_own(visit, photos, tmp_path):
    (tmp_path / "mine.png").write_bytes(photos["test"][0].picture.data)
    page = visit()
    page.get_by_label(OWN).check()
    page.get_by_text("No picture: the question is asked without one.").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.locator("img[alt='Your picture']").wait_for()
    page.get_by_label("Question: picked, changed, or your own").fill("Who is it?")
    ask(page, 3)


def test_what_cannot_be_asked(visit):
    page = visit()
    page.get_by_label("Question: picked, changed, or your own").fill("Who is </s> it?")
    page.get_by_role("button", name="Ask").click()
    alert = page.locator(".talk [role=alert]")
    alert.wait_for()
    assert "a special token of this model" in alert.inner_text() and page.evaluate(CONTRAST) == []
