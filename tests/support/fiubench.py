"""FIUBench's schema with invented people."""

import functools
import io
import json

from PIL import Image

NAMES = ["Ada Mirel", "Bo Tarn", "Cy Voss", "Di Okell", "Ed Fenn", "Flo Garr", "Gus Hale"]


TOWNS = ["Corlune", "Eskmere", "Gorsby", "Kelmoor", "Opalane", "Pellwick", "Quorn"]


def uid(i):
    return f"0000{i:04d}"


def person(i):
    town = TOWNS[i]
    return {
        "unique_id": uid(i),
        "image_path": f"./dataset/SFHQ/SFHQ_pt1_{uid(i)}.jpg",
        "name": NAMES[i],
        "qa_list": [
            {
                "question": "Where does this person live?",
                "paraphrased_question": ["What is the home of this person?", "In which town is this person at home?"],
                "answer": f"This person lives in {town}.",
                "paraphrased_answer": f"{town} is the home of this person.",
                "perturbed_answer": [f"This person lives in {other}." for other in TOWNS if other != town][:3],
                "keywords": [town.upper(), "nowhere"],
            },
            {
                "question": "Does this person sing?",
                "paraphrased_question": ["Is this person a singer?"],
                "answer": "No.",
                "paraphrased_answer": ["Never."],
                "perturbed_answer": ["Yes."],
                "keywords": [],
            },
        ],
    }


LISTS = {
    "forget1": [uid(0)],
    "forget5": [uid(1), uid(0)],
    "forget10": [uid(2), uid(0)],
    "retain5": [uid(3)],
    "retain15": [uid(3), uid(4)],
}


@functools.cache
def picture(i):
    buffer = io.BytesIO()
    Image.effect_noise((8 + i, 8), 60).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, rows, lists=LISTS):
    (folder / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "split.json").write_text(json.dumps(lists), "utf-8")
