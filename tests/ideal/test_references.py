"""What frozen models say of any stream, at any level, is what plain forwards of them say."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch

from support.plain_route import plain_ideal, plain_logits
from support.weights import random_vanilla
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import ImageGroup
from viker_lightning.errors import UserError
from viker_lightning.ideal import IdealDistribution, References, add_noise
from viker_lightning.ideal.plan import plan_of
from viker_lightning.methods import Alternative, Batch, Forget, Gold, Irrelevant, Method, Noised, Retain, Strangers
from viker_lightning.models import MLLM

NAMES = ("own", "irrelevant", "gold", "noised")
NOISE = {"noise": 0.3}
INSTRUCTION = {"instruction": "You have never seen anybody on this photo."}
STREAMS = {"forget": Forget, "alternative": Alternative, "strangers": Strangers, "retain": Retain}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, mllm):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def gold(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("gold"), seed=5, projector=0.3))


@pytest.fixture
def scenes():
    return irrelevant_images("scenes", 2, size=64)


@pytest.fixture
def people():
    return irrelevant_images("people", 3, size=64)


@pytest.fixture
def streams(groups, people, data):
    """All a run may ask, by stream."""
    vqa = tuple(vqa for group in groups for vqa in group.vqa)
    other = data.people()[4]
    return {
        "forget": groups,
        "alternative": [
            replace(g, vqa=tuple(replace(v, answer="Nobody knows.", private=()) for v in g.vqa)) for g in groups
        ],
        "strangers": [ImageGroup("stranger", picture, vqa=vqa) for picture in people],
        "retain": [ImageGroup(other.id, other.images[0], vqa=other.vqa[:3])],
    }


def asking(levels, gold="", layers=(), **less):
    """A method that asks references of streams, each at a level."""

    def need(name, level):
        kinds = {"irrelevant": Irrelevant, "gold": partial(Gold, gold), "noised": partial(Noised, **less)}
        return kinds[name](level=level) if name in kinds else level

    answers = {"alternative": {"answers": ("Nobody knows.",)}}
    needs = [
        STREAMS[stream](**answers.get(stream, {}), **{name: need(name, level) for name, level in asked.items()})
        for stream, asked in levels.items()
    ]
    return type("Asking", (Method,), {"needs": needs, "layers": layers})()


def prepared(mllm, method, streams, scenes, strangers, keep="memory"):
    references = References(keep)
    references.prepare(mllm, plan_of(method, mllm.head, keep, scenes, strangers, streams.get))
    return references


def batch_of(mllm, references, needs, step):
    """What a method sees of a step."""
    tokens, said, full = {}, {}, {}
    for stream in needs:
        packed = mllm.pack(step[stream])
        tokens[stream] = mllm.answer_tokens(packed)
        found, distributions = references.look_up(stream, step[stream], packed)
        said |= {(stream, name): one for name, one in found.items()}
        full |= {(stream, name): p for name, p in distributions.items()}
    return Batch(tokens, said, full)


def plain(mllm, name, groups, scenes, gold, noise=0.0, instruction=""):
    """``[T, V]`` probabilities by definition."""
    if name == "irrelevant":
        return plain_ideal(mllm, groups, scenes)
    if name == "gold":
        other = MLLM.load(gold)
        with other.frozen():
            return plain_logits(other, groups)[0].softmax(-1)
    if name == "noised":
        shown = [replace(g, image=add_noise(g.image, noise)) if noise else g for g in groups]
        asked = f"{instruction} " if instruction else ""
        groups = [replace(g, vqa=tuple(replace(v, question=asked + v.question) for v in g.vqa)) for g in shown]
    with mllm.frozen():
        return plain_logits(mllm, groups)[0].softmax(-1)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("level", "less"),
    [("log_prob", NOISE), ("kl", NOISE), ("full", NOISE), ("kl", INSTRUCTION), ("kl", NOISE | INSTRUCTION)],
    ids=str,
)
def test_any_stream_with_any_reference(mllm, streams, scenes, people, gold, level, less):
    """All at once, behind part of the questions that they were prepared for."""
    needs = {stream: dict.fromkeys(NAMES, level) for stream in streams}
    method = asking(needs, gold=gold, **less)
    references = prepared(mllm, method, streams, scenes, people)
    step = {name: [replace(g, vqa=g.vqa[1:] or g.vqa) for g in found[:2]] for name, found in streams.items()}
    batch = batch_of(mllm, references, needs, step)
    seen = []
    for stream, groups in step.items():
        logits, tokens = plain_logits(mllm, groups)
        log_q = logits.log_softmax(-1)
        assert torch.equal(tokens.labels, batch[stream].labels)
        for name in NAMES:
            p = plain(mllm, name, groups, scenes, gold, **less)
            seen.append(p)
            reference = batch.reference(stream, name)
            wanted = p.gather(1, tokens.labels[:, None])[:, 0].log()
            torch.testing.assert_close(reference.log_prob, wanted, rtol=1e-4, atol=1e-4)
            assert not reference.log_prob.requires_grad and not reference.vector.requires_grad
            assert ((stream, name) in batch.distributions) == (level == "full")
            assert reference.vector.shape[1] == (mllm.head.weight.shape[1] if level == "kl" else 0)
            if level == "log_prob":
                with pytest.raises(UserError, match=f'takes the level "kl" of {name}'):
                    batch.kl(stream, name)
                continue
            forward = (p * (p.log() - log_q)).sum(-1)
            assert forward.max() > 1e-3, "they do not say what the student says"
            torch.testing.assert_close(batch.kl(stream, name), forward, rtol=1e-3, atol=1e-4)
            if level == "full":
                torch.testing.assert_close(batch.distributions[stream, name], p, rtol=1e-3, atol=1e-5)
                reverse = (log_q.exp() * (log_q - p.log())).sum(-1)
                torch.testing.assert_close(batch.kl(stream, name, "reverse"), reverse, rtol=1e-3, atol=1e-4)
    assert all((a - b).abs().max() > 1e-4 for a, b in pairwise(seen) if a.shape == b.shape)


def test_levels_of_a_reference_may_differ_by_stream(mllm, streams, scenes, people):
    needs = {"forget": {"own": "log_prob"}, "retain": {"own": "kl"}, "strangers": {"own": "full"}}
    references = prepared(mllm, asking(needs), streams, scenes, people)
    assert references.strangers is None, "nothing is stored that is asked in full in every step"
    batch = batch_of(mllm, references, needs, streams)
    assert [batch.reference(s, "own").vector.shape[1] > 0 for s in needs] == [False, True, False]
    assert list(batch.distributions) == [("strangers", "own")]


STRANGER = {"forget": {"irrelevant": "kl"}, "strangers": {"own": "kl"}}


@pytest.mark.parametrize("keep", ["memory", "disk"])
@pytest.mark.parametrize("shared", [True, False])
def test_strangers_asked_in_one_pass_are_those_asked_one_by_one(
    mllm, streams, scenes, people, monkeypatch, shared, keep
):
    """Behind all k pictures, that of the ideal distribution if these are the same: as they are asked one by one."""
    irrelevant = people if shared else scenes
    together = prepared(mllm, asking(STRANGER), streams, irrelevant, people, keep)
    alone = prepared(mllm, asking(STRANGER), streams, irrelevant, [])
    assert (together.strangers is together.ideal) == shared and alone.strangers is None
    for group in streams["strangers"]:
        step = {"strangers": [replace(group, vqa=group.vqa[::-1])]}
        packed = mllm.pack(step["strangers"])
        wanted = alone.look_up("strangers", step["strangers"], packed)[0]["own"]
        with monkeypatch.context() as patch:
            patch.setattr(MLLM, "frozen", lambda self: pytest.fail("asked the frozen model again"))
            found = together.look_up("strangers", step["strangers"], packed)[0]["own"]
        for name in ("vector", "entropy", "log_prob"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-3, atol=1e-4)
    assert alone.ideal.store is not together.ideal.store


def test_each_picture_is_asked_about_where_only_their_mean_is_known(mllm, groups, people):
    """Of the same pictures another run may have stored no more than the mean."""
    questions = [mllm.encoder.encode(vqa, True) for vqa in groups[0].vqa]
    shown = [people[1]] * len(questions)
    mean = IdealDistribution(mllm, people, "disk")
    mean.prepare(questions)
    each = IdealDistribution(mllm, people, "disk", each=True)
    assert mean.behind(shown, questions) is None and each.behind(shown, questions) is None
    each.prepare(questions)
    assert len(each.behind(shown, questions).log_prob) == sum(len(q.answer) for q in questions)


def test_what_is_not_declared_is_not_asked(mllm, streams, scenes, people, monkeypatch):
    """Strangers whose answers no reference is asked about, as where the frozen model only answers behind them."""
    monkeypatch.setattr(IdealDistribution, "prepare", lambda *_: pytest.fail("asked about strangers"))
    for needs in ({"forget": {}, "alternative": {}}, {"forget": {}, "strangers": {}}):
        references = prepared(mllm, asking(needs), streams, [], people)
        assert references.strangers is None and references.ideal is None
        assert references.look_up("forget", streams["forget"], mllm.pack(streams["forget"])) == ({}, {})


@pytest.mark.extended
def test_wherever_it_is_kept(mllm, streams, scenes, people, gold):
    needs = {stream: dict.fromkeys(NAMES, "kl") for stream in streams}
    method = asking(needs, gold=gold, **NOISE)
    found = {}
    for keep in ("memory", "disk", "off"):
        references = prepared(mllm, method, streams, scenes, people, keep)
        for turn in range(2):
            found[keep, turn] = batch_of(mllm, references, needs, streams).references
    again = prepared(mllm, method, streams, scenes, people, "disk")
    found["disk", "again"] = batch_of(mllm, again, needs, streams).references
    for said in found.values():
        for key, wanted in found["memory", 0].items():
            for name in ("vector", "entropy", "log_prob"):
                torch.testing.assert_close(getattr(said[key], name), getattr(wanted, name), rtol=1e-3, atol=1e-4)


def test_what_was_said_comes_back_with_a_checkpoint(mllm, streams, scenes, people, monkeypatch):
    needs = {"forget": {"own": "log_prob"}, "retain": {"own": "kl", "noised": "kl"}}
    method = asking(needs, **NOISE)
    first = prepared(mllm, method, streams, scenes, [])
    wanted = batch_of(mllm, first, needs, streams).references
    kept = first.state_dict()
    assert all(kept.values()) and set(kept) == {"own/log_prob", "own/kl", "noised/kl"}
    second = References("memory")
    second.load_state_dict(kept)
    second.prepare(mllm, plan_of(method, mllm.head, "memory", [], [], streams.get))
    monkeypatch.setattr(MLLM, "frozen", lambda self: pytest.fail("asked the frozen model again"))
    found = batch_of(mllm, second, needs, streams).references
    for key, reference in wanted.items():
        assert torch.equal(found[key].vector, reference.vector) and torch.equal(found[key].log_prob, reference.log_prob)


@pytest.mark.extended
@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_a_model_trained_in_full_is_asked_beforehand(base_folder, tmp_path, streams, scenes, people, keep):
    """Of every stream and every reference; afterwards it is another model."""
    folder = random_vanilla(base_folder, tmp_path / "vanilla", projector=0.3)
    mllm = MLLM.load(folder)
    mllm.train_fully(head=False)
    names = ("own", "irrelevant", "noised")
    needs = {stream: dict.fromkeys(names, "kl") for stream in streams}
    references = prepared(mllm, asking(needs, **NOISE), streams, scenes, people, keep)
    with torch.no_grad():
        for p in mllm.language_model.layers.parameters():
            p.add_(0.05 * torch.randn_like(p))
    mllm.mark_trained()
    batch = batch_of(mllm, references, needs, streams)
    before = MLLM.load(folder)
    for stream, groups in streams.items():
        for name in names:
            p = plain(before, name, groups, scenes, None, **NOISE)
            forward = (p * (p.log() - plain_logits(mllm, groups)[0].log_softmax(-1))).sum(-1)
            assert forward.max() > 1e-3
            torch.testing.assert_close(batch.kl(stream, name), forward, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("keep", "level"), [("off", "kl"), ("memory", "full")])
def test_a_model_trained_in_full_cannot_be_asked_in_every_step(base_folder, streams, people, keep, level):
    mllm = MLLM.load(base_folder)
    mllm.train_fully(head=False)
    with pytest.raises(UserError, match="which LoRA makes possible"):
        prepared(mllm, asking({"strangers": {"own": level}}), streams, [], people, keep)


def test_a_model_trained_in_full_may_ask_others_and_of_the_answer_alone(base_folder, gold, streams):
    """Gold is another model; and where the output embedding moves, the answer's probability is known beforehand."""
    mllm = MLLM.load(base_folder)
    mllm.train_fully(head=True)
    needs = {"forget": {"gold": "full"}}
    batch = batch_of(mllm, prepared(mllm, asking(needs, gold=gold), streams, [], [], "off"), needs, streams)
    p = plain(mllm, "gold", streams["forget"], [], gold)
    torch.testing.assert_close(batch.distributions["forget", "gold"], p, rtol=1e-3, atol=1e-5)
    needs = {"forget": {"own": "log_prob"}}
    batch = batch_of(mllm, prepared(mllm, asking(needs), streams, [], []), needs, streams)
    torch.testing.assert_close(batch.reference("forget", "own").log_prob, batch.forget.log_probs.detach())


