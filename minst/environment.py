"""What this machine offers minst: `environment()` measures, `report()` says it in words (`minst env`).

    pins of pyproject.toml (clone) or of the metadata (wheel) --compare with what is installed--> problems + one command

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

import minst

__all__ = ["environment", "report", "requirements"]


def requirements() -> dict[str, tuple[str, str]]:
    """{package: (versions wanted, such as ">=2.12,<2.13", extra: "" for minst itself or "test", ...)}."""
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if pyproject.is_file():  # a clone: newer than the metadata of its last installation
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project.get("optional-dependencies", {})}
        lines = [f"{text}; extra == '{extra}'" for extra, texts in groups.items() for text in texts]
    else:
        lines = importlib.metadata.requires("minst") or []
    form = re.compile(r"([\w.-]+)\s*(?:\[.*?\])?\s*\(?([^;)]*)\)?(?:.*extra\s*==\s*['\"](.*?)['\"])?")
    found = [form.match(line).groups() for line in lines]
    # an extra may name minst itself, for its other extras
    return {name: (wanted.replace(" ", ""), extra or "") for name, wanted, extra in reversed(found) if name != "minst"}


def environment() -> dict:
    """Versions, processor, threads, XNNPACK, shipped files, and `problems`, each with the command that mends it."""
    packages = {
        name: {"installed": _installed(name), "wanted": wanted, "extra": extra}
        for name, (wanted, extra) in sorted(requirements().items(), key=lambda item: (item[1][1], item[0]))
    }
    for package in packages.values():
        package["ok"] = package["installed"] is not None and satisfies(package["installed"], package["wanted"])
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
    lines = [
        ("minst", found["minst"]),
        ("python", f"{found['python']} ({found['platform']})"),
        ("cpu", f"{found['cpu']}, {found['cores']} cores, {found['threads'] or '?'} threads for torch"),
        ("accelerator", found["accelerator"]),
        ("XNNPACK", {True: "yes", False: no, None: "unknown"}[found["xnnpack"]]),
        ("clips", ", ".join(found["clips"]) or "none"),
        ("weights", ", ".join(found["weights"]) or "none"),
    ]
    for name, package in found["packages"].items():
        extra = f", extra '{package['extra']}'" if package["extra"] else ""
        state = package["installed"] or "missing"
        lines.append((name, f"{state:12} {'ok' if package['ok'] else '--'}   (wanted {package['wanted']}{extra})"))
    text = [f"{name:14}{value}" for name, value in lines]
    return "\n".join([*text, "", *(found["problems"] or ["nothing is missing"])])


def satisfies(version: str, wanted: str) -> bool:
    """Whether a version meets ">=a,<b"; local and development suffixes ("+cpu", ".dev1") do not count."""
    have, meets = _numbers(version), {">=": tuple.__ge__, "<": tuple.__lt__, "==": tuple.__eq__, "!=": tuple.__ne__}
    conditions = [re.match(r"([<>=!~]+)(.*)", condition).groups() for condition in wanted.split(",") if condition]
    return all(meets[sign](have, _numbers(bound)) for sign, bound in conditions)


def _numbers(version: str) -> tuple[int, ...]:
    digits = [int(n) for n in re.match(r"\d+(?:\.\d+)*", version)[0].split(".")]
    return tuple(digits + [0] * (4 - len(digits)))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problems(packages: dict) -> list[str]:
    """What lacks for minst itself and for each extra, a line each, with the command that installs it."""
    lines = []
    for extra in sorted({package["extra"] for package in packages.values()}):
        bad = [name for name, package in packages.items() if package["extra"] == extra and not package["ok"]]
        command = " ".join([sys.executable, "-m pip install", *(f'"{name}{packages[name]["wanted"]}"' for name in bad)])
        if bad:
            purpose = f"for the extra {extra!r}" if extra else "needed"
            lines.append(f"{purpose}: {', '.join(bad)}; install with: {command}")
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
        model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        if model:
            return model[1]
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return asked.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
