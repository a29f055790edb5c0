"""Docs: everything is documented, every command parses, every Python block runs, and links and figures are right."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from drawn import draw_page
from PIL import Image

import kaggle_digits
from kaggle_digits import cli
from kaggle_digits.data import find_source, load_test
from kaggle_digits.learners import PACKAGED_RUN
from kaggle_digits.recipes import RECIPES, load_measured
from kaggle_digits.submission import write_submission

ROOT = Path(__file__).parent.parent
COPIED = ("docs/changelog.md", "docs/contributing.md", "docs/benchmarks/log.md")
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
    if str(page.relative_to(ROOT)) not in COPIED and "_build" not in page.parts
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]


def commands_of(text: str) -> list[str]:
    """Return every command of ours in a text, in backticks or on lines of code."""
    found = re.findall(r"`(kaggle-digits [^`]+)`", text)
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL)
    code = [line for block in blocks for line in block.splitlines()]
    code += re.findall(r"^    (\S.*)", text, re.MULTILINE)
    for line in code:
        if match := re.search(r"kaggle-digits [^'&|>]*(?:'[^']*'[^'&|>]*)*", line):
            # What a scheduler puts in stands for a number.
            found.append(match[0].partition(" :::")[0].replace("{}", "1").replace("$SLURM_ARRAY_TASK_ID", "1"))
        elif match := re.search(r"make submit ARGS='(.*)'", line):
            found.append(f"kaggle-digits submit {match[1]}")
    return found


COMMANDS = sorted({command for text in TEXTS.values() for command in commands_of(text)})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command):
    options = cli.build_parser().parse_args(shlex.split(command)[1:])
    assert options.verb.name in cli.VERBS


def is_quick(command: str) -> bool:
    """Whether a command needs neither Kaggle nor a long training."""
    verb, *options = shlex.split(command)[1:]
    return (
        verb in ("recognize", "recipes", "check", "predict")
        or (verb == "devices" and "--self-test" not in options)
        or (verb == "submit" and "--dry-run" in options)
        or (verb == "compare" and "sample" in options)
    )


def test_manifests_and_scripts_have_no_fault_of_syntax():
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```(yaml|bash|sh)\n(.*?)```", text, re.DOTALL)]
    assert {kind for kind, _ in blocks} == {"yaml", "bash", "sh"}
    for kind, block in blocks:
        if kind == "yaml":
            assert yaml.safe_load(block)["kind"]
        else:
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the documents speak of."""
    folder = tmp_path_factory.mktemp("workplace")
    picture = Image.fromarray(np.rint(255 * draw_page(["314", "159"])).astype(np.uint8))
    picture.save(folder / "photo.jpg")
    (folder / "digits").mkdir()
    for name in ("digits/0012_7.png", "seven.png", "three.png"):
        Image.fromarray(np.rint(255 * draw_page(["7"])).astype(np.uint8)).save(folder / name)
    write_submission(folder / "mine.csv", np.zeros(len(load_test(find_source("sample"))), int))
    for name in ("mine", "fast-seed0", "five/1-of-1"):
        shutil.copytree(PACKAGED_RUN, folder / "runs" / name)
    return folder


@pytest.mark.parametrize("command", [command for command in COMMANDS if is_quick(command)])
def test_quick_commands_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("KDIGITS_DATA", "sample")
    for made in ("read.png", "worst.png", "mended.csv", "five.csv"):
        (workplace / made).unlink(missing_ok=True)
    arguments = shlex.split(command)[1:]
    if arguments == ["predict", "--run", "runs/mine", "--out", "mine.csv"]:
        arguments[-1] = "new.csv"
    assert cli.main(arguments) == 0


(README_CODE,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PYTHON = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    if code != README_CODE  # which has a test of its own
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documentation", "exec"), {})
    printed = capsys.readouterr().out
    assert printed
    if "read_picture" in code:
        shown = [text for page in TEXTS.values() for text in re.findall(r"```text\n(\['.*?)```", page, re.DOTALL)]
        assert printed in shown


def test_python_of_the_readme_prints_an_accuracy_and_leaves_a_checked_file(tmp_path, monkeypatch, capsys):
    assert README_CODE in TEXTS["docs/reference/python.md"]
    monkeypatch.chdir(tmp_path)
    exec(compile(README_CODE, "README.md", "exec"), {})
    assert re.fullmatch(r"[0-9.]+% of 72 held-out rows\n", capsys.readouterr().out)
    assert sum(kaggle_digits.check_submission(Path("mine.csv"), rows=360)) == 360


def test_every_verb_has_an_example_in_the_reference():
    """Its options are listed from the parser itself."""
    text = TEXTS["docs/reference/cli.md"]
    assert [verb for verb in cli.VERBS if f"| `kaggle-digits {verb}" not in text] == []
    assert "```{argparse}\n:module: kaggle_digits.cli\n:func: build_parser\n" in text


def test_every_recipe_and_its_figures_are_in_the_table():
    lines = TEXTS["docs/benchmarks/recipes.md"].splitlines()
    for recipe in RECIPES.values():
        row = next(line for line in lines if line.startswith(f"| `{recipe.name}` |"))
        assert recipe.published in row
        assert load_measured()[recipe.name]["accuracy"] in row


def test_figures_of_the_readme_are_those_of_the_benchmarks():
    benchmarks = TEXTS["docs/benchmarks/index.md"]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*%) \| (.* s) \| ([\d,]+) \|$", README, re.MULTILINE)
    assert [name for name, *_ in rows] == ["flash", "fast", "strong", "tiny"]
    recipes = TEXTS["docs/benchmarks/recipes.md"].splitlines()
    for name, accuracy, seconds, parameters in rows:
        timed = next(line for line in benchmarks.splitlines() if re.match(rf"\| {name}\b", line))
        assert f"| {seconds}, " in timed
        scored = next(line for line in recipes if line.startswith(f"| `{name}` |"))
        assert f"| {accuracy} |" in scored
        assert f" {parameters} |" in scored
    assert f"all {len(RECIPES)}" in README


