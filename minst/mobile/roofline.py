"""What one core can do at most, and what every layer of a frame makes of it (paper: latency).

    core_peak     large matrix products, long and short arrays
                      -> GFLOP/s, GB/s of memory and of the cache
    layer_table   one frame, layer by layer: MACs, parameters, bytes
                      -> intensity = FLOP / byte, ms, GFLOP/s, share

    no layer is faster than   min(peak, bandwidth * intensity)       the roof

One MAC is two FLOP (a product and a sum); bytes are those of inputs, weights and output, each
counted once. A layer far below its roof pays for what is no work of its own: page faults, another
order of the numbers, the call.

Assumption: FLOP count MACs only, as elsewhere (`minst.summary`): a ReLU, a sum or a resize has
    bytes and time, but intensity 0. Page faults count as time of the layer that first writes to the
    memory.

Lesson: notebooks/08_on_device_latency.ipynb
"""

import copy
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minst.mobile import timing
from minst.mobile.programs import benchmark_model, real_frames
from minst.mobile.runtime import quiet
from minst.model import MobileInst
from minst.options import Count, FrameSize, Positive, Report, check_call

__all__ = ["bench_layers", "core_peak", "describe", "layer_table", "part_times", "peak_fraction"]

PARTS = ("input", "backbone", "mask decoder", "instance decoder", "masks")
PRODUCTS = (256, 384, 512, 768)  # sides of square matrices
LONG, SHORT = 2**27, 2**18  # bytes of an array beyond any core's cache, and of one within
WARM_UP = 2
# functions of torch that work on numbers, by kind; all others (views, shapes) go to the row "other"
KINDS = {
    "conv2d": "conv",
    "linear": "linear",
    "matmul": "attention matmul",
    "softmax": "softmax",
    **dict.fromkeys(("batch_norm", "layer_norm"), "norm"),
    **dict.fromkeys(("relu", "relu6", "hardtanh"), "activation"),
    "interpolate": "resize",
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean"), "pool"),
    "cat": "concatenate",
    "pad": "pad",
    **dict.fromkeys(("add", "sub", "mul", "div"), "add, multiply"),
}


def bench_layers(
    preset: str | None = None,
    weights: str | None = None,
    size: FrameSize = (192, 256),
    rounds: Count = 15,
    json_path: Report | None = None,
    out: str | Path | None = None,
) -> dict:
    """Print the layers of a fused model, slowest first, beside the core's peak.

    Args:
        preset: a config with random weights.
        weights: in its place shipped ones (default shapes-tiny), or a folder.
        size: (H, W).
        json_path: file for what is returned. out: folder for layers.png and roofline.png.
    Returns {"model", "size", "peak", "rows"}. Raises ValueError as `layer_table`.
    """
    check_call(bench_layers, locals(), "bench")
    name, model = benchmark_model(preset, weights if preset else weights or "shapes-tiny")
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    rows, peak = layer_table(model.fuse(), size, rounds), core_peak()
    result = {"model": name, "size": list(size), "peak": peak, "rows": rows}
    _print_layers(result)
    timing.write_json(result, json_path)
    if out is not None:
        from minst.visualize import plot_layers, plot_roofline, save

        for figure, name in (
            (plot_layers(rows), "layers"),
            (plot_roofline(rows, peak), "roofline"),
        ):
            print(f"written: {save(figure, Path(out) / f'{name}.png')}")
    return result


def core_peak(seconds: Positive = 2.0) -> dict[str, float]:
    """What one thread reaches at best: {"gflop_s", "gb_s", "cache_gb_s", "mm_size"}.

    It takes about `seconds`, and each figure is the fastest of many blocks.
    gflop_s: float32 `torch.mm` of n x n matrices, 2 n^3 FLOP; the best n of `PRODUCTS`.
    gb_s: copy (b <- a, 2 arrays) and triad (c <- a + 2 b, 3 arrays) of `LONG` arrays; the better.
    cache_gb_s: of `SHORT` ones. Bytes are those that the program reads and writes. Most processors
    also read a line before they write to it, so that the memory moves up to half as much again.
    Raises ValueError unless seconds > 0.
    """
    check_call(core_peak, locals())
    with timing.fixed_setting(1), torch.inference_mode():
        size, gflop_s = _best({n: _product(n) for n in PRODUCTS}, 0.6 * seconds)
        _, gb_s = _best(_streams(LONG), 0.3 * seconds)
        _, cache_gb_s = _best(_streams(SHORT), 0.1 * seconds)
    return {"gflop_s": gflop_s, "gb_s": gb_s, "cache_gb_s": cache_gb_s, "mm_size": size}


