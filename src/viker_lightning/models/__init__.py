"""A multimodal LLM as this project needs it."""

from .adapter import Lora
from .budget import split_to_budget
from .generation import answer, answer_alone, ask, generate
from .gradient_check import check_first_gradients, gradient_states
from .language_alone import write_language_model
from .layers import decoder_layers
from .loading import Quantize, Weights
from .merging import load_adapted, load_merged, revision_of, write_merged
from .mllm import MLLM
from .prefixes import Prompt, PromptPrefixes
from .sampled_answers import Sampling, sample
from .tokens import AnswerTokens
from .weight_files import folder_fingerprint, identify_weights
