"""Estimates against what real tiny models take."""

import json

import pytest
import torch
from safetensors import safe_open

from support.commands import OPEN_GATE, csv_only, here  # noqa: F401 - `here` is used by every test of this file
from support.families import FAMILIES
from support.marks import bf16_attention, quick
from viker_lightning.cli.check import check, estimates
from viker_lightning.cli.check.estimates import ModelSize, Setting, Workload
from viker_lightning.cli.check.workload import number_of_steps
from viker_lightning.cli.main import main
from viker_lightning.data.embedded.base_model import base_model
from viker_lightning.data.records import ImageGroup
from viker_lightning.evaluation.gibberish import GibberishClassifier
from viker_lightning.ideal.reference import NAMES, Reference
from viker_lightning.models import MLLM, Lora, Weights
from viker_lightning.models.loading import skeleton
from viker_lightning.storage.cache import cache_folder
from viker_lightning.training.callbacks import Report

SHAPE = ModelSize(
    weights=1000, trained=100, linear=640, decoder=800, hidden=8, inner=16, layers=2, key_value=4, vocabulary=50
)


def without_weights(folder):
    model, processor, family = skeleton(folder)
    return MLLM(model, processor, None, family)


def counts(mllm):
    return [sum(p.numel() for p in mllm.parameters() if p.requires_grad or every) for every in (True, False)]


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "idefics3", "internvl", "gemma3"])
def test_as_many_weights_as_the_real_model_has(name, tmp_path):
    FAMILIES[name]().save(tmp_path)
    real, seen = MLLM.load(tmp_path), without_weights(tmp_path)
    assert {p.device.type for p in seen.parameters()} == {"meta"} and counts(seen) == counts(real)
    targets = Lora(r=3, targets=("q_proj", "v_proj"))
    for mllm in (real, seen):
        mllm.train_fully(head=False)
    assert counts(seen) == counts(real) and counts(seen)[1] < counts(seen)[0]
    for mllm in (real, seen):
        mllm.adapt(targets)
    assert counts(seen) == counts(real) and 0 < counts(seen)[1] < counts(seen)[0]
    shape = check.shape_of(seen)
    assert shape == check.shape_of(real) and [shape.weights, shape.trained] == counts(real)
    assert estimates.weight_bytes(shape, 4, 4) == sum(p.nbytes for p in real.parameters())
    real.to(torch.bfloat16)._apply(lambda p: p.float() if p.requires_grad else p)
    assert estimates.weight_bytes(shape, 2, 4) == sum(p.nbytes for p in real.parameters())


def test_logits_and_key_values(mllm, groups):
    batch, shape = mllm.pack(groups), check.shape_of(mllm)
    tokens = mllm.answer_tokens(batch)
    assert tokens.logits.nbytes == estimates.logits_bytes(len(tokens.labels), shape.vocabulary) > 0
    cache = mllm.key_values(batch.input_ids.shape[1])
    with mllm.frozen():
        mllm.hidden(batch, cache)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.buffers)
    assert kept == estimates.key_value_bytes(shape, batch.input_ids.numel(), 4)


@bf16_attention
@pytest.mark.parametrize(("dtype", "checkpointing"), [("float32", False), ("bfloat16", False), ("float32", True)])
def test_activations(dtype, checkpointing, data):
    mllm = MLLM.load(base_model(), Weights(dtype))
    mllm.adapt(Lora())
    mllm._apply(lambda p: p.float() if p.requires_grad else p)
    mllm.train()
    if checkpointing:
        mllm.checkpoint_gradients()
    batch = mllm.pack([ImageGroup(p.id, p.images[0], vqa=p.vqa) for p in data.people()[:4]])
    mllm.vision.features(mllm.base, batch.images)
    ours, kept = {p.untyped_storage().data_ptr() for p in mllm.parameters()}, {}

    def note(tensor):
        if (place := tensor.untyped_storage().data_ptr()) not in ours:
            kept[place] = tensor  # held, so that its place is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mllm.hidden(batch)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    shape, tokens = check.shape_of(mllm), batch.input_ids.numel()
    seen = tokens * (batch.input_ids.shape[1] - len(batch.prefixes[0]))
    itemsize = 2 if dtype == "bfloat16" else 4
    estimated = estimates.activation_bytes(shape, tokens, seen, itemsize, checkpointing)
    if checkpointing:  # the one layer that is computed again is not there yet
        estimated -= estimates.activation_bytes(shape, tokens, seen, itemsize) // shape.layers
    assert 0.7 < real / estimated < 1.3


def test_references():
    said = Reference(torch.zeros(7, 16), torch.zeros(7), torch.zeros(7), torch.zeros(7, 2, 16))
    assert estimates.reference_bytes(7, 3 * 16) == said.nbytes
    assert (
        estimates.reference_bytes(7, 16, vectors=4)
        == 4 * Reference(*(t for t in (said.vector, *[said.entropy] * 2))).nbytes
    )


