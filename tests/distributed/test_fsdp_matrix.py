"""Whatever a run trains, and however: one process, two with DDP and two with shards end with the same weights."""

import pytest
import torch
from safetensors.torch import load_file

from support import forked
from support.distributed import difference, gradient_difference, weights
from support.families import random_model
from support.matrix import CASES, METHODS, run
from support.weights import random_vanilla
from viker_lightning.storage.runs import CheckpointFile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STRATEGIES = ("ddp", "fsdp")

WHOLE_WEIGHTS = ("AgainstRelearning", "GRU", "KVW", "MANU", "MMUnlearner", "SAM", "TaskVector")
"""Methods that need a weight in one piece, and say so where it is sharded."""


@pytest.fixture(scope="module")
def models(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    random_vanilla(base_folder, folder / "untied", tied=False)
    random_vanilla(base_folder, folder / "tied")
    for name in ("windowed", "qwen2_5_vl"):
        random_model(name).save(folder / name)
    return folder


def on_two(models, out, strategy, *cases, **options):
    """In two processes at once; a run that hangs fails."""

    def train():
        for case in cases:
            run(case, models, out, strategy, **options)

    forked.launch(train, out.with_name(f"{out.name}-said"), timeout=900)


@pytest.fixture(scope="module")
def out(models, tmp_path_factory):
    """A folder of runs, where a case is trained when it is asked for."""
    return tmp_path_factory.mktemp("matrix")


def trained(case, models, out, where):
    """The folder of a case on one process, or on two, trained once."""
    if not (out / where / case).exists():
        if where == "one":
            run(case, models, out / where)
        else:
            on_two(models, out / where, where, case)
    return out / where / case


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(out, models, case, strategy):
    one, two = (trained(case, models, out, where) for where in ("one", strategy))
    absolute, relative = difference(one, two)
    print(f"{case}, {strategy}: weights differ by at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
    assert gradient_difference(one, two) < (2e-2 if case == "bf16" else 1e-4)
    assert relative <= (1e-2 if case == "bf16" else 1e-3)  # single weights may differ more after AdamW


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", METHODS)
def test_every_method_trains_as_on_one_process_or_refuses(out, models, case, strategy):
    one, two = (trained(case, models, out, where) for where in ("one", strategy))
    if strategy == "fsdp" and case.startswith(WHOLE_WEIGHTS):
        assert (two / "refused").read_text().endswith(("use ddp", "use ddp or one process"))
        return
    absolute, relative = difference(one, two)
    print(f"{case}, {strategy}: weights differ by at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
    if (one / "gradient.safetensors").exists():
        assert gradient_difference(one, two) < 1e-4
    assert absolute <= 1e-4 and relative <= 1e-3
    key, first = {"PDU-0": ("weight", 2.0), "Stranger-1": ("hold", 1.0)}.get(case, ("", 0.0))
    if key:  # dual weights have moved, and alike
        dual = [CheckpointFile().load_checkpoint(run / "last.ckpt")["method"][key] for run in (one, two)]
        assert dual[0] != first and dual[1] == pytest.approx(dual[0], rel=1e-4)


def test_a_projector_is_trained_and_kept_beside_the_adapter(out, models):
    for where in ("one", *STRATEGIES):
        saved = weights(trained("finetune projector", models, out, where))
        assert sum("multi_modal_projector" in name for name in saved) == 4


@pytest.mark.parametrize("where", ["one", *STRATEGIES])
def test_what_no_gradient_reaches_does_not_move(out, models, where):
    """The loss ends at a layer: those above do not even decay."""
    vanilla, kept = load_file(models / "untied/model.safetensors"), []
    for name, weight in weights(trained("hidden states, full", models, out, where)).items():
        if "vision" not in name and (".layers.2." in name or name.endswith(("model.norm.weight", "lm_head.weight"))):
            kept.append(name)
            assert torch.equal(weight, vanilla[name]), name
        elif "language_model" in name:
            assert not torch.equal(weight, vanilla[name]), name
    assert len(kept) == 9 + 2


@pytest.mark.parametrize("saved", ["one", "ddp", "fsdp"])
@pytest.mark.parametrize("case", ["viker", "full", "finetune projector"])
def test_a_checkpoint_goes_on_anywhere(out, models, case, saved):
    """Two steps somewhere, two more elsewhere: the weights of four steps on one process."""
    checkpoint = str(trained(case, models, out, saved) / "last.ckpt")
    run(case, models, out / "four", steps=4)
    run(case, models, out / f"{saved}-one", resume=checkpoint, steps=4)
    on_two(models, out / f"{saved}-fsdp", "fsdp", case, steps=4, resume=checkpoint)
    for where in ("one", "fsdp"):
        absolute, relative = difference(out / "four" / case, out / f"{saved}-{where}" / case)
        print(f"{case}, {saved} to {where}: at most {absolute:.1e}, a tensor by {relative:.1e} of its norm")
        assert relative <= 1e-3
