"""What a run must never do: write a secret down, unpickle what it is given, or read beside the data folder."""

import io
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from support.commands import OPEN_GATE
from support.wandb_file import records
from viker_lightning.cli import main as cli
from viker_lightning.cli.main import main
from viker_lightning.data.datasets import Jsonl
from viker_lightning.data.embedded.write_mllmu import PEOPLE
from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.evaluation.gibberish import GibberishClassifier
from viker_lightning.grids import __main__ as experiments
from viker_lightning.grids.cells import Cell
from viker_lightning.models import MLLM, Lora
from viker_lightning.models.adapter import adapter_config
from viker_lightning.reporting import __main__ as reporting
from viker_lightning.storage.runs import CheckpointFile
from viker_lightning.storage.secrets import HIDDEN, HidingFormatter, hide, hide_arguments, hide_in, hide_quoted

ROOT = Path(__file__).parents[2]
SHORT = ["--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget]", "--trainer.max_steps=1"]
SHORT += ["--trainer.enable_progress_bar=false", *OPEN_GATE]
SHORT += ["--evaluation.before=false"]

HUB = "hf_" + "QwErTyUiOpAsDfGhJk"
WANDB_KEY = "0123456789abcdef" * 2 + "01234567"
URL = "https://someone:pa55word9@example.org/data"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"token {HUB} is used", "token *** is used"),
        (URL, "https://***@example.org/data"),
        ("https://someone:p@ss@w0rd@example.org/a@b", "https://***@example.org/a@b"),
        ("https://example.org and a@b", None),
        ("Authorization: Bearer abc.DEF-123", "Authorization: Bearer ***"),
        ("https://x.org/a?token=abcdef123&b=1", "https://x.org/a?token=***&b=1"),
        ("ghp_" + "a1B2" * 9, HIDDEN),
        ("key tokens: 3 of max_tokens=16384, tokenizer=own", None),
        ("08683acfb2a0c5d1e6f708192a3b4c5d6e7f8091", None),  # a commit
    ],
)
def test_what_is_hidden_in_text(text, rest):
    assert hide(text) == (text if rest is None else rest)


def test_what_is_hidden_in_a_config(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "plain-words-only")
    config = {
        "hf_token": "abc",
        "logger": [{"init_args": {"api_key": "x", "headers": {"Authorization": "y"}, "name": "plain-words-only"}}],
        "secrets": ["a", "b"],
        "max_tokens": 16384,
        "tokenizer": "own",
        "password": None,
    }
    assert hide_in(config) == {
        "hf_token": HIDDEN,
        "logger": [{"init_args": {"api_key": HIDDEN, "headers": {"Authorization": HIDDEN}, "name": HIDDEN}}],
        "secrets": [HIDDEN, HIDDEN],
        "max_tokens": 16384,
        "tokenizer": "own",
        "password": None,
    }


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        (
            "Unrecognized arguments: --hf_tokn=short --x.api_ky also -v",
            "Unrecognized arguments: --hf_tokn=*** --x.api_ky *** -v",
        ),
        (
            f"unrecognized arguments: stray {HUB} --hf_tokn short also",
            "unrecognized arguments: stray *** --hf_tokn *** ***",
        ),
        ("--a.api_key=short: no such option", "--a.api_key=*** no such option"),
        ("near --my.password 'two words' here", "near --my.password *** here"),
        ("Namespace(api_key='short', tokenizer='own')", "Namespace(api_key=***, tokenizer='own')"),
        ("{'hub_token': 'short', 'max_tokens': 3}", "{'hub_token': ***, 'max_tokens': 3}"),
        ("Given value: NestedArg(key='api_ky', val='short')", "Given value: NestedArg(key='api_ky', val=***)"),
        (f"--data.root={URL}: not found", "--data.root=https://***@example.org/data: not found"),
        ("--data.forget=5: expected one of 1, 2; --model.lr=-1", None),
        ("--model.engine.max_tokens=4096 is too few", None),
        ("--trainer.max_epochs ten: expected a number", None),
    ],
)
def test_what_is_hidden_in_a_parser_error(said, rest):
    assert hide_arguments(said) == (said if rest is None else rest)