def peak_fraction(macs: float, ms: float, peak: dict[str, float]) -> float:
    """The share of `core_peak()`'s GFLOP/s that so many MACs in so many milliseconds amount to."""
    return 2 * macs / (1e6 * ms) / peak["gflop_s"]


def layer_table(model: MobileInst, size: FrameSize, rounds: Count = 15) -> list[dict]:
    """One row for every layer and function call of a frame of `size` (H, W), in their order.

    The model is measured as it is (so fuse it first), as a copy in eval mode on one thread.
    A row: "name" (dotted, of the module that called), "kind" ("conv 1x1", "depth-wise 5x5",
    "linear", "resize", ...), "part" (of `PARTS`), "shape" of the output, "macs", "params", "bytes",
    "ms" (median), "intensity" (FLOP / byte), "gflop_s", "share" (of the frame's time, 0 to 1).

    The last row of a part, kind "other", is what lies between its layers: Python, views, giving
    memory back, and parameters that no layer takes. So macs and params add up to the model's and ms
    to the frame's: the parts' medians, from frames whose layers are not timed, in turns with those
    where they are. The clocks cost some 9 us a call, nearly all of it between the layers and so in
    no row. On a busy machine the layers may come to more than their part: "other" is then 0.
    Raises ValueError for a size or rounds out of range, or a model that is not on the CPU.
    """
    check_call(layer_table, locals())
    if model.pixel_mean.device.type != "cpu":
        where = f"the model is on {model.pixel_mean.device}"
        raise ValueError(f"layer_table: {where}; call model.cpu() first")
    frame, model = real_frames(size, 1), copy.deepcopy(model).eval()
    with timing.fixed_setting(1), torch.inference_mode():
        rows = describe(model, frame)
        layers, parts = [], []  # ms, a list for each round
        for _ in range(WARM_UP + rounds):
            with _Clock() as clock:
                model(frame)
            layers.append(clock.ms)
            parts.append(part_times(model, frame))
    for row, ms in zip(rows, zip(*layers[WARM_UP:])):
        row["ms"] = median(ms)
    whole = dict(zip(PARTS, (median(ms) for ms in zip(*parts[WARM_UP:]))))
    rows = _with_others(rows, model, whole)
    total = sum(row["ms"] for row in rows)
    for row in rows:
        flop = 2 * row["macs"]
        row["intensity"] = flop / row["bytes"] if row["bytes"] else 0.0
        row["gflop_s"] = flop / (1e6 * row["ms"]) if flop else 0.0
        row["share"] = row["ms"] / total
    return rows


def _print_layers(result: dict, most: int = 25) -> None:
    """The slowest layers and the whole frame, as a table."""
    rows, peak = result["rows"], result["peak"]
    counts = {"MACs": ("macs", ",d"), "params": ("params", ",d"), "bytes": ("bytes", ",d")}
    times = {"ms": ("ms", ".3f"), "share": ("share", ".1%"), "GFLOP/s": ("gflop_s", ".1f")}
    columns = {"kind": ("kind", "")} | counts | times
    slowest = sorted(rows, key=lambda row: -row["ms"])[:most]
    print(timing.table("layer", columns, [(row["name"], row) for row in slowest]))
    if len(rows) > most:
        print(f"... and {len(rows) - most} faster ones")
    macs, params, ms = (sum(row[key] for row in rows) for key in ("macs", "params", "ms"))
    (height, width), share = result["size"], peak_fraction(macs, ms, peak)
    print(
        f"\n{result['model']}, {width}x{height}, fused, one thread: {macs / 1e6:.0f} M MACs, "
        f"{params / 1e6:.2f} M parameters, {ms:.1f} ms\nthis core: {peak['gflop_s']:.0f} GFLOP/s, "
        f"{peak['gb_s']:.0f} GB/s; the frame reaches {share:.0%} of the first"
    )


class _Clock(TorchFunctionMode):
    """Times every function of `KINDS` that runs within it (`ms`); tells `note` of it, if any."""

    def __init__(self, note: Callable | None = None):
        super().__init__()
        self.ms, self.note = [], note

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.__name__ not in KINDS:
            return function(*args, **kwargs)
        start = time.perf_counter()
        out = function(*args, **kwargs)
        self.ms.append(1e3 * (time.perf_counter() - start))
        if self.note is not None:
            self.note(function.__name__, [*args, *kwargs.values()], out)
        return out