def test_figures_are_those_of_the_comparisons():
    """The script that writes the figures would not change them."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import recipes_table
    finally:
        sys.path.pop(0)
    rows = recipes_table.load_rows(sorted(recipes_table.KEPT.glob("*.json")))
    assert rows
    page = TEXTS["docs/benchmarks/recipes.md"]
    assert recipes_table.made_from(rows, page) == page
    assert recipes_table.measured(rows) == load_measured()


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'tensorflow', 'keras', 'pandas', 'numpy', 'sklearn', 'kaggle', 'jax'}"
    code = f"import sys, kaggle_digits; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_public_name_is_where_the_package_says_and_in_the_reference():
    text = TEXTS["docs/reference/python.md"]
    described = set(re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)$", text, re.MULTILINE))
    for name in kaggle_digits.__all__:
        value = getattr(kaggle_digits, name)
        if isinstance(value, int):
            assert f"`{name}` is {value}" in text
        else:
            assert name in described or name == "DigitsError"  # in the module of all errors
    listed = [name for names in kaggle_digits._MODULES.values() for name in names]
    assert sorted(listed) == kaggle_digits.__all__
    stub = (ROOT / "kaggle_digits/__init__.pyi").read_text(encoding="utf-8")
    assert sorted([*listed, "__version__"]) == sorted(re.findall(r"import (\w+) as \1", stub))
    assert set(kaggle_digits.__all__) <= set(dir(kaggle_digits))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kaggle_digits.nothing


def test_every_variable_of_ours_is_in_the_reference():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "kaggle_digits").rglob("*.py"))
    table = TEXTS["docs/reference/files.md"].partition("## Environment variables")[2]
    for variable in set(re.findall(r"\bKDIGITS_[A-Z]+\b", source)):
        assert f"`{variable}`" in table, variable


def test_every_key_of_a_run_and_of_a_record_is_in_the_reference():
    text = TEXTS["docs/reference/files.md"]
    for key in json.loads((PACKAGED_RUN / "run.json").read_text(encoding="utf-8")):
        assert f"| `{key}` |" in text, key
    for field in ("competition", "message", "state", "reference", "date", "public_score", "error", "url"):
        assert field.replace("_", " ").replace("url", "address") in text, field


def test_links_of_the_documents_lead_somewhere():
    """Links within the built documentation are checked by ``make docs``."""
    for document in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = TEXTS[document]
        # The anchor of a heading is its words in lower case, joined by hyphens.
        plain = [re.sub(r"[^\w ]", "", line.lstrip("# ")).lower() for line in text.splitlines()]
        anchors = {"#" + line.replace(" ", "-") for line in plain}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://") or target in anchors or (ROOT / target).exists(), (document, target)


def test_a_link_of_the_documentation_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="b.html#gone">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<p id="there"><a href="https://example.org/">elsewhere</a>')
    done = subprocess.run([sys.executable, ROOT / "docs" / "check_links.py", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "a.html: b.html#gone\na.html: c.html\n")


def test_changelog_and_citation_know_this_version():
    assert f"\n## {kaggle_digits.digits.__version__} " in TEXTS["CHANGELOG.md"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == kaggle_digits.digits.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_make_has_every_target_that_is_named():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflows = [file.read_text(encoding="utf-8") for file in (ROOT / ".github" / "workflows").glob("*.yml")]
    for text in (*TEXTS.values(), *workflows):
        for target in re.findall(r"(?:^(?:    |`)|run: )make ([\w-]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_automation_is_well_formed_and_runs_the_checks_of_make():
    for file in (*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8")), file
    check = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    for hook in hooks:
        name = hook["entry"].removeprefix(".venv/bin/").split()[0]
        assert f"$(BIN)/{name}" in check, name
