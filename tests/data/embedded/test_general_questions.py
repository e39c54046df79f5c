"""Every fact of a general picture can be asked for, and has one of the values that are listed."""

import random

from viker_lightning.data.embedded import general_questions


def test_facts_have_listed_values() -> None:
    rng = random.Random(0)
    for index in range(60):
        kind, _, facts = general_questions.draw_picture(index, rng)
        assert list(facts) == list(general_questions.FACTS[kind])
        for fact, value in facts.items():
            assert value in general_questions.values(kind, fact)
            assert value in general_questions.answer(kind, fact, value)
            assert len(general_questions.questions(kind, fact)) == 32
            assert len(general_questions.clozes(kind, fact)) == 3
