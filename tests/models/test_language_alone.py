"""The language model by itself says of a text what the whole model says of it."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.families import FAMILIES, random_model
from viker_lightning.errors import UserError
from viker_lightning.models import write_language_model

NONE_ALONE = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
"""Families whose language model transformers has within the whole model only."""


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_a_text_are_those_of_the_whole_model(name, tmp_path):
    mllm = random_model(name).eval()
    if name in NONE_ALONE:
        with pytest.raises(UserError, match="transformers has no language model 'qwen") as error:
            write_language_model(mllm, tmp_path / "alone")
        assert "\n" not in str(error.value) and not (tmp_path / "alone").exists()
        return
    write_language_model(mllm, tmp_path / "alone")
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "alone").eval()
    ids = AutoTokenizer.from_pretrained(tmp_path / "alone")("Where does this person live?", return_tensors="pt")
    assert ids["input_ids"].tolist() == [mllm.processor.tokenizer("Where does this person live?")["input_ids"]]
    with torch.no_grad():
        wanted = mllm.base(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits
        found = alone(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    head, embedding = alone.get_output_embeddings().weight, alone.get_input_embeddings().weight
    assert (head is embedding) == (mllm.head.weight is mllm.language_model.get_input_embeddings().weight)