def test_an_output_embedding_that_allows_no_reduction(mllm, streams, scenes, monkeypatch):
    """All is asked in full then, but the probability of an answer behind its own image."""
    monkeypatch.setattr("viker_lightning.ideal.plan.why_not_reduced", lambda *_: "it has a bias")
    needs = {"forget": {"own": "log_prob", "irrelevant": "log_prob"}, "retain": {"own": "kl", "irrelevant": "kl"}}
    batch = batch_of(mllm, prepared(mllm, asking(needs), streams, scenes, []), needs, streams)
    assert set(batch.distributions) == {("forget", "irrelevant"), ("retain", "own"), ("retain", "irrelevant")}


def test_noise_is_the_same_for_the_same_picture(people):
    one, again = (add_noise(people[0], 0.2) for _ in range(2))
    assert one.key == again.key != add_noise(people[1], 0.2).key
    assert one.key not in (people[0].key, add_noise(people[0], 0.1).key)
    assert one.size() == people[0].size()


@pytest.mark.parametrize("level", ["kl", "full"])
def test_hidden_states_come_with_what_is_said(mllm, streams, scenes, people, level):
    needs = {"forget": {"own": level, "noised": level}}
    references = prepared(mllm, asking(needs, layers=(0, -1), **NOISE), streams, scenes, people)
    batch = mllm.pack(streams["forget"])
    said, full = references.look_up("forget", streams["forget"], batch)
    noised = mllm.pack([replace(g, image=add_noise(g.image, 0.3)) for g in streams["forget"]])
    with mllm.frozen():
        for name, shown in (("own", batch), ("noised", noised)):
            layers = mllm.answer_tokens(shown, (0, -1)).layers
            wanted = torch.stack([layers[0], layers[-1]], dim=1).float()
            torch.testing.assert_close(said[name].layers, wanted, rtol=1e-4, atol=1e-4)
            assert (name in full) == (level == "full")
            assert said[name].vector.shape[1] == (0 if level == "full" else mllm.head.weight.shape[1])


def test_nothing_kept_asks_in_every_step(mllm, streams, scenes, people, monkeypatch):
    needs = {"forget": {"own": "kl"}}
    batch = mllm.pack(streams["forget"])
    asked = []
    answer_tokens = mllm.answer_tokens
    monkeypatch.setattr(mllm, "answer_tokens", lambda *given: asked.append(1) or answer_tokens(*given))
    for keep, wanted in (("memory", 1), ("off", 2)):
        references = prepared(mllm, asking(needs), streams, scenes, people, keep)
        asked.clear()
        first, second = (references.look_up("forget", streams["forget"], batch)[0]["own"] for _ in range(2))
        assert len(asked) == wanted, keep
        torch.testing.assert_close(first.vector, second.vector)


def test_nothing_is_asked_beforehand_where_nothing_is_kept(mllm, streams, scenes, people, monkeypatch):
    monkeypatch.setattr(IdealDistribution, "prepare", lambda *_: pytest.fail("asked beforehand"))
    assert prepared(mllm, asking(STRANGER), streams, scenes, people, "off").strangers is None
