"""How alike pictures are to an open_clip model: keeping irrelevant images irrelevant, and finding leaks between splits.

Scores are cosines of image embeddings, in [-1, 1]; unrelated photos are far from 0 under most CLIP models, and the
values of two models do not compare. A threshold is therefore always the user's, read off the histogram.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from viker_lightning.data.records import Picture
from viker_lightning.errors import UserError
from viker_lightning.storage.files import write_json
from viker_lightning.terminal.progress import track

Embed = Callable[[Sequence[Picture]], Tensor]
"""Pictures to unit vectors ``[n, d]``, float32, on the CPU."""

WEIGHTS = "open_clip_model.safetensors"
LOCAL = "local-dir:"
"""What stands before a folder in open_clip's names of models."""

_BATCHES_FOR_A_BAR = 8
"""So many batches, and a progress bar is shown."""


class ClipEmbedder:
    """Embeds pictures with the image tower of an open_clip model.

    Args:
        model: with ``encode_image(batch, normalize=True)``.
        preprocess: an RGB image to the model's input ``[3, H, W]``.
        files: the folder or file its weights were read from.

    Attributes:
        batch_size: pictures per forward pass.
    """

    def __init__(self, model: Any, preprocess: Callable[[Any], Tensor], files: Path) -> None:
        self.model, self.preprocess, self.files = model.eval(), preprocess, files
        self.batch_size = 32

    @classmethod
    def named(cls, clip: str, device: str | torch.device = "cpu") -> Self:
        """Loads a model by one text, as configs have it, safetensors only.

        Args:
            clip: a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``; a hub repository of
                these files, ``hf-hub:owner/name``; or ``name/weights``, where open_clip knows the name, such as
                ``ViT-B-32``, and the weights are a ``.safetensors`` file, or a tag open_clip knows, such as
                ``laion2b_s34b_b79k``, whose hub repository is then used.
            device: where the model runs.

        Raises:
            UserError: if there is no such model, or no such weights as safetensors.
        """
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        model, checkpoint = _find_files(clip)
        try:
            loaded = open_clip.create_model(
                model, pretrained=checkpoint, pretrained_text=False, require_pretrained=True, device=device
            )
        except Exception as error:
            raise UserError(
                f"open_clip model {clip}: cannot be loaded ({_one_line(error)}); check that model and weights belong "
                "together"
            ) from error
        preprocess = image_transform_v2(PreprocessCfg(**loaded.visual.preprocess_cfg), is_train=False)
        return cls(loaded, preprocess, Path(checkpoint or model.removeprefix(LOCAL)))

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Picture]) -> Tensor:
        """Gives one unit vector per picture, ``[n, d]``."""
        device = next(self.model.parameters()).device
        rows = []
        starts = range(0, len(pictures), self.batch_size)
        for start in track(starts, "open_clip", len(starts), "batches", len(starts) >= _BATCHES_FOR_A_BAR):
            batch = torch.stack([self.preprocess(p.open()) for p in pictures[start : start + self.batch_size]])
            rows.append(self.model.encode_image(batch.to(device), normalize=True).float().cpu())
        vectors = torch.cat(rows) if rows else torch.zeros(0, 0)
        bad = (~vectors.isfinite().all(-1)).nonzero().flatten().tolist()
        if bad:
            raise UserError(
                f"{pictures[bad[0]].source}: the open_clip model gives no finite embedding; check its weights"
            )
        return vectors


@dataclass(frozen=True)
class Match:
    """A picture, the one it is most like, and how much (cosine, -1 to 1)."""

    picture: Picture
    nearest: Picture
    similarity: float