def describe(model: MobileInst, frame: Tensor) -> list[dict]:
    """The rows of all calls, without times."""
    rows, inside, counted = [], [""], set()

    def note(function: str, inputs: list, out: Tensor) -> None:
        flat = [t for x in inputs for t in (x if isinstance(x, (list, tuple)) else [x])]
        tensors = [t for t in flat if isinstance(t, Tensor)]
        kind, macs = _kind_and_macs(function, tensors, out)
        # outside of all modules lies what comes before the backbone and what comes last
        name = inside[-1] or ("masks" if rows and rows[-1]["part"] != "input" else "input")
        kind = "mask product" if (name, function) == ("masks", "matmul") else kind
        # the learned queries are added in several places, and are parameters once
        new = [t for t in tensors if isinstance(t, nn.Parameter) and id(t) not in counted]
        counted.update(map(id, new))
        row = {"name": name, "kind": kind, "part": name.partition(".")[0].replace("_", " ")}
        row |= {"shape": list(out.shape), "macs": macs, "params": sum(t.numel() for t in new)}
        rows.append(row | {"bytes": sum(t.nbytes for t in [*tensors, out])})

    with ExitStack() as hooks, _Clock(note):
        for name, module in model.named_modules():
            before = module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
            hooks.enter_context(before)
            hooks.enter_context(module.register_forward_hook(lambda *_: inside.pop() and None))
        model(frame)
    return rows


def _kind_and_macs(function: str, tensors: list[Tensor], out: Tensor) -> tuple[str, int]:
    """MACs = numbers put out * products summed up for each of them."""
    kind = KINDS[function]
    if kind == "conv":
        weight = tensors[1]  # (C_out, C_in / groups, k, k)
        groups = tensors[0].shape[1] // weight.shape[1]
        what = "conv" if groups == 1 else "depth-wise" if weight.shape[1] == 1 else "grouped conv"
        return f"{what} {weight.shape[2]}x{weight.shape[3]}", out.numel() * weight[0].numel()
    if function in ("linear", "matmul"):
        return kind, out.numel() * tensors[0].shape[-1]
    return kind, 0


def part_times(model: MobileInst, frame: Tensor) -> list[float]:
    """ms of each of `PARTS` in a frame whose layers are not timed."""
    laps = []

    def lap(*_) -> None:
        laps.append(time.perf_counter())

    parts = (model.backbone, model.mask_decoder, model.instance_decoder)
    with ExitStack() as hooks:
        for part in parts:
            hooks.enter_context(part.register_forward_pre_hook(lap))
        hooks.enter_context(model.instance_decoder.register_forward_hook(lap))
        lap()
        model(frame)
        lap()
    return [1e3 * (end - start) for start, end in pairwise(laps)]


def _with_others(rows: list[dict], model: MobileInst, whole: dict[str, float]) -> list[dict]:
    """At the end of each part the row of what its layers leave of its time and its parameters."""
    table = []
    for part in PARTS:
        own, name = [row for row in rows if row["part"] == part], part.replace(" ", "_")
        module = getattr(model, name, None)
        params = sum(p.numel() for p in module.parameters()) if isinstance(module, nn.Module) else 0
        rest = {"name": name, "kind": "other", "part": part, "shape": [], "macs": 0, "bytes": 0}
        rest["params"] = params - sum(row["params"] for row in own)
        rest["ms"] = max(whole[part] - sum(row["ms"] for row in own), 0.0)
        table += [*own, rest]
    return table


def _best(jobs: dict[int, tuple[float, Callable]], seconds: float) -> tuple[int, float]:
    """Time jobs, each for its share of the seconds: (name of the best, its 1e9 work a second).

    jobs: name -> (work, function). What counts is the fastest of many blocks of calls.
    """
    with quiet():  # it warns where a CUDA compiler stands without a GPU
        from torch.utils.benchmark import Timer
    rates = {}
    for name, (work, job) in jobs.items():
        timer = Timer("job()", globals={"job": job})
        blocks = timer.blocked_autorange(min_run_time=seconds / len(jobs))
        rates[name] = 1e-9 * work / min(blocks.times)
    return max(rates.items(), key=lambda item: item[1])


def _product(n: int) -> tuple[float, Callable]:
    """A product of n x n matrices: 2 n^3 FLOP."""
    a, b, out = torch.rand(n, n), torch.rand(n, n), torch.empty(n, n)
    return 2 * n**3, partial(torch.mm, a, b, out=out)


def _streams(size: int) -> dict[int, tuple[float, Callable]]:
    """Copy and triad of arrays of so many bytes, by the number of arrays that they touch."""
    a, b, c = (torch.ones(size // 4) for _ in range(3))
    triad = partial(torch.add, a, b, alpha=2, out=c)
    return {2: (2 * size, partial(b.copy_, a)), 3: (3 * size, triad)}