@pytest.mark.parametrize("config", quick(["viker", "stranger"], ["viker"]))
def test_stored_bytes_are_those_of_a_real_run(config, base_folder, tmp_path, monkeypatch, capsys):
    """The pictures are drawn with a seed of this test, so that no other one has asked about them."""
    noted, plain = [], check.kept_references
    monkeypatch.setattr(check, "kept_references", lambda *given: noted.append(plain(*given)) or noted[-1])
    given = [f"--config=configs/mini/{config}.yaml", f"--model.vanilla={base_folder}", *csv_only(tmp_path / "run")]
    given += ["--data.root=mini/ci", "--trainer.accelerator=cpu", "--model.seed=77", "--model.method.k=3"]
    main(["check", *given])
    assert capsys.readouterr().out.splitlines()[-1] == "ready" and not (tmp_path / "run").exists()
    there = set(cache_folder("ideal").glob("*/part-*.safetensors"))
    quick = ["--trainer.max_steps=1", "--evaluation.before=false", "--data.max_people=1", "--data.splits=[forget]"]
    monkeypatch.setattr(Report, "_key_tokens", lambda *given: iter(()))  # asks about a few answers more
    main(["fit", *given, *quick, *OPEN_GATE, "--evaluation.max_new_tokens=2"])
    real = 0
    for file in set(cache_folder("ideal").glob("*/part-*.safetensors")) - there:
        with safe_open(file, framework="pt") as part:
            real += sum(part.get_tensor(name).nbytes for name in part.keys() if name in NAMES)
    assert real == noted[0].disk > 0
    assert json.loads((tmp_path / "run/results.json").read_text())["steps"] == 1


def test_quantised_weights():
    whole, few = (estimates.weight_bytes(SHAPE, 2, 4, quantize) for quantize in (None, "nf4"))
    assert whole == 900 * 2 + 100 * 4 and few == 260 * 2 + 100 * 4 + 331  # 640 weights of 4.127 bits
    assert estimates.weight_bytes(SHAPE, 2, 4, "int8") - few == 640 - 331


def test_memory_line_by_line():
    load = Workload(tokens=10, answers=3, seen=60, evaluated=20, behind_images=30, answers_behind_image=2)
    found = estimates.memory(SHAPE, load, Setting())
    assert found["standing"] == {"weights": 4000, "gradients": 400, "optimizer's state": 800} | {
        "gradients and weights that the method holds": 0,
        "what frozen models say": 0,
        "Python and its libraries": 0,
    }
    asked = estimates.memory(SHAPE, load, Setting(others={"judge": 70}, shards=4, quantize="nf4"))
    assert asked["standing"]["judge"] == 70
    step = 2 * (10 * (40 * 8 + 16 * 16) + 60 * 4) + 2 * 3 * 50 * 4
    evaluation, ideal = 20 * 2 * 4 * 4 + 3 * 50 * 4, 30 * 2 * 4 * 4 + 3 * 2 * 50 * 4
    assert [*found["passing"].values()] == [step, evaluation, ideal]
    assert estimates.most(found) == 5200 + max(step, evaluation, ideal)
    shared = estimates.memory(SHAPE, load, Setting(shards=4))["standing"]
    assert shared["weights"] == 4000 * (0.2 + 0.8 / 4), "decoder layers are shared out, the rest is not"
    edits = estimates.memory(SHAPE, load, Setting(trains=False, copies=5))
    assert edits["standing"]["gradients and weights that the method holds"] == 5 * 400
    assert edits["standing"]["gradients"] == edits["passing"]["a step: activations and logits"] == 0
    less = estimates.memory(SHAPE, load, Setting(checkpointing=True))["passing"]
    assert less["a step: activations and logits"] < step


@pytest.mark.extended
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_that_are_asked_too(dtype, base_folder, classifier, tmp_path, monkeypatch, capsys):
    """Each is loaded by itself, and stays."""
    noted, plain = [], check.memory
    monkeypatch.setattr(check, "memory", lambda *given: noted.append(given[2]) or plain(*given))
    given = ["check", "--config=configs/mini/npo.yaml", f"--model.vanilla={base_folder}", f"--model.dtype={dtype}"]
    given += [*csv_only(tmp_path / "run"), "--data.root=mini/ci", "--trainer.accelerator=cpu"]
    main([*given, f"--evaluation.judge={base_folder}", "--evaluation.coherence=false"])
    assert noted[0].others == {}, "nobody judges coherence"
    gold, judge = f"--evaluation.gold={base_folder}", "--evaluation.judge=configs/mini/vanilla.yaml"
    main([*given, f"--model.method.gold={base_folder}", gold, judge, f"--evaluation.gibberish={classifier}"])
    one, made = (sum(p.nbytes for p in MLLM.load(f, Weights(dtype)).parameters()) for f in (base_folder, base_model()))
    reads = sum(p.nbytes for p in GibberishClassifier.load(classifier).model.parameters())
    names = ["gold model of the method", "gold model of evaluations", "judge of evaluations", "classifier of gibberish"]
    assert noted[1].others == dict(zip(names, [one, one, made, reads], strict=True))
    said = capsys.readouterr().out
    assert all(f"  {name}\n" in said for name in names)


@pytest.mark.parametrize(
    ("max_steps", "max_epochs", "steps"), [(7, None, 7), (-1, 2, 10), (7, 1, 5), (-1, -1, float("inf")), (0, None, 0)]
)
def test_number_of_steps(max_steps, max_epochs, steps):
    assert number_of_steps(max_steps, max_epochs, 5) == steps
