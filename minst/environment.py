"""What this machine offers minst: `environment()` measures, `report()` says it (`minst env`).

    pins of pyproject.toml (clone) or of the metadata (wheel)
      --compare with what is installed-->  problems, each with one command

Nothing here fails where a package is missing or broken: to say so is the purpose.

Lesson: notebooks/00_start_here.ipynb
"""

from __future__ import annotations

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

__all__ = ["environment", "report", "requirements", "satisfies"]


def requirements() -> dict[str, tuple[str, str]]:
    """{package: (versions wanted, such as "<2.13,>=2.12", extra or "" for minst itself)}."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():  # a clone: newer than the metadata of its last installation
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
        lines = [f"{line}; extra == '{extra}'" for extra in groups for line in groups[extra]]
    else:
        lines = importlib.metadata.requires("mobileinst") or []
    found = {}
    # what minst itself needs comes first, so that it has the last word
    for line in reversed(lines):
        needed = Requirement(line)
        extra = re.search(r"extra == \"(.*?)\"", str(needed.marker or ""))
        found[needed.name] = (str(needed.specifier), extra[1] if extra else "")
    found.pop("mobileinst", None)  # an extra may name it, for its other extras
    return found


def environment() -> dict:
    """Versions, processor, XNNPACK, what ships, and `problems` with the commands that mend them."""
    packages = {}
    wanted_by_extra = sorted(requirements().items(), key=lambda item: (item[1][1], item[0]))
    for name, (wanted, extra) in wanted_by_extra:
        installed = _installed(name)
        ok = installed is not None and satisfies(installed, wanted)
        packages[name] = {"installed": installed, "wanted": wanted, "extra": extra, "ok": ok}
    return {
        "minst": minst.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        **_torch(),
        **_shipped(),
        "packages": packages,
        "problems": _problems(packages),
    }


def report(found: dict) -> str:
    """The table that `minst env` prints of what `environment()` found."""
    no = "no (PyTorch's mobile optimiser will not run; wheels of torch 2.12 have it)"
    threads = f"{found['threads'] or '?'} threads for torch"
    lines = [
        ("minst", found["minst"]),
        ("python", f"{found['python']} ({found['platform']})"),
        ("cpu", f"{found['cpu']}, {found['cores']} cores, {threads}"),
        ("accelerator", found["accelerator"]),
        ("XNNPACK", {True: "yes", False: no, None: "unknown"}[found["xnnpack"]]),
        ("clips", ", ".join(found["clips"]) or "none"),
        ("weights", ", ".join(found["weights"]) or "none"),
    ]
    for name, package in found["packages"].items():
        extra = f", extra '{package['extra']}'" if package["extra"] else ""
        state = f"{package['installed'] or 'missing':12} {'ok' if package['ok'] else '--'}"
        lines.append((name, f"{state}   (wanted {package['wanted']}{extra})"))
    text = [f"{name:14}{value}" for name, value in lines]
    return "\n".join([*text, "", *(found["problems"] or ["nothing is missing"])])


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets ">=a,<b"; suffixes ("+cpu", ".dev1") do not count."""
    return SpecifierSet(wanted).contains(Version(version).base_version)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problems(packages: dict) -> list[str]:
    """What lacks for minst and for each extra, a line each, with the command that installs it."""
    lacking: dict[str, list[str]] = {}
    for name, package in packages.items():
        if not package["ok"]:
            lacking.setdefault(package["extra"], []).append(name)
    lines = []
    for extra, names in sorted(lacking.items()):
        purpose = f"for the extra {extra!r}" if extra else "needed"
        wanted = " ".join(f'"{name}{packages[name]["wanted"]}"' for name in names)
        command = f"{sys.executable} -m pip install {wanted}"
        lines.append(f"{purpose}: {', '.join(names)}; install with: {command}")
    return lines


def _torch() -> dict:
    try:
        torch = importlib.import_module("torch")
    except Exception:  # missing, or a broken installation, which raises what it likes
        return {"threads": None, "xnnpack": None, "accelerator": "unknown: torch does not load"}
    accelerator = "none"
    if torch.cuda.is_available():
        accelerator = f"cuda, {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        accelerator = "mps"
    try:
        xnnpack = bool(importlib.import_module("torch.backends.xnnpack").enabled)
    except (ImportError, AttributeError, RuntimeError):  # a torch that was built without
        xnnpack = False
    return {"threads": torch.get_num_threads(), "xnnpack": xnnpack, "accelerator": accelerator}


def _shipped() -> dict:
    from minst.samples import sample_names, weights_names

    found = {}
    for key, names in (("clips", sample_names), ("weights", weights_names)):
        try:
            found[key] = names()
        except (ImportError, OSError, ValueError):
            found[key] = []
    return found


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        model = re.search(
            r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE
        )
        if model:
            return model[1]
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        )
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
