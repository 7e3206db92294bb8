"""What this machine offers minst: `environment()` measures, `report()` says it (`minst env`).

    pins of pyproject.toml (clone) or of the metadata (wheel)
      --compare with what is installed-->  problems, each with one command

Nothing here fails where a package is missing or broken: to say so is the purpose.

Lesson: notebooks/00_start_here.ipynb
"""

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import minst

__all__ = ["commit", "environment", "installed", "report", "requirements", "satisfies"]

MENDED = ("missing", "another version")  # states that a command mends


def requirements() -> list[tuple[Requirement, str]]:
    """(requirement, its extra or "" for minst itself); what minst itself needs comes first."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():  # a clone: newer than the metadata of its last installation
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
        found = [(Requirement(line), extra) for extra, lines in groups.items() for line in lines]
    else:
        found = []
        for line in importlib.metadata.requires("mobileinst") or []:
            extra = re.search(r"extra == [\"'](.*?)[\"']", line)
            found.append((Requirement(line), extra[1] if extra else ""))
    # an extra may name minst itself, for its other extras
    found = [(line, extra) for line, extra in found if line.name != "mobileinst"]
    return sorted(found, key=lambda item: (item[1], item[0].name))


def commit() -> str:
    """The commit of the package that runs, with a "+" where its files differ; else its version."""
    git = ["git", "-C", str(Path(__file__).parent)]
    asked = ["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "."]
    try:
        name, changed = (
            subprocess.run([*git, *what], capture_output=True, text=True, check=True).stdout.strip()
            for what in asked
        )
    except (OSError, subprocess.CalledProcessError):  # no git here, or no repository
        return minst.__version__
    return name + "+" * bool(changed)


def environment() -> dict:
    """Versions, processor, XNNPACK, what ships, and `problems` with the commands that mend them.

    "packages" are rows {"name", "installed", "wanted", "extra", "state"}: "ok", "missing", "another
    version", or "not for Python …", where nothing can be mended.
    """
    from minst.samples import sample_names, weights_names

    packages = [_row(*item) for item in requirements()]
    problems = []
    for extra in dict.fromkeys(row["extra"] for row in packages):
        lacking = [row for row in packages if row["extra"] == extra and row["state"] in MENDED]
        if lacking:
            names = ", ".join(row["name"] for row in lacking)
            wanted = " ".join(f'"{row["name"]}{row["wanted"]}"' for row in lacking)
            purpose = f"for the extra {extra!r}" if extra else "needed"
            command = f"{sys.executable} -m pip install {wanted}"
            problems.append(f"{purpose}: {names}; install with: {command}")
    return {
        "minst": minst.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        **_torch(),
        "clips": sample_names(),
        "weights": weights_names(),
        "packages": packages,
        "problems": problems,
    }


def report(found: dict) -> str:
    """The table that `minst env` prints of what `environment()` found."""
    no = "no (wheels of torch 2.12 have it: the extra 'lite'; only `--format lite` needs it)"
    lines = {
        "minst": found["minst"],
        "python": f"{found['python']} ({found['platform']})",
        "cpu": f"{found['cpu']}, {found['cores']} cores, {found['threads']} threads for torch",
        "accelerator": found["accelerator"],
        "XNNPACK": {True: "yes", False: no}.get(found["xnnpack"], "unknown"),
        "clips": ", ".join(found["clips"]) or "none",
        "weights": ", ".join(found["weights"]) or "none",
    }
    rows = list(lines.items())
    for row in found["packages"]:
        wanted = f"{row['wanted']}, extra '{row['extra']}'" if row["extra"] else row["wanted"]
        state = f"{row['installed'] or '-':12} {row['state']:8}"
        rows.append((row["name"], f"{state}   (wanted {wanted})"))
    text = [f"{name:22}{value}" for name, value in rows]
    return "\n".join([*text, "", *(found["problems"] or ["nothing is missing"])])


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets ">=a,<b"; suffixes ("+cpu", ".dev1") do not count."""
    return SpecifierSet(wanted).contains(Version(version).base_version)


def installed(name: str) -> str | None:
    """The version of a package, None where it is missing."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)


def _row(needed: Requirement, extra: str) -> dict:
    name, wanted = needed.name, str(needed.specifier)
    version = installed(name)
    if needed.marker and not needed.marker.evaluate({"extra": extra}):
        state = f"not for Python {platform.python_version()}"
    elif version is None:
        state = "missing"
    else:
        state = "ok" if satisfies(version, wanted) else "another version"
    return {"name": name, "installed": version, "wanted": wanted, "extra": extra, "state": state}


def _torch() -> dict:
    try:
        torch = importlib.import_module("torch")
    except Exception:  # noqa: BLE001  missing, or broken, which raises what it likes
        return {"threads": "?", "xnnpack": None, "accelerator": "unknown: torch does not load"}
    accelerator = "mps" if torch.backends.mps.is_available() else "none"
    if torch.cuda.is_available():
        accelerator = f"cuda, {torch.cuda.get_device_name(0)}"
    xnnpack = torch._C._is_xnnpack_enabled()
    return {"threads": torch.get_num_threads(), "xnnpack": xnnpack, "accelerator": accelerator}


def _cpu() -> str:
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
        return done.stdout.strip()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        if model := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return model[1]
    return platform.processor() or platform.machine()
