"""A tokenizer and a small language model for tiny models."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
)

TEXT = ["USER: Where does this person live?\nASSISTANT: In Tarn Hollow, a system for you, helpful assistant user."] * 3


def tokenizer(special: list[str], eos: str, **named: str) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=eos, pad_token=special[0], extra_special_tokens=named
    )
    fast.add_special_tokens({"additional_special_tokens": special[1:]})
    return fast


def tied(text: dict, ids: dict, eos: str) -> dict:
    """Settings of a small language model that knows the tokenizer."""
    small = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # fmt: skip
    special = {"vocab_size": len(ids), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": ids[eos]}
    return {**small, **special, **text}
