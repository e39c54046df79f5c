"""An MLLM as this project needs it. Benchmarks live in data/, losses in methods/."""

from .mllm import MLLM, Lora, weights_folder
from .tokens import AnswerTokens

__all__ = ["MLLM", "AnswerTokens", "Lora", "weights_folder"]
