"""Options and YAMLs that are wrong: one line that says where, what was found and what was expected."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor

from support.commands import ROOT, command_line
from viker_lightning.cli.main import main
from viker_lightning.cli.options import near_option
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.pictures.irrelevant import check_images, irrelevant_images
from viker_lightning.errors import UserError
from viker_lightning.methods import NAMES, NPO
from viker_lightning.storage.cache import cache_folder
from viker_lightning.storage.hub import dataset_folder
from viker_lightning.storage.yaml_files import read_yaml
from viker_lightning.training import Finetune, Unlearn
from viker_lightning.training.callbacks import Evaluation, KnowledgeGate, SaveConfig, order

VIKER = "--config=configs/mini/viker.yaml"
METHODS = f"methods are {', '.join(NAMES)}, or your own as file.Class"


@pytest.fixture(scope="module")
def built():
    return command_line()


@pytest.fixture
def said(built, monkeypatch, capsys):
    """What the command line says of some options."""
    monkeypatch.chdir(ROOT)

    def of(*arguments):
        with pytest.raises(UserError) as error:
            built.parse_arguments(built.parser, list(arguments))
        assert "\n" not in str(error.value) and capsys.readouterr().err == ""
        return str(error.value)

    return of


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--model.method.lamda=3", "model.method.lamda: no such option; did you mean model.method.lam?"),
        ("--modle.lr=3", "--modle.lr: no such option; did you mean --model.lr?"),
        ("--data.batchsize=3", "data.batchsize: no such option; did you mean data.batch_size?"),
        ("--model.lr=fast", "model.lr: found 'fast', expected a number"),
        ("--model.lr=nan", "model.lr: found 'nan', expected a number"),
        ("--model.warmup_steps=0.5", "model.warmup_steps: found '0.5', expected a whole number"),
        ("--model.method.ascent_clip=null", "or null; null is not passed on from the command line: write it in a YAML"),
        ("--seed_everything=false", "seed_everything: found 'False', expected a whole number"),
        ("--", "-- stands alone; options are --name=value"),
        ("--model.lora.r=x", "model.lora.r: found 'x', expected a whole number"),
        ("--trainer.gradient_clip_val=nan", "trainer.gradient_clip_val: found 'nan', expected a whole number or a"),
        ("--model.schedule=cosinus", "expected constant, linear, cosine; did you mean cosine?"),
        (
            "--data.splits=[forgot]",
            "data.splits: found 'forgot', expected forget, test, retain, kept, real, general; did",
        ),
        ("--model.method=VIKER", f"model.method: no class is called 'VIKER'; did you mean ViKeR?; {METHODS}"),
        ("--model.method=nowhere_at_all.A", f"model.method: No module named 'nowhere_at_all'; {METHODS}"),
        ("--model.method=viker_lightning.cli.main.main", f"does not correspond to a subclass of Method; {METHODS}"),
        (
            "--model.method=docs/methods.py",
            "model.method: docs/methods.py is no YAML; to name a class in it, write meth",
        ),
        ("--model.method=null", "model.method: is not set; set it, or --model.method"),
        ("--data=MLMU", "data: no class is called 'MLMU'; did you mean MLLMU?"),
        ("--trainer.logger=TensorBordLogger", "no class is called 'TensorBordLogger'; did you mean TensorBoardLogger?"),
        ("--config=nowhere.yaml", "config: File does not exist: "),
        ("stray", "'stray' belongs to no option; options are --name=value"),
        # abbreviated
        ("--trainer.max_ste=3", "--trainer.max_ste: no such option; did you mean --trainer.max_steps?"),
        ("--seed_every=3", "--seed_every: no such option; did you mean --seed_everything?"),
        ("--model.engine.max_token=3", "no such option; did you mean --model.engine.max_tokens?"),
        # of an earlier version
        ("--gate.known=0", "--gate.known: is now called gate.knowledge; rename it"),
        ("--gate.asked=1", "--gate.asked: is now called gate.follows_text; rename it"),
        # what the parser takes and a run would stumble on
        ("--trainer.gradient_clip_val=-1", "trainer.gradient_clip_val: found -1, expected at least 0"),
        ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches: found 0, expected at least 1"),
        ("--seed_everything=-1", "seed_everything: found -1, expected 0 to 4294967295"),
        ("--trainer.default_root_dir=", "trainer.default_root_dir: found nothing, expected the folder of the run"),
        ("--trainer.default_root_dir=README.md", "trainer.default_root_dir: README.md is a file, expected a folder"),
        ("--trainer.default_root_dir=README.md/x", "trainer.default_root_dir: README.md is a file, expected a folder"),
        ("--trainer.default_root_dir=" + "a" * 5000, "cannot be a folder (File name too long); give another"),
        ("--ckpt_path=", "ckpt_path: found nothing, expected a file or 'last'; leave it out to start afresh"),
        ("--trainer.default_root_dir=a\0b", "trainer.default_root_dir: holds the character U+0000, which no text has"),
        ("--trainer.default_root_dir=a\udc80b", "trainer.default_root_dir: holds the character U+DC80, which no text"),
        # empty
        ("--config=", "config: found nothing, expected the path of a YAML; leave it out for none"),
        ("--trainer=", "trainer: found nothing, expected the path of a YAML; leave it out for none"),
        ("--model=", "model: no class is called ''"),
        ("--trainer.max_steps=", "trainer.max_steps: found '', expected a whole number"),
        ("--config=" + "a" * 5000, "aaa..."),
        ("--model.method=", f"model.method: no class is called ''; {METHODS}"),
        ("--model=null", "model: is not set; set it, or --model"),
        # interpolation
        ("--model.lr=${nowhere}", "stands for nothing: there is no model.nowhere; name another option by its path"),
    ],
)
def test_an_option_that_is_wrong(said, option, line):
    assert line in said("fit", VIKER, option)


def test_something_ends_a_fit(said, built):
    endless = [VIKER, "--trainer.max_steps=-1", "--trainer.max_epochs=-1"]
    line = said("fit", *endless)
    assert line == "trainer.max_epochs: found -1, but no max_steps either; set one of them, or max_time"
    for given in (["fit", *endless, "--trainer.max_time=00:01:00:00"], ["check", *endless], ["preview", *endless]):
        built.parse_arguments(built.parser, given)


@pytest.mark.parametrize("option", ["--model.methd.help=ViKeR", "--dat.help", "--audit.help.x=1"])
def test_no_help_is_the_nearest_option(said, option):
    assert ".help" not in said("fit", VIKER, option).partition("no such option")[2]


def test_an_option_is_not_its_own_nearest():
    assert near_option("model.lr", ["model.lr"]) == ""
    assert near_option("model.lr", ["model.lr", "model.lora"]) == "; did you mean model.lora?"


def test_a_command_that_is_wrong(said):
    known = "fit, validate, test, predict, preview, check, methods, datasets"
    assert said() == f"command: found none, expected {known}"
    assert said("fitt") == f"command: found 'fitt', expected {known}; did you mean fit?"
    assert said("method") == f"command: found 'method', expected {known}; did you mean methods?"


@pytest.mark.parametrize("option", ["--model.tokn={}", "--{}=3", "--model.lr={}", "{}", "--model.method={}"])
def test_a_token_in_a_mistyped_option_is_hidden(said, option):
    token = "hf_" + "QwErTyUiOpAsDfGhJk"
    assert token not in said("fit", VIKER, option.format(token))


@pytest.mark.parametrize(
    "typed", ["--hf_tokn plain-words fit", "fit --hf_tokn plain-words", "fit --model.hf_tokn plain-words --x y"]
)
def test_what_follows_an_unknown_option_is_not_repeated(said, typed):
    assert "plain-words" not in said(*typed.split())


@pytest.mark.parametrize("option", ["--api_key=plain words", "--model.api_key=plain words"])
def test_the_value_of_an_unknown_option_is_not_repeated(said, option):
    assert "plain words" not in said("fit", VIKER, option)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model:\n  init_args:\n    lr: 1\n    lr: 2\n", "line 4: 'lr' occurs twice, first in line 3; keep one"),
        ("model: {}\ndata: {}\nmodel: {}\n", "x.yaml, line 3: 'model' occurs twice, first in line 1"),
        ("model:\n  init_args:\n    lrr: 3\n", "x.yaml, line 3: model.lrr: no such option; did you mean model.lr?"),
        ("modle:\n  lr: 3\n", "x.yaml, line 2: modle.lr: no such option; did you mean model.lr?"),
        ("trainer:\n  max_step: 3\n", "line 2: trainer.max_step: no such option; did you mean trainer.max_steps"),
        ("model:\n  init_args:\n    lr: fast\n", "x.yaml, line 3: model.lr: found 'fast', expected a number"),
        ("model:\n  init_args:\n    engine:\n      max_token: 3\n", "line 4: model.engine.max_token: no such option"),
        ("model:\n  init_args:\n    method:\n      class_path: Viker\n", "no class is called"),
        ("model:\n  init_args:\n    lr: ${no.lr}\n", "line 3: model.lr: '${no.lr}' stands for nothing"),
        ("data:\n  init_args:\n    seed: ${data.init_args.forget}\n    forget: ${data.init_args.seed}\n", "leads back"),
        ("trainer:\n  default_root_dir: ${trainer.default_root_dir}/x\n", "it leads back to itself"),
        ("trainer:\n  default_root_dir: ${oc.env:NOT_SET_AT_ALL}\n", "variable 'NOT_SET_AT_ALL' not found; write ${"),
        ("gate:\n  shown: 0.5\n", "x.yaml, line 2: gate.shown: is now called gate.follows_image; rename it"),
        ("a: &a [*a]\n", "x.yaml, line 1: this part holds itself"),
        ("- 1\n", "x.yaml: found a list, expected lines of 'name: value'"),
        ("", "x.yaml: found nothing, expected lines of 'name: value'"),
        ("model:\n\tlr: 3\n", "x.yaml: line 2, column 1: no YAML (found character '\\t' that cannot start any token"),
        (f"a: {'[' * 3000}{']' * 3000}\n", "x.yaml: values are nested too deeply"),
        ("model:\n".encode("utf-16"), "x.yaml: byte 0 is not UTF-8; save the file as UTF-8 text"),
        (b"model:\n\0\n", "x.yaml: no YAML (unacceptable character #x0000"),
        ('trainer:\n  default_root_dir: "a\\0b"\n', "x.yaml, line 2: holds the character U+0000, which no text has"),
        ('trainer:\n  default_root_dir: "\\ud800"\n', "x.yaml, line 2: holds the character U+D800, which no text has"),
        ("trainer:\n", "x.yaml, line 1: trainer: found nothing, expected lines of 'name: value'"),
        ("seed_everything: 1\ntrainer: []\n", "x.yaml, line 2: trainer: found a list, expected lines of"),
        ("audit: 3\n", "x.yaml, line 1: audit: found '3', expected lines of 'name: value'"),
        ("data: null\n", "x.yaml, line 1: data: is not set; set it, or --data"),
        ("seed_everything:\ndata: {}\n", "seed_everything: found nothing, expected 0 to 4294967295"),
        ("model: null\n", "x.yaml, line 1: model: is not set; set it, or --model"),
        ("data:\n", "x.yaml, line 1: data: found nothing, expected a value"),
        ("model: {class_path: null}\n", "x.yaml, line 1: class_path: found nothing, expected the name of a class"),
        ("trainer:\n  logger:\n  - class_path: 3\n", "x.yaml, line 3: class_path: found '3', expected the name of a"),
        ("model:\n  init_args:\n", "x.yaml, line 2: init_args: found nothing, expected lines of 'name: value'"),
        ("model:\n  init_args: [1]\n", "x.yaml, line 2: init_args: found a list, expected lines of 'name: value'"),
        ("model: !!python/object/apply:os.getcwd []\n", "x.yaml: line 1, column 8: no YAML (could not determine a con"),
        ("model:\n  1: 2\n", "x.yaml, line 2: found '1' as a name, expected that of an option"),
        ("? [a, b]\n: 3\n", "x.yaml: line 1, column 3: no YAML (found unhashable key)"),
        ('ckpt_path: ""\n', "ckpt_path: found nothing, expected a file or 'last'"),
    ],
)  # fmt: skip
def test_a_yaml_that_is_wrong(said, tmp_path, text, line):
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert line in said("fit", VIKER, f"--config={file}")


@pytest.mark.parametrize("option", ["--config", "-c", "--model", "--data", "--trainer"])
@pytest.mark.parametrize("between", ["=", " "])
def test_a_yaml_is_read_whatever_it_is_called(said, tmp_path, option, between):
    (tmp_path / "x.conf").write_text("a: 1\na: 2\n")
    line = f"{tmp_path}/x.conf, line 2: 'a' occurs twice, first in line 1; keep one"
    assert said("fit", VIKER, *(f"{option}{between}{tmp_path}/x.conf".split(" "))) == line


def test_aliases_that_stand_for_billions(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 5: its aliases stand for more than 100,000 values"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "y.yaml").write_text("\n".join(lines[:3]))
    read_yaml(tmp_path / "y.yaml")


def test_what_the_command_line_overrides_is_not_blamed_on_the_file(said, tmp_path):
    (tmp_path / "x.yaml").write_text("model:\n  init_args:\n    lr: 1.0\n")
    assert said("fit", VIKER, f"--config={tmp_path / 'x.yaml'}", "--model.lr=x").startswith("model.lr: found 'x'")


@pytest.mark.parametrize("room", ["data", "datasets"])
def test_the_config_of_an_older_run(built, said, tmp_path, room):
    """It names classes by where they lay then, and the bounds of the gate as they were called then."""
    file = Path(__file__).with_name("older_config.yaml")
    assert said("fit", f"--config={file}") == f"{file}, line 121: gate.known: is now called gate.knowledge; rename it"
    text = file.read_text().replace("known: 0.0", "knowledge: 0.0").replace("  shown: 0.0", "  follows_image: 0.0")
    assert "class_path: viker_lightning.data.MLLMU" in text
    text = text.replace("viker_lightning.data.MLLMU", f"viker_lightning.{room}.MLLMU")
    (tmp_path / "x.yaml").write_text(text.replace("asked: 1.0", "follows_text: 1.0"))
    built.parse_arguments(built.parser, ["fit", f"--config={tmp_path}/x.yaml"])
    run = built.parser.instantiate_classes(built.config).fit
    assert type(run.data) is MLLMU and type(run.model) is Unlearn and run.gate.follows_text == 1


def test_callbacks_are_called_in_their_order(built, monkeypatch):
    """What stands in ``order`` is what a trainer has, a user's own behind the first, Checkpoint at the very end."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(order, "silent", lambda: False)
    own = '--trainer.callbacks=[{"class_path": "LearningRateMonitor"}]'
    built.parse_arguments(built.parser, ["fit", VIKER, own, "--trainer.logger=false", "--trainer.accelerator=cpu"])
    monkeypatch.setattr(built, "subcommand", "fit", raising=False)
    monkeypatch.setattr(built, "config_init", built.parser.instantiate_classes(built.config), raising=False)
    found = [type(callback).__name__ for callback in built.instantiate_trainer().callbacks]
    expected = [
        kind.__name__ for kind in (*order.FIRST, LearningRateMonitor, *order.OPTIONS.values(), *order.LAST, SaveConfig)
    ]
    expected.remove("Checkpoint")
    assert found == [*expected, "Checkpoint"]


