"""The site that ``make docs`` builds of README.md and docs/."""

import os
import re
import runpy
import subprocess
import sys

import pytest
import yaml

from support.documented import ROOT, anchors

DOCS = ROOT / "docs"


def files(nav):
    """Pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [file for part in (nav if isinstance(nav, list) else nav.values()) for file in files(part)]


def test_every_page_is_in_the_navigation_once():
    named = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert sorted(named) == sorted(["index.md", *(page.name for page in DOCS.glob("*.md"))])


def test_the_site_is_in_no_commit():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert f"/{config['site_dir']}/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def hook():
    for needed in ("mkdocs", "latex2mathml"):
        pytest.importorskip(needed, reason="pip install -e '.[docs]'")
    return runpy.run_path(str(DOCS / "pages.py"))


def test_links_of_the_repository_lead_to_pages_of_the_site(hook):
    rewritten = hook["rewritten"]
    assert rewritten("[a](docs/data.md#x)", "README.md") == "[a](data.md#x)"
    assert rewritten("[a](../README.md#use-it)", "docs/data.md") == "[a](index.md#use-it)"
    assert rewritten("[a](../configs/mini/npo.yaml)", "docs/methods.md") == "[a](repository/configs/mini/npo.yaml.md)"
    assert rewritten("[a](../../docs/data.md)", "src/viker_lightning/README.md") == "[a](../../../data.md)"
    assert rewritten("[a](../reporting)", "src/viker_lightning/grids/README.md") == "a", "a folder has no page"
    same = "[a](#here) [b](https://x.org/y.md) ![c](fixed_point.png)\n```\n[d](data.md)\n```"
    assert rewritten(same, "docs/concepts.md") == same


def test_files_outside_docs_that_are_linked_to_come_along(hook):
    found = hook["outside"]()
    assert {"README.md", "CONTRIBUTING.md", "configs/mini/viker.yaml", "benchmarks/results.md"} <= {*found}
    assert not [path for path in found if path.startswith("docs/") and path.endswith(".md")]
    assert hook["content"]("configs/mini/npo.yaml").startswith("# configs/mini/npo.yaml\n\n````yaml\n")


def test_anchors_are_those_of_the_repository(hook):
    titles = re.findall(r"^#+ (.+)$", (DOCS / "paper.md").read_text("utf-8"), re.MULTILINE)
    assert {hook["slug"](title) for title in titles} == anchors(DOCS / "paper.md")


def test_formulae_become_mathml(hook):
    shown = hook["formula"]("\\bar p_t = \\frac{1}{k}\n\\sum_j p_j")
    assert shown.startswith("<math") and "<mfrac>" in shown and 'display="block"' in shown


@pytest.mark.slow
def test_it_is_built_without_a_warning(hook, tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "site/index.html").read_text("utf-8")
    assert "Machine unlearning for multimodal LLMs" in first and 'href="forget_people.html"' in first
    assert "src=" in first and "//fonts." not in first
    assert "<math" in (tmp_path / "site/paper.html").read_text("utf-8")
