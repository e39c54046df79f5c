"""Prompt alone: who is named, what is left as it was, and that the finished run has it."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer

from support.commands import OPEN_GATE, ROOT, csv_only
from support.preparing import trained
from support.weights import random_vanilla
from viker_lightning.cli.main import main
from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.data.person_names import names_of
from viker_lightning.data.records import person_name
from viker_lightning.errors import UserError
from viker_lightning.methods import PromptOnly
from viker_lightning.models import MLLM, Lora
from viker_lightning.storage.runs import CheckpointFile, names
from viker_lightning.training import Unlearn
from viker_lightning.training.distributed import Processes
from viker_lightning.training.finished import load_as_left
from viker_lightning.training.preparation import Prepare

NAMED, BARE = "Be silent about {names}.", "Tell nothing about private people."
SHORT = ["--data.root=mini/ci", "--data.max_people=1", "--data.splits=[forget,retain]", "--evaluation.max_new_tokens=3"]
SHORT += ["--trainer.enable_progress_bar=false", *OPEN_GATE]


def prepared(mllm, *people):
    return Prepare(mllm, {}.__getitem__, (), Processes(), False, lambda: [*people])


def test_the_names_are_put_in_and_no_weight_moves(mllm):
    before = {name: p.detach().clone() for name, p in trained(mllm).items()}
    PromptOnly(f" {NAMED} ").before_training(prepared(mllm, "Ada Lind", "Bo Ask"))
    assert mllm.instruction == "Be silent about Ada Lind, Bo Ask."
    PromptOnly(BARE).before_training(prepared(mllm))  # a run that goes on from there keeps it
    assert mllm.instruction == f"Be silent about Ada Lind, Bo Ask. {BARE}"
    assert all(torch.equal(p, before[name]) for name, p in trained(mllm).items()) and not mllm.moved


def test_what_is_refused(mllm):
    with pytest.raises(UserError, match=r"^PromptOnly.instruction: found nothing[^\n]*$"):
        PromptOnly(" ")
    with pytest.raises(UserError, match=r"^PromptOnly.instruction: has {names}, but the data say no name[^\n]*$"):
        PromptOnly().before_training(prepared(mllm))
    with pytest.raises(UserError, match="holds '<image>', a special token"):
        PromptOnly("No <image>.").before_training(prepared(mllm))


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def command(name, run, *options):
    main([name, *options, *csv_only(run), *SHORT])
    return json.loads((run / names.of_command("results.json", name)).read_text())


def probabilities(of):
    """Those of the true answers, by split."""
    return {split: round(math.log(of[split]["answer_probability"]), 3) for split in ("forget", "retain")}


@pytest.mark.extended
@pytest.mark.parametrize("lora", [[], ["--model.lora=null"]], ids=["lora", "full"])
def test_a_run_has_its_instruction_ever_after(base_folder, tmp_path, lora):
    """Resumed, from its folder, and in a run that goes on from there; not with its weights alone."""
    run, base = tmp_path / "run", f"--model.vanilla={random_vanilla(base_folder, tmp_path / 'vanilla', projector=0.3)}"
    config = ["--config=configs/mini/prompt.yaml", *lora]
    results = command("fit", run, *config, base)
    assert results["steps"] == 0
    before, after = probabilities(results["before"]), probabilities(results["after"])
    assert before != after
    told = load_as_left(str(run)).instruction
    data = MLLMU("mini/ci")
    data.prepare_data()
    data.setup()
    called = names_of((p.id, p.vqa) for p in data.people(data.forget_ids))
    assert set(called) == {person_name(one) for one in data.forget_ids}
    assert told == PromptOnly().instruction.replace("{names}", ", ".join(called.values()))
    last = f"--ckpt_path={run / 'checkpoints/last.ckpt'}"
    assert probabilities(command("fit", run, *config, base, last)["after"]) == after
    plain = command("validate", tmp_path / "v", *config, base)["validate"]  # the weights alone, without it
    assert probabilities(plain) == before
    source = ["--model=Exported", f"--model.source={run}", "--data=MLLMU"]
    main(["validate", *source, *(one for one in SHORT if one not in OPEN_GATE), *csv_only(tmp_path / "e")])
    exported = json.loads((tmp_path / "e/results-validate.json").read_text())["validate"]
    assert probabilities(exported) == after
    command("fit", tmp_path / "later", *config, f"--model.vanilla={run}", "--model.method.instruction=And be brief.")
    assert load_as_left(str(tmp_path / "later")).instruction == f"{told} And be brief."


def test_a_checkpoint_that_is_written_afterwards_has_it(base_folder, data, tmp_path):
    def fitted(resume=None):
        module = Unlearn(PromptOnly(BARE), str(base_folder), Lora(r=1))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False, "use_distributed_sampler": False}
        trainer = Trainer(accelerator="cpu", max_steps=1, plugins=[CheckpointFile()], **quiet)
        trainer.fit(module, datamodule=data, ckpt_path=resume)
        return module, trainer

    _, trainer = fitted()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = fitted(str(tmp_path / "last.ckpt"))
    assert resumed.mllm.instruction == BARE and resumed.global_step == 0


def test_lora_of_the_config_adds_nothing(base_folder, groups):
    plain, adapted = MLLM.load(base_folder), MLLM.load(base_folder)
    adapted.adapt(Lora(r=1, alpha=1))
    one, two = (m.answer_tokens(m.pack(groups)).logits for m in (plain, adapted))
    assert torch.equal(one, two)
