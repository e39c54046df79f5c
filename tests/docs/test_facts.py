"""Tables of the pages, held to the code they speak of."""

import inspect
import json
import re
import runpy
from dataclasses import fields
from pathlib import Path
from statistics import mean
from typing import get_args

import pytest

from viker_lightning import methods
from viker_lightning.grids.compare import markdown as attacks_markdown
from viker_lightning.grids.tables.worlds import Measure, differences
from viker_lightning.grids.tables.worlds_page import worlds_markdown
from viker_lightning.grids.tuning.page import markdown
from viker_lightning.grids.tuning.tuning_record import read_tuning
from viker_lightning.ideal import Level
from viker_lightning.methods import IDK, NPO, Alternative, Held, Method, Retain, Strangers
from viker_lightning.methods.base import Stream
from viker_lightning.metrics import NUMBERS
from viker_lightning.metrics.statistics.paired import sign_flip
from viker_lightning.models.families import FAMILIES, Family
from viker_lightning.training.state import RunReport

DOCS = Path(__file__).parents[2] / "docs"


def rows(page, columns):
    """Rows of all tables with so many columns, as lists of cells."""
    lines = re.findall(r"^\| (.*) \|$", (DOCS / page).read_text("utf-8").replace("|  |", "| |"), re.MULTILINE)
    found = [[cell.strip() for cell in re.split(r" \| |\| (?=\|)", line)] for line in lines]
    return [cells for cells in found if len(cells) == columns]


def named(cell):
    """Names in backticks."""
    return re.findall(r"`([^`]+)`", cell)


STANDING = ("Vanilla", "Gold", "Gold, other seed")
"""Rows of tables that methods are compared with."""


def test_the_table_of_scores_is_on_its_page():
    text = (DOCS / "metrics.md").read_text("utf-8")
    renew = runpy.run_path(str(DOCS / "tables.py"))["renew"]
    assert renew(text) == text, "run python docs/tables.py"
    assert renew(text.replace("| by split |", "| low |", 1)) == text, "a wrong direction would be seen"
    shown = [named(cells[0]) for cells in rows("metrics.md", 5)]
    assert [name for names in shown for name in names] == [one.name for one in NUMBERS], "all sections are there"


METHODS = runpy.run_path(str(DOCS / "methods.py"))
"""What writes the page of methods."""


def test_the_page_of_methods_is_that_of_the_classes():
    assert (DOCS / "methods.md").read_text("utf-8") == METHODS["page"](), "run python docs/methods.py"
    lines = re.findall(r"^\| `(\w+)` (\|.*)$", METHODS["page"](), re.MULTILINE)
    assert [name for name, _ in lines] == methods.NAMES
    for name, line in lines:
        paper, _, configs, _, followed, *_ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        said = METHODS["parts"](getattr(methods, name))
        assert said["name"] and said["formula"] and paper, f"{name}: its docstring names no paper, or has no formula"
        assert paper == "ours" or (followed and said["differs"] and configs), f"{name}: say what it follows, in its way"


def test_a_docstring_is_read_in_its_parts():
    class Method:
        """Mine (arXiv 2404.05868, arXiv 2601.22020): words that
        go on.

        ``L = a +
        b``, a being :class:`~x.y.Z`.

        Followed: some/where file.py L1-2, whose mask
        is off.

        Differs: in this.

        More: of it.

        Args:
            a: not shown.
        """

    said = METHODS["parts"](Method)
    assert said == {
        "name": ["Mine (arXiv 2404.05868, arXiv 2601.22020): words that go on."],
        "formula": ["`L = a + b`, a being `Z`."],
        "followed": ["some/where file.py L1-2, whose mask is off."],
        "differs": ["in this."],
        "more": ["More: of it."],
    }
    links = METHODS["paper"](said["name"][0]).split(", ")
    assert links == [f"[{n}](https://arxiv.org/abs/{n})" for n in ("2404.05868", "2601.22020")]
    assert METHODS["paper"]("Mine (ours): x") == "ours" and METHODS["paper"]("Hours of it") == ""
    shown = METHODS["section"]("Mine", said)
    assert "```text\nL = a + b\n```\n\na being `Z`.\n\nFollowed: some/where" in shown


