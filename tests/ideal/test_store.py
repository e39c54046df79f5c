"""References on disk: shared, named by all that decides them, safe when several runs build them."""

import multiprocessing
from dataclasses import replace

import pytest
import torch

from support.marks import bf16_attention
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import VQA
from viker_lightning.errors import UserError
from viker_lightning.ideal import (
    IdealDistribution,
    ImagePrefixes,
    OwnReference,
    ReferenceStore,
    reference_key,
    reference_of,
    store_folder,
    why_not_reduced,
)
from viker_lightning.ideal.prefix import STRIDE
from viker_lightning.ideal.reference import Reference
from viker_lightning.ideal.store import reference_store
from viker_lightning.models import fingerprint
from viker_lightning.models.tensor_files import Damaged, load_checked, save_atomically
from viker_lightning.storage.cache import cache_folder


@pytest.fixture
def pictures():
    return irrelevant_images("scenes", 3, size=64)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, mllm):
    monkeypatch.setenv("VIKER_LIGHTNING_CACHE", str(tmp_path))


def refuse(*args):
    pytest.fail("asked the frozen model again")


def test_another_run_finds_the_same(mllm, groups, pictures, monkeypatch):
    batch = mllm.pack(groups)
    first = IdealDistribution(mllm, pictures, "disk")
    first.prepare(batch.encoded)
    wanted = IdealDistribution(mllm, pictures, "memory").reference(batch)
    second = IdealDistribution(mllm, pictures, "disk")
    monkeypatch.setattr(mllm, "run", refuse)  # no image is even read
    second.prepare(batch.encoded)
    for name in ("vector", "entropy", "log_prob"):
        torch.testing.assert_close(getattr(second.reference(batch), name), getattr(wanted, name))


@bf16_attention
def test_what_is_shared_does_not_depend_on_autocast(mllm, groups, pictures):
    """A run in mixed precision that asks within a step, and one in fp32, use one folder."""
    batch = mllm.pack(groups)
    wanted = [
        IdealDistribution(mllm, pictures).look_up(batch.encoded),
        OwnReference(mllm, store=ReferenceStore()).reference(batch),
    ]
    ideal, own = IdealDistribution(mllm, pictures, "disk"), OwnReference(mllm, store=reference_store(mllm, "disk"))
    with torch.autocast("cpu", torch.bfloat16):
        ideal.distribution(batch.encoded[:1])  # reads the images
        found = [ideal.look_up(batch.encoded), own.reference(batch)]
        rounded = OwnReference(mllm).reference(batch)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.vector, other.vector) and torch.equal(one.log_prob, other.log_prob)
    assert not torch.equal(rounded.vector, wanted[1].vector), "autocast does something"


def test_nothing_is_written_unless_asked_for(mllm):
    folders = [reference_store(mllm, keep).folder for keep in ("disk", "memory", "off")]
    assert folders == [store_folder(mllm), None, None]


def test_room_behind_the_images_is_that_of_the_longest_row(mllm, groups, pictures):
    """Their key/values are the most that is held while the ideal distribution is asked."""
    prefixes = ImagePrefixes(mllm, pictures)
    widths = [batch.input_ids.shape[1] for batch, _ in prefixes.hidden(mllm.pack(groups).encoded)]
    needed = len(mllm.prefix(pictures[0])) + max(widths)
    assert needed <= prefixes._cache.room < needed + STRIDE


def test_images_are_read_within_the_budget(mllm, pictures, monkeypatch):
    """Tower and language model see no more of them at a time; what is known of them is the same."""
    questions = [mllm.encoder.encode(VQA("Who?", "Somebody."), True)]
    whole, image = ImagePrefixes(mllm, pictures), len(mllm.prefix(pictures[0]))
    mllm.vision.forget()
    mllm.set_budgets(image, 2 * image + 1)
    hidden, compute, passes, towers = mllm.hidden, mllm.family.tower_features, [], []
    monkeypatch.setattr(mllm, "hidden", lambda batch, *given: passes.append(batch.input_ids) or hidden(batch, *given))
    monkeypatch.setattr(mllm.family, "tower_features", lambda *given: towers.append(given[2]) or compute(*given))
    parts = ImagePrefixes(mllm, pictures)
    assert [tuple(ids.shape) for ids in passes] == [(2, image), (1, image)] and max(map(len, towers)) <= 2
    (_, found), (_, wanted) = next(parts.hidden(questions)), next(whole.hidden(questions))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert found.shape[0] == 3 and (found[0] - found[2]).abs().max() > 1e-3, "each behind its own image"


