"""Whole runs under the published protocol, held to plain loops over transformers' own forward pass."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from peft import LoraConfig, get_peft_model

from support.marks import quick
from support.plain_route import plain_logits
from support.weights import random_vanilla
from viker_lightning.data.datasets import CLEAR, MLLMU
from viker_lightning.data.records import Labels
from viker_lightning.data.sampling import PassSampler
from viker_lightning.errors import UserError
from viker_lightning.methods import (
    IDK,
    NPO,
    GradientAscent,
    GradientDifference,
    Held,
    KLMinimization,
    PromptOnly,
    ViKeR,
)
from viker_lightning.models import MLLM, Lora
from viker_lightning.training import Finetune, Unlearn
from viker_lightning.training.engine import Engine

LR = 1e-3
SMALL = Engine(max_sequence_tokens=200, max_tokens=300)


@pytest.fixture(scope="module")
def vanilla(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("vanilla")))


@pytest.fixture(scope="module")
def gold(base_folder, tmp_path_factory):
    return str(random_vanilla(base_folder, tmp_path_factory.mktemp("gold"), seed=1))


@pytest.fixture
def published(data):
    return few(MLLMU(data.root, batch_size=16, questions_per_image=8, protocol="published"))


def few(data):
    """Two people to forget and two to retain, eight questions each: an epoch is a step or two of each."""
    data.setup()
    data._people = {key: replace(p, vqa=p.vqa[:8]) for key, p in data._people.items()}
    data.retain_ids = data.retain_ids[:4]
    return data


def fit(module, data, **options):
    seed_everything(0, verbose=False)
    fixed = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    fixed |= {"enable_model_summary": False, "accelerator": "cpu", "use_distributed_sampler": False}
    Trainer(**fixed, **options).fit(module, datamodule=data)
    return module


def unlearned(vanilla, data, method, engine=Engine(), **options):  # noqa: B008
    return fit(Unlearn(method, vanilla, Lora(r=4), lr=LR, engine=engine), data, **({"max_epochs": 1} | options))


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


def moved_alike(one, two, start, tolerance=1e-3):
    return (weights(one) - weights(two)).norm() / (weights(one) - start).norm() < tolerance


def with_labels(groups):
    return [replace(g, vqa=tuple(replace(vqa, labels=Labels.TEXT) for vqa in g.vqa)) for g in groups]


@pytest.mark.parametrize("method", quick([GradientDifference, KLMinimization], [GradientDifference]))
def test_two_passes_equal_a_plain_loop(vanilla, published, method):
    """P5, M10: -CE on all forget batches, then CE (and KL, summed) on all retain batches, one rate."""
    module = unlearned(vanilla, published, method())
    start = weights(unlearned(vanilla, published, method(), max_steps=0))
    seed_everything(0, verbose=False)
    plain = MLLM.load(vanilla)
    plain.adapt(Lora(r=4))
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=LR, weight_decay=0)
    turns = []
    for bundle in published.train_dataloader():
        ((name, groups),) = bundle.content.items()
        groups = with_labels(groups)
        logits, tokens = plain_logits(plain, groups)
        labels, loss = tokens.labels, F.cross_entropy(logits, tokens.labels)
        if name == "forget":
            loss = -loss
        elif method is KLMinimization:
            with plain.frozen():
                teacher = plain_logits(plain, groups)[0].softmax(-1)
            loss = loss + F.kl_div(logits.log_softmax(-1), teacher, reduction="sum") / tokens.n_questions
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turns.append((name, len(labels)))
    assert [name for name, _ in turns] == ["forget", "retain", "retain"]
    assert moved_alike(module, plain, start)
    summed = unlearned(vanilla, few(MLLMU(published.root, batch_size=16, questions_per_image=8)), method())
    assert not moved_alike(module, summed, start, 0.1)


def test_turns_log_what_they_measure(vanilla, published):
    """No retain number in a forget step, which would be a zero that nobody measured; all else is logged."""
    seen = []

    class Forgetting(KLMinimization):
        in_passes = True

        def loss(self, batch):
            terms = super().loss(batch)
            return terms | {"forgetting": terms["loss"].detach()}

    class Watched(Unlearn):
        def logged(self, terms):
            seen.append(set(terms))
            return super().logged(terms)

    fit(Watched(KLMinimization(), vanilla, Lora(r=4), lr=LR), published, max_epochs=2)
    turn = [{"loss", "forget_ce"}, {"loss", "retain_ce", "retain_kl"}, {"loss", "retain_ce", "retain_kl"}]
    assert seen == turn * 2
    seen.clear()
    fit(Watched(Forgetting(), vanilla, Lora(r=4), lr=LR), published, max_epochs=1)
    assert seen == [terms | {"forgetting"} for terms in turn], "a word of its own, whatever it begins with"


@pytest.mark.extended
@pytest.mark.parametrize("method", [GradientDifference, KLMinimization, GradientAscent])
def test_published_steps_in_parts(vanilla, published, method):
    parts = []

    class Watched(Unlearn):
        def loss_terms(self, groups, totals):
            parts.append(groups)
            return super().loss_terms(groups, totals)

    start = weights(unlearned(vanilla, published, method(), max_steps=0))
    whole = unlearned(vanilla, published, method())
    small = fit(Watched(method(), vanilla, Lora(r=4), lr=LR, engine=SMALL), published, max_epochs=1)
    assert len(parts) > whole.global_step
    assert moved_alike(whole, small, start)


def test_finetuning_on_all_text(base_folder, published):
    """M3: the first loss is transformers' mean over everything but image and padding."""
    published.stage = "gold"
    module = fit(Finetune(base_folder, lr=1e-6), published, max_steps=1)
    (bundle, *_) = published.train_dataloader()
    logits, tokens = plain_logits(MLLM.load(base_folder), with_labels(bundle.content["train"]))
    found = module.trainer.callback_metrics["train/loss"]
    torch.testing.assert_close(found, F.cross_entropy(logits, tokens.labels).detach(), rtol=1e-4, atol=1e-5)
    first = published.train_dataloader().dataset.streams["train"][0].vqa[0]
    assert first.labels == Labels.ANSWER  # the data stays as it is; the stage says what counts


