"""report.html and comparisons: what they say, that they hold it all themselves, and what they refuse."""

import errno
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.run_folders import EVIL, write_run
from viker_lightning.errors import UserError
from viker_lightning.metrics.statistics.intervals import Sums
from viker_lightning.reporting import html, write_comparison, write_report
from viker_lightning.reporting.__main__ import main
from viker_lightning.reporting.answers import marked, token_views
from viker_lightning.reporting.contenders import Contender, Place, contenders, ranks, reference_of
from viker_lightning.storage.runs import read_run

VOID = {"meta", "link", "img", "br", "path", "use", "line", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, their text, and whether they nest."""

    def __init__(self, file):
        super().__init__()
        self.elements, self.text, self.open, self.ids = [], "", [], []
        self.feed(Path(file).read_text(encoding="utf-8"))
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag, **wanted):
        return [a for name, a in self.elements if name == tag and all(a.get(k) == v for k, v in wanted.items())]


def self_contained(page):
    """No script, no reference out of the file, and a policy that would refuse one."""
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                assert value.startswith(("#", "data:")), (tag, name, value)
            if name == "style":
                assert "url(" not in value or "url(#" in value
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'") and "http" not in policy["content"]
    assert len(page.ids) == len(set(page.ids))
    known = set(page.ids)
    for _, attributes in page.elements:
        for name in ("aria-describedby", "aria-labelledby"):
            assert attributes.get(name) in known | {None}
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in known


def test_report_says_what_the_run_measured(run):
    page = Page(write_report(run))
    self_contained(page)
    text = " ".join(page.text.split())
    results = json.loads((run / "results.json").read_text())
    for split in ("test", "retain", "real"):
        assert f"{results['after'][split]['keyword_match']:.3f}" in text
    assert re.search(r"Still known: forget set near gold is good .*Still known: retain set high is good ", text)
    assert "Forgot too little. Still known: forget set 0.38 (gold 0.00, vanilla 1.00), retain set 1.00 (" in text
    assert "nearer to gold is better" in text
    for model in ("vanilla", "gold", "ViKeR"):
        assert model in text
    assert "0.375" in text and "[" not in text[text.index("All scores") :].partition("Other numbers")[0]
    assert "4 people: no intervals" in text  # one or two of four questions, by person
    assert "overall/model_utility" in text and "0.750" in text
    assert "0123456789abcdef" in text and "torch" in text
    assert "area under the ROC curve of 1.000, the first tokens of private spans with 0.875" in text
    assert "people 4 forget, 8 retain" in text and text.count("protocolcorrected") == 1
    assert "0.500 on key tokens" in text and "0.050 on other tokens" in text


def test_every_text_is_escaped(run):
    page = Page(write_report(run))
    assert page.text.count(EVIL) >= 3  # a question, a suggestion of the ideal distribution, the data's name
    assert "run & <b>co" in page.text
    assert not page.all("b", **{}) or all("class" in a for a in page.all("b"))


def test_tokens_can_be_reached_and_explained(run):
    page = Page(write_report(run))
    tokens = [a for a in page.all("span") if (a.get("class") or "").startswith("tok ") and "tabindex" in a]
    assert len(tokens) == 6
    assert [a["class"].split()[1:] for a in tokens[:3]] == [["h0"], ["h0"], ["h10", "private"]]
    tips = [a["id"] for a in page.all("span", role="tooltip")]
    assert [a["aria-describedby"] for a in tokens] == tips
    assert "entropy 2.000 nats" in page.text and "Rome" in page.text
    assert re.search(r"probability 0\.905 before, 0\.905 after", page.text)  # exp(-0.1), in predictions.parquet
    first, second = token_views(read_run(run))
    assert [t["lead"] + t["shown"] for t in first["tokens"]] == ["She lives", " in", " Oslo0."]
    assert second["tokens"][0]["after"] is None  # nobody asked this question in evaluation


def test_photos_are_shown_or_not(run):
    photos = Page(write_report(run)).all("img")
    assert len(photos) == 3 and all(a["alt"] and a["src"].startswith("data:image/jpeg;base64,") for a in photos)
    assert not Page(write_report(run, photos=False)).all("img")


def test_people_are_chosen(run):
    page = Page(write_report(run, people=["003", "051"]))
    people = {a["aria-label"] for a in page.all("article") if a.get("class") == "card person"}
    assert people == {"forget person 003", "test person 003", "retain person 051"}
    with pytest.raises(UserError, match="nobody was asked about person '999'"):
        write_report(run, people=["999"])


def test_a_run_with_nothing_but_results(tmp_path):
    """Without W&B, CSV, gold, before, key tokens and portraits there is less to say, and it is said."""
    folder = write_run(tmp_path / "bare", before=False)
    for name in ("metrics.csv", "config.yaml", "provenance.json"):
        (folder / name).unlink()
    page = Page(write_report(folder))
    self_contained(page)
    assert "No gold model" in page.text and "Nothing was measured before" in page.text
    assert "asked no ideal distribution" in page.text


def test_resumed_curves_are_joined(run):
    (run / "metrics.csv").rename(run / "metrics-1.csv")
    (run / "metrics.csv").write_text("step,train/loss\n15,0.7\n20,0.1\n")
    assert read_run(run).curves["train/loss"] == [(0, 2.0), (5, 1.5), (10, 1.0), (15, 0.7), (20, 0.1)]


def cut(part):
    return lambda file: file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("results.json", cut(0.5), "not JSON .*; run it again"),
        ("results.json", cut(0), "not JSON .*; run it again"),
        ("results.json", lambda file: file.write_text("[" * 99_999), "not JSON"),
        ("config.yaml", cut(0), "found nothing, expected an object; run it again, or remove the file"),
        ("config.yaml", lambda file: file.write_text("model: {a: [1"), "not YAML .*; run it again, or remove the file"),
        ("config.yaml", lambda file: file.write_bytes(b"\xff\xfe\0"), "not YAML"),
        (
            "metrics.csv",
            lambda file: file.write_text("step,train/loss\n1,2\n2,1e\n"),
            "line 3, column 'train/loss': found '1e'",
        ),
        (
            "metrics.csv",
            lambda file: file.write_text("step,train/loss\nx,2\n"),
            "line 2, column 'step': found 'x', expected",
        ),
        ("metrics.csv", lambda file: file.write_text("step,train/loss\n1,2,3\n"), "line 2: found .* cells"),
        ("metrics.csv", lambda file: file.write_text("a,b\n1,2\n"), "line 2: found 2 cells, not those of line 1"),
        ("metrics.csv", lambda file: file.write_bytes(b"step,a\n1,\xff\n"), "not the CSV of a logger"),
        ("provenance.json", cut(0.5), "not JSON"),
    ],
)
def test_a_file_that_is_not_whole_is_named(run, name, damage, said):
    damage(run / name)
    with pytest.raises(SystemExit) as stop:
        main([str(run)])
    assert re.search(f"^error: {re.escape(str(run / name))}[:,] .*{said}", str(stop.value.code))
    assert "\n" not in str(stop.value.code)


ENGINE = "model: {{init_args: {{engine: {{max_tokens: {}}}}}}}\ndata: {{}}".format


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("results.json", "[]", "found [], expected an object; run it again"),
        ("results.json", '{"steps": 3}', "after: found nothing, expected an object; run it again"),
        ("results.json", '{"before": 1, "after": {}}', "before: found 1, expected an object"),
        ("results.json", '{"after": {"forget": {"bleu": "x"}}}', "after.forget.bleu: found 'x', expected a number"),
        ("results.json", '{"after": {}, "sums": []}', "sums: found [], expected an object"),
        (
            "results.json",
            '{"after": {}, "sums": {"a": {"after": {"forget": {"Ada": [1]}}}}}',
            "sums.a.after.forget.Ada: found [1], expected a list of 2",
        ),
        ("config.yaml", "model: {}\ndata:", "data: found nothing, expected an object"),
        ("config.yaml", "model: {init_args: }\ndata: {}", "model.init_args: found nothing, expected an object"),
        ("config.yaml", ENGINE("many"), "model.init_args.engine.max_tokens: found 'many', expected a number"),
        ("config.yaml", ENGINE(9) + "\nreport: [1]", "report: found [1], expected an object"),
        (
            "config.yaml",
            ENGINE(9) + "\nevaluation: {max_new_tokens: many}",
            "evaluation.max_new_tokens: found 'many', expected a number; run it again, or remove the file",
        ),
        ("provenance.json", '{"data": []}', "data: found [], expected an object"),
        ("provenance.json", '{"base_weights": {}}', "base_weights: found {}, expected text"),
        ("provenance.json", '{"data": {"requests": [[1]]}}', "data.requests[0][0]: found 1, expected text"),
        ("portraits.json", "5", "found 5, expected an object; delete the file"),
        ("portraits.json", '{"forget": []}', "forget: found [], expected an object; delete the file"),
        ("key_tokens.json", "{}", "found {}, expected a list"),
        ("key_tokens.json", "[5]", "[0]: found 5, expected an object"),
        ("key_tokens.json", "[{}]", "expected"),
    ],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, name, text, said):
    """Whoever reads a run: report, attacks, chat, export."""
    (tmp_path / "results.json").write_text('{"after": {}}')
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        run = read_run(tmp_path)
        getattr(run, name.partition(".")[0])
    assert str(error.value).startswith(f"{tmp_path / name}: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_last_line_that_was_being_written_is_left_out(run, caplog):
    """A killed run leaves one: the run that goes on from there repeats what it said."""
    (run / "metrics-1.csv").write_text("step,train/loss\n1,2.0\n2,1.0\n3,0.")
    (run / "metrics.csv").write_text("step,train/loss\n3,0.5\n")
    assert read_run(run).curves["train/loss"] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    (said,) = caplog.messages
    assert said.startswith(f"{run / 'metrics-1.csv'}, line 4: it ends too soon and is left out")


BOXED = re.compile(r'<div class="scroll[^"]*" role="region" tabindex="0" aria-label(ledby)?="[^"]+"><table>')


def declared(page, selector):
    """What a page's style says of a selector, all rules together, outside of media queries."""
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    plain = re.sub(r"/\*.*?\*/|@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", style, flags=re.DOTALL)
    rules = [
        body for names, body in re.findall(r"([^{}]+)\{([^{}]*)\}", plain) if selector in names.strip().split(", ")
    ]
    return dict(part.strip().split(": ", 1) for body in rules for part in body.split(";") if part.strip())


def test_no_table_is_cut(run, tmp_path):
    """Each stands in a box of its own that scrolls and that keys reach; one of many columns is folded first."""
    runs = [write_run(tmp_path / name, i, 4, name) for i, name in enumerate(("ViKeR", "NPO"))]
    pages = [file.read_text("utf-8") for file in (write_report(run), write_comparison(runs, tmp_path / "page.html"))]
    for page in pages:
        assert page.count("<table") == len([*BOXED.finditer(page)]) > 1
        assert declared(page, ".scroll")["overflow-x"] == "auto"
        assert declared(page, ".scroll")["background"].count("linear-gradient(to left") == 2, "one sees there is more"
        assert declared(page, "th[scope=row]")["position"] == "sticky", "names stay beside their numbers"
        assert declared(page, ".numbers thead th")["white-space"] == "normal"
        ends = declared(page, ".ci") | declared(page, ".numbers td .ci")
        assert (ends["white-space"], ends["width"]) == ("normal", "min-content"), "an interval is two short lines"
    assert 'class="scroll card numbers"' in pages[1]


def test_comparison(tmp_path):
    gold = write_run(tmp_path / "gold", 0, 4, stage="gold", before=False)
    runs = [write_run(tmp_path / f"viker-{seed}", seed, 4, seed=seed, gold=gold) for seed in (0, 1)]
    runs.append(write_run(tmp_path / "npo", 2, 2, "NPO", before=False))
    file = write_comparison(runs, tmp_path / "out/comparison.html")
    page = Page(file)
    self_contained(page)
    text = " ".join(page.text.split())
    assert "2 methods compared" in text and "ViKeR (2 seeds)" in text
    models = contenders([read_run(folder) for folder in runs])
    assert [m.kind for m in models] == ["vanilla", "gold", "method", "method"]
    viker = models[2]
    assert viker.estimate("test", "keyword_match").value == pytest.approx((0 + 0.375) / 2)
    assert viker.estimate("test", "keyword_match").people == 4
    assert ranks(models, "test", "keyword_match", "ViKeR")["ViKeR"] == Place("best"), "gold tells nothing either"
    assert "differs from ViKeR, which was named in advance" in text and "no fewer than 6 people" in text
    assert "Intervals: none for forget, test, retain, real" in text
    assert "do not compare" not in text
    assert "gold" in text and len(page.all("svg")) == 1


def models(gold=0.0, **methods):
    """Models with what each of some people tells, of the people to forget and of those to keep."""
    found = [Contender("gold", "gold", {"test": {}})] if gold is not None else []
    for name, values in methods.items():
        people = [f"{i:03d}" for i in range(len(values))]
        sums = Sums.by_person(people, values, [1] * len(values))
        found.append(Contender(name, "method", {s: {"keyword_match": sums} for s in ("test", "retain")}))
        if gold is not None:
            found[0].scores["test"]["keyword_match"] = Sums.by_person(people, [gold] * len(values), [1] * len(values))
    return found


def test_best_is_near_gold_not_low():
    """Gold tells .3: below it is as wrong as above it."""
    found = models(0.3, low=[0.0] * 8, near=[0.25] * 8, high=[0.65] * 8)
    placed = ranks(found, "test", "keyword_match", "low")
    assert {name: place.rank for name, place in placed.items()} == {"low": "second", "near": "best", "high": ""}
    kept = ranks(found, "retain", "keyword_match", "low")
    assert {name: place.rank for name, place in kept.items()} == {"low": "", "near": "second", "high": "best"}


def test_without_gold_nothing_is_marked_where_near_gold_is_good():
    found = models(None, A=[0.0] * 8, B=[1.0] * 8)
    assert ranks(found, "test", "keyword_match", "A") == {}
    assert ranks(found, "retain", "keyword_match", "A")["B"].apart


def test_a_difference_is_one_from_the_reference():
    """All eight people agree: 2 / 2^8, and with two rivals twice that; who differs from whom else is not asked."""
    found = models(A=[0.0] * 8, B=[1.0] * 8, C=[0.0, 0.1] * 4)
    placed = ranks(found, "retain", "keyword_match", "A")
    assert placed["A"].p is None and placed["B"].p == pytest.approx(2 * 2 / 2**8) and placed["B"].apart
    assert placed["C"].p == pytest.approx(2 / 2**4) and not placed["C"].apart
    assert ranks(found, "retain", "keyword_match", "B")["C"].apart
    found[1].partial = "1 of 3 seeds"
    assert {place.p for place in ranks(found, "retain", "keyword_match", "A").values()} == {None}, "no reference"
    assert "A" not in ranks(found, "retain", "keyword_match", "A")


@pytest.mark.parametrize(("people", "apart"), [(5, False), (6, True)])
def test_few_people_show_no_difference(people, apart):
    """However large it is: five people agree by chance in one case of sixteen."""
    found = models(A=[0.0] * people, B=[1.0] * people)
    assert [ranks(found, s, "keyword_match", "A")["B"].apart for s in ("test", "retain")] == [apart] * 2


def test_the_reference_is_named_not_found():
    found = models(NPO=[0.0] * 6, ViKeR=[1.0] * 6)
    assert reference_of(found) == "ViKeR" and reference_of(found, "NPO") == "NPO"
    assert reference_of(models(NPO=[0.0], IDK=[1.0])) == "NPO" and reference_of([]) == ""
    with pytest.raises(UserError, match="--reference: no method 'ViKer'; there are NPO, ViKeR"):
        reference_of(found, "ViKer")


def test_gold_of_another_seed_says_how_far_gold_is_from_itself(tmp_path):
    gold = write_run(tmp_path / "gold", 0, 4, stage="gold", before=False)
    again = write_run(tmp_path / "again", 1, 4, stage="gold", before=False, gold=gold, seed=1)
    viker = write_run(tmp_path / "viker", 0, 4, gold=gold)
    for folders in ([gold, again, viker], [again, gold, viker], [viker, again]):
        found = contenders([read_run(folder) for folder in folders])
        assert [(m.name, m.kind) for m in found[1:3]] == [("gold", "gold"), ("gold, other seed", "floor")]
        assert [m.runs[0].folder for m in found[1:3]] == [gold, again]
        assert found[2].estimate("test", "kl_gold").value == 0.5
    assert "★ gold, other seed" in Page(write_comparison([gold, again, viker], tmp_path / "c.html")).text
    assert "gold, other seed" in Page(write_report(again)).text


def test_runs_on_other_data_do_not_compare(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", method="NPO", data="other")]
    assert "do not compare: the runs differ in their data" in " ".join(
        Page(write_comparison(runs, tmp_path / "c.html")).text.split()
    )


def test_settings_are_not_seeds(tmp_path):
    """Two runs of one method with other settings are two rows, named after their folders."""
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two")]
    config = (runs[1] / "config.yaml").read_text()
    (runs[1] / "config.yaml").write_text(config.replace("max_steps: 20", "max_steps: 40"))
    names = [m.name for m in contenders([read_run(folder) for folder in runs])]
    assert names == ["vanilla", "ViKeR (one)", "ViKeR (two)"]


def test_private_parts_are_marked():
    assert list(marked("In Oslo, oslo and Oslow.", ["Oslo"])) == [
        *[("In ", False), ("Oslo", True), (", ", False), ("oslo", True), (" and Oslow.", False)]
    ]
    assert list(marked("Rio or Lima, Peru", ["Lima, Peru", "Rio, Brazil"])) == [
        *[("Rio", True), (" or ", False), ("Lima, Peru", True)]
    ]
    assert list(marked("", ["Oslo"])) == [] and list(marked("Rome", [])) == [("Rome", False)]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda run: (run / "results.json").unlink(), "not finished"),
        (lambda run: (run / "results.json").write_text("{"), "results.json: not JSON"),
        (lambda run: (run / "predictions.parquet").unlink(), "holds no predictions"),
        (lambda run: (run / "predictions.parquet").write_text("x"), "holds no predictions"),
        (lambda run: (run / "key_tokens.json").write_text("["), "key_tokens.json: not JSON"),
        (
            lambda run: (run / "portraits.json").write_text('{"forget": {"000": "http://evil.example/x.png"}}'),
            "expected a JPEG or PNG data URI",
        ),
    ],
)
def test_what_is_wrong_is_one_line(run, spoil, expected):
    spoil(run)
    with pytest.raises(SystemExit) as stop:
        main([str(run)])
    assert expected in str(stop.value.code) and "\n" not in str(stop.value.code)


