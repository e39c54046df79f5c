"""An MLLM as this project needs it. Benchmarks live in data/, losses in methods/."""

from .adapter import Lora
from .budget import fitted
from .files import weights_folder
from .generation import answer, generate
from .mllm import MLLM
from .tokens import AnswerTokens

__all__ = ["MLLM", "AnswerTokens", "Lora", "answer", "fitted", "generate", "weights_folder"]
