"""minst.mobile.roofline: the rows add up to what other counters say, times to the clock's, and nothing is changed."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minst
from minst.mobile import roofline
from minst.mobile.roofline import core_peak, layer_table, peak_fraction

SIZE = (96, 160)  # no multiple of 64: the frame is padded
FIELDS = {
    "name",
    "kind",
    "part",
    "shape",
    "macs",
    "params",
    "bytes",
    "ms",
    "intensity",
    "gflop_s",
    "share",
}


@pytest.fixture(scope="module")
def fused(make_model):
    return make_model().fuse()


@pytest.fixture(scope="module")
def rows(fused):
    return layer_table(fused, SIZE, rounds=2)


def found(rows, name, kind):
    (row,) = [row for row in rows if row["name"] == name and row["kind"] == kind]
    return row


@pytest.mark.parametrize(
    ("preset", "fuse", "changes"),
    [
        ("shapes-tiny", True, {"normalise_global": False, "pooling": "avg", "bottom_up": False}),
        ("topformer-tiny", False, {"semantic_enhancer": False, "injection": False}),
        ("seaformer-tiny", False, {"token_stride": 32}),
        ("seaformer-tiny", True, {}),
        ("mobilenetv2", False, {}),
    ],
)
def test_macs_and_parameters_add_up_to_the_models_own(preset, fuse, changes):
    model = minst.MobileInst(minst.MobileInstConfig.preset(preset, **changes))
    model = model.fuse() if fuse else model
    rows = layer_table(model, SIZE, rounds=1)
    summary = minst.summary(model, SIZE)  # counts with FlopCounterMode
    assert sum(row["macs"] for row in rows) == summary["total"]["macs"]
    assert sum(row["params"] for row in rows) == summary["total"]["params"]
    for part in ("backbone", "mask_decoder", "instance_decoder", "masks"):
        own = [row for row in rows if row["part"] == part.replace("_", " ")]
        assert {field: sum(row[field] for row in own) for field in ("macs", "params")} == summary[
            part
        ]
    norms = sum(row["kind"] == "norm" and "norm" not in row["name"] for row in rows)
    assert norms == (0 if fuse else sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()))


def test_every_convolution_and_linear_layer_is_there_once_in_the_order_of_the_network(fused, rows):
    ran = []
    layers = [
        (n, m)
        for n, m in fused.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.ReLU, nn.ReLU6, nn.LayerNorm))
    ]
    hooks = [
        m.register_forward_hook(lambda m, i, out, n=n: ran.append((n, list(out.shape))))
        for n, m in layers
    ]
    with torch.no_grad():
        fused(torch.rand(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    names = {name for name, _ in layers}
    assert [(row["name"], row["shape"]) for row in rows if row["name"] in names] == ran
    parts = [row["part"] for row in rows]
    assert list(dict.fromkeys(parts)) == list(roofline.PARTS) and parts == sorted(
        parts, key=roofline.PARTS.index
    )
    for part in roofline.PARTS:
        assert [row["kind"] for row in rows if row["part"] == part].index("other") == parts.count(
            part
        ) - 1


def test_rows_by_hand(rows):
    """Shapes of the frame padded to 128 x 192: MACs, parameters and bytes counted on paper."""
    assert all(set(row) == FIELDS for row in rows)
    stem = found(rows, "backbone.tpm.stem.0.c", "conv 3x3")  # 3 -> 16 channels, 64 x 96
    assert (
        stem["shape"] == [1, 16, 64, 96]
        and stem["macs"] == 64 * 96 * 16 * 27
        and stem["params"] == 16 * 27 + 16
    )
    assert stem["bytes"] == 4 * (3 * 128 * 192 + 16 * 27 + 16 + 16 * 64 * 96)
    deep = found(
        rows, "backbone.tpm.layer4.conv.2.c", "depth-wise 5x5"
    )  # 48 channels, each alone, 32 x 48 -> 16 x 24
    assert deep["macs"] == 16 * 24 * 48 * 25 and deep["params"] == 48 * 26
    assert deep["bytes"] == 4 * (48 * 32 * 48 + 48 * 26 + 48 * 16 * 24)
    assert deep["intensity"] == pytest.approx(2 * deep["macs"] / deep["bytes"])
    assert deep["gflop_s"] == pytest.approx(2e-6 * deep["macs"] / deep["ms"])
    linear = found(rows, "instance_decoder.heads.kernel", "linear")  # 8 queries, 64 -> 64
    assert linear["macs"] == 8 * 64 * 64 and linear["bytes"] == 4 * (8 * 64 + 64 * 64 + 64 + 8 * 64)
    product = found(rows, "masks", "mask product")  # on the frame itself, 12 x 20
    assert product["macs"] == 8 * 64 * 12 * 20 and product["part"] == "masks"
    relu = found(rows, "backbone.tpm.stem.1", "activation")
    assert (
        relu["bytes"] == 4 * 2 * 16 * 64 * 96
        and relu["macs"] == relu["intensity"] == relu["gflop_s"] == 0
    )
    attention = [
        row
        for row in rows
        if row["kind"] == "attention matmul" and "transformer_blocks.0" in row["name"]
    ]
    assert [row["macs"] for row in attention] == [
        24 * 24 * 16 * 4,
        24 * 24 * 32 * 4,
    ]  # 4 heads, 4 x 6 tokens
    # the queries, which are added in many places, are counted in the first
    added = [
        row["params"]
        for row in rows
        if row["part"] == "instance decoder" and row["kind"] == "add, multiply"
    ]
    assert (
        sum(added) == max(added) == 8 * 64
        and found(rows, "instance_decoder", "other")["params"] == 0
    )
    joined = found(rows, "backbone", "concatenate")  # 16 + 32 + 64 + 96 channels, as many in as out
    assert joined["shape"] == [1, 208, 4, 6] and joined["bytes"] == 2 * 4 * 208 * 24
    kinds = {"pool", "resize", "add, multiply", "concatenate", "softmax", "norm", "pad"}
    assert kinds <= {row["kind"] for row in rows}


def test_a_grouped_convolution_counts_its_own_channels_only():
    x, weight = torch.rand(1, 8, 5, 5), torch.rand(12, 4, 3, 3)
    out = F.conv2d(x, weight, groups=2)
    assert roofline._kind_and_macs("conv2d", [x, weight], out) == (
        "grouped conv 3x3",
        12 * 3 * 3 * 4 * 9,
    )


def test_times_are_medians_of_rounds_and_add_up_to_the_frame(fused, monkeypatch):
    """A clock that goes on at every look by what the round says, two rounds to warm up first; parts of 500 ms."""
    step, rounds, now = [0.0], iter([5, 5, 7, 1, 2]), [0.0]

    class Counted(roofline._Clock):
        def __enter__(self):
            step[0] = 0.0 if self.note else 1e-3 * next(rounds)
            return super().__enter__()

    def look():
        now[0] += step[0]
        return now[0]

    monkeypatch.setattr(roofline, "_Clock", Counted)
    monkeypatch.setattr(roofline.time, "perf_counter", look)
    monkeypatch.setattr(roofline, "part_times", lambda *_: [500.0] * 5)
    rows = layer_table(fused, SIZE, rounds=3)
    assert {round(row["ms"], 6) for row in rows if row["kind"] != "other"} == {2.0}
    assert sum(row["share"] for row in rows) == pytest.approx(1) and rows[0][
        "share"
    ] == pytest.approx(2 / 2500)
    for part in roofline.PARTS:
        assert sum(row["ms"] for row in rows if row["part"] == part) == pytest.approx(500)


def test_layers_slower_than_their_part_leave_nothing_negative(fused, monkeypatch):
    monkeypatch.setattr(roofline, "part_times", lambda *_: [0.0] * 5)
    rows = layer_table(fused, SIZE, rounds=1)
    assert [row["ms"] for row in rows if row["kind"] == "other"] == [0.0] * 5
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_parts_are_laps_that_end_where_the_next_begins(fused, monkeypatch):
    """With a clock that stands still but for what a part does, each part is charged with its own."""
    now, ran = [0.0], []
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: now[0])

    def slow(name, seconds):
        def hook(*_):
            now[0] += seconds
            ran.append(name)

        return hook

    decoder = fused.instance_decoder
    parts = [fused.backbone, fused.mask_decoder, decoder.global_decoder, decoder.heads.kernel]
    hooks = [
        m.register_forward_hook(slow(i, s))
        for i, (m, s) in enumerate(zip(parts, (0.01, 0.02, 0.03, 0.04)))
    ]
    with torch.inference_mode():
        laps = roofline.part_times(fused, torch.rand(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    assert laps == pytest.approx([0, 10, 20, 70, 0]) and ran == [0, 1, 2, 3]


def test_the_model_and_the_session_stay_as_they_were(make_model):
    model = make_model().train()
    model.backbone.eval()  # a mixture, as in fine-tuning
    modes = [m.training for m in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    seen = set()
    handle = model.backbone.register_forward_hook(
        lambda m, *_: seen.add((m is model.backbone, torch.get_num_threads()))
    )
    torch.set_num_threads(2)
    try:
        layer_table(model, SIZE, rounds=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == {(False, 1)}  # a copy, on one thread
    handle.remove()
    assert [m.training for m in model.modules()] == modes and torch.equal(
        torch.get_rng_state(), random
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": (63, 64)}, "at least 64"),
        ({"size": (64, 32)}, "at least 64"),
        ({"size": (64, 10**6)}, "at most 8192"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_wrong_arguments(fused, changes, named):
    with pytest.raises(ValueError, match=named):
        layer_table(**{"model": fused, "size": SIZE, "rounds": 1, **changes})


def test_another_device_is_refused(make_model):
    with pytest.raises(ValueError, match="on meta"):
        layer_table(make_model().to("meta"), SIZE)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_for_a_peak(seconds):
    with pytest.raises(ValueError, match="seconds"):
        core_peak(seconds)


def test_work_is_what_the_jobs_do():
    """FLOP and bytes that a job claims, against FlopCounterMode and the tensors that it touches."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    work, job = roofline._product(64)
    with FlopCounterMode(display=False) as counter:
        job()
    assert work == counter.get_total_flops() == 2 * 64**3

    class Bytes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            touched = [*args, *(kwargs or {}).values()]
            moved = sum(t.nbytes for t in touched if isinstance(t, torch.Tensor))
            seen.append((function.overloadpacket.__name__, moved))
            return function(*args, **(kwargs or {}))

    for size in (2**18, 2**25):
        for arrays, (work, job) in roofline._streams(size).items():
            seen = []
            with Bytes():
                job()
            assert seen == [({2: "copy_", 3: "add"}[arrays], work)] and work == arrays * size


