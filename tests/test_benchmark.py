"""minst.mobile.benchmark and timing: every row is there and adds up, JSON is what is returned, nothing is left changed.

No test says how fast anything must be: that is for `minst bench` and tests/benchmarks/rivals.py, on a quiet machine.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from minst.config import MobileInstConfig
from minst.mobile import benchmark, timing
from minst.mobile.benchmark import bench_data, bench_latency
from minst.mobile.timing import allocator, summarize, table, turns
from minst.model import MobileInst
from minst.tracking import KernelTracker
from minst.training import TrainConfig

SMALL = {"preset": "shapes-tiny", "size": (64, 128), "frames": 2}
PARTS = ["input", "backbone", "mask decoder", "instance decoder", "masks K.X_mask", "association", "upsampling",
         "run-length codes", "drawing"]  # fmt: skip


@pytest.fixture(scope="module")
def latency(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "latency.json"
    return bench_latency(**SMALL, json_path=path), path


def test_latency_has_all_rows_with_positive_numbers(latency):
    result, _ = latency
    assert list(result["stages"]) == ["fused", "not fused"] and list(result["intervals"]) == [
        "1",
        "3",
        "6",
    ]
    for stages in result["stages"].values():
        assert list(stages) == [*PARTS, "whole frame"]
        for row in stages.values():
            assert 0 < row["median_ms"] <= row["p95_ms"]
    for row in result["intervals"].values():
        assert row["mean_ms"] > 0 and 0 < row["median_ms"] <= row["p95_ms"]
        assert row["instances"] == benchmark.LIVE  # the still picture and the threshold see to that
    assert (
        result["threads"] == 1
        and result["torch"] == torch.__version__
        and result["cpu"]
        and result["allocator"]
    )
    assert (
        result["model"] == "shapes-tiny" and result["size"] == [64, 128] and result["frames"] == 2
    )


def test_stages_are_laps_of_one_clock(monkeypatch):
    """With a clock that ticks once a look every part lasts one tick, and the whole as many ticks as there are parts."""
    ticks, expected = iter(range(10_000)), {**dict.fromkeys(PARTS, 1.0), "whole frame": len(PARTS)}
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks) / 1e3)
    result = bench_latency(**SMALL)
    for stages in result["stages"].values():
        assert {name: row["median_ms"] for name, row in stages.items()} == pytest.approx(expected)


def test_limit_and_ratio_of_kernel_reuse(latency):
    result, _ = latency
    reuse, frame = result["reuse"], result["intervals"]["1"]["mean_ms"]
    share = result["stages"]["fused"]["instance decoder"]["median_ms"] / frame
    assert reuse["instance_decoder_share"] == pytest.approx(share)
    assert reuse["reuse_limit"] == pytest.approx(1.02 - 2 * share / 3)
    assert reuse["measured_ratio"] == pytest.approx(result["intervals"]["3"]["mean_ms"] / frame)
    assert reuse["within"] == (reuse["measured_ratio"] <= reuse["reuse_limit"])


def test_mean_frame_weighs_key_frames_as_often_as_they_come():
    times = [(i % 3 == 0, 9.0 if i % 3 == 0 else 6.0, 5) for i in range(9)]
    times[4] = (False, 600.0, 5)  # a hiccup of the machine
    row = benchmark._interval_row(3, times)
    assert row["mean_ms"] == pytest.approx(7.0) and row["key_ms"] == 9.0 and row["median_ms"] == 6.0
    assert benchmark._interval_row(1, [(True, 9.0, 5)])["mean_ms"] == 9.0


def test_every_tracker_takes_every_frame_with_its_own_interval(monkeypatch):
    keys, step = Counter(), KernelTracker.step

    def counted(tracker, frame):
        result = step(tracker, frame)
        if result.frame >= benchmark.WARM_UP:
            keys[tracker.reuse_interval, result.is_key] += 1
        return result

    monkeypatch.setattr(KernelTracker, "step", counted)
    bench_latency(**{**SMALL, "frames": 6})
    assert keys == {(1, True): 6, (3, True): 2, (3, False): 4, (6, True): 1, (6, False): 5}


def test_the_fused_column_is_fused(monkeypatch):
    seen, staged_frame = {}, benchmark._staged_frame

    def spy(model, image, threshold, times):
        norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
        staged_frame(model, image, threshold, times)
        seen[id(times)] = norms

    monkeypatch.setattr(benchmark, "_staged_frame", spy)
    bench_latency(**SMALL)
    fused, plain = seen.values()
    assert plain > 0 and fused == 0


def test_json_is_what_is_returned(latency, capsys):
    result, path = latency
    assert json.loads(path.read_text()) == result


def test_tables_are_printed(capsys):
    bench_latency(**SMALL)
    printed = capsys.readouterr().out
    for words in [
        *PARTS,
        "whole frame",
        "T = 1",
        "T = 3",
        "T = 6",
        "not fused",
        "p95",
        "malloc: ",
        "limit",
    ]:
        assert words in printed


def test_threads_are_used_and_restored(monkeypatch):
    used, step, threads = set(), KernelTracker.step, 2 if torch.get_num_threads() != 2 else 1
    monkeypatch.setattr(
        KernelTracker, "step", lambda *a: (used.add(torch.get_num_threads()), step(*a))[1]
    )
    before, random = torch.get_num_threads(), torch.get_rng_state()
    bench_latency(**SMALL, threads=threads)
    assert used == {threads} and torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), random)


def test_threads_are_restored_after_a_failure(monkeypatch):
    def fails(*_):
        raise RuntimeError("in the middle")

    before = torch.get_num_threads()
    monkeypatch.setattr(benchmark, "_staged_frame", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        bench_latency(**SMALL, threads=before + 1)
    assert torch.get_num_threads() == before


def test_weights_from_a_folder(tmp_path):
    MobileInst(MobileInstConfig.preset("shapes-tiny", dim=16, num_queries=7)).save_pretrained(
        tmp_path
    )
    result = bench_latency(
        weights=str(tmp_path), size=(64, 64), frames=2
    )  # they find nothing, which is no error
    assert result["model"] == str(tmp_path) and set(result["stages"]["fused"]) == {
        *PARTS,
        "whole frame",
    }
    assert result["intervals"]["1"]["instances"] == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": (63, 64)}, "height"),
        ({"size": (64, 63)}, "width"),
        ({"size": (64.0, 64)}, "height"),
        ({"size": (64, 5000)}, "width"),
        ({"size": (64,)}, "size"),
        ({"size": 640}, "size"),
        ({"threads": 0}, "threads"),
        ({"threads": True}, "threads"),
        ({"frames": 1}, "frames"),
        ({"frames": 2.5}, "frames"),
        ({"preset": "no-such-model"}, "no-such-model"),
        ({"weights": "shapes-tiny"}, "one of them"),
    ],
)
def test_wrong_arguments_of_latency(wrong, named):
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=named):
        bench_latency(**{**SMALL, **wrong})
    assert torch.get_num_threads() == before


def test_data_counts_frames_of_both(tmp_path, capsys):
    config = TrainConfig(pairs=1, height=64, width=64)
    result = bench_data(batches=2, json_path=tmp_path / "data.json", config=config)
    assert json.loads((tmp_path / "data.json").read_text()) == result
    assert result["frames_per_batch"] == 2 and result["batches"] == 2
    for name in ("data", "training"):
        row = result[name]
        assert 0 < row["median_ms"] <= row["p95_ms"] and row["frames_per_s"] == pytest.approx(
            2e3 / row["median_ms"]
        )
    assert result["ratio"] == pytest.approx(
        result["training"]["median_ms"] / result["data"]["median_ms"]
    )
    assert result["reached"] == (result["ratio"] >= 2)
    printed = capsys.readouterr().out
    assert "frames/s" in printed and f"{result['ratio']:.2f}" in printed


@pytest.mark.parametrize(
    ("wrong", "named"), [({"threads": 0}, "threads"), ({"batches": 0}, "batches")]
)
def test_wrong_arguments_of_data(wrong, named):
    with pytest.raises(ValueError, match=named):
        bench_data(**wrong)


def test_allocator_says_what_is_in_force(monkeypatch):
    for name in (
        "LD_PRELOAD",
        "GLIBC_TUNABLES",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_MMAP_THRESHOLD_",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(timing.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.x86_ibt=off")
    assert allocator().startswith("glibc, default")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "123")
    assert allocator() == "glibc, tuned: MALLOC_TRIM_THRESHOLD_=123"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=9")
    assert "glibc.malloc.trim_threshold=9" in allocator()
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert allocator() == "jemalloc"
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setattr(timing.platform, "libc_ver", lambda: ("", ""))
    assert allocator().startswith("that of")


def test_turns_move_on_by_one_and_leave_nobody_out():
    assert "".join(turns("abc", 4)) == "abc" + "bca" + "cab" + "abc"
    assert list(turns("abc", 0)) == []


def test_summary_and_table_by_hand():
    row = summarize([30.0, 10.0, 50.0])
    assert row == {"median_ms": 30.0, "p95_ms": pytest.approx(48.0)}  # nine tenths from 30 to 50
    said = table("ms", {"p95": ("p95_ms", ".1f"), "n": ("count", "d")}, [("eager", row), ("b", {})])
    assert said.splitlines() == ["ms      p95  n", "eager  48.0  -", "b         -  -"]
