"""What a page asks for and how it is shown, without a page."""

import html
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from viker_lightning.cli.chat.album import album
from viker_lightning.cli.chat.desk import OWN, Desk, Exchange, heading, heat, refused, shown_answers
from viker_lightning.cli.chat.spoken_tokens import Token, say
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA, ImageGroup, Split
from viker_lightning.errors import UserError


def benchmark(groups):
    return SimpleNamespace(evaluation=lambda split, modality: groups if split == Split.TEST else [])


def test_photos_and_their_questions():
    pictures = irrelevant_images("scenes", 3, size=32)
    where, who = VQA("Where? ", "In Oslo.", ("Oslo",)), VQA("Who?", "It is Ann.")
    groups = [
        ImageGroup("ann", pictures[0], Split.TEST, (where,)),
        ImageGroup("ann", pictures[0], Split.TEST, (where, who)),
        ImageGroup("ann", pictures[1], Split.TEST, (who,)),
        ImageGroup("bob", pictures[2], Split.TEST, (who,)),
        ImageGroup("ann", None, Split.TEST, (who,)),
    ]
    found = album(benchmark(groups))
    assert [*found] == ["test"], "a split without photos is not there"
    assert [photo.title for photo in found["test"]] == ["ann, photo 1", "ann, photo 2", "bob"]
    assert found["test"][0].questions == (where, who) and found["test"][0].picture is pictures[0]
    assert found["test"][0].question(" Where?") == where and found["test"][0].question("Whom?") is None


def test_a_question_of_the_data(desk, photos):
    assert desk.places == ["forget", "test", "retain", "real", OWN]
    photo = photos["forget"][0]
    vqa = next(one for one in photo.questions if one.private)
    found = desk.ask("forget", 0, None, f" {vqa.question} ")
    assert found.truth == vqa and [*found.answers] == desk.speakers.names
    assert vqa.question in desk.questions("forget", 0) and desk.titles("forget")[0] == photo.title
    page = shown_answers(found, "entropy")
    assert page.count("<article") == 4 and f"<mark>{vqa.private[0].split(',')[0]}" in page


def test_a_question_of_ones_own(desk, photos):
    found = desk.ask("forget", 0, None, "Is it raining?")
    assert found.truth is None and "True answer" not in shown_answers(found, "entropy")


def test_half_a_character(desk):
    assert desk.ask(OWN, None, None, "Where, \ud83d?").question == "Where, ??"


def test_a_picture_of_ones_own_is_seen_as_one_of_the_data(desk, photos, tmp_path):
    photo = photos["retain"][0]
    (tmp_path / "mine.png").write_bytes(photo.picture.data)
    question = photo.questions[0].question
    own, of_data = desk.ask(OWN, None, str(tmp_path / "mine.png"), question), desk.ask("retain", 0, None, question)
    assert own.truth is None and of_data.truth == photo.questions[0]
    plain = {name: [replace(token, private=False) for token in said] for name, said in of_data.answers.items()}
    assert own.answers == plain
    assert desk.ask(OWN, None, None, question).answers["Vanilla"] == say_vanilla(desk, question), "and none at all"
    assert "data:image/jpeg" in desk.shown(OWN, None, str(tmp_path / "mine.png"))
    assert "No picture" in desk.shown(OWN, None, None)


def say_vanilla(desk, question):
    with desk.speakers.unlearned.frozen():
        return say(desk.speakers.unlearned, None, question, desk.speakers.max_new_tokens)


@pytest.mark.parametrize(
    ("place", "number", "question", "said"),
    [
        ("forget", 0, "  ", "question: found none"),
        ("forget", 0, "Who is </s> it?", "a special token"),
        ("forget", 0, "who " * 5000, "shorten it"),
        ("forget", 99, "Who?", "photo: found no number 99 of 'forget'"),
        ("forget", -1, "Who?", "photo: found no number -1"),
        ("forget", None, "Who?", "photo: found no number None"),
        ("nowhere", 0, "Who?", "photo: found no number 0 of 'nowhere'"),
    ],
)
def test_what_cannot_be_asked(desk, place, number, question, said):
    with pytest.raises(UserError, match=said) as stop:
        desk.ask(place, number, None, question)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("stored", [b"", b"no picture", "half"])
def test_what_is_no_picture(desk, photos, tmp_path, stored):
    whole = photos["forget"][0].picture.data
    (tmp_path / "it.png").write_bytes(whole[: len(whole) // 2] if stored == "half" else stored)
    with pytest.raises(UserError, match=r"it\.png: not a readable image"):
        desk.ask(OWN, None, str(tmp_path / "it.png"), "Who?")
    assert "not a readable image" in desk.shown(OWN, None, str(tmp_path / "it.png"))


def test_what_is_said_is_shown_as_text():
    evil = "<img src=x onerror=alert(1)>"
    said = [Token(evil, 1.0, 0.5), Token(" \n", 0.0, 1.0)]
    found = Exchange(evil, {evil: said}, VQA(evil, f"{evil} Oslo", ("Oslo",)))
    for page in (shown_answers(found, "entropy"), refused(UserError(evil)), heading(evil)):
        assert "<img" not in page and "&lt;img" in page
    assert "␣␣" in shown_answers(found, "entropy"), "white space is seen"


def test_white_space_of_an_answer_is_as_it_was_said():
    texts = [" Ann", "  lives\n", " in", " ", "Oslo \t", ".\n"]
    page = shown_answers(Exchange("Where?", {"Vanilla": [Token(one, 1.0, 0.5) for one in texts]}, None), "entropy")
    (said,) = re.findall(r'<p class="tokens">(.*)…</p>', page, re.DOTALL)
    said = re.sub(r'<span class="tip".*?</span>', "", said, flags=re.DOTALL)
    assert html.unescape(re.sub("<[^>]*>", "", said)) == "".join(texts).replace("in ", "in␣")


@pytest.mark.parametrize(
    ("entropy", "probability", "by_entropy", "by_probability"),
    [(0.0, 1.0, 0, 0), (1.0, 0.7, 5, 3), (2.0, 0.0, 10, 10), (9.0, 0.5, 10, 5), (-1e-9, 1.0 + 1e-7, 0, 0)],
)
def test_colours(entropy, probability, by_entropy, by_probability):
    token = Token("x", entropy, probability)
    assert (heat(token, "entropy"), heat(token, "probability")) == (by_entropy, by_probability)


def test_the_legend_says_which_colour_it_is():
    found = Exchange("Who?", {"Vanilla": [Token("Ann", 1.0, 0.7), Token("</s>", 0.0, 1.0, ends=True)]}, None)
    by_entropy, by_probability = shown_answers(found, "entropy"), shown_answers(found, "probability")
    assert "2.0 nats or more" in by_entropy and 'class="tok h5"' in by_entropy
    assert "probability 1<" in by_probability and 'class="tok h3"' in by_probability
    assert "entropy 1.000 nats<br>probability 0.700" in by_entropy and ">end" in by_entropy
    assert "…" not in by_entropy, "it has ended"
    assert "…" in shown_answers(Exchange("Who?", {"Vanilla": [Token("Ann", 1.0, 0.7)]}, None), "entropy")
    assert shown_answers(None, "entropy") == ""


def test_data_without_photos(speakers):
    desk = Desk(speakers, {})
    assert desk.places == [OWN] and desk.questions(OWN, None) == [] and desk.titles(OWN) == []