@pytest.mark.parametrize(
    "typed", [f"--modl.key={HUB}", "--hf_tokn=correct-horse", "--trainer.logger.api_ky=correct-horse"]
)
def test_a_mistyped_option_does_not_show_its_value(capsys, typed):
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={ROOT / 'configs/mini/viker.yaml'}", typed])
    said = capsys.readouterr().err + str(stop.value.code)
    assert HUB not in said and "correct-horse" not in said
    assert typed.partition("=")[0].rpartition(".")[2].removeprefix("--") in said, "what is wrong is named"


def test_log_messages_and_tracebacks_hide_secrets():
    try:
        raise ValueError(URL)
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.INFO, "", 1, "read %s", (URL,), info)
    written = HidingFormatter("%(message)s").format(record)
    assert "pa55word9" not in written and "read https://***@example.org/data" in written


SOURCE = """
api_key = "plain words"
secrets["api_key"] = 'plain words'
def ask(password: str | None = f"plain words", tokenizer="own", *, hub_token: str = r'plain \\' words'):
    return post(
        access_key=(
            "plain "
            "words"
        ), headers={"Authorization": \"\"\"plain
        words\"\"\"}, passphrase=''
    )
def mask(tokens: Tokens) -> Tokens:
    "What it says of itself."
key: str = "shown"
if token == "</s>":
    name = "the token: it's shown"
"""


def test_what_is_hidden_in_source():
    hidden = hide_quoted(SOURCE)
    assert "plain" not in hidden and "words" not in hidden
    assert 'tokenizer="own"' in hidden and hidden.endswith(SOURCE[SOURCE.index("def mask(") :])
    for file in (ROOT / "src/viker_lightning/methods").glob("*.py"):
        assert hide_quoted(file.read_text("utf-8")) == file.read_text("utf-8")


@pytest.mark.parametrize("of", [reporting, experiments])
def test_other_command_lines_hide_secrets(of, monkeypatch, tmp_path):
    """A URL stands in an error as it was typed, with the slashes of a path."""
    given = {reporting: [URL], experiments: ["list", URL, "--scale=mini"]}
    with pytest.raises(SystemExit) as stop:
        of.main(given[of])
    assert "https:/***@example.org/data" in str(stop.value.code) and "pa55word9" not in str(stop.value.code)


def test_runs_that_failed_are_named_without_secrets(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "read_grid", lambda *_: None)
    monkeypatch.setattr(experiments, "_carry_out", lambda *_: f"1 of 1 runs failed: {URL}")
    with pytest.raises(SystemExit, match=r"1 of 1 runs failed: https://\*\*\*@example.org/data$"):
        experiments.main(["run", "any.yaml", "--scale=mini"])


def test_the_command_of_a_cell_has_no_secret(tmp_path):
    """It stands in cell.json and on the pages of a table; what is run is what was written."""
    logger = {"class_path": "own.Logger", "init_args": {"api_key": "plain words"}}
    options = {"data.root": URL, "model.hub_token": "plain words", "trainer.logger": [logger], "model.lr": 1e-3}
    cell = Cell("grid", "", "row", 0, "any.yaml", options, tmp_path / "run")
    assert "pa55word9" not in cell.command and "plain words" not in cell.command and "--model.lr=0.001" in cell.command
    assert f"--data.root={URL}" in cell.arguments and "--model.hub_token=plain words" in cell.arguments
    cell.folder.mkdir()
    (cell.folder / "log.txt").write_text(f"error: {URL}\n")
    assert cell.complaint() == "error: https://***@example.org/data"


def test_warnings_hide_secrets(monkeypatch, capsys):
    """Those of Python, which are no log messages."""
    former = warnings.formatwarning

    def run(*args, **more):
        sys.stderr.write(warnings.formatwarning(f"no answer from {URL}", UserWarning, "own.py", 1))
        raise UserError("over")

    monkeypatch.setattr(cli, "CLI", run)
    with pytest.raises(SystemExit):
        main(["fit"])
    said = capsys.readouterr().err
    assert "UserWarning: no answer from https://***@example.org/data" in said and "pa55word9" not in said
    assert warnings.formatwarning is former


