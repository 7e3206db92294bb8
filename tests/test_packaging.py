"""What a newcomer relies on: README's commands, the pins, the licence, a package that imports at once."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minst
from minst.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FIRST = "python3 -m pip install . && python3 -m minst demo"
SECOND = 'python3 -m pip install -e ".[test,lite]" && python3 -m pytest'


def test_readme_opens_with_name_and_two_commands():
    lines = [line for line in README.splitlines() if line]
    assert lines[0] == "# minst" and "not MNIST" in lines[1]
    assert BLOCKS[:2] == [FIRST + "\n", SECOND + "\n"]
    assert README.index("```bash") == README.index("```")  # no block of another kind before them


def test_pictures_and_files_that_readme_shows_exist():
    shown = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(shown) >= 4 and not [link for link in shown if not (ROOT / link.partition("#")[0]).is_file()]


@pytest.mark.parametrize(
    "line", [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if "minst " in line]
)
def test_commands_of_readme_exist(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phone").mkdir()  # which the line above makes
    argv = shlex.split(line, comments=True)
    argv = argv[len(argv) - argv[::-1].index("minst") :]
    assert callable(build_parser().parse_args(argv).function)


def test_commands_of_other_documents_exist():
    text = README + (ROOT / "data_samples" / "README.md").read_text()
    commands = {line.split()[1] for line in re.findall(r"`(minst [a-z][^`]*)`", text)}
    assert commands and commands <= {command.split()[0] for command in COMMANDS}


def test_names_that_readme_uses_exist():
    names = set(re.findall(r"\bminst\.(\w+)", re.sub(r"https?://\S+", "", README)))
    assert names and names <= set(dir(minst)) and all(hasattr(minst, name) for name in names)


def test_lesson_table_is_complete_and_says_what_is_missing():
    rows = re.findall(r"^\| (\d\d) \| (.*?) \|", README, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(12))
    for number, title in rows:
        written = list((ROOT / "notebooks").glob(f"{number}_*.ipynb"))
        assert bool(written) != ("coming" in title), title


def test_continuous_integration_runs_the_second_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and "README.md" in script and "set -euo pipefail" in script
    found = subprocess.run(["awk", re.search(r"awk '(.*?)' README", script, re.DOTALL)[1], "README.md"], cwd=ROOT,
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert found.stdout == SECOND + "\n"
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert FIRST in workflow and "run: .ci/run" in workflow
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in workflow


def test_conda_installs_what_pyproject_says_and_nothing_of_its_own():
    lines = re.findall(r"^\s+- (\S.*)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    python = f"python{PROJECT['requires-python']}"
    assert lines == ["conda-forge", python, "pip", "pip:", "-e .[test,lite]"]


def test_only_the_extra_lite_holds_torch_back():
    extras = PROJECT["optional-dependencies"]
    bounds = {name: [line for line in lines if "<" in line.split(";")[0]] for name, lines in extras.items()}
    assert not [line for line in PROJECT["dependencies"] if "<" in line]
    assert {name for name, lines in bounds.items() if lines} == {"lite", "models"}
    assert extras["test"][0] == "mobileinst[notebooks,track,mobile,train,models]"


def test_version_licence_and_script():
    assert PROJECT["version"] == minst.__version__ and PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    module, function = PROJECT["scripts"]["minst"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_importing_minst_is_quick_and_brings_no_heavy_package():
    heavy = {"torch", "numpy", "scipy", "PIL", "matplotlib"}
    code = f"import sys, minst, minst.cli; print(*({heavy} & set(sys.modules)))"
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    after = os.times()
    assert done.stdout == "\n"
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


def test_every_public_name_is_there_and_nothing_else():
    for name in minst.__all__:
        assert getattr(minst, name) is not None and name in dir(minst)
    for name, home in minst._HOMES.items():
        assert getattr(minst, name) is getattr(importlib.import_module(f"minst.{home}"), name)
    for wrong in ("MobileNet", "cliff", "_hidden"):
        with pytest.raises(AttributeError, match=wrong):
            getattr(minst, wrong)


def test_no_tracked_file_holds_a_path_of_a_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # a source archive: what lies here
        paths = [p for p in ROOT.rglob("*") if p.is_file() and not set(p.parts) & {".git", ".venv", "__pycache__"}]
    else:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    # put together here, so that this file does not hold them itself
    wrong = [
        r"/(?:home|Users|root|work|opt|var|mnt)" + r"/\w",
        "files.python" + "hosted",
        "py" + "pi.org",
        r"[A-Z]:\\\\" + "Users",
    ]
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, a video, weights
        for pattern in wrong:
            found = re.search(rf"(?<![\w.])(?:{pattern})", text)
            assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"
    assert len(paths) > 20