def test_what_a_method_needs_is_what_it_declares():
    needs = METHODS["needs"]
    assert needs(NPO()) == ["frozen model"] and needs(NPO(retain_weight=1.0)) == ["retain data", "frozen model"]
    assert needs(Held(NPO(), rehearsal=True)) == ["strangers", "own answers"]
    method = IDK()
    method.layers, method.takes_steps, method.needs = (1,), False, [Alternative(Strangers()), Retain()]
    assert needs(method)[2:] == ["hidden states", "own answers", "no steps: edits weights"]


def test_a_config_cost_and_measurement_are_found(tmp_path):
    assert [*METHODS["configs"]("NPO")] == ["npo.yaml"] and not METHODS["configs"]("Method")
    assert METHODS["cost"](None) == ""
    assert METHODS["cost"]({"of_gradient_ascent": 2.04, "before_first_step": 9.0}) == "2.0"
    assert METHODS["cost"]({"of_gradient_ascent": None, "before_first_step": 9.0}) == "9.0 in all"
    row = {"test/keyword_match": {"value": 0.25}, "test/kl_gold": {"value": 0.5}}
    gold = {"test/keyword_match": {"value": 0.1}, "test/kl_gold": {"value": None}}
    for grid, means in (("worlds", {"NPO": row, "Gold": gold}), ("worlds_around", {"GRU(NPO)": row, "nobody": row})):
        (tmp_path / f"{grid}-mini.json").write_text(json.dumps({"means": means}))
    assert METHODS["measured"](tmp_path) == dict.fromkeys(["npo.yaml", "gru.yaml"], "Keywords 0.25, KL 0.50")


def test_results_are_explained():
    """What the callbacks put into results.json is on the page about reports."""
    described = {name for cells in rows("report.md", 2) for name in named(cells[0])}
    package = DOCS.parent / "src/viker_lightning"
    source = "".join(
        p.read_text() for room in ("training/callbacks", "training") for p in (package / room).glob("*.py")
    )
    written = {one.name for one in fields(RunReport)}
    facts = re.search(r"run_facts = \{(.*?)\n                \}", source, re.DOTALL)[1]
    written |= set(re.findall(r'"(\w+)":', facts))
    assert written >= {"knowledge", "seed", "stopped"} and written <= described, written - described


SHOWN = [DOCS.parent / "README.md", *sorted(DOCS.glob("results*.md"))]


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_tables_are_those_of_the_results(page):
    tables = runpy.run_path(str(DOCS / "tables.py"))
    text, renew = page.read_text("utf-8"), tables["renew"]
    assert page in tables["PAGES"]
    assert "<!-- table: " in text and renew(text) == text, "run python docs/tables.py"
    assert renew(text.replace("| ViKeR | ", "| ViKeR | 9")) == text, "a wrong number would be seen"


def test_relearning_is_that_of_the_record():
    record = json.loads((DOCS / "results/attacks/worlds_relearning-mini.json").read_text("utf-8"))["relearning"]

    def of(row, steps, key, left_on=False):
        """World by world."""
        found = {(o["row"], o["steps"], o["adapter"], o["block"]): o[key] for o in record if o[key] is not None}
        return [value for (*where, _), value in sorted(found.items()) if where == [row, steps, left_on]]

    again = ", relearned"
    lines = [cells for cells in rows("results_attacks.md", 7) if cells[0].endswith(again)]
    table = {name.removesuffix(again): cells for name, *cells in lines}
    assert [*table] == ["Gold", "Gold, other seed", "Stranger", "Stranger, against relearning"]
    for name, cells in table.items():
        row, key = ("Stranger", "gold") if name == "Gold" else (name, "run")
        assert cells[:3] == [f"{mean(of(row, steps, key)):.2f}" for steps in (0, 5, 20)], name
        if name == "Gold":
            continue
        more = [run - gold for run, gold in zip(of(name, 20, "run"), of(name, 20, "gold"), strict=True)]
        assert cells[3:5] == [f"{mean(more):+.2f}, p {sign_flip(more):.3f}", f"{mean(of(name, 20, 'R')):.2f}"], name
        left = of(name, 20, "run", left_on=True)
        assert cells[5] == (f"{mean(left):.2f}" if left else "-"), name