def test_npo_with_a_gold_reference(vanilla, gold, published, data):
    """P7, M9: loss and gradient follow the batch's two cross-entropies, the second one of the gold model."""
    module = unlearned(vanilla, published, NPO(beta=0.4, gold=gold), max_steps=1)
    (bundle, *_) = published.train_dataloader()
    groups = with_labels(bundle.content["forget"])
    (logits, tokens), (theirs, _) = (plain_logits(MLLM.load(folder), groups) for folder in (vanilla, gold))
    difference = F.cross_entropy(logits, tokens.labels) - F.cross_entropy(theirs, tokens.labels)
    wanted = -2 / 0.4 * F.logsigmoid(0.4 * difference)
    found = module.trainer.callback_metrics
    torch.testing.assert_close(found["train/loss"], wanted.detach(), rtol=1e-4, atol=1e-4)
    assert difference.abs() > 1e-3
    assert not any("gold" in name for name, _ in module.named_parameters())
    own = unlearned(vanilla, few(MLLMU(data.root, batch_size=16, questions_per_image=8)), NPO(beta=0.4), max_steps=1)
    assert own.trainer.callback_metrics["train/log_ratio"] == pytest.approx(0, abs=1e-4)  # the vanilla model itself


def test_npo_refuses(vanilla, published, tmp_path):
    with pytest.raises(UserError, match="needs a reference trained on the retain set; set gold to it"):
        unlearned(vanilla, published, NPO())
    with pytest.raises(UserError, match="this objective has no parts, but the step has"):
        unlearned(vanilla, published, NPO(gold=vanilla), SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"model.method.gold: .* holds no model"):
        unlearned(vanilla, published, NPO(gold=str(tmp_path / "empty")))


class AllText(ViKeR):
    answers_only = False


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (AllText(), "published trains on all text, but AllText asks .* set its answers_only to True"),
        (Held(NPO()), "published has no script of Held, found around NPO; set it to corrected"),
        (PromptOnly(), "published has no script of PromptOnly; set it to corrected"),
    ],
    ids=["all text", "held", "prompt"],
)
def test_what_the_scripts_do_not_have_is_refused(vanilla, published, method, message):
    with pytest.raises(UserError, match=message):
        unlearned(vanilla, published, method)


@pytest.mark.parametrize("method", [KLMinimization(), ViKeR(k=2)], ids=["own", "irrelevant"])
def test_what_is_drawn_in_every_step_is_not_asked_of_a_model_that_is_gone(cache, base_folder, method):
    """CLEAR draws the question for a caption: what the original model says of it cannot be known beforehand."""
    clear = CLEAR("mini/clear-ci", forget=10, protocol="published", batch_size=8)
    clear.prepare_data()
    with pytest.raises(UserError, match=r"^model.lora=null: data.protocol=published words questions anew in every"):
        fit(Unlearn(method, str(base_folder), None, engine=Engine(references="memory")), clear, max_steps=2)
    fit(Unlearn(GradientDifference(), str(base_folder), None), clear, max_steps=0)


def test_viker_looks_at_answers_alone(vanilla, published):
    """The ideal distribution is one of answers; as published they have no end of sequence."""
    module = unlearned(vanilla, published, ViKeR(k=2, retain_weight=1.0), Engine(references="memory"), max_steps=2)
    assert module.labels == Labels.UNENDED
    questions = [q for person in published.people(published.forget_ids) for q in person.vqa]
    encode = module.mllm.encoder.encode
    unended = [encode(replace(q, labels=Labels.UNENDED), True) for q in questions]
    assert module.report.key_tokens["tokens"] == sum(len(q.answer) for q in dict.fromkeys(unended))
    ended = [encode(q, True) for q in questions]
    assert all(module.ideal._key(q) in module.ideal.store for q in unended)
    assert not any(module.ideal._key(q) in module.ideal.store for q in ended)


