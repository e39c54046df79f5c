"""The README.md that travels with weights: what they are, what was measured, what they do not promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from viker_lightning.files import write_text
from viker_lightning.metrics import read_numbers
from viker_lightning.runs import names

Kind = Literal["adapter", "merged", "model"]

DATA = (".jsonl", ".json", ".csv")

GOOD = {"min": "low", "max": "high", "gold": "near gold", None: ""}

LIMITS = """\
- The numbers hold for the questions that were asked, in their language, about these images. Other wordings, photos and
  attacks (fine-tuning again, quantisation, long dialogues) may bring back what seems forgotten.
- Nothing here proves that information is gone from the weights, and nothing here is a legal assessment of erasure.
- What a model was never shown to know cannot be shown to be forgotten; other people's data were not looked for.
"""

REMAINS = """\
- **The base model still knows everybody.** Whoever has it can switch this adapter off. Where that matters, give away
  merged weights instead, and not the base model.
"""

LOADING = {
    "adapter": """\
from peft import PeftConfig, PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

made = PeftConfig.from_pretrained(folder)
base = made.base_model_name_or_path
processor = AutoProcessor.from_pretrained(base, revision=made.revision)
model = AutoModelForImageTextToText.from_pretrained(base, revision=made.revision)
model = PeftModel.from_pretrained(model, folder).eval()
""",
    "merged": """\
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
""",
}

ASKING = """\
inputs = processor(images=Image.open("photo.jpg"), text={prompt!r}.format(question=question), return_tensors="pt")
said = model.generate(**inputs, max_new_tokens=50, do_sample=False)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(said, skip_special_tokens=True).strip())
"""


def write_cards(run: Path, results: dict[str, Any]) -> None:
    """Writes ``README.md`` into each folder of weights that a run has, if the run wrote where it comes from.

    Args:
        run: its folder, with ``provenance.json``.
        results: what ``results.json`` holds, or is going to.
    """
    file = run / names.PROVENANCE
    if not file.is_file():
        return
    provenance = json.loads(file.read_text(encoding="utf-8"))
    kinds: tuple[Kind, ...] = (names.ADAPTER, names.MERGED, names.MODEL)
    for kind in kinds:
        if (run / kind).is_dir():
            write_text(run / kind / "README.md", model_card(kind, provenance, results))


def model_card(kind: Kind, provenance: dict[str, Any], results: dict[str, Any]) -> str:
    """The text of a model card.

    It names no person and no local path: how many are forgotten, not who.

    Args:
        kind: a PEFT adapter, full weights with the adapter added, or weights that were trained in full.
        provenance: what ``provenance.json`` holds.
        results: what ``results.json`` holds.
    """
    base, revision = _public(provenance["base_weights"]), provenance.get("base_commit")
    stage, method = provenance["data"]["stage"], provenance.get("method") or {"name": "an unrecorded method"}
    head = {"library_name": "peft" if kind == "adapter" else "transformers", "pipeline_tag": "image-text-to-text"}
    lines = ["---", *(f"{name}: {value}" for name, value in head.items())]
    lines += [f"base_model: {base}"] if base == provenance["base_weights"] else []
    lines += ["tags:", "- machine-unlearning", "- viker-lightning", "---", ""]
    what = f"unlearned with {method['name']}" if stage == "unlearn" else f"fine-tuned ({stage})"
    noun = {"adapter": "LoRA adapter", "merged": "merged weights", "model": "full weights"}[kind]
    lines += [f"# A multimodal LLM, {what}: {noun}", ""]
    lines += ["| | |", "|---|---|", *_facts(provenance, results, base, revision), ""]
    lines += ["## Results", "", *_table(results), "", "## Limits", ""]
    lines += [(REMAINS if kind == "adapter" else "") + LIMITS if stage == "unlearn" else f"Not unlearned.\n{LIMITS}"]
    lines += ["## Use", "", "```python", _code(kind, provenance.get("prompt"), revision), "```", ""]
    return "\n".join(lines)


def _facts(provenance: dict[str, Any], results: dict[str, Any], base: str, revision: str | None) -> Iterator[str]:
    data = provenance["data"]
    yield f"| base model | {base}{f', revision {revision}' if revision else ''} |"
    quantize = provenance.get("quantize")
    yield f"| weights while training | {provenance.get('dtype', 'float32')}{f', {quantize}' if quantize else ''} |"
    for name in ("method", "training", "adapter"):
        found = dict(provenance.get(name) or {})
        if found:
            title = found.pop("name", "LoRA" if name == "adapter" else "AdamW")
            yield f"| {name} | {title}: {', '.join(f'{k} {_public(v)}' for k, v in found.items())} |"
    yield f"| data | {_public(data['root'])}, fingerprint {data['fingerprint'][:12]} |"
    if "people" in data:
        yield f"| people | {data['people']['forget']} to forget, {data['people']['retain']} to retain |"
    yield f"| private spans | {provenance['private_parts']} |"
    yield f"| run | {results['steps']} steps, seed {results['seed']}, protocol {results['protocol']} |"
    remote = "yes" if provenance.get("trust_remote_code") else "no"
    yield f"| code | git {provenance['git_commit'] or 'unknown'}; code from the hub: {remote} |"
    yield f"| versions | {', '.join(f'{name} {v}' for name, v in provenance['versions'].items())} |"


def _table(results: dict[str, Any]) -> Iterator[str]:
    """A row a number, and what is good of it."""
    before, after = results.get("before", {}), results["after"]
    shown = [one for one in read_numbers(results["metrics"]).values() if "card" in one.shown]
    yield "| split | number | good | before | after |"
    yield "|---|---|---|---:|---:|"
    for split, numbers in after.items():
        for one in shown:
            if one.name in numbers:
                old = before.get(split, {}).get(one.name)
                yield (
                    f"| {split} | {one.name} | {GOOD[one.better(split)]} | {'' if old is None else f'{old:.3g}'} "
                    f"| {numbers[one.name]:.3g} |"
                )
    yield ""
    measured = {name for numbers in after.values() for name in numbers}
    yield from (f"- {one.name}: {one.sentence}" for one in shown if one.name in measured)


def _code(kind: Kind, prompt: str | None, revision: str | None) -> str:
    loading = LOADING["adapter" if kind == "adapter" else "merged"]
    if revision:
        loading = loading.replace("made.revision", repr(revision))
    loading = loading.replace("\n\n", '\nfrom PIL import Image\n\nfolder = "."  # where this file is\n', 1)
    if prompt is None:
        return loading.strip()
    return loading + "\n" + 'question = "Where does this person live?"\n' + ASKING.format(prompt=prompt).strip()


def _public(value: Any) -> str:
    """A value as it may be shown to anybody: a path on this machine may name people."""
    if not isinstance(value, str) or value.startswith("mini/"):
        return str(value)
    parts = Path(value).parts
    local = Path(value).exists() or Path(value).is_absolute() or len(parts) > 2 or Path(value).suffix in DATA
    return "a local file or folder" if local else value
