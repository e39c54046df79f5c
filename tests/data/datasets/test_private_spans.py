"""Private spans where no benchmark records them."""

from viker_lightning.data.datasets.private_spans import infer_private_spans
from viker_lightning.data.records import VQA, Person


def test_words_that_others_do_not_share_are_private():
    towns = ["Oslo", "Rome", "New York", "Paris", "Lima"]
    people = [Person(t, (), (VQA("Where?", f"This person lives in {t}."),)) for t in towns]
    people.append(
        Person("x", (), (VQA("What award?", "They won the Golden Fig award."), VQA("K?", "It is k.", ("k",))))
    )
    marked = infer_private_spans(people)
    assert [p.vqa[0].private for p in marked[:5]] == [("Oslo",), ("Rome",), ("New York",), ("Paris",), ("Lima",)]
    assert "Golden Fig" in marked[5].vqa[0].private[0]
    assert marked[5].vqa[1].private == ("k",)