@dataclass
class FarFrom:
    """Keeps pictures whose similarity to every forget image is at most a threshold, and remembers all candidates.

    Can be handed to :func:`~viker_lightning.data.pictures.irrelevant.irrelevant_images` as ``keep``.

    Attributes:
        forget: pictures of the people to forget.
        embed: such as a :class:`ClipEmbedder`.
        threshold: the largest similarity that is kept, -1 to 1.
        matches: every candidate so far with the forget image it is most like.
    """

    forget: Sequence[Picture]
    embed: Embed
    threshold: float
    matches: list[Match] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        if not self.forget:
            raise UserError("similarity: found no forget images to be far from; pass the forget set")
        self._vectors = self.embed(self.forget)

    def __call__(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Gives the pictures that are far enough, in order."""
        if not pictures:
            return []
        values, index = (self.embed(pictures) @ self._vectors.T).max(dim=1)
        nearest = zip(pictures, index.tolist(), values.tolist(), strict=True)
        matches = [Match(picture, self.forget[i], similarity) for picture, i, similarity in nearest]
        self.matches += matches
        return [match.picture for match in matches if match.similarity <= self.threshold]

    def report(self) -> dict[str, Any]:
        """Histogram of all similarities so far, and the rejected candidates, most alike first.

        Returns:
            ``threshold``, ``candidates``, ``bin_edges``, ``counts`` and ``rejected`` (picture, nearest, similarity).
        """
        rejected = [match for match in self.matches if match.similarity > self.threshold]
        return _report(self.matches, rejected, self.threshold, "rejected")

    def save(self, path: str | Path) -> None:
        """Writes :meth:`report` as section ``irrelevant``, see :func:`save_reports`."""
        save_reports({"irrelevant": self.report()}, path)


def near_repeats(
    forget: Sequence[Picture], others: Sequence[Picture], embed: Embed, threshold: float
) -> tuple[list[Match], dict[str, Any]]:
    """Finds forget images that nearly repeat in another split: retain (forgetting hurts) or test (nothing is tested).

    Args:
        forget: pictures of the people to forget.
        others: pictures of the other split.
        embed: such as a :class:`ClipEmbedder`.
        threshold: pairs above it are reported, -1 to 1; identical pictures have 1.

    Returns:
        Every pair above the threshold, most alike first, and the report: ``threshold``, ``candidates``, ``bin_edges``
        and ``counts`` of each forget image's largest similarity, and ``pairs``.

    Raises:
        UserError: if either list is empty, or the threshold is out of range.
    """
    _check_threshold(threshold)
    if not forget or not others:
        raise UserError(f"similarity: found {len(forget)} forget and {len(others)} other images; an audit needs both")
    cosines = embed(forget) @ embed(others).T
    values, index = cosines.max(dim=1)
    largest = [Match(p, others[i], s) for p, i, s in zip(forget, index.tolist(), values.tolist(), strict=True)]
    pairs = [Match(forget[i], others[j], cosines[i, j].item()) for i, j in (cosines > threshold).nonzero().tolist()]
    pairs.sort(key=lambda match: -match.similarity)
    return pairs, _report(largest, pairs, threshold, "pairs")


def save_reports(reports: dict[str, dict[str, Any]], path: str | Path) -> None:
    """Writes reports as sections of a JSON file, making its folder; other sections that the file has stay."""
    target = Path(path)
    sections = json.loads(target.read_text("utf-8")) if target.is_file() else {}
    write_json(target, sections | reports)


def _report(matches: list[Match], listed: list[Match], threshold: float, name: str) -> dict[str, Any]:
    # Rounding can carry a cosine a little beyond 1.
    values = torch.tensor([match.similarity for match in matches], dtype=torch.float64).clamp(-1, 1)
    counts, edges = torch.histogram(values, bins=40, range=(-1.0, 1.0))
    return {
        "threshold": threshold,
        "candidates": len(matches),
        "bin_edges": [round(edge, 6) for edge in edges.tolist()],
        "counts": [int(count) for count in counts.tolist()],
        name: [
            {"picture": match.picture.source, "nearest": match.nearest.source, "similarity": match.similarity}
            for match in sorted(listed, key=lambda match: -match.similarity)
        ],
    }


def _check_threshold(threshold: float) -> None:
    if not -1 <= threshold <= 1:
        raise UserError(f"similarity: found threshold {threshold}, expected a cosine from -1 to 1")


def _find_files(clip: str) -> tuple[str, str | None]:
    """What open_clip is to build: a folder that holds safetensors, or a known name and a safetensors file."""
    import open_clip

    if Path(clip).is_dir():
        return _folder(Path(clip)), None
    if clip.startswith("hf-hub:"):
        return _folder(_download(clip.removeprefix("hf-hub:"))), None
    model, _, weights = clip.partition("/")
    if model not in open_clip.list_models():
        raise UserError(
            f"open_clip model {model!r}: neither a folder, nor hf-hub:owner/name, nor a name open_clip knows "
            "(see open_clip.list_models())"
        )
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise UserError(f"open_clip model {model}: found no weights; give a .safetensors file or a tag ({tags})")
    if weights.endswith(".safetensors"):
        if not Path(weights).is_file():
            raise UserError(f"open_clip weights {weights}: no such file; check the path")
        return model, weights
    tag = open_clip.get_pretrained_cfg(model, weights)
    repository = "/".join(tag.get("hf_hub", "").split("/")[:2])
    if not repository.strip("/"):
        raise UserError(
            f"open_clip weights {weights!r}: neither a .safetensors file nor a tag of {model} with a hub repository; "
            "nothing is unpickled, so convert other files to safetensors"
        )
    return _folder(_download(repository)), None


def _folder(folder: Path) -> str:
    for name in ("open_clip_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"open_clip model {folder}: found no {name}; nothing is unpickled, so add or convert it")
    return f"{LOCAL}{folder}"


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["open_clip_config.json", WEIGHTS]))
    except Exception as error:
        raise UserError(
            f"open_clip model hf-hub:{repository}: cannot be downloaded ({_one_line(error)}); give a local folder with "
            f"open_clip_config.json and {WEIGHTS}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
