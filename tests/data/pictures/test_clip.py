"""Similarity by a tiny open_clip model saved to a folder, and the kinds of irrelevant images it filters."""

from __future__ import annotations

import io
import json
import random

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from viker_lightning.data.embedded.portraits import draw_stranger
from viker_lightning.data.pictures import clip
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.data.records import Picture
from viker_lightning.errors import DataError, UserError

NAME = "viker-test-tiny"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained model; the config is also known to open_clip by name."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(NAME, load_weights=False)
    save_file(model.state_dict(), folder / clip.WEIGHTS)
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def embed(folder):
    embed = clip.ClipEmbedder.named(str(folder))
    embed.batch_size = 4
    return embed


def portraits(n: int, seed: int = 0) -> list[Picture]:
    rng = random.Random(seed)
    return [Picture(draw_stranger(rng, 64)[0], f"person {seed}/{i}") for i in range(n)]


def again(picture: Picture) -> Picture:
    """The same picture as a JPEG: other bytes."""
    buffer = io.BytesIO()
    picture.open().save(buffer, "JPEG", quality=90)
    return Picture(buffer.getvalue(), f"{picture.source} again")


def test_embeddings_are_the_model_s(embed, folder):
    pictures = portraits(6)
    found = embed(pictures)
    assert found.shape == (6, 16) and torch.allclose(found.norm(dim=1), torch.ones(6))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.no_grad():
        plain = model.eval().encode_image(torch.stack([preprocess(p.open()) for p in pictures]), normalize=True)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert embed([]).shape[0] == 0
    # A name and a file give the same weights; only the normalisation of the folder's config is missing.
    named = clip.ClipEmbedder.named(f"{NAME}/{folder / clip.WEIGHTS}")
    for name, value in named.model.state_dict().items():
        assert torch.equal(value, embed.model.state_dict()[name]), name


def test_near_copies_are_rejected_and_written_down(embed, tmp_path):
    forget, scenes = portraits(3), irrelevant_images("scenes", 4, size=64)
    copy = again(forget[1])
    others = (embed(scenes) @ embed(forget).T).max().item()
    same = (embed([copy]) @ embed(forget).T).max().item()
    assert others < same
    threshold = (others + same) / 2
    keep = clip.FarFrom(forget, embed, threshold)
    assert keep([scenes[0], copy, *scenes[1:]]) == scenes
    report = keep.report()
    assert [row["picture"] for row in report["rejected"]] == [copy.source]
    assert report["rejected"][0]["nearest"] == forget[1].source
    assert report["rejected"][0]["similarity"] == pytest.approx(same, abs=1e-5)
    assert sum(report["counts"]) == report["candidates"] == 5
    assert len(report["bin_edges"]) == len(report["counts"]) + 1
    assert report["bin_edges"][0] == -1 and report["bin_edges"][-1] == 1
    clip.save_reports({"test": {}}, tmp_path / "new" / "report.json")
    keep.save(tmp_path / "new" / "report.json")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {"test": {}, "irrelevant": report}


def test_audit_finds_pairs_between_splits(embed):
    forget, retain = portraits(4), portraits(4, seed=1)
    copies = [again(forget[2]), forget[0]]
    pairs, report = clip.near_repeats(forget, [*retain, *copies], embed, 0.99999)
    found = {(pair.picture.source, pair.nearest.source) for pair in pairs}
    assert (forget[0].source, forget[0].source) in found
    # Every pair by hand.
    cosines = embed(forget) @ embed([*retain, *copies]).T
    assert len(pairs) == int((cosines > 0.99999).sum()) == len(report["pairs"])
    assert [pair.similarity for pair in pairs] == sorted((p.similarity for p in pairs), reverse=True)
    assert sum(report["counts"]) == 4
    assert clip.near_repeats(forget, retain, embed, 1.0)[0] == []


def test_errors_name_the_remedy(embed, folder, tmp_path):
    load = clip.ClipEmbedder.named
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    torch.save({}, tmp_path / "pickled" / "open_clip_pytorch_model.bin")
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "other.safetensors")
    pictures = portraits(1)
    cases = [
        (lambda: load("ViT-Z-99"), "neither a folder, nor hf-hub"),
        (lambda: load(NAME), "found no weights"),
        (lambda: load("ViT-B-32"), "laion2b_s34b_b79k"),
        (lambda: load(f"{NAME}/nowhere.safetensors"), "no such file"),
        (lambda: load(f"{NAME}/weights.bin"), "nothing is unpickled"),
        (lambda: load(f"{NAME}/{tmp_path / 'other.safetensors'}"), "belong together"),
        (lambda: load(str(tmp_path / "pickled")), "found no open_clip_model.safetensors"),
        (lambda: load(str(tmp_path)), "found no open_clip_config.json"),
        (lambda: clip.FarFrom([], embed, 0.9), "no forget images"),
        (lambda: clip.FarFrom(pictures, embed, 90), "threshold 90"),
        (lambda: clip.near_repeats(pictures, [], embed, 0.9), "found 1 forget and 0 other"),
        (lambda: embed([Picture(b"no", "a.png")]), "a.png: not a readable image"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_hub_ids_and_tags_take_two_files_of_a_repository(folder, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append((a, k)) or str(folder))
    clip.ClipEmbedder.named("hf-hub:owner/name")
    clip.ClipEmbedder.named("ViT-B-32/laion2b_s34b_b79k")
    assert [repository for (repository,), _ in asked] == ["owner/name", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"]
    assert all(k == {"allow_patterns": ["open_clip_config.json", clip.WEIGHTS]} for _, k in asked)
    monkeypatch.undo()
    with pytest.raises(UserError, match="hf-hub:owner/name: cannot be downloaded") as caught:
        clip.ClipEmbedder.named("hf-hub:owner/name")
    assert "\n" not in str(caught.value)


def test_weights_without_numbers_are_noticed(folder):
    embed = clip.ClipEmbedder.named(str(folder))
    with torch.no_grad():
        embed.model.visual.proj.fill_(float("nan"))
    with pytest.raises(UserError, match=r"person 0/0: .*no finite embedding"):
        embed(portraits(1))


def test_filtered_pools_stay_full(embed, tmp_path):
    for kind in ("scenes", "photos-folder"):
        if kind == "photos-folder":
            for i, picture in enumerate(irrelevant_images("pets", 8, size=32)):
                (tmp_path / f"{i}.png").write_bytes(picture.data)
            kind = str(tmp_path)
        plain = irrelevant_images(kind, 4, size=32)
        keep = clip.FarFrom(plain[:2], embed, 0.999999)
        kept = irrelevant_images(kind, 4, size=32, keep=keep)
        assert len(kept) == 4 and not {p.key for p in kept} & {p.key for p in plain[:2]}
        assert kept == irrelevant_images(kind, 4, size=32, keep=clip.FarFrom(plain[:2], embed, 0.999999))
        assert len(keep.report()["rejected"]) >= 2 and keep.report()["candidates"] >= 6
        assert irrelevant_images(kind, 4, size=32, keep=lambda pictures: pictures) == plain
        with pytest.raises(DataError, match=r"found 0 images that may be used among \d+, need k=2.*loosen"):
            irrelevant_images(kind, 2, size=16, keep=lambda pictures: [])
    keep.save(tmp_path / "similarity.json")
    assert json.loads((tmp_path / "similarity.json").read_text())["irrelevant"]["candidates"] == len(keep.matches)
