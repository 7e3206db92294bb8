# %% [markdown]
# # 08 · On-device latency
#
# **How long does a frame take on one core, and what must be said beside that number so that it means something?**

# %% [markdown]
# ## You will be able to …
#
# - count the MACs and the bytes of a convolution by hand (exercise 1)
# - say what kernel reuse saves, and what it can save at most (exercise 2)
# - read the log of the mobile benchmarker into a median and a p95 (exercise 3)
# - find what makes a benchmark lie, and write a fair one (exercise 4)
# - say how fast a layer can be at best on a core, and what holds it down (exercise 5)
#
# You need lesson 07: key frames run everything, the frames between them reuse kernels. It needs minst's extra `mobile`,
# and for PyTorch's lite interpreter `lite`; without that a line says so, and the lesson goes on.

# %% tags=["setup"]
import copy, shlex, tempfile, textwrap, time
from collections.abc import Callable
from pathlib import Path
from statistics import median
import numpy as np
import torch
import minst
from minst import visualize
from minst.course import lesson08 as check
from minst.mobile import benchmark, export, lite, logs, phone, programs, roofline, runtime, timing

# %% [markdown]
# ## The map

# %%
torch.set_grad_enabled(False)
torch.set_num_threads(1)  # one core, as in the paper
tiny = programs.settled_model("topformer-tiny").fuse()  # random weights: they take as long as trained ones
visualize.plot_pipeline(tiny, size=(640, 640))

# %% [markdown]
# **What it shows.** The whole network with nothing dimmed: today every block is timed. It is TopFormer-tiny at the paper's
# 640 x 640; to save your time we measure at 320 x 320, and the shipped `shapes-tiny` at 192 x 192.
#
# A device runs two *programs*, cut where kernel reuse needs it:
#
# | program | takes | gives |
# |---|---|---|
# | key program | a frame | classes, objectness, kernels, mask feature, mask logits |
# | reuse program | a frame, the kernels of the last key frame | mask logits |
#
# Normalisation and padding are inside. Score, threshold, association, upsampling and drawing are outside: what they cost
# depends on how many instances there are. A latency must say on which side of this line the clock stood.
#
# ## See the problem
#
# *Latency* is the time from a frame to its answer. We send the same frame through the network some sixty times, with one
# thread and with two, and keep every single time.

# %%
frame = programs.real_frames((320, 320), 1)  # (1, 3, 320, 320)


def frame_times(threads: int) -> np.ndarray:
    """ms of every frame, the first one included: 60 frames, fewer where 8 seconds are over."""
    torch.set_num_threads(threads)
    ms = []
    while len(ms) < 60 and sum(ms) < 8000:
        start = time.perf_counter()
        tiny(frame)
        ms.append(1e3 * (time.perf_counter() - start))
    torch.set_num_threads(1)
    return np.array(ms)


times = {threads: frame_times(threads) for threads in (1, 2)}
print("threads   first  median    mean     p95  (ms)")
for threads, ms in times.items():
    print(f"{threads:7} {ms[0]:7.0f} {np.median(ms):7.0f} {ms.mean():7.0f} {np.percentile(ms, 95):7.0f}")

# %%
one, two = times[1], times[2]
fig = visualize.new_figure(3.1)
visualize.headline(fig, f"One model, one machine: anything from {min(one.min(), two.min()):.0f} to "
                   f"{max(one.max(), two.max()):.0f} ms",
                   "A dot is a frame, in the order in which they ran. Logarithmic. Lines: the medians.")
axes = fig.add_axes((0.075, 0.15, 0.8, 0.63), xlabel="frame", ylabel="ms", yscale="log")
for k, (ms, name) in enumerate([(one, "1 thread"), (two, "2 threads")]):
    axes.plot(ms, "o^"[k], ms=4, color=visualize.rgb(1 + k), label=name)
    axes.axhline(np.median(ms), color=visualize.rgb(1 + k), ls=["-", "--"][k], lw=1)
axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "25" else "")
axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
fig

# %% [markdown]
# **What it shows.** Each dot is the same frame through the same network. Lowest and highest differ by more than most
# improvements that papers report. So a number alone says little. Beside it belong:
#
# | what | why |
# |---|---|
# | warm-up | the first runs find memory, choose and pack |
# | median and p95 | the *median* is the usual frame; the *p95*, under which 95 % stay, is what a user notices; a mean mixes both |
# | threads, which core | two are not twice as fast, and slower where something else needs the second core; a phone's cores differ |
# | governor, heat | a phone raises its clock slowly and lowers it when warm: pause, measure in turns |
# | memory | asking the system for it anew at every frame costs time, too |
# | before and after | decoding, resizing, upsampling, drawing: in or out? |
# | model, size, precision, runtime, versions | or nobody can repeat it |
#
# ## Predict
#
# A plain 3 x 3 convolution from 64 to 64 channels, and a depth-wise one, which has 64 times fewer MACs. How many times
# faster is it?
#
# <details><summary>Answer, after you have thought</summary>
#
# Not 64 times: some 4 to 20 times on most machines. It reads and writes the same maps and does hardly anything with them.
#
# </details>

# %%
x, dense, deep = torch.rand(1, 64, 40, 40), torch.rand(64, 64, 3, 3), torch.rand(64, 1, 3, 3)
ms = {"plain": [], "depth-wise": []}
for _ in range(200):  # in turns
    for name, weight, groups in (("plain", dense, 1), ("depth-wise", deep, 64)):
        start = time.perf_counter()
        torch.conv2d(x, weight, padding=1, groups=groups)
        ms[name].append(1e3 * (time.perf_counter() - start))
ms = {name: median(values) for name, values in ms.items()}
ratio = ms["plain"] / ms["depth-wise"]
print({name: f"{value:.2f} ms" for name, value in ms.items()}, f"ratio {ratio:.0f}, not 64")

# %% [markdown]
# ## MACs by hand
#
# A *MAC* is a product and a sum, two FLOP. A convolution has one for every place of its output, every kernel, and every
# weight of it; with `groups` g a kernel sees C_in / g channels only (g = C_in: depth-wise):
#
# $$\text{MACs} = H_{out} W_{out} \cdot C_{out} \cdot \frac{C_{in}}{g} \cdot k^2$$
#
# By loops, by the formula, then by `minst` for every layer of a network.