def test_trust_is_that_of_the_record():
    scores = json.loads((DOCS / "results/attacks/meta-mini.json").read_text("utf-8"))["scores"]["test"]
    found = {named(cells[0])[0]: cells[1:] for cells in rows("metrics.md", 4) if named(cells[0])}
    assert len(found) > 10
    assert found == {name: [f"{scores[name][key]:.2f}" for key in ("faithful", "Q", "R")] for name in found}


WORLDS = sorted((DOCS / "results").glob("worlds*.json"))
"""Records of worlds; other tables leave none."""

TUNING = DOCS / "results/tuning-mini.md"


@pytest.mark.parametrize(
    "file",
    sorted({*(DOCS / "results").glob("*-mini.md")} - {file.with_suffix(".md") for file in WORLDS} - {TUNING}),
    ids=lambda file: file.stem,
)
def test_marks_of_results_are_near_gold_and_few_people_have_no_interval(file):
    text, found = file.read_text("utf-8"), 0
    assert "†" not in text
    for table, people in re.findall(r"((?:^\| .*\n)(?:^\|.*\n)+)\nPeople, at most: (.*?)\.", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        counts = {split: int(count) for split, count in (part.split() for part in people.split(", "))}
        for head, *cells in zip(lines[0], *lines[2:], strict=True):
            split, sign = head.partition(" ")[0], head[-1:]
            if not head:
                names = cells
                continue
            if counts[split] < 6:
                assert not any("[" in cell for cell in cells), (head, cells)
            values = {n: float(re.search(r"\d\.\d+", cell)[0]) for n, cell in zip(names, cells, strict=True) if cell}
            if sign == "★":
                far = {n: abs(v - values["Gold"]) for n, v in values.items() if n not in STANDING}
                for name, cell in zip(names, cells, strict=True):
                    best = cell.startswith("**")
                    assert not best or far[name] <= min(far.values()) + 0.011, (head, name)
                    assert not (best and name in STANDING)
                assert any(cell.startswith("**") for cell in cells), head
                found += 1
    assert found >= 2


@pytest.mark.parametrize("file", WORLDS, ids=lambda file: file.stem)
def test_pages_of_worlds_are_those_of_their_records(file):
    record = json.loads(file.read_text("utf-8"))
    measures = [Measure(**one) for one in record["measures"]]
    found = differences(record["measured"], measures, record["methods"], record["reference"])
    assert found == record["differences"], "the statistics are those of the values"
    assert worlds_markdown(record) == file.with_suffix(".md").read_text("utf-8")
    assert file.with_suffix(".svg").is_file() and all(run["state"] == "finished" for run in record["runs"])
    assert len({commit.rstrip("+") for commit in record["made_with"]["commit"]}) == 1


def test_the_page_of_tuning_is_that_of_its_record():
    record = Path("docs/results/tuning-mini.json")
    assert markdown(read_tuning(record), record).replace("](figures/", "](") == TUNING.read_text("utf-8")
    assert TUNING.with_suffix(".svg").is_file()


def test_a_table_is_copied_to_the_pages(tmp_path):
    """Of worlds with its record; what runs cost is not drawn there."""
    keep = runpy.run_path(str(DOCS / "tables.py"))["keep"]
    (tmp_path / "results/figures").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name, content in (("worlds-mini", {"measured": {}}), ("worlds", {})):
        (tmp_path / f"results/{name}.json").write_text(json.dumps(content))
        (tmp_path / f"results/{name}.md").write_text("![front](figures/worlds-mini.svg)")
    for name in ("worlds-mini", "worlds-mini-trade-off", "worlds-mini-cost", "worlds-mini-key-tokens"):
        (tmp_path / f"results/figures/{name}.svg").write_text("<svg/>")
    copied = {file.name for file in keep(tmp_path / "results/worlds-mini", tmp_path / "docs")}
    assert copied == {"worlds-mini.md", "worlds-mini.json", "worlds-mini.svg", "worlds-mini-trade-off.svg"}
    assert {file.name for file in (tmp_path / "docs").iterdir()} == copied
    assert (tmp_path / "docs/worlds-mini.md").read_text() == "![front](worlds-mini.svg)"


def test_a_table_of_attacks_is_copied_to_the_pages(tmp_path):
    keep = runpy.run_path(str(DOCS / "tables.py"))["keep"]
    for kind in (".json", ".md"):
        (tmp_path / f"attacks-worlds-mini{kind}").write_text(kind)
    (tmp_path / "docs/attacks").mkdir(parents=True)
    copies = keep(tmp_path / "attacks-worlds-mini", tmp_path / "docs")
    assert copies == [tmp_path / f"docs/attacks/worlds-mini{kind}" for kind in (".md", ".json")]
    assert [file.read_text() for file in copies] == [".md", ".json"]


ATTACKED = sorted((DOCS / "results/attacks").glob("*.md"))


def test_tables_of_attacks_have_pages():
    assert {file.stem for file in ATTACKED} >= {"every_method-mini", "whole-mini", "worlds-mini"}


@pytest.mark.parametrize("file", ATTACKED, ids=lambda file: file.stem)
def test_pages_of_attacks_are_those_of_their_records(file):
    record = json.loads(file.with_suffix(".json").read_text("utf-8"))
    assert attacks_markdown(record) == file.read_text("utf-8")
    assert not record["commits"]["attacks"].endswith("+")


def test_what_a_method_may_ask_for():
    text = (DOCS / "method.md").read_text()
    told = {name for columns in (2, 3) for cells in rows("method.md", columns) for name in named(cells[0])}
    public = {n for n, v in vars(Method).items() if not n.startswith("_") and not callable(v)}
    properties = {n for n, v in vars(Method).items() if isinstance(v, property)}  # these follow from needs
    assert public - properties <= told | set(re.findall(r"`(\w+)", text)) and {*get_args(Level)} <= told
    for stream in Stream.__subclasses__():
        assert f"`{stream.__name__}(" in text and f"batch.{stream.__name__.lower()}" in told
        assert {one.name for one in fields(stream)} <= set(re.findall(r"\w+", text))
    hooks = {n for n, v in vars(Method).items() if inspect.isfunction(v)} - {"published", "logged"}
    assert all(f"`{name}" in text for name in hooks)


def test_what_a_family_may_say():
    public = {name for name in vars(Family) if not name.startswith("_")}
    assert public == {n for cells in rows("model.md", 2) for n in named(cells[0]) if n in public}


def test_models_named_are_models_known():
    listed = next(cells[1] for cells in rows("model.md", 3) if cells[0] == "packed")
    classes = {c.__name__.removesuffix("ForConditionalGeneration") for f in FAMILIES for c in f.model_classes}
    plain = {re.sub(r"\W", "", name).lower() for name in listed.split(", ")}
    spoken = {{"Llava": "llava15", "Qwen2_5_VL": "qwen25vl"}.get(c, c.replace("_", "").lower()) for c in classes}
    assert spoken == plain


def test_code_named_beside_formulae_is_there():
    found = 0
    for cell in re.findall(r"\| ([^|\n]*\]\(\.\./src[^|\n]*) \|", (DOCS / "paper.md").read_text("utf-8")):
        for file, beside in re.findall(r"\]\(\.\./(src/[^)]+\.py)\)([^\[]*)", cell):
            source = (DOCS.parent / file).read_text("utf-8")
            for name in named(beside):
                assert re.search(rf"^ *(?:def|class) {name}\b|^{name}\b", source, re.MULTILINE), (file, name)
                found += 1
    assert found > 15


def test_errors_shown_are_errors_there_are():
    """Whatever stands between the dots of a message on the page of errors stands in the source, too."""
    source = "".join(p.read_text("utf-8") for p in (DOCS.parent / "src/viker_lightning").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*(?:\+ )?f?"', "", source)
    source = re.sub(r"\{[^{}]*\}|%\S*[sdr]", "...", source)
    messages = [named(cells[0])[0] for cells in rows("errors.md", 3) if named(cells[0]) and "..." in cells[0]]
    assert 12 <= len(messages) <= 20
    for message in messages:
        for part in re.split(r"\s*\.\.\.\s*", message):
            assert part in source, f"{message!r}: {part!r} is nowhere said"
