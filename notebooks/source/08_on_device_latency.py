# %% [markdown]
# # 08 · On-device latency
#
# **How long does a frame take on one core, and what must be said beside that number so that it means something?**

# %% [markdown]
# ## You will be able to …
#
# - find what makes a benchmark lie, and write a fair one (exercise 1)
# - count the MACs and the bytes of a convolution by hand (exercise 2)
# - turn a network into a file for a phone, and prove that it computes the same (exercise 3)
# - read the log of the mobile benchmarker (exercise 4)
# - say how certain a speed-up is, also on a busy machine (exercise 5)
#
# You need lesson 07 and minst's extras `mobile` and `lite`. Where one is missing, a line says what is skipped, and the lesson goes on.
# It also goes on with our answers until yours are correct.

# %% tags=["setup"]
import copy, tempfile, time
from collections.abc import Callable
from pathlib import Path
from statistics import median
import numpy as np
import torch
from torch.jit.mobile import _load_for_lite_interpreter
from torch.utils.mobile_optimizer import optimize_for_mobile
import minst
from minst import visualize
from minst.course import lesson08 as check
from minst.mobile import export, lite, logs, programs, rivals, roofline, runtime, timing

# %% [markdown]
# ## The map

# %%
torch.set_grad_enabled(False)
torch.set_num_threads(1)  # one core, as in the paper
tiny = programs.settled_model("topformer-tiny").fuse()  # random weights: they take as long as trained ones
visualize.plot_pipeline(tiny, size=(640, 640))

# %% [markdown]
# **What it shows.** Today every block is timed. To save your time, we measure at 320 x 320 and below, not at the paper's 640 x 640. A
# phone runs two *programs*:
#
# | program | takes | gives |
# |---|---|---|
# | key program | a frame | classes, objectness, kernels, mask feature, mask logits |
# | reuse program | a frame, the kernels of the last key frame | mask logits |
#
# Scores, association, upsampling and drawing are outside of both, and not in our times.
#
# ## See the problem
#
# *Latency* is the time from a frame to its answer. We time the same frame again and again, with one thread and with two.

# %%
frame = programs.real_frames((320, 320), 1)  # (1, 3, 320, 320)


def frame_times(threads: int) -> list[float]:
    """ms of 40 runs of the same frame, the first one included; fewer where 4 seconds are over."""
    torch.set_num_threads(threads)
    ms = []
    while len(ms) < 40 and sum(ms) < 4000:
        ms.append(timing.milliseconds(tiny, frame))
    torch.set_num_threads(1)
    return ms


runs = {"1 thread": frame_times(1), "2 threads": frame_times(2)}
fastest, slowest = min(map(min, runs.values())), max(map(max, runs.values()))
check.plot_runs(
    runs, {f"median, {name}": median(ms) for name, ms in runs.items()},
    f"One model, one machine: anything from {fastest:.0f} to {slowest:.0f} ms",
    "Each point is a run, in the order in which they ran. Logarithmic.",
)

# %% [markdown]
# **What it shows.** The fastest and the slowest run differ by more than most improvements that papers report. This belongs beside a
# latency:
#
# | what | why |
# |---|---|
# | warm-up | the first runs find memory and lay out weights |
# | median and p95 | the *median* is the usual frame; 95 % of all frames stay below the *p95*, which users notice |
# | threads, which core | two threads are not twice as fast, and a phone's cores differ |
# | governor, heat | a phone raises its clock slowly and lowers it when it is warm |
# | before and after | are decoding, upsampling and drawing in it? |
# | model, size, runtime, versions | otherwise nobody can repeat it |
#
# ## Predict
#
# A depth-wise 3 x 3 convolution of 64 channels needs 64 times fewer products than a plain one. How many times faster is it?
#
# <details><summary>Answer, after you have thought</summary>
#
# Some 4 to 20 times on most machines. It reads and writes the same maps and does hardly anything with them. Step 1 measures it.
#
# </details>
#
# ## Step 1: how do you measure without fooling yourself?
#
# ### Exercise 1 (break it): a benchmark that lies
#
# This function has five faults. Write a fair one.
#
# ```python
# def lying_times(jobs, clock, warmup, rounds):
#     times = {}
#     for name, (prepare, run) in jobs.items():
#         start = clock()
#         for _ in range(warmup + rounds):
#             run(prepare())
#         times[name] = (clock() - start) / (warmup + rounds)
#     return times
# ```
#
# In the check's pretended world first runs are cold, some are disturbed, and the machine slows down as it warms up.