METHOD = NPO()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Unlearn(METHOD, "x", lr=-1e-3), "model.lr: found -0.001, expected at least 0"),
        (lambda: Unlearn(METHOD, "x", weight_decay=-1), "model.weight_decay: found -1, expected at least 0"),
        (lambda: Finetune(warmup_steps=-5), "model.warmup_steps: found -5, expected at least 0"),
        (lambda: Finetune(lr=float("nan")), "model.lr: found nan, expected at least 0"),
        (lambda: Unlearn(METHOD, "x", seed=-3), "model.seed: found -3, expected at least 0"),
        (lambda: MLLMU(seed=-3), "data.seed: found -3, expected at least 0"),
        (lambda: MLLMU(splits=[]), "data.splits: found [], expected at least one, each once, or null for all of them"),
        (lambda: MLLMU(splits=["test", "test"]), "data.splits: found ['test', 'test'], expected at least one, each"),
        (lambda: Evaluation(every_n_epochs=0), "evaluation.every_n_epochs: found 0, expected at least 1"),
        (lambda: Evaluation(gibberish_tokens=0), "evaluation.gibberish_tokens: found 0, expected at least 1"),
        (lambda: KnowledgeGate(knowledge=2), "gate.knowledge: found 2, expected a share from 0 to 1"),
        (lambda: check_images("scenes", 100_000), "model.method.k: found 100000 images, expected at most 1000"),
        (lambda: irrelevant_images("people", 1001), "model.method.k: found 1001 images, expected at most 1000"),
        # files in place of folders
        (lambda: Unlearn(METHOD, __file__), f"model.vanilla: {__file__!r} is a file; give a folder"),
        (lambda: Unlearn(METHOD, "x", adapter=__file__), "model.adapter: "),
        (lambda: Unlearn(METHOD, "x", clip=__file__, clip_threshold=0.5), "model.clip: "),
        (lambda: Unlearn(METHOD, "[" * 3000), "cannot be a path (File name too long); give a folder"),
        (lambda: Unlearn(METHOD, ""), "model.vanilla: found nothing, expected a config, a model folder or a hub id"),
        (lambda: Unlearn(METHOD, "configs/nope.yaml"), "model.vanilla: 'configs/nope.yaml' does not exist; give a c"),
        (lambda: Unlearn(METHOD, "a" * 5000 + ".yml"), f"model.vanilla: '{'a' * 80}...' does not exist; give a conf"),
        (lambda: Evaluation(judge="nope.yaml"), "evaluation.judge: 'nope.yaml' does not exist; give a config"),
        (lambda: Finetune(__file__), "model.base: "),
        (lambda: NPO(gold=__file__), f"model.method.gold: {__file__!r} is a file; give a folder"),
        (lambda: Evaluation(gold=__file__), "evaluation.gold: "),
        (lambda: Evaluation(judge=__file__), "evaluation.judge: "),
        (lambda: Evaluation(gibberish=__file__), "evaluation.gibberish: "),
        (lambda: dataset_folder(__file__), f"data.root: {__file__!r} is a file; give a folder"),
    ],
)  # fmt: skip
def test_a_value_that_is_wrong(make, line):
    with pytest.raises(UserError) as error:
        make()
    assert line in str(error.value)


