"""Unlearning depth: the score against plain sums, the patch against the plain route, and who gets 0 and 1."""

from dataclasses import replace

import pytest
import torch

from support.weights import random_vanilla
from viker_lightning.attacks import Subject
from viker_lightning.attacks.kinds.depth import LEFT, LEFT_AT, Depth, depth, drops, erased
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, decoder_layers


@pytest.fixture(scope="module")
def folders(base_folder, tmp_path_factory):
    """Vanilla, gold and a run, each with weights of its own."""
    folder = tmp_path_factory.mktemp("three")
    seeds = {"vanilla": 0, "gold": 1, "run": 2}
    return {name: random_vanilla(base_folder, folder / name, seed, projector=0.3) for name, seed in seeds.items()}


def subject(name, folders, **other):
    every = {one: Subject(one, str(folder), folder) for one, folder in (folders | other).items()}
    return replace(every[name], others=tuple(one for one in every.values() if one.name != name))


def loaded(folder):
    return MLLM.load(folder).eval().requires_grad_(False)


def test_the_score_is_a_mean_over_the_layers_that_count():
    gold = torch.tensor([0.04, 0.1, 0.5, 2.0, -1.0], dtype=torch.double)
    own = torch.tensor([9.0, 0.2, -0.3, 1.0, 5.0], dtype=torch.double)
    assert erased(gold, own)[1:4].tolist() == [1.0, 0.0, 0.5]
    assert depth(gold, own, 0.05) == pytest.approx((0.1 * 1 + 0.5 * 0 + 2.0 * 0.5) / (0.1 + 0.5 + 2.0))
    assert depth(gold, gold, 0.05) == 1 and depth(gold, 0 * gold, 0.05) == 0
    assert erased(0 * gold, 0 * gold).tolist() == [0] * 5


def test_a_patch_is_that_of_the_plain_route(folders, groups):
    """One question read by itself, as transformers runs the model, with states put in by hand."""
    vanilla, source = loaded(folders["vanilla"]), loaded(folders["gold"])
    group = replace(groups[0], vqa=groups[0].vqa[:1])
    (found,) = drops(vanilla, source, [group])
    batch = vanilla.pack([group])
    (question,) = batch.encoded
    ids = torch.tensor([[*batch.prefixes[0], *question.prompt, *question.answer[:-1]]])
    places = [ids.shape[1] - len(question.answer) + i for i, mine in enumerate(question.private) if mine]
    wanted = torch.tensor([token for token, mine in zip(question.answer, question.private, strict=True) if mine])

    def outputs(mllm, index, put=None):
        noted = []

        def hook(module, arguments, output):
            whole = output[0] if isinstance(output, tuple) else output
            if put is not None:
                whole[0, places] = put
            noted.append(whole[0, places].clone())

        handle = decoder_layers(mllm.language_model)[index].register_forward_hook(hook)
        more = mllm.family.plain_inputs(mllm.base, mllm.processor, [group.image.open()], ids)
        with torch.no_grad():
            logits = mllm.base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more).logits
        handle.remove()
        return noted[0], logits[0, places].log_softmax(-1).gather(1, wanted[:, None]).mean().item()

    for index in range(3):
        states, _ = outputs(source, index)
        before, after = outputs(vanilla, index)[1], outputs(vanilla, index, put=states)[1]
        assert found[index].item() == pytest.approx(before - after, abs=1e-4)
    assert found.abs().min() > 1e-3


def test_vanilla_in_vanilla_changes_nothing(folders, groups):
    vanilla = loaded(folders["vanilla"])
    for one in drops(vanilla, loaded(folders["vanilla"]), groups):
        torch.testing.assert_close(one, torch.zeros(3, dtype=torch.double))


def test_gold_has_nothing_left_and_vanilla_all_of_it(folders, one_person):
    attack = Depth(tau=0.001)
    (part,) = attack.parts()
    gold = attack.carry_out(part, subject("gold", folders), one_person)
    same = attack.carry_out(part, subject("run", folders, run=folders["vanilla"]), one_person)
    run = attack.carry_out(part, subject("run", folders), one_person)
    for series in (LEFT, LEFT_AT):
        assert {one.hit for one in gold if one.series == series} == {0.0}
        assert all(one.hit == pytest.approx(1, abs=1e-3) for one in same if one.series == series)
        asked = [[(one.question, one.x) for one in found if one.series == series] for found in (gold, same, run)]
        assert asked[0] == asked[1] == asked[2] != []
    hits = [one.hit for one in run if one.series == LEFT]
    assert all(0 <= one <= 1 for one in hits) and any(0 < one < 1 for one in hits)
    assert {one.whose for one in run if one.series == attack.clean} == {"forget", "retain"}
    assert attack.attacks(LEFT, None) and not attack.attacks(LEFT_AT, 2)


def test_answers_without_a_layer_that_counts_are_left_out(folders, one_person):
    found = Depth(tau=1e9).carry_out("layers", subject("run", folders), one_person)
    assert {one.series for one in found} == {Depth.clean}


def test_a_model_that_reads_questions_by_themselves(folders, groups):
    vanilla, source = loaded(folders["vanilla"]), loaded(folders["gold"])
    source.packs = False
    with pytest.raises(UserError, match=r"^depth: Llava\w+ reads every question by itself, expected .*; leave this"):
        drops(vanilla, source, groups)