# %% tags=["exercise"]
def fair_times(jobs: dict, clock: Callable, warmup: int, rounds: int) -> dict[str, float]:
    """{name: median ms of run} of `rounds` rounds, after `warmup` that do not count; the jobs take turns.

    jobs: {name: (prepare, run)}; run(prepare()) is one frame, of which only run is to be timed.
    clock(): seconds.
    """
    # solution
    times = {name: [] for name in jobs}
    for _ in range(warmup + rounds):
        for name, (prepare, run) in jobs.items():
            given = prepare()
            start = clock()
            run(given)
            times[name].append(1e3 * (clock() - start))
    return {name: median(ms[warmup:]) for name, ms in times.items()}


# %%
check.fair_times(fair_times)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Think of warm-up, preparation, turns, median and unit. Put the rounds outside first.
#
# </details>
#
# Your function now measures the prediction.

# %%
fair_times = check.fair_times(fair_times).or_ours  # yours, if it is correct
maps = torch.rand(1, 64, 40, 40)
layers = {
    "plain 3 x 3": torch.nn.Conv2d(64, 64, 3, padding=1),
    "plain 1 x 1": torch.nn.Conv2d(64, 64, 1),
    "depth-wise 3 x 3": torch.nn.Conv2d(64, 64, 3, padding=1, groups=64),
}
ms = fair_times({name: (lambda: maps, layer) for name, layer in layers.items()}, time.perf_counter, 20, 100)
faster = ms["plain 3 x 3"] / ms["depth-wise 3 x 3"]
check.plot_bars(
    {name: {"ms": value} for name, value in ms.items()}, {name: f"{value:.2f} ms" for name, value in ms.items()},
    f"64 times fewer products, but only {faster:.0f} times faster",
    "Three convolutions from 64 to 64 channels on a map of 40 x 40. Medians of 100 runs in turns.",
)

# %% [markdown]
# **What it shows.** Products alone do not explain the time. What does?
#
# ## Step 2: what does a layer cost?
#
# A *MAC* is one product and one sum, so it is two FLOP. A convolution needs one MAC for every place of its output, every output
# channel, and every weight that this channel has. With `groups` g it sees only C_in / g channels; depth-wise means g = C_in.
#
# $$\text{MACs} = H_{out} W_{out} \cdot C_{out} \cdot \frac{C_{in}}{g} \cdot k^2$$
#
# A core does two things at once: it multiplies, at so many GFLOP/s at best, and it fetches bytes, at so many GB/s. The slower of the
# two limits a layer:
#
# $$\text{time} \ge \max\left(\frac{\text{FLOP}}{\text{peak}},\; \frac{\text{bytes}}{\text{bandwidth}}\right)$$
#
# ### Exercise 2 (recall): what a convolution costs


