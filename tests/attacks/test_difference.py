"""Before and after: the scores against plain lines, and decoding against a loop over whole sequences."""

from dataclasses import replace

import pytest
import torch

from support.weights import random_vanilla
from viker_lightning.attacks import Subject, ask
from viker_lightning.attacks.conditions import conditions
from viker_lightning.attacks.kinds.difference import BOTH, NEVER, VANILLA, Difference, Pair, combined
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, generate


@pytest.fixture(scope="module")
def folders(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    seeds = {"run": 1, "vanilla": 0}
    return {name: random_vanilla(base_folder, folder / name, seed, projector=0.3) for name, seed in seeds.items()}


@pytest.fixture(scope="module")
def both(folders):
    return [MLLM.load(folder).eval().requires_grad_(False) for folder in folders.values()]


def test_scores_go_from_one_model_beyond_the_other():
    draw = torch.Generator().manual_seed(0)
    after, before = torch.randn(2, 5, 30, generator=draw)
    now, was = after.log_softmax(-1), before.log_softmax(-1)
    torch.testing.assert_close(combined(after, before, 0.0, 1e9), now)
    torch.testing.assert_close(combined(after, before, 1.0, 1e9), was)
    torch.testing.assert_close(combined(after, before, 2.5, 1e9), now + 2.5 * (was - now))
    found = combined(after, before, 2.0, 1.0)
    far = was < was.max(-1, keepdim=True).values - 1
    assert (found[far] == NEVER).all() and far.any() and not far.all()
    torch.testing.assert_close(found[~far], (2 * was - now)[~far])


def test_at_0_and_1_one_of_the_two_speaks(both, groups):
    after, before = both
    assert generate(after, groups, 6) != generate(before, groups, 6)
    assert generate(Pair(after, before, 0.0, 1e9), groups, 6) == generate(after, groups, 6)
    assert generate(Pair(after, before, 1.0, 5.0), groups, 6) == generate(before, groups, 6)


def test_decoding_is_that_of_a_plain_loop(both, groups):
    """Every token from two passes over the whole sequence, question by question."""
    after, before = both
    found = generate(Pair(after, before, 2.0, 5.0), groups, 6)
    for group, answers in zip(groups, found, strict=True):
        for vqa, answer in zip(group.vqa, answers, strict=True):
            ids = [*after.prefix(group.image), *after.encoder.question(vqa.question, True).prompt]
            said = []
            while len(said) < 6 and (not said or said[-1] not in after.stops):
                whole = torch.tensor([[*ids, *said]])
                logs = []
                for mllm in both:
                    more = mllm.family.plain_inputs(mllm.base, mllm.processor, [group.image.open()], whole)
                    with torch.no_grad():
                        out = mllm.base(input_ids=whole, attention_mask=torch.ones_like(whole), **more)
                    logs.append(out.logits[0, -1].log_softmax(-1))
                now, was = logs
                score = now + 2.0 * (was - now)
                score[was < was.max() - 5.0] = -torch.inf
                said.append(score.argmax().item())
            assert answer == after.encoder.decode([token for token in said if token not in after.stops])


def test_vanilla_alone_stands_beside_every_weight(folders, both, one_person):
    others = (Subject("vanilla", str(folders["vanilla"]), folders["vanilla"]),)
    subject = Subject("run", str(folders["run"]), folders["run"], others=others)
    attack = Difference(weights=(1.5, 2.0))
    found = attack.carry_out(*attack.parts(), subject, one_person)
    asked = len([one for one in found if one.series == attack.clean])
    conditions_met = {(one.series, one.x) for one in found}
    assert conditions_met == {(attack.clean, None), *((series, w) for series in (BOTH, VANILLA) for w in (1.5, 2.0))}
    assert len(found) == 5 * asked and all(one.probability is not None for one in found)
    alone = ask(both[1], one_person.asked, VANILLA, 2.0)
    assert [one for one in found if (one.series, one.x) == (VANILLA, 2.0)] == alone
    paired = ask(Pair(*both, 2.0, 5.0), one_person.asked, BOTH, 2.0)
    assert [one for one in found if (one.series, one.x) == (BOTH, 2.0)] == paired
    assert attack.attacks(BOTH, 2.0) and not attack.attacks(VANILLA, 2.0)


def test_what_vanilla_gives_away_alone_is_no_merit_of_the_attack(folders, one_person):
    attack = Difference(weights=(2.0,))
    one = ask(MLLM.load(folders["run"]).eval(), one_person.forget, BOTH, 2.0)[0]
    clean = [replace(one, series=attack.clean, x=None, hit=0.0)] * 2
    hits = {BOTH: (1.0, 1.0), VANILLA: (1.0, 0.0)}
    found = [replace(one, question=q, series=s, hit=h) for s, of in hits.items() for q, h in zip("ab", of, strict=True)]
    row = next(row for row in conditions(attack, {"run": [*clean, *found]}) if row["series"] == BOTH)
    assert (row["run"]["forget"], row["run"]["chance"], row["run"]["above"]) == (1.0, 0.5, 0.5)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_weight_is_above_1(weight):
    with pytest.raises(UserError, match=rf"^difference.weights: found {weight}, expected more than 1; at 1 vanilla"):
        Difference(weights=(2.0, weight))
