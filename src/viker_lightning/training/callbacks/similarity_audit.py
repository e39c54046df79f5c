"""An audit of the forget images, before anything is learnt or unlearned."""

import logging
from collections.abc import Iterable

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.pictures.clip import ClipEmbedder, near_repeats, save_reports
from viker_lightning.data.records import Picture, Split
from viker_lightning.errors import UserError
from viker_lightning.models import identify_weights
from viker_lightning.storage.runs import names

from .trainer_parts import data_of, run_folder

log = logging.getLogger(__name__)


class SimilarityAudit(Callback):
    """Finds forget images that nearly repeat among the retained people or in the test split.

    A repeat in retain is forgotten and retained at once; one in test tests nothing. ``similarity.json`` in the run
    folder gets, as sections ``retain`` and ``test``, the histogram of each forget image's largest similarity and the
    pairs above the threshold. Nothing is stopped or left out.

    Args:
        clip: open_clip model that looks: a folder, ``hf-hub:owner/name`` or ``name/weights``; see
            :class:`~viker_lightning.data.pictures.clip.ClipEmbedder`. By default there is no audit.
        threshold: pairs more alike than this are listed, -1 to 1; read it off the histogram, since models differ.
    """

    def __init__(self, clip: str | None = None, threshold: float | None = None) -> None:
        if (clip is None) != (threshold is None):
            raise UserError(f"audit: clip={clip} and threshold={threshold} belong together; set both or neither")
        self.clip, self.threshold = clip, threshold
        self.weights: dict[str, str | None] | None = None  # which ones looked

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Audits on the first process; what an earlier training run found in the same folder is removed."""
        file = run_folder(trainer) / names.SIMILARITY
        if not trainer.is_global_zero:
            return
        if stage == "fit":
            file.unlink(missing_ok=True)
        if self.clip is None or self.threshold is None:
            return
        data = data_of(trainer)
        forget = shown(data, data.forget_ids, Split.FORGET)
        embed = ClipEmbedder.named(self.clip, trainer.strategy.root_device)
        self.weights = identify_weights(self.clip, embed.files)
        others = {"retain": shown(data, data.retain_ids, Split.RETAIN), "test": shown(data, [], Split.TEST)}
        for name, pictures in others.items():
            if not forget or not pictures:
                log.info("similarity: found %d forget and %d %s images, so no audit", len(forget), len(pictures), name)
                continue
            pairs, report = near_repeats(forget, pictures, embed, self.threshold)
            save_reports({name: report}, file)
            if pairs:
                log.warning(
                    "similarity: %d of %d forget images nearly repeat in %s (above %s), e.g. %s and %s; all are in %s",
                    *(len({p.picture.key for p in pairs}), len(forget), name, self.threshold),
                    *(pairs[0].picture.source, pairs[0].nearest.source, file),
                )


def shown(data: Benchmark, ids: Iterable[str], split: Split) -> list[Picture]:
    """Pictures that people are trained on and that a split asks about, each once."""
    trained = [picture for person in data.people(list(ids)) for picture in person.images]
    asked = [group.image for group in data.evaluation(split, "image") if group.image is not None]
    return list({picture.key: picture for picture in [*trained, *asked]}.values())
