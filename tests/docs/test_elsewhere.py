"""The bridge to lm-evaluation-harness, crossed where that is installed; it is no dependency."""

import json
import os
import subprocess
import sys

import pytest

from support.documented import PAGES, block_commands, blocks
from support.weights import random_vanilla
from viker_lightning.models import MLLM, write_language_model

PAGE = next(page for page in PAGES if page.name == "elsewhere.md")


def test_lm_eval_reads_a_language_model_and_the_task_of_the_page(base_folder, tmp_path):
    pytest.importorskip("lm_eval", reason="pip install 'lm_eval[hf]', into an environment of its own")
    write_language_model(MLLM.load(random_vanilla(base_folder, tmp_path / "vanilla")), tmp_path / "alone")
    found = blocks(PAGE)
    for block in found:
        if block.file:
            (tmp_path / block.file).write_text(block.text, "utf-8")
    typed = [one.words for block in found if block.language == "bash" for one in block_commands(block)]
    (words,) = [words for words in typed if words[0] == "lm_eval" and "--include_path" in words]
    words = [word.replace("runs/mini/viker/language_model", "alone") for word in words[1:]]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "lm_eval", *words, "--output_path=out.json"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.glob("out*.json")
    assert json.loads(written.read_text())["results"]["people_text"]["acc,none"] in (0.0, 0.5, 1.0)