def test_best_is_the_fastest_block_of_the_fastest_job(monkeypatch):
    times, asked = {"slow": [4.0, 2.0, 4.0], "fast": [1.0, 0.5, 9.0]}, []

    class Timer:
        """Seconds a call of every block, as torch's Timer tells them."""

        def __init__(self, statement, globals):
            self.statement, self.globals = statement, globals

        def blocked_autorange(self, min_run_time):
            asked.append(min_run_time)
            return SimpleNamespace(times=eval(self.statement, self.globals))

    monkeypatch.setattr("torch.utils.benchmark.Timer", Timer)
    jobs = {name: (1e9, partial(times.get, name)) for name in times}
    assert roofline._best(jobs, 7.0) == ("fast", pytest.approx(2.0)) and asked == [3.5] * 2


def test_peak_of_this_core_on_one_thread(monkeypatch):
    threads, best, used = torch.get_num_threads(), roofline._best, set()
    monkeypatch.setattr(roofline, "LONG", 2**20)
    monkeypatch.setattr(
        roofline, "_best", lambda *a: (used.add(torch.get_num_threads()), best(*a))[1]
    )
    torch.set_num_threads(2)
    try:
        peak = core_peak(0.02)
        assert used == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(peak) == {"gflop_s", "gb_s", "cache_gb_s", "mm_size"} and min(peak.values()) > 0
    assert peak["mm_size"] in roofline.PRODUCTS
    assert peak_fraction(50e6, 2.0, {"gflop_s": 100.0}) == pytest.approx(0.5)