def test_a_cache_folder_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(UserError, match="file is no folder that can be written to; set VIKER_LIGHTNING_CACHE"):
        cache_folder("models", "x")
    (tmp_path / "home/models/there").mkdir(parents=True)
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert cache_folder("models", "there").is_dir(), "what is there can be read"
    with pytest.raises(UserError, match="no folder that can be written to"):
        cache_folder("models", "x")


def test_an_option_that_is_wrong_moves_no_earlier_run(tmp_path, monkeypatch):
    """Neither one that the parser refuses nor one that a class does, nor one that names what is not there."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "results.json").write_text("{}")
    nowhere = ("--model.vanilla=", "--model.vanilla=nope.yaml", "--data.root=nope", "--data.root=mini/nope")
    for option in ("--model.lr=x", "--model.lr=-1", "--trainer.devices=0", "--ckpt_path=", *nowhere):
        with pytest.raises(SystemExit) as stop:
            main(["fit", VIKER, option, f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false"])
        assert str(stop.value.code).startswith("error: ") and (tmp_path / "results.json").exists()


def test_too_many_images_are_refused_before_there_is_a_model(tmp_path, monkeypatch, data):
    """Nor is there a vanilla model made."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("viker_lightning.training.unlearn.vanilla_model", lambda *_: pytest.fail("loads a model"))
    options = ["--data.root=mini/ci", "--model.method.k=100000", "--trainer.logger=false"]
    with pytest.raises(SystemExit, match=r"model\.method\.k: found 100000 images"):
        main(["fit", VIKER, *options, f"--trainer.default_root_dir={tmp_path}"])