NOTIFY = """
import logging
from lightning.pytorch import Callback

class Notify(Callback):
    def __init__(self, api_token: str, hook: str, channel: str) -> None:
        self.api_token, self.hook, self.channel = api_token, hook, channel

    def on_train_start(self, trainer, pl_module) -> None:
        assert (self.api_token, self.channel) == ("short", "correct-horse"), "the callback is given what was written"
        print(self.hook)
        logging.getLogger("notify").info("telling %s", self.hook)
"""


def test_a_run_folder_holds_no_secret(base_folder, tmp_path, monkeypatch, caplog):
    """Secrets in the config, on the command line, in the environment and in the git remote of the working folder."""
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "configs", repository / "configs")
    for command in (["init", "-q"], ["remote", "add", "origin", URL]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("WANDB_API_KEY", WANDB_KEY)
    monkeypatch.setenv("OWN_PASSWORD", "correct-horse")
    for name in ("WANDB_X_DISABLE_META", "WANDB_DISABLE_GIT", "WANDB_CONSOLE"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    (repository / "notify.py").write_text(NOTIFY)
    monkeypatch.syspath_prepend(repository)
    told = {"api_token": "short", "hook": URL, "channel": "correct-horse"}
    extra = tmp_path / "extra.yaml"
    shown = {"notes": f"see {URL} with {HUB}", "tags": [URL, "correct-horse", "plain"], "name": f"of {HUB}"}
    loggers = [
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(run), "name": "", "version": ""}},
        {"class_path": "WandbLogger", "init_args": {"save_dir": str(run), "offline": True, **shown}},
    ]
    callbacks = [{"class_path": "notify.Notify", "init_args": told}]
    extra.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks, "logger": loggers}}))
    monkeypatch.setenv("WANDB_RUN_GROUP", f"group {URL}")
    arguments = ["fit", "--config=configs/mini/gradient_ascent.yaml", f"--config={extra}", *SHORT]
    arguments += [f"--model.vanilla={base_folder}", f"--trainer.default_root_dir={run}"]
    arguments += [f"--evaluation.gold_predictions={URL}", "--evaluation.gibberish=correct-horse"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert "pa55word9" not in str(stop.value.code)
    arguments = [a for a in arguments if not a.startswith("--evaluation.gi") and URL not in a]
    monkeypatch.setattr("sys.argv", ["viker-lightning", *arguments, f"--note={URL}"])
    with caplog.at_level(logging.DEBUG):
        main(arguments)
    assert (run / "results.json").is_file() and list(run.rglob("*.wandb"))
    written = [path for path in run.rglob("*") if path.is_file()]
    assert {"config.yaml", "provenance.json", "metrics.csv", "last.ckpt"} <= {path.name for path in written}
    for path in written:
        for secret in (HUB, WANDB_KEY, "pa55word9", "correct-horse"):
            assert secret.encode() not in path.read_bytes(), path
    found = [record for file in run.rglob("*.wandb") for record in records(file)]
    started = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert started
    hidden = "https://***@example.org/data"
    for one in started:
        assert (one.notes, one.display_name) == (f"see {hidden} with ***", "of ***")
        assert [*one.tags] == [hidden, HIDDEN, "plain"] and one.run_group == f"group {hidden}"
    assert os.environ["WANDB_RUN_GROUP"] == f"group {URL}", "a program that goes on has its environment back"
    (callback,) = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert callback["init_args"] == {
        "api_token": HIDDEN,
        "hook": "https://***@example.org/data",
        "channel": HIDDEN,
    }
    assert json.loads((run / "provenance.json").read_text())["trust_remote_code"] is False


def test_pickled_weights_are_refused(base_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(base_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"found pytorch_model.bin, a pickle.*expected safetensors only"):
        MLLM.load(folder)
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"found adapter_model.bin, a pickle"):
        MLLM.load(base_folder).adapt(Lora(), tmp_path)
    with pytest.raises(UserError, match="no adapter could be read"):
        MLLM.load(base_folder).adapt(Lora(), tmp_path / "nowhere")


def sharded(base_folder, folder, names):
    """The model in two files, and an index that says where its weights are."""
    shutil.copytree(base_folder, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: names[i % 2] for i, name in enumerate(sorted(weights))}
    for file in set(names):
        part = {name: weights[name] for name in where if where[name] == file}
        if file.endswith(".bin"):
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def test_weights_in_several_files_are_read(base_folder, tmp_path):
    folder = sharded(base_folder, tmp_path / "two", ["a.safetensors", "b.safetensors"])
    assert MLLM.load(folder).fingerprint == MLLM.load(base_folder).fingerprint


@pytest.mark.parametrize("other", ["pytorch_model.bin", "../b.safetensors", "/tmp/b.safetensors", "c/../b.safetensors"])
def test_an_index_that_names_anything_else_is_refused(base_folder, tmp_path, monkeypatch, other):
    good = sharded(base_folder, tmp_path / "two", ["a.safetensors", "pytorch_model.bin"])
    index = good / "model.safetensors.index.json"
    weights = load_file(base_folder / "model.safetensors")
    torch.save(weights, good / "pytorch_model.bin")
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, other)}))
    with pytest.raises(UserError, match=rf"index.json: .* is said to be in '{other}'; expected a .safetensors file"):
        MLLM.load(good)
    with pytest.raises(UserError, match="is said to be in"):
        GibberishClassifier.load(str(good))
    hub = tmp_path / "hub/models--nobody--two"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("0" * 40)
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / ("0" * 40)).symlink_to(good)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"is said to be in '{other}'"):
        MLLM.load("nobody/two")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 99_999])