# %% tags=["exercise"]
def conv_cost(
    height: int, width: int, c_in: int, c_out: int, kernel: int, stride: int, groups: int
) -> tuple[int, int]:
    """MACs and bytes of a convolution without bias on an input (1, c_in, height, width), float32.

    The padding is such that the output is (1, c_out, height / stride, width / stride); both divide. Bytes: of input,
    weights and output, each counted once.
    """
    # solution
    places = (height // stride) * (width // stride)
    weights = c_out * (c_in // groups) * kernel**2
    return places * weights, 4 * (c_in * height * width + weights + c_out * places)


# %%
check.conv_cost(conv_cost)

# %% [markdown]
# <details><summary>Hint</summary>
#
# How many weights are there? How often is each of them used?
#
# </details>
#
# Your function now counts every convolution of the network.

# %%
conv_cost = check.conv_cost(conv_cost).or_ours
rows = roofline.layer_table(tiny, (320, 320), rounds=5)  # every layer of a frame: MACs, bytes, time
convolutions = [row for row in rows if "conv" in row["kind"] or "depth-wise" in row["kind"]]
for row, shape in zip(convolutions, check.convolutions(tiny, (320, 320)), strict=True):
    row["macs"], size = conv_cost(*shape)
    row["intensity"] = 2 * row["macs"] / size  # FLOP per byte
total = minst.summary(tiny, (320, 320))["total"]["macs"]
print(f"{sum(row['macs'] for row in rows) / 1e6:.1f} million MACs, as minst says: {total / 1e6:.1f}")

# %%
visualize.plot_layers(rows)

# %% [markdown]
# **What it shows.** Time (downwards) does not follow your MACs (upwards). Much of the frame goes to what has next to no MACs: depth-wise
# convolutions, resizing, sums, the time *between* layers.

# %%
peak = roofline.core_peak(2.0)  # large matrix products, long and short arrays; the best of many
visualize.plot_roofline(rows, peak)

# %% [markdown]
# **What it shows.** Each point is a layer at its *arithmetic intensity*, its FLOP per byte, from your function. The lines are the roofs
# of this core: a slope where memory limits, and flat where multiplying does. Plain 3 x 3 convolutions stand under the flat roof.
# Depth-wise ones stand where the roof is low, and many lie far below it, because they are too small to fill the core. Points above a
# line found their numbers in the cache. So a frame gets faster by fewer MACs, fewer bytes, or fewer calls. Runtimes work on the
# last two.
#
# ## Step 3: from a network to a file
#
# A phone has no Python. The programs become files for a small *runtime*:
#
# | format | file | runtime |
# |---|---|---|
# | lite | .ptl | PyTorch Mobile's lite interpreter, no longer developed |
# | executorch | .pte | ExecuTorch, its successor, which hands whole parts of the graph to a *delegate* |
# | onnx | .onnx | ONNX Runtime, for phones, desktops and browsers |
#
# The paper does not say which of them it used. *Tracing* runs the network once and records each operation as a *node* of a graph.
# *XNNPACK* is Google's library of convolutions and the like for CPUs of phones. The first two formats run on it. *NHWC*, or
# channels-last, means that the channels of one pixel lie side by side in memory. XNNPACK wants this order, while PyTorch's
# default is NCHW.
#
# `optimize_for_mobile` makes several *rewrites* of the graph. It folds batch norms into convolutions, lays weights out for XNNPACK
# once (*prepacking*), and joins ReLUs to the layer before them.
#
# ### Exercise 3 (code): trace, optimise, save, load, compare


# %% tags=["exercise"]
def save_for_phone(module: torch.nn.Module, example: torch.Tensor, path: str) -> float:
    """Write `module`, traced with `example` and optimised, to `path` for the lite interpreter, and load the file again.

    module: in eval mode, of one input and one output. Returns the largest absolute difference between what the loaded
    file and the module give for `example`.
    """
    # solution
    traced = torch.jit.trace(module, example)
    optimized = optimize_for_mobile(traced)
    optimized._save_for_lite_interpreter(path)
    loaded = _load_for_lite_interpreter(path)
    difference = loaded(example) - module(example)
    return difference.abs().max().item()


# %%
check.save_for_phone(save_for_phone)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Call `torch.jit.trace(module, example)`, then `optimize_for_mobile(traced)`, which returns a new module, then that module's method
# `_save_for_lite_interpreter(path)`, then `_load_for_lite_interpreter(path)`.
#
# </details>
#
# Your function writes three files: of the network as it is, with its norms folded by `fuse()`, and with a frame that is turned to NHWC
# as well.

# %%
class MaskLogits(torch.nn.Module):
    """A frame (1, 3, H, W) -> M (1, N, h, w): one input and one output are enough here."""

    outputs = ("mask_logits",)

    def __init__(self, model: minst.MobileInst):
        super().__init__()
        self.model = model

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        return self.model(frame).mask_logits


model = minst.MobileInst.from_pretrained("shapes-tiny")
plain, folded = MaskLogits(model), MaskLogits(copy.deepcopy(model).fuse())  # fuse() folds the norms
small, folder = programs.real_frames((192, 192), 1), Path(tempfile.mkdtemp())

# %%
save_for_phone = check.save_for_phone(save_for_phone).or_ours  # None where this torch has no XNNPACK
turned = export.channels_last_frame(programs.Program("key", folded, [{"frame": small}])).module
apart, jobs = {}, {"eager": (lambda: small, plain)}
if save_for_phone is None:
    print("No .ptl here: this torch has no XNNPACK. python -m pip install 'mobileinst[lite]' brings one that has.")
else:
    for name, module in {"as it is": plain, "norms folded": folded, "folded, NHWC": turned}.items():
        with runtime.quiet():  # tracing warns of every shape that it makes constant
            apart[name] = save_for_phone(module, small, str(folder / f"{name}.ptl"))
        jobs[name] = (lambda: small, _load_for_lite_interpreter(str(folder / f"{name}.ptl")))
    print({name: f"{value:.0e}" for name, value in apart.items()})
ms, wrong = fair_times(jobs, time.perf_counter, 3, 9), {name for name, value in apart.items() if value > 1e-3}
words = {name: f"{value:.0f} ms" + f", off by {apart.get(name, 0):.1f}" * (name in wrong) for name, value in ms.items()}
check.plot_bars(
    {name: {"ms": value} for name, value in ms.items()}, words,
    f"{len(wrong)} of {len(apart)} files computes something else" if apart else "Eager PyTorch alone: no .ptl here",
    "A key frame of shapes-tiny, 192 x 192, one thread, medians in turns. Red: another result.", wrong,
)

# %% [markdown]
# **What it shows.** The first file runs without any message, and its mask logits are wrong. One rewrite, CONV_BN_FUSION, loses a bias when a
# convolution has none of its own (pytorch issue 76807). After `fuse()` it finds nothing to do, and the difference is rounding. So
# compare outputs after *every* export. This is called *parity*.
#
# `minst export` leaves that rewrite out, folds the norms, turns the frame, and keeps a file only if its outputs on real frames are
# within 1e-4 of PyTorch's, relative to the largest. Equal *answers* are the point, so the tracker then runs on the files.

# %%
eager, exported, formats = programs.make_programs(model, (192, 192)), folder / "programs", []
for format in ("lite", "onnx", "executorch"):
    try:
        runtime.require(format)
    except ImportError as error:  # one line that says what to install
        print(error)
        continue
    part = "reuse" if format == "executorch" else "full"  # ExecuTorch takes some 15 seconds per program
    for path in export.export("shapes-tiny", format, exported, (192, 192), part):
        worst = max(export.parity(path, next(p for p in eager if p.name == path.stem)).values())
        print(f"{path.name:13} {path.stat().st_size / 1e6:.1f} MB, parity {worst:.0e}")
    formats.append(format)

# %% tags=["nbval-check-output"]
clip = [image[:, 32:224] for image in minst.load_sample("easy")]  # a program has one size: squares


def identities(network, frames) -> list[list[int]]:
    """The identities of every frame."""
    tracker = minst.KernelTracker(network, reuse_interval=3, association="mask")
    return [tracker.step(image).ids for image in frames]


ours, pairs = identities(model, clip), [format for format in formats if format != "executorch"]
same = all(identities(runtime.ExportedModel(exported, format), clip) == ours for format in pairs)
print(f"same identities in all {len(clip)} frames, in every format that has both programs: {same}")

if "onnx" in formats:  # photos-tiny, the weights for your own film, goes the same way
    cat = list(minst.load_sample("chelsea"))
    export.export("photos-tiny", "onnx", folder / "photos", cat[0].shape[:2])
    networks = minst.MobileInst.from_pretrained("photos-tiny"), runtime.ExportedModel(folder / "photos", "onnx")
    same = identities(networks[0], cat) == identities(networks[1], cat)
    print(f"photos-tiny, as a file: same identities in all {len(cat)} frames of a cat: {same}")

# %% [markdown]
# ## Step 4: the benchmarker and its log
#
# The official tool is `speed_benchmark_torch`, a C++ program that runs a .ptl many times. Ours has its flags and its log, and is compiled
# against your torch when it is first used.

# %%
try:
    found = lite.bench_lite(exported / "key.ptl", iterations=40)
except (ImportError, OSError) as error:  # no compiler, or no .ptl
    print(error, "\nThe log below is of eager PyTorch, in the same form.")
    found = {"log": check.log_of([timing.milliseconds(model, small) for _ in range(40)]), "cores": 1.0}
lines = found["log"].splitlines()
print("\n".join([*lines[:6], "…", *[line for line in lines if line.startswith("Main run f")]]))
print(f"cores: {found['cores']:.2f}")

# %% [markdown]
# The log has one `PyTorchObserver` line per run, in microseconds. At its end stands a mean, which is what people usually quote. `cores` is
# ours: CPU time divided by wall time. Near 1, one core worked undisturbed. Well below 1, others had the core meanwhile.
#
# ### Exercise 4 (code): read a log


# %% tags=["exercise"]
def read_log(text: str) -> tuple[float, float]:
    """(median, p95) in milliseconds of the runs in a log of speed_benchmark_torch with --report_pep=true.

    A line for each run, between others that do not matter, such as (in one line)
    PyTorchObserver {"type": "NET", "unit": "us", "metric": "latency", "value": "68913"}
    C++ prints a long one as "1.2e+06". p95 as by np.percentile.
    """
    # solution
    lines = [line for line in text.splitlines() if line.startswith("PyTorchObserver")]
    ms = [float(line.split('"')[-2]) / 1e3 for line in lines]
    return median(ms), float(np.percentile(ms, 95))


# %%
check.read_log(read_log)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `line.split('"')` cuts a line at its quotation marks, and the value is the last piece but one.
#
# </details>

# %%
read_log = check.read_log(read_log).or_ours
middle, p95 = read_log(found["log"])
parsed = logs.parse_log(found["log"])  # ours, which reads ExecuTorch's log as well
check.plot_runs(
    {"a run": parsed["runs"][0]["times_ms"]},
    {"your median": middle, "your p95": p95, "the log's mean": parsed["mean_ms"]},
    f"The mean that the log ends with is {parsed['mean_ms'] / middle - 1:+.0%} from the median",
    "The 40 runs of the log, a key frame of shapes-tiny, 192 x 192.",
)

# %% [markdown]
# **What it shows.** A few slow runs pull the mean up, not the median.
#
# Now your `fair_times` compares all runtimes on a reuse frame.

# %%
inputs = tuple(eager[1].inputs.values())  # a frame, the kernels of the frame before it
fused = programs.make_programs(folded.model, (192, 192))
reuse = {"eager": eager[1].module, "eager, norms folded": fused[1].module}
for name in formats:
    reuse[name] = runtime.load_program(exported / f"reuse{runtime.FORMATS[name].suffix}")
jobs = {name: (lambda: inputs, lambda given, run=run: run(*given)) for name, run in reuse.items()}
ms = fair_times(jobs, time.perf_counter, 3, 12)
best = min(ms, key=ms.get)
check.plot_bars(
    {name: {"ms": value} for name, value in ms.items()}, {name: f"{value:.1f} ms" for name, value in ms.items()},
    f"On this core {best} needs {ms[best] / ms['eager']:.0%} of eager's time", "A reuse frame, 192 x 192, one thread.",
)

# %% [markdown]
# **What it shows.** The same arithmetic takes different times. A good runtime joins layers, plans their memory, and calls no Python. On a
# phone the order may be another one. `minst bench mobile` measures key frames, first runs, loading and page faults, too.
#
# ## Step 5: how much faster, and is that certain?
#
# > **Efficient Tracking with Kernel Reuse** (paper): frames between key frames skip the instance decoder.
#
# What is the decoder's share s of a key frame? A key frame minus a reuse frame, divided by the key frame. On a busy laptop a trial of
# this lesson gave -2 %, 33 % and -21 %. Two things help. First, *pair*: divide within each round, where both frames met the same machine. Second,
# give an *interval*. Each of n shares lies below the true median or above it, as coins fall. So with at least 95 % the true median
# lies between the k-th smallest and the k-th largest share. Here k is 1 for 6 rounds, 3 for 12, and 6 for 20.
#
# ### Exercise 5 (extend): a share with its interval


# %% tags=["exercise"]
def paired_share(part: list[float], whole: list[float], k: int) -> tuple[float, float, float]:
    """(median, low, high) of the shares part / whole of single rounds.

    part, whole: ms, the same round at the same place. low: the k-th smallest share. high: the k-th largest.
    """
    # solution
    shares = sorted(p / w for p, w in zip(part, whole))
    return median(shares), shares[k - 1], shares[-k]


# %%
check.paired_share(paired_share)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `zip(part, whole)` makes the pairs. Divide first, and sort afterwards.
#
# </details>
#
# If the interval is wider than the share itself, the honest answer is "cannot be measured here".

# %%
paired_share = check.paired_share(paired_share).or_ours
key = {"eager": eager[0].module}
for name in pairs:
    key[name] = runtime.load_program(exported / f"key{runtime.FORMATS[name].suffix}")
times = {name: [] for name in key}
for name in timing.turns(list(key), 2 + 12):  # two rounds to warm up
    lap = timing.milliseconds(key[name], small), timing.milliseconds(reuse[name], *inputs)
    times[name].append(lap)
for name, laps in times.items():
    whole, other = np.array(laps[2:]).T
    share = dict(zip(("median", "low", "high"), paired_share(whole - other, whole, k=3)))
    print(f"shapes-tiny, {name}: {timing.said(share)}")
parts = np.array([roofline.part_times(tiny, frame) for _ in range(14)])[2:]  # of one and the same frame
share = dict(zip(("median", "low", "high"), paired_share(parts[:, 3], parts.sum(1), k=3)))
print(f"topformer-tiny at 320 x 320, within each frame: {timing.said(share)}")

# %% [markdown]
# The last line compares parts of one and the same frame. If a key frame takes 1 and the decoder s of it, the mean frame takes
# 1 - s + s / T. Even as T grows, it stays above 1 - s. This is *Amdahl's law*.

# %%
visualize.interact(check.saving, decoder_share=((0.0, 0.6, 0.01), 0.04), reuse_interval=((1, 12, 1), 3))

# %%
check.saving(0.3, 3)

# %% [markdown]
# **What it shows.** If the decoder were 30 % of a frame, T = 3 would save a fifth, and no T more than 30 %. Move the slider to *your* share.
# The curve is nearly flat, because a decoder of two stages leaves little to save.
#
# ### Half the latency, of whom?
#
# MobileInst is said to need half the latency of the best before it. Our sources do not name that one. We take SparseInst with ResNet-50
# (arXiv 2203.12827), whose losses MobileInst follows. `minst.mobile.rivals` describes it anew: pyramid pooling, FPN, and two
# branches of four 3 x 3 convolutions at 1/8. Both models have random weights, and run in turns.

# %%
found = rivals.bench_rivals("topformer-base", (320, 320), rounds=9)
check.plot_bars(
    {name: row["ms"] for name, row in found["rows"].items()},
    {name: f"{row['median_ms']:.0f} ms" for name, row in found["rows"].items()},
    f"MobileInst's share of the rival's time: {timing.said(found['ratio'])}",
    "topformer-base and SparseInst with ResNet-50, 320 x 320, one thread, eager PyTorch; 9 rounds.",
)

# %% [markdown]
# **What it shows.** Each bar is a frame, cut into its parts; the interval is that of exercise 5. Here the claim holds by more than the
# paper says. About half of the gain lies in the backbone, the rest at 1/8, where the rival has eight wide 3 x 3 convolutions.
# `weights_mb` and `layer_mb` are the memory of the weights and of the layer that touches most. All this is our description, this core, eager
# PyTorch, and nothing of accuracy. `minst bench rivals` takes other sizes.
#
# ## On a phone
#
# **The browser first.** `minst bench web --host 0.0.0.0` serves a page in your own network and shows its address as a QR code. The phone's
# browser runs the two ONNX programs, draws the masks, and times them. Nothing is uploaded. The phone fetches 13 MB from the internet,
# unless you give `--assets`. These are a browser's times, not an app's.
#
# **Then adb.** The *Android Debug Bridge* is a program on your computer that copies files to a phone over USB and runs commands there,
# without root. `minst bench phone phone/key.ptl --adb --binary …` binds the benchmarker to the fastest core, runs three rounds with
# pauses, and writes governor and temperature down, since without root nobody can fix them. `--dry-run` prints every command.
#
# Nobody offers the benchmarker for download. [PHONE.md](PHONE.md) begins at "what is adb" and has the recipe that builds it: steps,
# versions, disk, time, sources, and what we could not try. It also has a **route without a build**: ONNX Runtime in Termux.
#
# ## Paper against ours
#
# > **Abstract, Introduction, Tab 1** (paper): half the latency of the best before it, on one CPU core of a phone, without quantisation
# > and without mixed precision.
#
# | paper's figure | what was measured |
# |---|---|
# | 176 ms (172 in the introduction) | version 1, COCO, one core of a Snapdragon 778G |
# | 158 ms | version 1, YouTube-VIS 2019, the same core |
# | 433 ms | version 2 (AAAI), COCO |
#
# - **We have measured no phone.** Our milliseconds and the paper's are not comparable: chip, runtime, size and implementation differ.
#   The paper's own two versions differ by a factor of more than two.
# - As in the paper: 32-bit floats, one thread. (8-bit ONNX cost 0.9 AP: `tests/benchmarks/variants_accuracy.py`.)
# - `Assumption:` the paper's latency is the network's alone.
# - `Deviation:` we fold batch norms ourselves, since the optimiser's rewrite loses a bias.
# - PyTorch Mobile is at its end. From torch 2.13 on, wheels have no XNNPACK. A new project takes ExecuTorch.
#
# ## Summary
#
# - A latency is a number with a list beside it, and a speed-up is a ratio with an interval.
# - MACs predict the time of large plain convolutions. Other layers cost bytes and calls.
# - An export counts when its outputs equal PyTorch's. Reuse saves at most the share of what it skips.
#
# **Quiz.** (1) A layer does 1 FLOP per byte, and the core reaches 100 GFLOP/s and 10 GB/s. What does the layer reach? (2) Why is the
# median of all frames at T = 3 the wrong figure?
#
# <details><summary>Answers</summary>
#
# (1) At most 10 GFLOP/s, unless its data lie in the cache. (2) Two of three frames are reuse frames, and the median is one of them.
#
# </details>
#
# **An open question**, which no cell answers. A colleague times the same .ptl on the same phone. In the morning the median is 120 ms, in the
# afternoon 190 ms. Name three possible causes. For each, say what in the logs or records of `minst bench phone` would look
# different, and which single measurement would tell it from the other two.
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · T. Cheng et al., *SparseInst*, CVPR 2022, arXiv 2203.12827 ·
# S. Williams, A. Waterman, D. Patterson, *Roofline*, CACM 2009 · G. Amdahl, AFIPS 1967.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 45 minutes: 5 for *See the problem* (ask why the points differ before you show the table), 8 for each of steps 1 to 3, 6 for step 4, 10 for
# step 5. Short of time: skip step 4. Bring a phone and run `minst bench web`. Common mistakes: one job after the other; groups
# forgotten; the optimised module never saved; times sorted before they are paired.
#
# *Open question, rubric.* One point per cause with its trace, of: heat (warmer at the start, times rise from round to round), another or a
# busy core (the mask in the command; p95 far above the median), governor or power saving (its name in the record; all rounds slow
# alike). One point for a decisive test, such as the same core again after half an hour of rest.
#
# </details>
