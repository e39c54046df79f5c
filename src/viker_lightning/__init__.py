"""Visual-guided key-token regularisation and its rivals: make a multimodal LLM forget people, and show it."""

__version__ = "0.1.0"
