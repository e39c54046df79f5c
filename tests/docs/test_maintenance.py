"""Files that only other machines read: what they name is there."""

import re
import tomllib

import yaml

from support.documented import EXTRAS, PROJECT, ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text("utf-8"))
JOBS = WORKFLOW["jobs"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def scripts():
    """What the jobs type."""
    return "\n".join(step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step)


def test_every_python_that_is_promised_is_tested():
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert JOBS["test"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]["python_version"] == promised[0]
    lowest = next(step["with"] for step in JOBS["lowest"]["steps"] if "python-version" in step.get("with", {}))
    assert lowest["python-version"] == promised[0]


def test_jobs_type_what_there_is():
    targets = re.findall(r"make ([\w-]+)", scripts())
    assert {"lint", "test-all", "docs"} <= {*targets}
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)
    for extras in re.findall(r"\.\[([\w,]+)\]", scripts()):
        assert {*extras.split(",")} <= {*EXTRAS}
    assert "touch .venv/.installed" in scripts() and "$(VENV)/.installed: " in MAKEFILE, "make installs nothing then"


def test_packages_have_a_lowest_version():
    every = [*PROJECT["dependencies"], *EXTRAS["docs"]]
    assert not [one for one in every if ">=" not in one]


def test_configs_that_are_named_come_along():
    named = re.findall(r"viker_lightning:([\w/]+\.yaml)", scripts() + DOCKERFILE)
    assert len(named) >= 3 and all((ROOT / "configs" / name).is_file() for name in named)


def test_the_image_is_made_of_what_is_there():
    copied = [word for line in re.findall(r"^COPY (.+) /src/.*$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(let_in) and all((ROOT / name).exists() for name in copied)
    default = re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)[1]
    assert {*default.split(","), *re.findall(r"EXTRAS=(\w+) ", DOCKERFILE)} <= {*EXTRAS}
    for package in re.findall(r'"(torch\w*)>=([\d.]+)"', DOCKERFILE):
        assert ">=".join(package) in PROJECT["dependencies"]


def test_issue_templates_ask_for_what_they_say():
    files = [file for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config"]
    assert len(files) == 3
    for file in files:
        form = yaml.safe_load(file.read_text("utf-8"))
        assert form["name"] and form["description"] and form["body"], file
        for page in re.findall(r"docs/\w+\.md", file.read_text("utf-8")):
            assert (ROOT / page).is_file(), (file, page)