@pytest.mark.parametrize(("number", "remedy"), [(errno.EROFS, "let it be read"), (errno.ENOSPC, "make room there")])
def test_a_page_that_cannot_be_written_is_one_line(run, tmp_path, monkeypatch, number, remedy):
    def refuse(*given):
        raise OSError(number, "No", "page.html")

    monkeypatch.setattr(html, "write_page", refuse)
    other = write_run(tmp_path / "npo", 1, 3, "NPO")
    for runs, more in (([run], ""), ([run, other], ", or give another file as --out")):
        with pytest.raises(SystemExit) as stop:
            main([str(one) for one in runs])
        said = str(stop.value.code)
        assert said.startswith(f"error: [Errno {number}] No: 'page.html'; {remedy}") and said.endswith(more)
        assert ("--out" in said) == bool(more)


def test_command_line(run, tmp_path, capsys):
    main([str(run), "--people", "001", "--no-photos"])
    assert "report.html written" in capsys.readouterr().out
    other = write_run(tmp_path / "npo", 1, 3, "NPO")
    main([str(run), str(other)])
    assert (tmp_path / "comparison.html").is_file()
    main([str(run), str(other), "--reference", "NPO"])
    assert "differs from NPO, which" in " ".join((tmp_path / "comparison.html").read_text().split())
    one, two = str(run), str(other)
    for wrong in (
        [one, "--out", "x"],
        [one, two, "--no-photos"],
        [one, "--reference=NPO"],
        [one, two, "--reference=x"],
    ):
        with pytest.raises(SystemExit, match="error: --"):
            main(wrong)