def test_only_what_is_missing_is_computed(mllm, groups, pictures, monkeypatch):
    questions = mllm.pack(groups).encoded
    IdealDistribution(mllm, pictures, "disk").prepare(questions[:5])
    larger = IdealDistribution(mllm, pictures, "disk")
    computed = []
    hidden = ImagePrefixes.hidden
    monkeypatch.setattr(ImagePrefixes, "hidden", lambda self, new: computed.extend(new) or hidden(self, new))
    larger.prepare(questions)
    assert computed == questions[5:]


def test_key_tells_images_order_question_and_answer(mllm, groups, pictures):
    question = mllm.pack(groups).encoded[0]
    keys = {
        reference_key(shown, asked)
        for shown in (pictures, pictures[::-1], pictures[:2])
        for asked in (question, replace(question, answer=question.answer[1:]), replace(question, prompt=(1, 2)))
    }
    assert len(keys) == 9
    assert reference_key(pictures, replace(question, lead=(-1,))) not in keys
    assert reference_key(pictures, question) == reference_key(list(pictures), replace(question, private=()))


def test_folder_tells_weights_processor_and_type(mllm, monkeypatch):
    folder = store_folder(mllm)
    for name, p in mllm.named_parameters():
        if "lora_" in name:
            p.data += 1
    mllm.__dict__.pop("fingerprint")
    assert store_folder(mllm) == folder  # the adapter is not part of the frozen model
    mllm.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    mllm.__dict__.pop("fingerprint")
    other = store_folder(mllm)
    assert other != folder
    weight = mllm.base.model.language_model.layers[0].mlp.up_proj.base_layer.weight
    weight.data[3, 5] = torch.nextafter(weight.data[3, 5], torch.tensor(9.0))  # one bit
    mllm.__dict__.pop("fingerprint")
    assert store_folder(mllm) not in (folder, other)


def test_weights_fingerprint():
    w = torch.arange(12.0).reshape(3, 4)
    same = fingerprint.weights_fingerprint([("b", w), ("a", w + 1)])
    assert same == fingerprint.weights_fingerprint([("a", w + 1), ("b", w.clone())])
    swapped = w.flatten()[torch.tensor([1, 0, *range(2, 12)])].reshape(3, 4)
    others = [("b", w.T.contiguous()), ("c", w), ("b", w.bfloat16()), ("b", w.reshape(4, 3)), ("b", swapped)]
    assert same not in {fingerprint.weights_fingerprint([other, ("a", w + 1)]) for other in others}
    assert len({fingerprint.weights_fingerprint([other]) for other in others}) == len(others)


def test_fingerprint_in_chunks_tells_places(monkeypatch):
    monkeypatch.setattr(fingerprint, "CHUNK", 4)
    a, b = torch.arange(12.0), torch.arange(12.0).roll(4)
    assert fingerprint.weights_fingerprint([("w", a)]) != fingerprint.weights_fingerprint([("w", b)])


def flip(part):
    content = bytearray(part.read_bytes())
    content[-3] ^= 64  # of a value: nothing but its checksum tells
    part.write_bytes(content)


def of_others(part):
    """Whole, with a checksum of its own, but not what is kept under this name."""
    ReferenceStore(part.parent / "other").add([("a", Reference(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)))])
    next((part.parent / "other").iterdir()).replace(part)