def test_what_is_no_adapter_is_named(tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(
        UserError, match=r"found no adapter, expected LORA|no adapter could be read \(.*\); give"
    ) as error:
        adapter_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 99_999])
def test_a_note_or_label_that_is_none_is_as_good_as_missing(tmp_path, content):
    (tmp_path / "cell.json").write_text(content)
    assert Cell("grid", "", "row", 0, "any.yaml", {}, tmp_path).note() == {}
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(UserError, match="holds other files"):
        PEOPLE.write(tmp_path, "ci")


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": [1]}', "[" * 99_999])
def test_what_is_no_index_is_named(base_folder, tmp_path, content):
    shutil.copytree(base_folder, tmp_path / "model")
    (tmp_path / "model/model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"index.json: no index of weights .*; write the weights again") as error:
        MLLM.load(tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", 3),
        ("config.json", {"architectures": {"x": 1}}),
        ("config.json", {"dtype": "x"}),
        ("config.json", {"dtype": ["x"]}),
        ("config.json", {"image_seq_length": "x"}),
        ("config.json", {"projector_hidden_act": "x"}),
        ("generation_config.json", []),
        ("generation_config.json", 3),
        ("processor_config.json", []),
        ("processor_config.json", 3),
        ("tokenizer_config.json", []),
        ("tokenizer_config.json", 3),
        ("tokenizer.json", []),
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {"version": 3}),
    ],
)
def test_a_json_of_a_model_that_holds_something_else_is_named(base_folder, tmp_path, file, content):
    shutil.copytree(base_folder, tmp_path / "model")
    written = json.loads((base_folder / file).read_text())
    (tmp_path / "model" / file).write_text(json.dumps(written | content if isinstance(content, dict) else content))
    with pytest.raises(UserError, match="no model could be loaded") as error:
        MLLM.load(tmp_path / "model")
    assert str(error.value).startswith(f"{tmp_path / 'model'}: ") and "\n" not in str(error.value)