# %% tags=["nbval-check-output"]
count = 0
for y in range(0, 8, 2):  # stride 2: every other place
    for x in range(0, 8, 2):
        for c_out in range(6):
            for c_in in range(4 // 2):  # groups = 2: half of the 4 channels
                for k in range(3 * 3):
                    count += 1
print(count, "=", (8 // 2) * (8 // 2) * 6 * (4 // 2) * 3 * 3)

rows = roofline.layer_table(tiny, (320, 320), rounds=7)  # every layer of a frame: MACs, parameters, bytes, time
convolutions = [row for row in rows if "x" in row["kind"]]
for row in (convolutions[0], next(row for row in rows if row["kind"].startswith("depth-wise"))):
    print(f"{row['name']:28} {row['kind']:14} -> {tuple(row['shape'])}: {row['macs']:,} MACs")
assert convolutions[0]["macs"] == 160 * 160 * 16 * 3 * 3 * 3  # stem: stride 2, 3 channels to 16
total = minst.summary(tiny, (320, 320))["total"]["macs"]
assert sum(row["macs"] for row in rows) == total
print(f"{len(rows)} rows, together {total / 1e6:.0f} million MACs, as minst.summary says")

# %% [markdown]
# ## Time does not follow MACs

# %%
visualize.plot_layers(rows)

# %% [markdown]
# **What it shows.** From left to right the blocks as they run. Upwards their share of the MACs, downwards of the time. The
# lower half does not mirror the upper one: what has next to no MACs (depth-wise convolutions, resizing, ReLU, sums, and the
# time *between* layers) takes a large part of the frame.
#
# ### The roof of one core
#
# A core does two things at once: it multiplies, at so many GFLOP/s at best, and fetches bytes, at so many GB/s. A layer
# cannot be faster than the slower of the two allows:
#
# $$\text{time} \ge \max\left(\frac{\text{FLOP}}{\text{peak}},\; \frac{\text{bytes}}{\text{bandwidth}}\right)$$
#
# FLOP per byte is a layer's *arithmetic intensity*. The best speed over the intensity is a slope, where memory limits, then
# flat, where multiplying does: the *roofline*.

# %%
peak = roofline.core_peak(4.0)  # large matrix products, long and short arrays; the best of many
print({name: round(value) for name, value in peak.items()})
visualize.plot_roofline(rows, peak)

# %% [markdown]
# **What it shows.** A dot is a layer, its area the time it takes; lines are the roofs of this core. Plain 3 x 3
# convolutions stand at the right, under the flat roof; depth-wise ones at the left, where it is low, and many far below it:
# too small to fill the core, they pay for the call. Dots above the memory line found their numbers in the cache; above the
# flat one, the core's clock changed meanwhile.
#
# Three ways to a faster frame: fewer MACs, fewer bytes, fewer calls. Runtimes work on the last two.
#
# ## Export
#
# A phone has no Python. The programs become files for a small runtime:
#
# | format | file | runtime |
# |---|---|---|
# | lite | .ptl | PyTorch Mobile's lite interpreter, on XNNPACK; no longer developed |
# | torchscript | .pt | libtorch; the step before lite |
# | executorch | .pte | ExecuTorch, PyTorch's road on; XNNPACK is its *delegate*: it takes over whole parts of the graph |
# | onnx | .onnx | ONNX Runtime: phones, desktops, browsers |
#
# Which of them the paper used it does not say. Exports go wrong silently. So `export` keeps a file only if its outputs on real
# frames equal PyTorch's within 1e-4 of the largest: *parity*. (In a shell: `minst export --format onnx`.)

# %%
model = minst.MobileInst.from_pretrained("shapes-tiny")
eager = programs.make_programs(model, (192, 192))  # key and reuse, with real frames as examples
folder = Path(tempfile.mkdtemp())
exported = folder / "shapes-tiny" / "192x192"  # where the table below will look for them
formats = ["lite", "onnx"]
try:
    runtime.require("lite")
except ImportError as error:  # this torch has no XNNPACK
    print(error)
    formats = ["onnx"]
for format in formats:
    start = time.perf_counter()
    files = export.export("shapes-tiny", format, exported, (192, 192))
    print(f"{format}: {time.perf_counter() - start:.0f} s")
    for path, program in zip(files, eager):
        worst = max(export.parity(path, program).values())
        print(f"    {path.name:11} {path.stat().st_size / 1e6:.1f} MB, parity {worst:.0e}")

# %% [markdown]
# Equal *answers* are the point: the tracker, run on the files, must name every creature alike. (A program has one size, so
# we cut the clip to squares.)

# %% tags=["nbval-check-output"]
clip = minst.load_sample("easy")


def identities(network) -> list[list[int]]:
    """The identities of every frame."""
    tracker = minst.KernelTracker(network, reuse_interval=3, association="mask")
    return [tracker.step(image[:, 32:224]).ids for image in clip]


ours = identities(model)
same = all(identities(runtime.ExportedModel(exported, format)) == ours for format in formats)
print(f"same identities in all {len(clip)} frames, in every format: {same}")
about = runtime.load_program(exported / "reuse.onnx").metadata
print({name: about[name] for name in ("program", "size", "inputs", "outputs")})

# photos-tiny, which knows photographs, goes the same way
export.export("photos-tiny", "onnx", folder / "photos-tiny", (240, 320))
network = runtime.ExportedModel(folder / "photos-tiny", "onnx")
cats = minst.KernelTracker(network, reuse_interval=3, association="mask").track(minst.load_sample("chelsea"))
best = max(cats.tracks, key=lambda track: track.score)
seen = sum(code is not None for code in best.segmentations)
print(f"photos-tiny: one {network.config.class_names[best.label]} in {seen} frames of 30")

# %% [markdown]
# A file says what it is; one of another version or size is refused.
#
# <details><summary>ExecuTorch: the same, half a minute a program</summary>
#
# ```python
# export.export("shapes-tiny", "executorch", exported, (192, 192))
# print(identities(runtime.ExportedModel(exported, "executorch")) == ours)
# ```
#
# </details>
#
# ## The optimiser, pass by pass
#
# `optimize_for_mobile` of `torch.utils.mobile_optimizer` rewrites the traced graph before it is saved. We run it with one
# pass more at a time on the key program:

# %%
key, names = eager[0], export.PASSES
folded = programs.make_programs(copy.deepcopy(model).fuse(), (192, 192))[0]
steps = {"eager": key.module}
if "lite" in formats:
    traced, fused = export.trace(key), export.trace(folded)
    steps["traced"] = export.optimize(traced, ())
    steps[f"{names[0]} alone"] = export.optimize(traced, names[:1])
    steps["fuse() instead"] = export.optimize(fused, ())
    for i in range(1, len(names)):
        steps[f"+ {names[i]}"] = export.optimize(fused, names[1 : i + 1])
    steps["+ channels-last frame"] = export.optimize(export.trace(export.channels_last_frame(folded)))
times = {name: [] for name in steps}
for name, module in timing.turns(list(steps.items()), 8):
    times[name].append(timing.milliseconds(module, key.inputs["frame"]))
ms = {name: median(values[2:]) for name, values in times.items()}  # two to warm up
best = min(ms, key=ms.get)
fig = visualize.new_figure(3.1)
visualize.headline(fig, f"Fastest: “{best.strip('+ ')}”, {ms[best] / ms['eager']:.0%} of eager's time",
                   "A frame after each step, one thread. Red, in brackets: not what eager computes.")
axes = fig.add_axes((0.22, 0.04, 0.66, 0.74), xticks=[])
for y, (name, module) in enumerate(steps.items()):
    worst = max(key.differences(key._replace(module=module).run).values())
    right = worst <= export.TOLERANCE
    axes.barh(-y, ms[name], color=visualize.rgb(1) if right else visualize.RED)
    nodes = f", {len(list(module.graph.nodes()))} nodes" if name != "eager" else ""
    said = f"{ms[name]:.0f} ms{nodes}"
    axes.text(ms[name], -y, f" {said}" if right else f" ({said}: off by {worst:.1f})", va="center", fontsize=8)
axes.set_yticks([-y for y in range(len(steps))], list(steps), fontsize=8)
axes.spines[["top", "right", "bottom"]].set_visible(False)
fig

# %% [markdown]
# **What it shows.** A bar a step. *Tracing* leaves Python out. *CONV_BN_FUSION* alone gives other results, without a word:
# it loses a bias (a known bug). `fuse()` folds the norms before tracing instead. Then *prepacking* (weights laid out for
# XNNPACK once, ReLUs joined to their convolution) and passes that find little left. Fewer nodes are not less time: on a
# desktop's core prepacked convolutions alone gain nothing. They want channels innermost; turned once, at the frame, that
# order stays for all layers (last bar).
#
# The red bar's lesson: compare outputs after *every* step.

# %% [markdown]
# ## The benchmarker
#
# The official tool is `speed_benchmark_torch`, a C++ program that runs a .ptl many times. Ours has its flags and its log,
# and is compiled here against your torch (once; without a compiler a line says what to install). It is a process of its own,
# and takes a real frame that is bundled in the file.

# %%
try:
    found = lite.bench_lite(exported / "key.ptl", iterations=40)
except (ImportError, OSError) as error:  # no compiler, or no .ptl
    print(error)
else:
    lines = found["log"].splitlines()
    print("\n".join([*lines[:6], "…", *[line for line in lines if line.startswith("Main run f")]]))
    for name in ("load_ms", "first_run_ms", "median_ms", "p95_ms", "peak_mb", "cores"):
        print(f"{name:13} {found[name]:.2f}")
    print("\n" + logs.report_log(logs.parse_log(found["log"])))

# %% [markdown]
# `cores` is CPU time over wall time. Near 1: one core, undisturbed. Well below: others had the core meanwhile, and the times
# are theirs as well. Above: more than one thread. Look at it before the median.
#
# The log has a `PyTorchObserver` line for each run, in microseconds, and at the end a mean, which is usually quoted.
# `parse_log` reads this log and ExecuTorch's (last two lines).
#
# ## One table
#
# `minst bench mobile` measures runtimes in turns, so that a busy machine slows all alike. Here a small one:

# %%
table = benchmark.bench_mobile(weights="shapes-tiny", sizes=[192], rounds=9, programs_folder=folder,
                               runtimes=["eager", "fused", *formats])
visualize.plot_latency(table)

# %% [markdown]
# **What it shows.** A key frame in four runtimes, same weights, equal outputs. ONNX Runtime takes less than half of
# eager's time: it joins layers, chooses their order in memory, and calls no Python. The text above has more:
#
# - `first` is the first run after loading: colder than all that follow.
# - Drawing may take as long as a network.
# - `faults` are *page faults* of a key frame: glibc's malloc gives large blocks back and gets them anew, as pages of zeros,
#   hundreds a frame (where the system counts none, it says 0). Two environment variables make it keep them (named in the last lines, where they
#   are not set); `tests/benchmarks/malloc_faults.py` measures what that is worth.
# - `of peak`: the share of the core's measured GFLOP/s. Eager leaves most of it unused.

# %% [markdown]
# ## What reuse saves
#
# > **Efficient Tracking with Kernel Reuse** (paper): frames between key frames skip the instance decoder.
#
# If a key frame takes 1, and the decoder s of it, the mean frame takes 1 - s + s / T: even as T grows it stays above 1 - s
# (*Amdahl's law*). By MACs s is 1 % at 640 x 640 (the map). And by time?

# %%
shares = {row["runtime"]: row["stages"]["instance decoder"] / row["median_ms"] for row in table["rows"]}
print("decoder, shapes-tiny at 192 x 192:", {runtime: f"{share:.0%}" for runtime, share in shares.items()})
share = sum(row["share"] for row in rows if row["part"] == "instance decoder")
print(f"topformer-tiny at 320 x 320, eager: {share:.0%}")


def saving(decoder_share: float, reuse_interval: int):
    """The mean frame over T, in percent of a key frame."""
    T, s = np.arange(1, 13), decoder_share
    fig, now = visualize.new_figure(2.9), 1 - s + s / reuse_interval
    visualize.headline(fig, f"Decoder {s:.0%} of a frame, T = {reuse_interval}: the mean frame costs {now:.1%}",
                       f"Of a key frame. Dashed: what no T can pass, {1 - s:.1%}. Bar: the frames of T = "
                       f"{reuse_interval}, key frame first.")
    axes = fig.add_axes((0.07, 0.17, 0.5, 0.56), xlabel="T", ylabel="%", ylim=(0, 105), xticks=T)
    axes.plot(T, 100 * (1 - s + s / T), "o-", color=visualize.rgb(1), ms=4)
    axes.plot(reuse_interval, 100 * now, "o", ms=10, mfc="none", color=visualize.INK)
    axes.axhline(100 * (1 - s), color=visualize.GREY, ls="--", lw=1)
    bars = fig.add_axes((0.64, 0.17, 0.35, 0.56), ylim=(0, 105), xticks=[], xlabel="frames of one interval")
    bars.bar(range(reuse_interval), 100 * (1 - s), color=visualize.rgb(3), label="backbone, mask decoder")
    bars.bar(0, 100 * s, bottom=100 * (1 - s), color=visualize.rgb(2), label="instance decoder")
    bars.legend(fontsize=7, loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, frameon=False)
    return fig


visualize.interact(saving, decoder_share=((0.0, 0.6, 0.01), 0.04), reuse_interval=((1, 12, 1), 3))

# %%
saving(0.3, 3)

# %% [markdown]
# **What it shows.** Were the decoder 30 % of a frame, T = 3 would save a fifth, and no T more than 30 %. Move the slider to
# *your* share: the curve is nearly flat. An instance decoder of two parts leaves little to save, most of it calls; on a phone the
# share may be another.
#
# ## On a phone
#
# With USB debugging on, `minst bench phone key.ptl --adb --binary …` runs this; `--dry-run` prints it, without a phone:

# %%
runner = "speed_benchmark_torch"
for command in phone.phone_commands("key.ptl", runner, runner, core=7, rounds=1):
    line = textwrap.shorten(shlex.join(command.argv), 230, placeholder=" …")
    print(f"# {command.why}", textwrap.fill(line, 110, subsequent_indent="    "), sep="\n")

# %% [markdown]
# `taskset 80` is core 7 alone (a bit a core, hexadecimal), usually the fast one; `--pthreadpool_size=1` one thread. With
# more rounds the phone cools down between them. Governor and temperature cannot be fixed without root, so they are written
# down.
#
# The benchmarker must be built for the phone. PyTorch removed its script (`scripts/build_android.sh`) in July 2025: take an
# older tag. `--dry-run` prints how, for ExecuTorch's `executor_runner` too.
#
# **No adb?** `minst bench web --host ADDRESS` serves a page on your own network, its address as a QR code. The phone's
# browser runs the two ONNX programs (WebAssembly), draws the masks, shows key and reuse frames with their spread, and offers
# the figures as JSON; nothing is uploaded. These are a browser's times, not an app's.
#
# ## Exercises
#
# ### Exercise 1 (recall): what a convolution costs


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
# ### Exercise 2 (code): the mean frame


# %% tags=["exercise"]
def mean_frame(key_ms: float, decoder_ms: float, interval: int) -> tuple[float, float]:
    """What reuse gives: (ms of the mean frame at T = interval, share of key_ms that not even an endless T could pass).

    A key frame takes key_ms. decoder_ms of that is the instance decoder, which the other frames leave out.
    The second number is a share between 0 and 1: what is saved at most.
    """
    # solution
    reuse_ms = key_ms - decoder_ms
    return (key_ms + (interval - 1) * reuse_ms) / interval, decoder_ms / key_ms


# %%
check.mean_frame(mean_frame)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Add up the T frames of one interval and divide. For the second number: what is left of a mean frame when key frames no
# longer occur?
#
# </details>
#
# ### Exercise 3 (code): read a log


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
# `line.split('"')` cuts a line at its quotation marks; the value is the last piece but one. `float` reads both ways of
# writing.
#
# </details>
#
# ### Exercise 4 (break it): a benchmark that lies
#
# Find all five faults, then write a fair one.
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
# The check has a pretended clock and world: first runs are cold, some are disturbed, and the machine slows as it warms.


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
# Warm-up, preparation, turns, median, unit. Exchange the two loops first: rounds outside, jobs inside.
#
# </details>
#
# ### Exercise 5 (extend): below the roof


# %% tags=["exercise"]
def least_ms(macs: int, size: int, gflop_s: float, gb_s: float) -> tuple[float, str]:
    """The least time of a layer on a core, in ms, and what decides: "compute" or "memory".

    macs: of the layer. size: bytes that it reads and writes. gflop_s: 1e9 FLOP a second at best; gb_s: 1e9 bytes.
    """
    # solution
    compute = 1e3 * 2 * macs / (1e9 * gflop_s)
    memory = 1e3 * size / (1e9 * gb_s)
    return max(compute, memory), "compute" if compute > memory else "memory"


# %%
check.least_ms(least_ms)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Both happen at once; the slower one decides. Further: apply it to `rows` and `peak`. How fast could the whole frame be?
#
# </details>
#
# ## Paper against ours
#
# > **Abstract, Introduction, Tab 1** (paper): MobileInst is half as slow as the best before it, on one CPU core of a phone,
# > without quantisation and without mixed precision.
#
# | figure | what was measured |
# |---|---|
# | 176 ms (172 in the introduction) | version 1, COCO, one core of a Snapdragon 778G |
# | 158 ms | version 1, YouTube-VIS 2019, the same core |
# | 433 ms | version 2 (AAAI), COCO |
#
# - **No phone has been measured by us.** All above ran on the machine that executed this notebook. These milliseconds and
#   the paper's are not comparable: another chip, runtime, size, implementation. The paper's own two versions differ on COCO
#   by a factor of more than two.
# - As in the paper: 32-bit floats, one thread, batch 1. Beyond it, with earlier weights on 20 clips of the val split
#   (`tests/benchmarks/variants_accuracy.py`): 8-bit linear layers cost 0.2 AP and gain no time (they are 1.3 % of the MACs);
#   8-bit ONNX costs 0.9 AP, is a third of the size and here half as fast.
# - `Assumption:` the paper's latency is the network's, without decoding, upsampling and drawing.
# - `Deviation:` we fold batch norms ourselves, since the optimiser's pass loses a bias.
# - Ranks of runtimes do not travel from chip to chip: XNNPACK is made for phones.
# - PyTorch Mobile is at its end: no development, no Android script, and from torch 2.13 on wheels without XNNPACK, where
#   `optimize_for_mobile` stops. It can still be used, with torch 2.12 (minst's extra `lite`) and an old tag; a new project takes ExecuTorch.
#
# ## Summary
#
# - A latency is a number with a list beside it.
# - MACs predict the time of large plain convolutions; other layers cost bytes and calls.
# - An export counts when its outputs, and its tracks, equal PyTorch's.
# - Reuse saves at most the share of what it skips.
#
# **Quiz.** (1) Two benchmarks of a model differ by a factor of three. What do you ask first? (2) A layer has 1 FLOP a byte;
# the core reaches 100 GFLOP/s and 10 GB/s. What does the layer reach? (3) Why is the median at T = 3 the wrong figure?
#
# <details><summary>Answers</summary>
#
# (1) Threads; then what is inside. (2) At most 10 GFLOP/s, unless its data lie in the cache. (3) Two of three frames are
# reuse frames: the median is one of them.
#
# </details>
#
# **References.** R. Zhang et al., *MobileInst*, AAAI 2024, arXiv 2303.17594 · S. Williams, A. Waterman, D. Patterson,
# *Roofline: an insightful visual performance model for multicore architectures*, CACM 2009 · G. Amdahl, AFIPS 1967 ·
# PyTorch's and ExecuTorch's documentation.

# %% [markdown] tags=["tutor"]
# <details><summary>For tutors</summary>
#
# 45 minutes: 6 for *See the problem* (ask why the dots differ before you show the table), 12 for MACs, layers and roofline,
# 6 for export and optimiser, 10 for benchmarker, table and reuse, 11 for exercises 3 and 4. Short of time: skip the
# optimiser and exercise 5. Bring a phone and run `minst bench web`. Common mistakes: groups forgotten; FLOP for MACs; the
# median at T = 3; microseconds for milliseconds; one job after the other; preparation inside the clock.
#
# </details>
