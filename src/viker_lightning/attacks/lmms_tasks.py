"""Tasks for lmms-eval: the questions of a benchmark, and the attacks that only ask, put to any model it runs."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from viker_lightning.data.datasets import Benchmark
from viker_lightning.data.image_files import treatment
from viker_lightning.data.records import VQA, ImageGroup, Picture, Split
from viker_lightning.metrics import text
from viker_lightning.storage.files import replacing_folder, write_text

from . import lmms_functions
from .attempt import hit
from .kinds.ask import AskOtherwise
from .kinds.sample import Sample
from .kinds.show import ShowOtherwise, encoded
from .material import gather, private_questions
from .ways import Put

TASK = """\
task: viker_{name}
tag: [viker, viker_{kind}]
dataset_path: json
dataset_kwargs:
  data_files: {{test: viker_{name}.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {{{generation}, top_p: 1.0, num_beams: 1}}
metric_list:
  - {{metric: {score}, aggregation: mean, higher_is_better: {keep}}}
  - {{metric: {second}, aggregation: {together}, higher_is_better: {keep}}}
metadata: {{version: 1.0}}
"""

SCORES = {
    "splits": ("keyword_match", "keyword_match_whole", "mean"),
    "attacks": ("hit", "any_hit", "!function utils.any_hit"),
}
"""Of both kinds of tasks: a mean over answers, another number, and how that is taken together."""


def write_tasks(data: Benchmark, folder: Path, max_new_tokens: int = 50) -> None:
    """Writes a folder for ``--include_path`` of lmms-eval (0.7.3): tasks with their rows, photos and functions.

    ``viker_<split>`` has the open questions with private spans about photos, scored as in ``results.json``.
    ``viker_other_words_<whose>``, ``viker_other_photos_<whose>`` and ``viker_samples_<whose>`` are attacks, on the
    people to be forgotten and on as many who are kept: ``hit`` is the share of answers with a whole private span,
    ``any_hit`` that of questions with such an answer. Of the n samples of a question, these are leak@1 and leak@n.

    Args:
        data: set up for unlearning.
        folder: replaced if it is there.
        max_new_tokens: where an answer to a question of a split ends at the latest.

    Raises:
        UserError: if nobody can be attacked (:func:`~viker_lightning.attacks.gather`), or an image cannot be read.
    """
    material, sampling = gather(data), Sample.quick()
    greedy = "max_new_tokens: {}, do_sample: false, temperature: 0"
    drawn = f"max_new_tokens: {sampling.max_new_tokens}, do_sample: true, temperature: {sampling.temperature}"
    attacks: tuple[tuple[str, Sequence[Put], str], ...] = (
        ("other_words", [*AskOtherwise().other_words(material).values()], greedy.format(50)),
        ("other_photos", [*ShowOtherwise().other_photos(material).values()], greedy.format(50)),
        ("samples", [_as_asked] * sampling.n, drawn),
    )
    with replacing_folder(folder) as new:
        (new / "photos").mkdir()
        write_text(new / "utils.py", _functions_alone())
        for split in data.splits:
            groups = private_questions(data.evaluation(split, "image"))
            _write_task(new, split, groups, [_as_asked], "splits", greedy.format(max_new_tokens))
        for attack, ways, generation in attacks:
            _write_task(new, f"{attack}_forget", material.forget, ways, "attacks", generation)
            _write_task(new, f"{attack}_retain", material.retain, ways, "attacks", generation)


def _as_asked(group: ImageGroup, vqa: VQA) -> tuple[Picture | None, VQA]:
    return group.image, vqa


def _write_task(
    folder: Path, name: str, groups: Sequence[ImageGroup], ways: Sequence[Put], kind: str, generation: str
) -> None:
    """Writes a task of questions, each put in several ways, with its photos; none where nothing can be put so."""
    rows: list[str] = []
    for put in ways:
        for i, group in enumerate(groups):
            for j, vqa in enumerate(group.vqa):
                if found := put(group, vqa):
                    picture, asked = found
                    said = {"question": asked.question, "answer": asked.answer, "private": asked.private}
                    where = {"person": group.person, "about": f"{i}/{j}", "photo": _photo(folder, picture)}
                    rows.append(json.dumps(said | where, ensure_ascii=False) + "\n")
    if rows:
        write_text(folder / f"viker_{name}.jsonl", "".join(rows))
        keep = "false" if groups[0].split in (Split.FORGET, Split.TEST) else "true"
        how = dict(zip(("score", "second", "together"), SCORES[kind], strict=True))
        task = TASK.format(name=name, kind=kind, generation=generation, keep=keep, **how)
        write_text(folder / f"viker_{name}.yaml", task)


def _photo(folder: Path, picture: Picture | None) -> str:
    """Writes a photo once, as it is seen; its place in the folder, empty for none."""
    if picture is None:
        return ""
    seen = encoded(picture.open(), picture.source) if treatment(picture.data) else picture
    file = folder / f"photos/{picture.key}"
    if not file.exists():
        file.write_bytes(seen.data)
    return file.relative_to(folder).as_posix()


def _functions_alone() -> str:
    """The functions of the tasks and all they use of this package, as one file that needs none of it."""
    sources = "\n\n".join(inspect.getsource(part) for part in (text, hit, lmms_functions))
    of_package = ("from __future__", "from viker_lightning", "from .")
    lines = [line for line in sources.splitlines() if not line.startswith(of_package)]
    return "\n".join(["from __future__ import annotations", *lines, ""])