def test_links_that_lead_out_of_a_model_folder_are_named(base_folder, tmp_path, caplog):
    """The hub's cache is made of links to its own blobs; other links are followed, and a line says where to."""
    snapshot, blobs = tmp_path / "models--nobody--tiny/snapshots/0", tmp_path / "models--nobody--tiny/blobs"
    shutil.copytree(base_folder, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    MLLM.load(snapshot)
    assert not caplog.messages
    plain = tmp_path / "plain"
    shutil.copytree(base_folder, plain)
    (plain / "model.safetensors").unlink()
    (plain / "model.safetensors").symlink_to(blobs / "model.safetensors")
    MLLM.load(plain)
    assert caplog.messages == [
        f"{plain}: model.safetensors is a link that leads out of the folder, to {blobs / 'model.safetensors'}"
    ]


def test_an_adapter_beside_full_weights_is_refused(mllm, base_folder, tmp_path):
    """transformers would put it on without a word, or load the model that it names."""
    shutil.copytree(base_folder, tmp_path / "model")
    mllm.save_adapter(tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "alone"):
        mllm.save_adapter(folder)
        with pytest.raises(UserError, match=r"found an adapter \(adapter_config.json\), expected full weights alone"):
            MLLM.load(folder)


def test_an_adapter_of_another_scale_is_refused(mllm, base_folder, tmp_path):
    mllm.save_adapter(tmp_path)
    with pytest.raises(UserError, match="lora_alpha=16, but this run has 32"):
        MLLM.load(base_folder).adapt(Lora(alpha=32), tmp_path)


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_is_refused(base_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "bad.ckpt")
    arguments = ["fit", "--config=configs/mini/gradient_ascent.yaml", *SHORT, f"--model.vanilla={base_folder}"]
    arguments += ["--trainer.logger=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, f"--ckpt_path={tmp_path / 'bad.ckpt'}"])
    said = str(stop.value.code)
    assert said.startswith("error: ckpt_path") and "could run code" in said and "\n" not in said
    assert not (tmp_path / "sprung").exists()
    asked = "error: weights_only: found false, but nothing is unpickled, since that can run code; leave it out"
    for weights_only, line in (("false", asked), ("true", said)):  # nobody can ask for it to be opened
        with pytest.raises(SystemExit) as stop:
            main([*arguments, f"--ckpt_path={tmp_path / 'bad.ckpt'}", f"--weights_only={weights_only}"])
        assert str(stop.value.code) == line
    for found in (None, False):
        with pytest.raises(UserError, match="could run code"):
            CheckpointFile().load_checkpoint(tmp_path / "bad.ckpt", weights_only=found)
    assert not (tmp_path / "sprung").exists()
    for nowhere, shown in (
        ("best", "best"),
        ("hpc", "hpc"),
        ("nowhere.ckpt", "nowhere.ckpt"),
        ("a" * 5000, r"a+\.\.\."),
    ):
        with pytest.raises(SystemExit, match=rf"error: ckpt_path: {shown} does not exist"):
            main([*arguments, f"--ckpt_path={nowhere}"])


def bomb():
    """A PNG that says it is 60000 pixels wide and high."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def photo(kind):
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [bomb(), photo("PNG")[:900], photo("JPEG")[:900], b"GIF89a", b""])
def test_bad_images_name_their_source(data):
    with pytest.raises(UserError, match=r"row 3: not a readable image .*; replace or remove it") as error:
        Picture(data, "row 3").open()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../photo.png", "a/../../photo.png", "C:\\photo.png", "\\\\host\\p.png"]
)
def test_images_beside_the_data_are_not_read(tmp_path, path):
    (tmp_path / "photo.png").write_bytes(photo("PNG"))
    file = tmp_path / "data/people.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps({"image": path, "question": "Who?", "answer": "Ada.", "person": "Ada"}))
    data = Jsonl(str(file))
    with pytest.raises(UserError, match=r"people.jsonl, line 1, column 'image': .* leads out of"):
        data.setup()


def test_a_photo_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "photo.png").write_bytes(photo("PNG"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ada.png").symlink_to(tmp_path / "photo.png")
    row = {"image": "ada.png", "question": "Who?", "answer": "Ada.", "person": "Ada", "split": "forget"}
    (tmp_path / "data/people.jsonl").write_text(json.dumps(row))
    data = Jsonl(str(tmp_path / "data/people.jsonl"))
    data.setup()
    assert data.people()[0].images[0].data == photo("PNG")
