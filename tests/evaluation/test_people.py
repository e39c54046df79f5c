"""What is known person by person, and the table that shows it."""

import math

import pytest
from rich.console import Console

from viker_lightning.evaluation import by_person, summarise
from viker_lightning.metrics import Prediction
from viker_lightning.reporting import knowledge_table


def said(person, answer, split="forget", log_probs=(-1.0, -3.0), modality="image", private=("Oslo",)):
    return Prediction(
        *(split, person, "generation", 0, "Where?", "She lives in Oslo.", answer, private),
        *(list(log_probs), [True, False], [False, True]),
        modality=modality,
    )


def chosen(person, answer):
    return Prediction("forget", person, "choice", 0, "?", "red", answer, (), [-1.0, -2.0], options=["red", "green"])


def test_numbers_of_every_person():
    found = [said("Ada", "In Oslo."), said("Bo", "No idea.", log_probs=(-5.0, -5.0)), chosen("Bo", "red")]
    found += [chosen("Bo", "green"), said("Cy", "Yes.", "retain", private=())]
    people = by_person(found)
    assert people["forget"]["Ada"] == {
        "questions": 1,
        "keyword_match": 1.0,
        "answer_probability": pytest.approx(math.exp(-2)),
    }
    assert people["forget"]["Bo"] == {
        "questions": 3,
        "keyword_match": 0.0,
        "accuracy": 0.5,
        "answer_probability": pytest.approx(math.exp(-5)),
    }
    assert set(people["retain"]["Cy"]) == {"questions", "answer_probability"}
    both = by_person([said("Ada", "In Oslo."), said("Ada", "No.", modality="text")])
    assert both["forget"]["Ada"]["keyword_match"] == 1 and both["forget_text"]["Ada"]["keyword_match"] == 0


def test_table_shows_both_ends():
    found = [said(f"person {i}", "In Oslo." if i < 3 else "No.", log_probs=(-1.0 - i, -1.0)) for i in range(9)]
    found.append(said("[b]Zoe[/b]", "No.", "retain", private=()))
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as printed:
        console.print(knowledge_table(summarise(found), by_person(found), count=2))
    lines = [line.split() for line in printed.get().splitlines()]
    rows = [" ".join(line) for line in lines]
    whole = next(row for row in rows if row.startswith("forget all 9"))
    assert whole.split()[3:5] == ["9", "0.33"]
    order = [row.split()[1] for row in rows if row.startswith("person")]
    assert order == ["0", "1", "7", "8"] and any("5 more" in row for row in rows)
    assert any(row.startswith("[b]Zoe[/b] 1 - -") for row in rows)  # no markup, no numbers where nothing was measured
