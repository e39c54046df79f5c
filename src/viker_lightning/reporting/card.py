"""The README.md that travels with weights: what they are, what was measured, what they do not promise."""

from pathlib import Path
from typing import Any, Literal

import yaml

from viker_lightning.metrics import Number, read_numbers
from viker_lightning.storage.files import write_text
from viker_lightning.storage.runs import Run, names

from .html import rendered

Kind = Literal["adapter", "merged", "model"]

DATA = (".jsonl", ".json", ".csv")

EVAL_RESULTS = Path(".eval_results/viker-lightning.yaml")
"""Where the hub looks for numbers of a benchmark's own page (huggingface.co/docs/hub/eval-results)."""

GOOD = {"min": "low", "max": "high", "gold": "near gold", None: ""}


def write_cards(run: Path, results: dict[str, Any]) -> None:
    """Writes ``README.md`` into each folder of weights that a run has, if the run wrote where it comes from."""
    if not (provenance := Run(run, results).provenance):
        return
    kinds: tuple[Kind, ...] = (names.ADAPTER, names.MERGED, names.MODEL)
    for kind in kinds:
        if (run / kind).is_dir():
            write_text(run / kind / "README.md", model_card(kind, provenance, results))
            if entries := eval_results(provenance, results):
                (run / kind / EVAL_RESULTS.parent).mkdir(exist_ok=True)
                write_text(run / kind / EVAL_RESULTS, yaml.safe_dump(entries, sort_keys=False))


def model_card(kind: Kind, provenance: dict[str, Any], results: dict[str, Any]) -> str:
    """The text of a model card.

    It names no person and no local path: how many are forgotten, not who.
    """
    settings = []
    for name, usual in (("method", ""), ("training", "AdamW"), ("adapter", "LoRA")):
        if found := dict(provenance.get(name) or {}):
            title = found.pop("name", usual)
            settings.append((name, title, ", ".join(f"{key} {_public(value)}" for key, value in found.items())))
    before, measured = results.get("before", {}), _measured(results)
    page = {
        "kind": kind,
        "made": provenance,
        "base": _public(provenance["base_weights"]),
        "root": _public(provenance["data"]["root"]),
        "revision": provenance.get("base_commit"),
        "unlearned": provenance["data"]["stage"] == "unlearn",
        "method": (provenance.get("method") or {"name": "an unrecorded method"})["name"],
        "settings": settings,
        "results": results,
        "numbers": [
            (split, one.name, GOOD[one.better(split)], before.get(split, {}).get(one.name), value)
            for split, one, value in measured
        ],
        "measured": [*dict.fromkeys(one for _, one, _ in measured)],
    }
    return f"---\n{metadata(kind, provenance, results)}\n---\n\n{rendered('card.md', page)}\n"


def metadata(kind: Kind, provenance: dict[str, Any], results: dict[str, Any]) -> str:
    """YAML that the hub reads at the top of a card; its ``model-index`` has all numbers of the card.

    The licence is that of the weights they were made from, which only a repository on the hub tells.
    """
    from huggingface_hub import EvalResult, ModelCardData

    base, data = provenance["base_weights"], provenance["data"]
    dataset = data["root"] if _on_hub(data["root"]) else None
    about = ("visual-question-answering", dataset or "other", _public(data["root"]))
    at = data.get("commit")
    found = [
        EvalResult(*about, one.name, value, metric_name=one.title, dataset_split=split, dataset_revision=at)
        for split, one, value in _measured(results)
    ]
    known = {"license_name": "that-of-the-base-model", "license_link": f"https://huggingface.co/{base}"}
    options = {"license": "other", **known, "base_model": base} if _on_hub(base) else {"license": "unknown"}
    return ModelCardData(
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="image-text-to-text",
        datasets=[dataset] if dataset else None,
        tags=["machine-unlearning", "viker-lightning"],
        model_name=(provenance.get("method") or {}).get("name", data["stage"]),
        eval_results=found or None,
        **options,
    ).to_yaml()


def eval_results(provenance: dict[str, Any], results: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers of a card as entries of ``.eval_results``, where the data are on the hub; none elsewhere.

    The hub shows those whose data set is registered as a benchmark that has a task of this name.
    """
    data = provenance["data"]
    at = {"revision": data["commit"]} if data.get("commit") else {}
    return [
        {"dataset": {"id": data["root"], "task_id": f"{split}_{one.name}", **at}, "value": value}
        for split, one, value in _measured(results)
        if _on_hub(data["root"])
    ]


def _measured(results: dict[str, Any]) -> list[tuple[str, Number, float]]:
    """Split, number and value of all that a card shows, as the run left it."""
    shown = [one for one in read_numbers(results["metrics"]).values() if "card" in one.shown]
    found = results["after"].items()
    return [(split, one, numbers[one.name]) for split, numbers in found for one in shown if one.name in numbers]


def _on_hub(name: str) -> bool:
    """Whether a name is one of the hub: ``OWNER/NAME``, and nothing on this machine."""
    return name.count("/") == 1 and not name.startswith("mini/") and _public(name) == name


def _public(value: Any) -> str:
    """A value as it may be shown to anybody: a path on this machine may name people."""
    if not isinstance(value, str) or value.startswith("mini/"):
        return str(value)
    parts = Path(value).parts
    local = Path(value).exists() or Path(value).is_absolute() or len(parts) > 2 or Path(value).suffix in DATA
    return "a local file or folder" if local else value
