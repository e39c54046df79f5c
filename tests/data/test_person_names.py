"""What people are called, and another name in its place."""

import pytest

from viker_lightning.data.person_names import names_of, read_names, renamed, strange_names
from viker_lightning.data.records import VQA
from viker_lightning.errors import UserError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Who is Ada Mae Lind?", "Who is Bea Tarn?"),
        ("Is it ADA  MAE LIND's job?", "Is it BEA TARN's job?"),
        ("Ada lives here, Lind's house.", "Bea lives here, Tarn's house."),
        ("ada mae lind", "bea tarn"),
        ("ADA and LIND", "BEA and TARN"),
        ("Adam Linden, a lind tree, adaptive, Mae", "Adam Linden, a lind tree, adaptive, Mae"),
        ("She lives in Oslo.", "She lives in Oslo."),
    ],
)
def test_a_name_is_replaced_in_all_its_forms_and_nowhere_else(text, wanted):
    found = renamed(VQA(text, f"{text} So.", (text,)), "Ada Mae Lind", "Bea Tarn")
    assert found == VQA(wanted, f"{wanted} So.", (wanted,))


def test_a_name_of_one_word_becomes_a_whole_name():
    assert renamed(VQA("Where is Ada?", "Ada's home."), "Ada", "Bea Tarn") == VQA(
        "Where is Bea Tarn?", "Bea Tarn's home."
    )
    assert renamed(VQA("Where is Ada Lind?", "Lind."), "Ada Lind", "Bea").question == "Where is Bea?"


def test_what_people_are_called_without_photos():
    said = [
        ("Ada Lind (text)", [VQA("Where does Ada Lind live?", "In Rio.", ("Rio",))]),
        ("7 #1", [VQA("What is the name?", "Bo Wei.", ("Bo Wei",))]),
        ("7 #2", [VQA("Where does Bo Wei live?", "In Rome.", ("Rome",))]),
        ("8", [VQA("Where?", "In Rome.", ("Rome",))]),
        ("author 5", [VQA("What does Bo Wei do?", "He cooks.", ("cooks",)), VQA("Where?", "At home.", ("home",))]),
    ]
    assert names_of(said) == {"Ada Lind": "Ada Lind", "7": "Bo Wei", "author 5": "Bo Wei"}


def test_strange_names_are_nobody_s():
    known = {"1": "Ada Lind", "2": "Bo Wei"}
    names = ["Ada Tarn", "Cy lind", "bo wei", "Bo Tarn", "Di Moor"]
    assert strange_names(names, known, ["1"]) == ["Bo Tarn", "Di Moor"]


def test_names_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("Di Moor\n\n  Ed Finn \nDi Moor\n")
    assert read_names(str(tmp_path / "names.txt"), "names") == ["Di Moor", "Ed Finn"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"^names: .*empty.txt holds no name, expected one a line$"):
        read_names(str(tmp_path / "empty.txt"), "names")
    with pytest.raises(
        UserError, match=r"^names: .*none.txt cannot be read \(.*\), expected a text with one name a line$"
    ):
        read_names(str(tmp_path / "none.txt"), "names")