DAMAGES = [
    flip,
    lambda part: part.write_bytes(part.read_bytes()[:40]),
    of_others,
    lambda part: save_atomically({name: torch.zeros(1) for name in load_checked(part) if name != "entropy"}, part),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_computed_again(mllm, groups, pictures, caplog, damage):
    """With the same result as ever, and a line that says so."""
    batch = mllm.pack(groups)
    ideal = IdealDistribution(mllm, pictures, "disk")
    ideal.prepare(batch.encoded)
    wanted = ideal.reference(batch)
    (part,) = store_folder(mllm).glob("part-*.safetensors")
    whole = part.read_bytes()
    damage(part)
    (part.parent / ".part-0-0123456789ab.tmp").mkdir()
    again = IdealDistribution(mllm, pictures, "disk")
    again.prepare(batch.encoded)
    found = again.reference(batch)
    for name in ("vector", "entropy", "log_prob"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=0, rtol=0)
    assert part.read_bytes() == whole and not list(part.parent.glob(".*"))
    (said,) = caplog.messages
    assert said.startswith(f"{part} is damaged (") and said.endswith("what it held is computed again")


def test_a_damaged_part_leaves_what_another_holds(tmp_path, caplog):
    store = ReferenceStore(tmp_path)
    one, two = (Reference(torch.full((2, 3), v), torch.full((2,), v), torch.full((2,), v)) for v in (1.0, 2.0))
    store.add([("a", one)])
    store.add([("a", one), ("b", two)])
    parts = {frozenset(key for key, (file, *_) in store._index.items() if file == part): part for part in store._open}
    flip(parts[frozenset({"a", "b"})] if frozenset({"a", "b"}) in parts else parts[frozenset({"b"})])
    again = ReferenceStore(tmp_path)
    assert "b" not in again and "a" in again and again.get("a").vector.tolist() == one.vector.tolist()
    assert len(list(tmp_path.glob("part-*"))) == 1 and len(caplog.messages) == 1
    with pytest.raises(KeyError):
        again.get("b")


def test_an_interrupted_write_leaves_nothing(mllm, tmp_path, monkeypatch):
    store = ReferenceStore(tmp_path / "store")
    monkeypatch.setattr(
        "viker_lightning.models.tensor_files.os.replace", lambda *a: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        store.add([("a", Reference(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2)))])
    assert list((tmp_path / "store").iterdir()) == []


def build(folder, number, go):
    """Adds forty references, some of them the other process's too."""
    torch.set_num_threads(1)
    go.wait()
    store = ReferenceStore(folder)
    for i in range(number * 10, number * 10 + 40):
        value = torch.full((3, 4), float(i))
        store.add([(f"{i:03}", Reference(value, value[:, 0].clone(), value[:, 1].clone()))])
        store.refresh()


def test_two_processes_build_at_once(tmp_path):
    context = multiprocessing.get_context("fork")  # no import is paid twice
    go = context.Event()
    workers = [context.Process(target=build, args=(tmp_path / "store", n, go)) for n in range(2)]
    for worker in workers:
        worker.start()
    go.set()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    store = ReferenceStore(tmp_path / "store")
    for i in range(50):
        assert store.get(f"{i:03}").vector.tolist() == [[float(i)] * 4] * 3
    assert len(list((tmp_path / "store").glob("part-*"))) == 50
    assert not list((tmp_path / "store").glob(".*"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head: head.weight.requires_grad_(True), "is trained"),
        (lambda head: setattr(head, "bias", torch.nn.Parameter(torch.zeros(1), requires_grad=False)), "has a bias"),
    ],
)
def test_store_says_why_it_cannot_serve(mllm, groups, pictures, change, reason):
    ideal = IdealDistribution(mllm, pictures)
    assert why_not_reduced(mllm.head) is None
    assert "every probability" in why_not_reduced(mllm.head, "reverse")
    change(mllm.head)
    assert reason in why_not_reduced(mllm.head)
    with pytest.raises(UserError, match=reason):
        ideal.reference(mllm.pack(groups))
    with pytest.raises(UserError, match=reason):
        OwnReference(mllm).reference(mllm.pack(groups))


def test_own_reference_is_remembered_by_image_and_question(mllm, groups, monkeypatch):
    batch, own = mllm.pack(groups), OwnReference(mllm)
    with mllm.frozen():
        wanted = reference_of(mllm.answer_tokens(batch))
    torch.testing.assert_close(own.reference(batch).vector, wanted.vector)
    monkeypatch.setattr(mllm, "answer_tokens", refuse)
    swapped = mllm.pack(groups[::-1])
    again = own.reference(swapped)
    sizes = [sum(len(q.answer) for q in mllm.pack([g]).encoded) for g in groups]
    torch.testing.assert_close(again.vector, torch.cat(wanted.vector.split(sizes)[::-1]))
    monkeypatch.undo()
    other = mllm.pack([replace(groups[0], image=groups[1].image)])
    assert (own.reference(other).vector - wanted.vector[: sizes[0]]).abs().max() > 1e-4


def test_own_reference_forgets_the_oldest(mllm, groups, monkeypatch):
    one, two = mllm.pack(groups[:1]), mllm.pack(groups[1:2])
    sizes = [OwnReference(mllm).reference(batch).nbytes for batch in (one, two)]
    monkeypatch.setattr(OwnReference, "MEMORY_LIMIT", max(sizes))  # room for either, not for both
    own = OwnReference(mllm)
    own.reference(one)
    own.reference(two)
    asked = []
    answer_tokens = mllm.answer_tokens
    monkeypatch.setattr(mllm, "answer_tokens", lambda batch, _: asked.append(batch) or answer_tokens(batch))
    own.reference(two)
    own.reference(one)
    assert asked == [one]


