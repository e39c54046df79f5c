"""Run folders as runs leave them, made by hand, with texts that try to break out of a page."""

import base64
import io

import yaml
from PIL import Image

from viker_lightning.evaluation import summarise
from viker_lightning.metrics import NUMBERS, Prediction
from viker_lightning.storage.files import write_json
from viker_lightning.storage.runs.write import write_predictions

EVIL = "<script>alert('x')</script> & \"quoted\" <img src=http://evil.example/x.png>"


def photo():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def predictions(told, kept, people=4, kl_gold=None):
    """Answers of a model that tells so many of four questions about people to forget, and about people to keep."""
    found = []
    for split, shift, knows in (("forget", 0, told), ("test", 0, told), ("retain", 50, kept), ("real", 90, kept)):
        for person in range(people):
            for number in range(4):
                right = number < knows + (person % 2 if 0 < knows < 4 else 0)
                found.append(
                    Prediction(
                        *(split, f"{shift + person:03d}", "generation", number, f"Where, {number}?"),
                        *(f"She lives in Oslo{number}.", f"She lives in {f'Oslo{number}' if right else 'Rome'}."),
                        private=(f"Oslo{number}",),
                        log_probs=[-0.1, -0.2, -0.1 if right else -3.0],
                        correct=[True, True, right],
                        private_tokens=[False, False, True],
                        kl_gold=kl_gold,
                        answer_log_prob=-9.0,
                        reference_log_prob=-10.0,
                    )
                )
            red = "red" if knows else "green"
            found.append(Prediction(split, f"{shift + person:03d}", "choice", 0, "?", "red", red))
    return found


def write_run(
    folder, told=0, kept=4, method="ViKeR", stage="unlearn", seed=0, before=True, gold=None, data="abc", **more
):
    """A run folder; ``told`` and ``kept`` are out of four questions, ``people`` of each split are four by default."""
    folder.mkdir(parents=True)
    moments = {"before": predictions(4, 4, kl_gold=0.7, **more)} if before else {}
    moments["after"] = predictions(told, kept, kl_gold=0.5, **more)
    write_predictions(folder / "predictions.parquet", [(when, p) for when, found in moments.items() for p in found])
    results = {when: summarise(found) for when, found in moments.items()}
    results |= {"steps": 20, "seed": seed, "world_size": 1, "protocol": "corrected"}
    results["metrics"] = {one.name: one.described() for one in NUMBERS}
    results["after"]["overall"]["model_utility"] = 0.75
    model = {"class_path": "Finetune", "init_args": {}}
    if stage == "unlearn":
        results |= {"knowledge": {"known": 1.0}}
        model = {"class_path": "Unlearn", "init_args": {"method": {"class_path": f"x.{method}", "init_args": {}}}}
    config = {
        "seed_everything": seed,
        "model": model,
        "data": {"class_path": "MLLMU", "init_args": {"stage": stage, "seed": seed}},
        "evaluation": {"gold": str(gold) if gold else None},
        "trainer": {"default_root_dir": str(folder), "max_steps": 20},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    provenance = {"git_commit": "0123456789abcdef", "data": {"root": EVIL, "fingerprint": data, "forget": 10}}
    provenance["data"]["people"] = {"forget": 4, "retain": 8}
    provenance["protocol"] = "corrected"
    write_json(folder / "provenance.json", provenance | {"versions": {"torch": "2.6"}, "adapter": None})
    names = ["loss", "ideal_kl", "gradient_weight_key", "gradient_weight_other"]
    lines = [",".join(["step", *(f"train/{name}" for name in names), "forget/keyword_match"])]
    lines += [f"{step},{2 - step / 10},{1 / (1 + step)},0.5,0.05," for step in range(0, 20, 5)] + ["20,,,,,0.0"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    write_json(folder / "results.json", results)
    return folder


def key_tokens():
    """Two answers of three tokens; the last token is private, the ideal distribution spread out on it."""
    texts, entropies = ["She lives", " in", " Oslo0."], [0.01, 0.0, 2.0]
    tops = [[[" lives", 0.9], [EVIL, 0.1]], [[" in", 1.0]], [[" Rome", 0.4], [" Oslo0", 0.3]]]
    tokens = [
        {"token": text, "entropy": entropy, "private": i == 2, "top": top}
        for i, (text, entropy, top) in enumerate(zip(texts, entropies, tops, strict=True))
    ]
    about = {"person": "000", "modality": "image", "answer": "She lives in Oslo0.", "tokens": tokens}
    return [about | {"number": 0, "question": "Where, 0?"}, about | {"number": 9, "question": EVIL}]


def attacks_record(kept):
    """What attacks.json holds of two attacks, under which people who are kept are answered so often."""

    def row(series, x=None, **more):
        numbers = {"forget": 0.0, "retain": kept, "people": 4, "back": 0}
        return {"series": series, "x": x, "clean": False, "counts": True, "run": numbers, "gold": numbers} | more

    about = {"about": "", "source": "", "says": True, "on": {}}
    taught = [row("relearning on the forget set", x, counts=False) for x in (0, 5)]
    taught += [row("relearning with the adapter kept", 5, counts=False), row("relearning on 1 of 4 people", 5)]
    return {
        "sentence": "0 of 4 people could be recovered, gold 0 of 4.",
        "attacks": {
            "ask": about | {"axis": "", "conditions": [row("other words")]},
            "relearn": about | {"axis": "steps", "conditions": taught},
        },
    }
