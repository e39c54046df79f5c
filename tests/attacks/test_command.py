"""``python -m viker_lightning.attacks``: as typed, again, stopped, and given what does not fit together."""

import json
import math
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml
from safetensors.torch import load_file, save_file

from support import forked
from support.commands import ROOT
from support.documented import blocks
from viker_lightning.attacks import Attempt, Relearn, Subject, gather
from viker_lightning.attacks.__main__ import main, parser, plan
from viker_lightning.attacks.conditions import conditions
from viker_lightning.attacks.kinds.relearn import EVERYBODY
from viker_lightning.attacks.settings import CLASSES, chosen, every
from viker_lightning.attacks.unit import Unit
from viker_lightning.errors import UserError
from viker_lightning.jobs.children import Ended
from viker_lightning.jobs.job import State
from viker_lightning.training.finished import FinishedRun

TINY = {"relearn": {"steps": [0, 1], "shares": [0.5], "batch_size": 8}}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr("viker_lightning.jobs.children.subprocess", forked.subprocess)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.mark.extended
def test_run_and_gold_two_at_a_time(copies, tiny, capsys, monkeypatch):
    """W&B is not asked, whatever the run's config says."""
    run, gold = copies
    monkeypatch.setattr("wandb.init", lambda **given: pytest.fail("numbers go where the run says"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["logger"] = {"class_path": "WandbLogger", "init_args": {"save_dir": "/elsewhere", "entity": "x"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    command = [str(run), f"--gold={gold}", "--only=relearn", f"--settings={tiny}"]
    main([*command, "--jobs=2"])
    said = capsys.readouterr().out
    assert "of 2 people could be recovered" in said or "of 1 people could be recovered" in said
    record = json.loads((run / "attacks/attacks.json").read_text())
    relearn = record["attacks"]["relearn"]
    assert relearn["settings"]["steps"] == [0, 1] and relearn["settings"]["lr"] == Relearn().lr
    assert {name: of["state"] for name, of in relearn["on"].items()} == {"run": "finished", "gold": "finished"}
    assert relearn["on"]["gold"]["command"].endswith("--only=relearn --on=gold")

    # both were carried out side by side, and are what they are one by one in this process
    material, (attack,) = gather(FinishedRun.open(gold).data()), chosen(["relearn"], False, tiny)
    found = {}
    for name, folder in (("run", run), ("gold", gold)):
        subject = Subject(name, str(folder), folder)
        found[name] = [one for part in attack.parts() for one in attack.carry_out(part, subject, material)]
    plain = conditions(attack, found)
    assert len(plain) == len(relearn["conditions"]) > 3
    for one, other in zip(plain, relearn["conditions"], strict=True):
        assert one["series"] == other["series"] and one["run"] == pytest.approx(other["run"])
        assert one.get("gold", {}) == pytest.approx(other.get("gold", {}))  # which has no adapter

    for page in (run / "attacks/index.html", run / "report.html"):
        assert "relearn" in page.read_text() and record["sentence"] in page.read_text()
    main(command)
    assert "all 2 attacks are finished already" in capsys.readouterr().out


def run_here(unit, material, seconds=1.0):
    """Runs a unit, its own process being this one."""

    def run_child(command, environment, log, append, stop):
        try:
            unit.carry_out(material)
        except UserError as error:
            log.write_text(f"error: {error}")
            return Ended(1, seconds, 1, None)
        except KeyboardInterrupt as stopped:
            return Ended(1, seconds, 1, stopped)
        return Ended(0, seconds, 1, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viker_lightning.jobs.job.run_child", run_child)
        return unit.run()


@pytest.mark.extended
def test_a_stopped_one_goes_on_behind_its_whole_parts(copies, material, monkeypatch):
    run, _ = copies
    subject = Subject("run", str(run), run / "attacks")
    unit = Unit(Relearn(steps=(0, 1), shares=(0.5,), batch_size=8), subject, material.fingerprint(), [str(run)])
    done = []

    def carry_out(self, part, subject, material):
        done.append(part)
        if len(done) == 2:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(Relearn, "carry_out", carry_out)
    with pytest.raises(KeyboardInterrupt):
        run_here(unit, material, seconds=3.0)
    assert unit.state() == State.STARTED and unit.note()["seconds"] == 3.0
    run_here(unit, material, seconds=2.0)
    first, second, *rest = unit.attack.parts()
    assert done == [first, second, second, *rest] and unit.state() == State.FINISHED and unit.note()["seconds"] == 5.0

    # with other settings, people or code it is another one, and takes nothing from what is finished
    other = Unit(Relearn(steps=(0, 2)), subject, unit.material, unit.arguments)
    assert other.state() == State.MISSING
    assert Unit(unit.attack, subject, "other", unit.arguments).state() == State.MISSING
    assert not [*other.folder.glob("*.parquet")] and unit.state() == State.FINISHED
    monkeypatch.setattr("viker_lightning.attacks.unit._source", lambda kind: "changed")
    assert unit.state() == State.MISSING


@pytest.mark.extended
def test_several_golds_are_asked_what_the_first_one_s_data_say(copies, tiny, tmp_path):
    """A gold of another seed has other data of its own; each is kept in its folder, and none is attacked twice."""
    run, gold = copies
    other = shutil.copytree(gold, tmp_path / "gold-1")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["data"]["init_args"]["seed"] = 1
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    (weights,) = (other / "model").glob("*.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    command = [str(run), "--gold", str(gold), str(other), "--only=choose", "--on=run,gold", f"--settings={tiny}"]
    main([*command, "--jobs=1"])
    record = json.loads((run / "attacks/attacks.json").read_text())
    of = record["attacks"]["choose"]["on"]
    assert {name: one["state"] for name, one in of.items()} == dict.fromkeys(("run", "gold", "gold 2"), "finished")
    assert of["gold 2"]["command"].endswith("--only=choose '--on=gold 2'")
    assert record["golds"] == [str(gold), str(other)] and record["back"] == {}
    row = next(row for row in record["attacks"]["choose"]["conditions"] if row["counts"])
    mean = (row["gold"]["forget"] + row["gold 2"]["forget"]) / 2
    assert row["more_than_gold"] == pytest.approx(row["run"]["forget"] - mean)
    page = (run / "attacks/index.html").read_text()
    assert "★ gold 2" in page
    made = {
        file: file.stat().st_mtime_ns for folder in (gold, other) for file in (folder / "attacks").rglob("*.parquet")
    }
    main([*command, "--jobs=1"])
    assert made == {file: file.stat().st_mtime_ns for file in made} and len({file.parent for file in made}) == 2


@pytest.mark.extended
def test_one_that_fails_is_listed_and_stops_no_other(copies, tiny, capsys, monkeypatch):
    run, gold = copies
    carry_out = Relearn.carry_out

    def fails(self, part, subject, material):
        if subject.name == "gold":
            raise UserError("this machine lacks something")
        return carry_out(self, part, subject, material)

    monkeypatch.setattr(Relearn, "carry_out", fails)
    with pytest.raises(SystemExit, match="1 of 2 attacks failed: relearn / gold"):
        main([str(run), f"--gold={gold}", "--only=relearn", f"--settings={tiny}", "--jobs=1"])
    relearn = json.loads((run / "attacks/attacks.json").read_text())["attacks"]["relearn"]
    gold_on = relearn["on"]["gold"]
    assert gold_on["state"] == "failed"
    assert gold_on["why"].startswith("error: relearning on the forget set: this machine lacks something; relearning")
    assert relearn["on"]["run"]["state"] == "finished" and "more_than_gold" not in relearn["conditions"][0]
    assert "this machine lacks something" in (run / "attacks/index.html").read_text()


@pytest.mark.extended
def test_a_part_that_fails_does_not_keep_the_others(copies, material, monkeypatch):
    subject = Subject("run", str(copies[0]), copies[0] / "attacks")
    unit = Unit(Relearn(steps=(0, 1), shares=(0.5,)), subject, material.fingerprint(), [])
    one = Attempt("x", None, "forget", "p", "?", ("s",), "", 1.0)

    def carry_out(self, part, subject, material):
        if part == EVERYBODY:
            raise UserError("no room")
        return [one]

    monkeypatch.setattr(Relearn, "carry_out", carry_out)
    assert (
        run_here(unit, material) == State.FAILED and unit.complaint() == "error: relearning on the forget set: no room"
    )
    assert unit.attempts() == [one] * (len(unit.attack.parts()) - 1)


def test_own_attacks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "attacks_of_mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from viker_lightning.attacks import Relearn\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Relearn):\n"
        "    name = 'mine'\n"
        "class Nothing:\n"
        "    pass\n"
    )
    (mine,) = chosen(["attacks_of_mine.Mine"], False, None)
    assert mine.name == "mine"
    with pytest.raises(UserError, match=r"found 'attacks_of_mine.Nothing', expected relearn"):
        chosen(["attacks_of_mine.Nothing"], False, None)
    with pytest.raises(UserError, match=r"attacks.base.Attack has no name; attacks/README.md says"):
        chosen(["viker_lightning.attacks.base.Attack"], False, None)


@pytest.mark.parametrize("back", ["nothing", None, [1]])
def test_an_attack_that_comes_back_with_something_else(copies, material, monkeypatch, back):
    monkeypatch.setattr(Relearn, "carry_out", lambda *_: back)
    unit = Unit(Relearn(), Subject("run", str(copies[0]), copies[0] / "attacks"), material.fingerprint(), [])
    with pytest.raises(UserError, match=r"Relearn.carry_out: found .*, expected a list of Attempt"):
        unit.carry_out(material)


def test_the_attack_of_the_page_asks_once_plainly_and_once_as_it_says(tmp_path, monkeypatch, pair, material):
    (block,) = (one for one in blocks(ROOT / "docs/attacks.md") if one.file == "tale.py")
    (tmp_path / block.file).write_text(block.text, "utf-8")
    (tmp_path / "quiet.yaml").write_text("tale:\n  opening: Quietly,\n")
    monkeypatch.syspath_prepend(tmp_path)
    (story,) = chosen(["tale.Tale"], False, tmp_path / "quiet.yaml")
    subject = Subject("run", str(pair[0]), pair[0])
    plain, told = (story.carry_out(part, subject, material) for part in story.parts())
    assert {one.whose for one in told} == {"forget", "retain"} and len(told) == len(plain) > 0
    assert [one.question for one in told] == [f"Quietly, {one.question}" for one in plain]
    assert {one.series for one in plain} == {story.clean} and story.attacks("for a story", None)
    settings = [f"--gold={pair[1]}", "--only=tale.Tale", f"--settings={tmp_path / 'quiet.yaml'}"]
    units, now, _ = plan(parser().parse_args([str(pair[0]), *settings]))
    assert {unit.attack.opening for unit in now} == {"Quietly,"} and all(unit in units for unit in now)


@pytest.mark.extended
def test_an_earlier_attack_stays_in_the_record(copies, tiny, material, monkeypatch):
    """Whoever asks for a W&B run gets one, offline and in the folder of the attacks."""
    run, gold = copies
    asked = []
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("wandb.init", lambda **given: asked.append(given) or MagicMock())
    (attack,) = chosen(["relearn"], False, tiny)
    subject = Subject("run", str(run), run / "attacks")
    unit = Unit(attack, subject, material.fingerprint(), [str(run)])
    run_here(unit, material)
    given = ["--on=gold", f"--settings={tiny}", "--jobs=1", "--wandb=mine"]
    main([str(run), f"--gold={gold}", "--only=relearn", *given])
    record = json.loads((run / "attacks/attacks.json").read_text())
    assert [*record["attacks"]["relearn"]["on"]] == ["run", "gold"]
    (wanted,) = asked
    assert (wanted["project"], wanted["mode"], wanted["dir"]) == ("mine", "offline", run / "attacks")


BAD = {
    "no gold": ([], "--gold: found none, expected the run folder of the gold model"),
    "nobody": (["--gold={gold}", "--on=run,silver"], "--on: found 'silver', expected run, gold, vanilla"),
    "no people": (["--gold={gold}", "--people=0"], "--people: found 0, expected at least 1"),
    "no attack": (["--gold={gold}", "--only=relearning"], "--only: found 'relearning', expected relearn"),
    "no class": (["--gold={gold}", "--only=nowhere.Attack"], "--only: nowhere.Attack cannot be imported"),
    "no settings": (["--gold={gold}", "--settings={file}"], "found settings of 'relern', expected relearn"),
    "unfinished": (["--gold={unfinished}"], "this run is not finished"),
    "no data": (["--gold={gold}", "--data_of={empty}/none"], "empty/none' is no folder; give that of a finished run"),
    "other data": (["--gold={other}"], "was made on other data or another forget set"),
    "no model": (["--gold={empty}"], "holds no model"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_together(name, pair, tmp_path):
    options, said = BAD[name]
    run, gold = pair
    places = {"gold": gold, "file": tmp_path / "bad.yaml", "empty": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("relern:\n  lr: 1\n")
    if "unfinished" in options[-1:][0] if options else False:
        places["unfinished"] = shutil.copytree(gold, tmp_path / "unfinished")
        (places["unfinished"] / "results.json").unlink()
    if options and "{other}" in options[0]:
        places["other"] = shutil.copytree(gold, tmp_path / "other")
        file = places["other"] / "provenance.json"
        noted = json.loads(file.read_text())
        noted["data"]["fingerprint"] = "another"
        file.write_text(json.dumps(noted))
    with pytest.raises(SystemExit) as stop:
        main([str(run), *(one.format(**places) for one in options)])
    line = str(stop.value.code)
    assert line.startswith("error: ") and said in line and "\n" not in line


@pytest.mark.parametrize("which", [0, 1])
def test_the_published_protocol_is_refused(which, copies):
    """Attacks ask and score the corrected way: whose questions a run was made for says its own config."""
    file = copies[which] / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["data"]["init_args"]["protocol"] = "published"
    file.write_text(yaml.safe_dump(config))
    refused = rf"^error: {copies[which]}: was made under the published protocol, .*--data\.protocol corrected$"
    with pytest.raises(SystemExit, match=refused):
        main([str(copies[0]), f"--gold={copies[1]}", "--only=relearn"])


@pytest.mark.parametrize("where", ["", "model"])
def test_a_vanilla_of_the_published_protocol_is_refused(where, copies, tmp_path):
    vanilla = shutil.copytree(copies[1], tmp_path / "vanilla")
    command = [str(copies[0]), f"--gold={copies[1]}", f"--vanilla={vanilla / where}", "--only=relearn"]
    file = vanilla / "config.yaml"
    file.write_text(file.read_text().replace("protocol: corrected", "protocol: published"))
    with pytest.raises(SystemExit, match=f"error: {vanilla}: was made under the published protocol"):
        main(command)


def test_another_base_model(pair, tmp_path):
    other = shutil.copytree(pair[1], tmp_path / "gold")
    config = json.loads((other / "model/config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    (other / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match=r"--gold: .* is another model \(.*1 layers of .*compare models of one base"):
        main([str(pair[0]), f"--gold={other}"])


def changed(model):
    """Other weights of the same shape."""
    (file,) = model.glob("*.safetensors")
    weights = load_file(file)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 0.01}, file, {"format": "pt"})


def test_an_attack_that_needs_vanilla(copies, tmp_path, caplog):
    """Its attempts are kept by the weights of all that it loads; others do not ask about vanilla."""
    run, gold = copies
    command = [str(run), f"--gold={gold}", "--on=run,gold", "--only=depth,difference,lens"]
    _, found, _ = plan(parser().parse_args(command))
    assert {unit.title for unit in found} == {
        f"{a} / {s}" for a in ("depth", "difference", "lens") for s in ("run", "gold")
    }
    assert {one.name for unit in found for one in unit.subject.others} == {"run", "gold", "vanilla"}
    base = FinishedRun.open(run).provenance["base_weights"]
    other = shutil.copytree(base, tmp_path / "vanilla")
    changed(other)
    _, again, _ = plan(parser().parse_args([*command, f"--vanilla={other}"]))
    same = [unit.attack.name for unit, one in zip(found, again, strict=True) if unit.folder == one.folder]
    assert same == ["lens", "lens"]

    file = run / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_weights": None}))
    _, left, _ = plan(parser().parse_args(command))
    assert {unit.attack.name for unit in left} == {"lens"} and not left[0].subject.others[1:]
    assert "depth: left out, since it needs a vanilla model and none is known; --vanilla names it" in caplog.text
    with pytest.raises(SystemExit, match="--on: nobody is left to attack; --vanilla names a vanilla model"):
        main([*command[:-1], "--only=depth"])
    with pytest.raises(UserError, match="--vanilla: found none, expected the vanilla model, which is needed beside"):
        left[0].subject.other("vanilla")


@pytest.mark.extended
def test_attacks_that_load_several_models(copies, tiny, monkeypatch):
    run, gold = copies
    tiny.write_text(yaml.safe_dump({"depth": {"tau": 1e-6}}))
    main([str(run), f"--gold={gold}", "--only=depth,difference", "--on=run,gold", "--quick", f"--settings={tiny}"])
    found = json.loads((run / "attacks/attacks.json").read_text())
    assert {state["state"] for one in found["attacks"].values() for state in one["on"].values()} == {"finished"}
    counted = {name: [row for row in one["conditions"] if row["counts"]] for name, one in found["attacks"].items()}
    assert [row["series"] for row in counted["depth"]] == ["left of what gold lacks"]
    assert counted["depth"][0]["gold"]["forget"] == 0
    assert [(row["series"], row["x"]) for row in counted["difference"]] == [("before and after", 2.0)]
    assert found["sentence"] == "" and found["counted"] == []


def test_nobody_is_left_to_attack(pair, tmp_path):
    model = shutil.copytree(pair[1] / "model", tmp_path / "weights")
    changed(model)
    with pytest.raises(SystemExit, match="--on: nobody is left to attack; --vanilla names a vanilla model"):
        main([str(model), f"--gold={pair[1]}", "--on=vanilla", f"--out={tmp_path}"])


def test_gold_is_a_gold_model_and_another_one(pair, tmp_path):
    with pytest.raises(SystemExit, match=r"--gold: .* has the very weights of .*; give models to compare with"):
        main([str(pair[1] / "model"), f"--gold={pair[1]}"])
    other = shutil.copytree(pair[1], tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["data"]["init_args"]["stage"] = "vanilla"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match=r"--gold: .* is a run of data.stage vanilla, which may have met the people"):
        main([str(pair[0]), f"--gold={other}"])


def test_a_hub_id_needs_a_folder(pair):
    with pytest.raises(SystemExit, match="someone/model: is no folder, so name one for the attempts with --out"):
        main(["someone/model", f"--gold={pair[1]}"])


@pytest.mark.parametrize("out", ["/proc/nope", "/etc/passwd"])
def test_where_there_can_be_no_folder(pair, out):
    with pytest.raises(SystemExit, match=rf"^error: --out: {out}/attacks cannot be made \(.*\); give another folder$"):
        main([str(pair[0]), f"--gold={pair[1]}", "--only=relearn", "--on=run", f"--out={out}"])


def test_a_model_folder_with_its_attempts_elsewhere(copies, tiny, tmp_path):
    _, gold = copies
    model = shutil.copytree(gold / "model", tmp_path / "weights")
    changed(model)
    command = [str(model), f"--gold={gold}", f"--data_of={gold}", f"--out={tmp_path / 'here'}"]
    main([*command, "--only=relearn", "--on=run", f"--settings={tiny}", "--jobs=1"])
    assert (
        len([*(tmp_path / "here/attacks").glob("relearn-*/unit.json")]) == 1
        and (tmp_path / "here/attacks/index.html").is_file()
    )
    assert {file.name for file in model.iterdir()} == {file.name for file in (gold / "model").iterdir()}


SETTINGS = {
    "relearn.lr": ("fast", "relearn.lr: found 'fast', expected something like 0.0002"),
    "relearn.steps": (3, r"relearn.steps: found 3, expected something like \(0, 1"),
    "relearn.batch_size": (2.5, "relearn.batch_size: found 2.5, expected something like 32"),
    "relearn.speed": (1, "relearn has no setting 'speed', expected steps, shares, lr"),
    "relearn.shares": ([2.0], "bad.yaml: relearn.shares: found"),
    "show.blur": (-1, "show.blur: found -1, expected something like 2.0; no number is negative"),
    "show.noise": ([math.inf], "show.noise: found"),
    "show.occlusion": (1.5, "bad.yaml: show.occlusion: found 1.5, expected a share above 0, at most 1"),
    "lens.ks": ([0], "lens.ks: found"),
    "probe.photos": (0, "probe.photos: found 0, expected something like 2; .*, no count 0"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_none(name, tmp_path):
    (value, said), (attack, setting) = SETTINGS[name], name.split(".")
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({attack: {setting: value}}))
    with pytest.raises(UserError, match=said):
        chosen([], False, file)


def test_settings(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("relearn:\n  lr: 1e-3\n  steps: [0, 3]\n")
    (attack,) = chosen(["relearn"], False, file)
    assert (attack.lr, attack.steps, attack.batch_size) == (0.001, (0, 3), 32)
    assert [one.name for one in chosen([], False, None)] == [name for name, kind in CLASSES.items() if not kind.costly]
    assert chosen(["noise"], False, None)[0].name == "noise"
    assert chosen(["relearn"], True, None) == [Relearn.quick()]
    (quick,) = chosen(["relearn"], True, file)  # its budget stays small, what suits the model is taken
    assert (quick.lr, quick.steps) == (0.001, Relearn.quick().steps)
    assert {one.name for one in every([], False, None)} == {*CLASSES}


@pytest.mark.parametrize("file", sorted((ROOT / "configs/attacks").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_settings(file):
    assert len(chosen([*CLASSES], False, file)) == len(CLASSES)


def test_settings_of_the_package_have_a_name(tmp_path, monkeypatch):
    """Where there is no repository; the name is what a noted command repeats, so it holds on any machine."""
    monkeypatch.chdir(tmp_path)
    wanted = chosen([*CLASSES], False, ROOT / "configs/attacks/mini.yaml")
    assert wanted != chosen([*CLASSES], False, None)
    for name in ("viker_lightning:attacks/mini.yaml", "configs/attacks/mini.yaml"):
        given = parser().parse_args(["run", "--gold=gold", f"--settings={name}"])
        assert str(given.settings) == name and chosen([*CLASSES], False, given.settings) == wanted
    with pytest.raises(UserError, match=r"did you mean viker_lightning:attacks/mini\.yaml\?$"):
        chosen([], False, Path("viker_lightning:attacks/mimi.yaml"))


def test_every_attack_says_what_it_is():
    page = (ROOT / "docs/attacks.md").read_text()
    for name, kind in CLASSES.items():
        assert f"| `{name}` | {kind.about[0].upper()}{kind.about[1:]}." in page
        assert name == kind.name and kind.about and kind.source and kind().parts() and kind.quick().parts()
        assert kind.__doc__ and kind.source in page, name
    assert EVERYBODY in Relearn.teaches