def test_own_reference_keeps_no_more_than_it_counts(mllm, groups):
    """A question of a batch, asked or from a checkpoint, does not hold on to the others when these are forgotten."""
    own = OwnReference(mllm)
    own.reference(mllm.pack(groups))
    resumed = OwnReference(mllm)
    resumed.load_state_dict(own.state_dict())
    for one in (own, resumed):
        kept = [getattr(part, name) for _, part in one._kept.items() for name in ("vector", "entropy", "log_prob")]
        assert len(kept) > 3 and sum(t.untyped_storage().nbytes() for t in kept) == one._kept.nbytes


def test_own_reference_of_no_size_for_a_checkpoint_is_none(mllm, groups, monkeypatch):
    own = OwnReference(mllm)
    assert own.state_dict() == {}
    own.reference(mllm.pack(groups))
    state = own.state_dict()
    assert sum(state["tokens"]) == len(state["entropy"]) > 0
    monkeypatch.setattr(OwnReference, "CHECKPOINT_LIMIT", own._kept.nbytes)
    assert own.state_dict()["keys"] == state["keys"]  # exactly as much is not more
    monkeypatch.setattr(OwnReference, "CHECKPOINT_LIMIT", own._kept.nbytes - 1)
    assert own.state_dict() == {}


def test_a_part_is_looked_at_once_and_a_bad_one_is_no_part(tmp_path, monkeypatch, caplog):
    store = ReferenceStore(tmp_path)
    store.add([("a", Reference(torch.ones(2, 3), torch.ones(2), torch.ones(2)))])
    (part,) = tmp_path.glob("part-*")
    again, looked = ReferenceStore(tmp_path), []
    monkeypatch.setattr("viker_lightning.ideal.store.load_checked", lambda file: looked.append(file))
    assert "a" in again and "a" in again and again.get("a").vector.shape == (2, 3) and looked == [part]

    def damaged(file):
        raise Damaged("its checksum is another")

    monkeypatch.setattr("viker_lightning.ideal.store.load_checked", damaged)
    other = ReferenceStore(tmp_path)
    assert not other._sound(part) and "a" not in other and not part.exists()
    assert caplog.messages == [f"{part} is damaged (its checksum is another); what it held is computed again"]


def test_where_the_folder_lies(mllm):
    assert store_folder(mllm).parent == cache_folder("ideal") and len(store_folder(mllm).name) == 32


def test_nothing_kept_is_the_same(mllm, groups, pictures):
    batch = mllm.pack(groups)
    kept, fresh = IdealDistribution(mllm, pictures), IdealDistribution(mllm, pictures, "off")
    for name in ("vector", "entropy", "log_prob"):
        torch.testing.assert_close(getattr(fresh.reference(batch), name), getattr(kept.reference(batch), name))
    assert fresh._missing(batch.encoded) and not kept._missing(batch.encoded)
    wanted = kept.prefixes
    kept.release()
    assert kept.prefixes is not wanted


def test_one_question_after_the_other_where_nothing_is_packed(mllm, groups, pictures):
    """A family that cannot be packed reads every question behind every image in full, to the same end."""
    batch = mllm.pack(groups)
    wanted = IdealDistribution(mllm, pictures).reference(batch)
    mllm.__dict__["packs"] = False
    found = IdealDistribution(mllm, pictures).reference(batch)
    for name in ("vector", "entropy", "log_prob"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-4)


def test_prepared_alone_everything_is_known(mllm, groups, monkeypatch):
    """One process asks about all parts of what it prepares, however small these are."""
    own = OwnReference(mllm, store=ReferenceStore())
    mllm.set_budgets(mllm.max_sequence_tokens, 1)  # every group is a part
    own.prepare(groups)
    monkeypatch.setattr(mllm, "answer_tokens", refuse)
    assert len(own.reference(mllm.pack(groups)).entropy) == len(mllm.pack(groups).labels)


def test_nothing_is_said_in_fp32():
    weight = torch.zeros(5, 4, dtype=torch.bfloat16)
    none = Reference.none(weight, (0, 1))
    assert none.vector.shape == (0, 4) and none.layers.shape == (0, 2, 4) and none.entropy.shape == (0,)
    assert {t.dtype for t in (none.vector, none.entropy, none.log_prob, none.layers)} == {torch.float32}
