"""Before a run that costs a day: what it will take, and what is wrong; nothing is trained, no weights are loaded."""

from .check import Check
