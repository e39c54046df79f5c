"""An MLLM as this project needs it. Benchmarks live in data/, losses in methods/."""

from .adapter import Lora
from .budget import fitted
from .exported import load_adapted, revision_of, write_merged
from .files import folder_fingerprint, origin
from .generation import answer, answer_alone, generate
from .gradient_check import check_first_gradients
from .loading import Quantize
from .mllm import MLLM
from .prefixes import Prompt, PromptPrefixes
from .tokens import AnswerTokens

__all__ = [
    "MLLM",
    "AnswerTokens",
    "Lora",
    "Prompt",
    "PromptPrefixes",
    "Quantize",
    "answer",
    "answer_alone",
    "check_first_gradients",
    "fitted",
    "folder_fingerprint",
    "generate",
    "load_adapted",
    "origin",
    "revision_of",
    "write_merged",
]