def test_idk_trains_on_refusals_not_on_the_truth(cache, base_folder):
    """C3 (mm/dataset.py L262-266): the published item replaces the answer in one dict and formats the other."""

    def published(forget, refusal):
        idk = dict(forget)
        idk["answer"] = refusal
        return f"{forget['question']} {forget['answer']}"

    assert published({"question": "Who?", "answer": "Ada."}, "I don't know.").endswith("Ada.")
    clear = CLEAR("mini/clear-ci", forget=10, protocol="published", batch_size=8)
    clear.prepare_data()
    clear.setup()
    module = fit(Unlearn(IDK(), str(base_folder), Lora(r=4), lr=LR), clear, max_steps=1)
    (bundle, *_) = clear.train_dataloader()
    answers = {q.answer for g in module.streams(bundle.content, 0)["alternative"] for q in g.vqa}
    assert answers <= set(module.method.refusals)
    assert not answers & {q.answer for g in bundle.content["forget"] for q in g.vqa}
    assert module.mllm.encoder.template.question.endswith(" ASSISTANT:") and module.labels == Labels.UNENDED


def test_clear_draws_the_question_of_a_caption(cache, base_folder):
    """C5: another question for the same photo each time; as corrected a photo keeps its own."""
    options = {"forget": 10, "batch_size": 64, "questions_per_image": 8}
    asked = {}
    for protocol in ("published", "corrected"):
        clear = CLEAR("mini/clear-ci", protocol=protocol, **options)
        clear.prepare_data()
        clear.setup()
        seen = asked[protocol] = []

        class Watched(Unlearn):
            def loss_terms(self, groups, totals, seen=seen):
                seen.extend((g.image.key, q) for g in groups["forget"] for q in g.vqa)
                return super().loss_terms(groups, totals)

        fit(Watched(GradientAscent(), str(base_folder), Lora(r=4), lr=LR), clear, max_epochs=3)
    questions = {name: {} for name in asked}
    for name, seen in asked.items():
        for photo, q in seen:
            questions[name].setdefault((photo, q.answer), set()).add(q.question)
    assert questions["published"].keys() == questions["corrected"].keys()
    assert all(len(found) == 1 for found in questions["corrected"].values())
    assert sum(len(found) > 1 for found in questions["published"].values()) > len(questions["published"]) / 2
    assert {q.labels for _, q in asked["published"]} == {Labels.UNENDED}


def test_a_vanilla_run_of_the_same_protocol(data):
    """The vanilla model that a YAML asks for is made by the protocol of the run, and kept apart."""
    published = MLLMU(data.root, protocol="published")
    published.setup()
    assert "--data.protocol=published" in published.vanilla_options()
    assert published.fingerprint() != data.fingerprint()


def linear_suffixes(model, skipped=("multi_modal_projector", "vision_model")):
    """``find_all_linear_names`` of MLLMU-Bench (finetune.py L34-47) and, skipping nothing, CLEAR (utils.py L10-19)."""
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    return {n.rpartition(".")[2] for n in linear if not any(s in n for s in skipped)} - {"lm_head"}


@pytest.mark.parametrize("skipped", [("multi_modal_projector", "vision_model"), ()], ids=["MLLMU-Bench", "CLEAR"])
def test_suffixes_put_adapters_into_the_vision_tower(vanilla, skipped):
    """P8, M2, C4: names without their path match anywhere; ours are looked for in the language model."""
    published = MLLM.load(vanilla).model
    adapted = get_peft_model(published, LoraConfig(target_modules=sorted(linear_suffixes(published, skipped))))
    leaked = [n for n, p in adapted.named_parameters() if "lora_" in n and "vision_tower" in n]
    assert {"q_proj", "k_proj", "v_proj"} <= {n.split(".lora_")[0].rpartition(".")[2] for n in leaked}
    assert any("projector" in n for n, _ in adapted.named_parameters() if "lora_" in n) == (skipped == ())
    ours = MLLM.load(vanilla)
    ours.adapt(Lora(r=16))
    trained = [n for n, p in ours.named_parameters() if p.requires_grad]
    assert trained and all(".language_model." in n for n in trained)


def test_the_dataloader_is_as_long_as_both_passes(published):
    """Length and steps of the dataloader are those of the passes, so that progress and schedules are right."""
    published.in_passes = True
    loader = published.train_dataloader()
    assert isinstance(loader.sampler, PassSampler) and len(loader) == len(list(loader)) == 3


def test_image_labels_count_in_a_run(vanilla, published, data):
    """P6: the loss of a step has a label for every position of its images more."""
    counted = few(MLLMU(data.root, batch_size=16, questions_per_image=8, protocol="published", image_labels=True))
    module = unlearned(vanilla, counted, GradientAscent(), max_steps=1)
    (bundle, *_) = counted.train_dataloader()
    groups = with_labels(bundle.content["forget"])
    labels = module.mllm.pack(groups).labels
    token = module.mllm.encoder.tokenizer.convert_tokens_to_ids("<image>")
    assert (labels == token).sum() == module.mllm.image_positions * sum(len(g.vqa) for g in groups) > 0
    other = unlearned(vanilla, published, GradientAscent(), max_steps=1)
    loss, without = (m.trainer.callback_metrics["train/loss"] for m in (module, other))
    assert (loss - without).abs() > 1e-2
