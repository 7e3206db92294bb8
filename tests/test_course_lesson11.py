"""The checks of lesson 11: students' mistakes meet their hint; and what else the lesson takes from its module."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minst.course import lesson11 as check
from minst.evaluation.consistency import HOLD_IOU
from minst.model import image_to_batch
from minst.protocol import QueryConfig, QueryFrame
from minst.tracking import KernelTracker

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason='pip install "mobileinst[models]"'
)


# --- what students write


def decoder_of(model):
    return model.model.transformer_module.decoder


def by_a_hook(model, pixels):
    """As minst.adapters does it."""
    kept = []
    hook = decoder_of(model).mask_predictor.mask_embedder.register_forward_hook(lambda m, a, out: kept.append(out))
    features = model(pixel_values=pixels).pixel_decoder_last_hidden_state
    hook.remove()
    return kept[-1], features


def scaled(model, pixels):
    kernels, features = by_a_hook(model, pixels)
    return [10 * kernels, features / 10]


def queries_as_kernels(model, pixels):
    said = model(pixel_values=pixels)
    return said.transformer_decoder_last_hidden_state, said.pixel_decoder_last_hidden_state


def without_the_norm(model, pixels):
    queries, features = queries_as_kernels(model, pixels)
    return decoder_of(model).mask_predictor.mask_embedder(queries), features


def coarse_features(model, pixels):
    said = model.model.pixel_level_module(pixels)
    return by_a_hook(model, pixels)[0], said.decoder_hidden_states[0]


def turned(model, pixels):
    kernels, features = by_a_hook(model, pixels)
    return kernels.transpose(0, 1), features


def masks_themselves(model, pixels):
    return model(pixel_values=pixels).masks_queries_logits


def masks_and_features(model, pixels):
    return masks_themselves(model, pixels), by_a_hook(model, pixels)[1]


def counted(clip=lambda t, s, n: t * s * t * s, online=lambda t, s, n: n * s, scale=4, heads=True):
    def attention_bytes(t, s, n, h):
        size = scale * h if heads else scale
        return size * clip(t, s, n), size * online(t, s, n)

    return attention_bytes


def one_by_one(kernels, handovers, slip=""):
    wins = 0
    for t, u, old, new in handovers.tolist():
        before, query, instance = kernels[t, old], kernels[t if slip == "still" else u, old], kernels[u, new]
        if slip != "long":
            before, query, instance = (k / k.norm() for k in (before, query, instance))
        gain = float(before @ instance - before @ query)
        wins += gain if slip == "mean" else gain < 0 if slip == "query" else gain > 0
    return wins if slip == "count" else wins / len(handovers)


def slipping(slip):
    return lambda kernels, handovers: one_by_one(kernels, handovers, slip)


def adapter(slip=""):
    def encode_frames(model, frames):
        images = frames if slip == "scale" else frames * 255
        images = images if slip == "colors" else images[:, [2, 1, 0]]
        said = model(images.movedim(1, -1))
        p = said["logits"].softmax(-1) if slip != "sigmoid" else said["logits"].sigmoid()
        p = p if slip == "no object" else p[..., :3]
        p = said["logits"][..., :3].softmax(-1) if slip == "cut" else p
        protos = said["protos"].movedim(-1, 1)
        protos = protos.transpose(-1, -2) if slip == "sides" else protos
        decode = (p, said["coefficients"]) if slip == "tuple" else lambda: (p, said["coefficients"])
        size = frames.shape[-1:-3:-1] if slip == "size" else frames.shape[-2:]
        return (p, protos) if slip == "no frame" else QueryFrame(protos, decode, tuple(size))

    return encode_frames


WRONG = [
    ("factors", queries_as_kernels, "These are the queries"),
    ("factors", without_the_norm, "normalises its queries"),
    ("factors", coarse_features, "take the last. For pixels (2, 3,"),
    ("factors", turned, "(B, N, D) is asked"),
    ("factors", masks_themselves, "Two tensors are asked"),
    ("factors", masks_and_features, "Two tensors are asked"),
    ("factors", lambda m, x: [0 * part for part in by_a_hook(m, x)], "away from its own mask logits"),
    ("attention_bytes", counted(clip=lambda t, s, n: t * s * s), "L enters squared"),
    ("attention_bytes", counted(clip=lambda t, s, n: n * t * s), "the queries have no part"),
    ("attention_bytes", counted(online=lambda t, s, n: t * n * s), "gone before the next frame"),
    ("attention_bytes", counted(online=lambda t, s, n: s * s), "queries that ask the tokens"),
    ("attention_bytes", counted(heads=False), "Each head"),
    ("attention_bytes", counted(scale=1), "four bytes"),
    ("attention_bytes", lambda *given: counted()(*given)[::-1], "The clip comes first"),
    ("attention_bytes", counted(scale=8), "It was called as attention_bytes("),
    ("instance_wins", slipping("long"), "divide by both lengths"),
    ("instance_wins", slipping("query"), "in which the query wins"),
    ("instance_wins", slipping("count"), "divide by how many"),
    ("instance_wins", slipping("mean"), "mean gain"),
    ("instance_wins", slipping("still"), "meets itself"),
    ("encode_frames", adapter("scale"), "0 .. 255"),
    ("encode_frames", adapter("colors"), "blue first"),
    ("encode_frames", adapter("no object"), "leave it out"),
    ("encode_frames", adapter("cut"), "cut it off afterwards"),
    ("encode_frames", adapter("sigmoid"), "softmax, not sigmoid"),
    ("encode_frames", adapter("sides"), "changed places"),
    ("encode_frames", adapter("size"), "its size is (96, 64)"),
    ("encode_frames", adapter("tuple"), "`decode` is a function"),
    ("encode_frames", adapter("no frame"), "it gives a tuple, a QueryFrame is asked"),
]
RIGHT = [
    ("factors", by_a_hook),
    ("factors", scaled),
    ("attention_bytes", counted()),
    ("attention_bytes", lambda t, s, n, h: np.array([4 * h * (t * s) ** 2, 4.0 * h * n * s])),
    ("instance_wins", one_by_one),
    ("instance_wins", lambda kernels, rows: torch.tensor(one_by_one(kernels, rows))),
    ("encode_frames", adapter()),
]


@needs_transformers
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_a_wrong_answer_meets_its_hint(name, answer, words):
    for _ in range(2):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and words in verdict.reason, verdict
        assert verdict.or_ours is not answer


@needs_transformers
@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_another_way_to_the_same_answers(name, answer):
    verdict = getattr(check, name)(answer)
    assert verdict.state == "correct", verdict
    assert verdict.or_ours is answer


def stub(*given):
    raise NotImplementedError


@needs_transformers
@pytest.mark.parametrize("name", check.__all__)
def test_the_lesson_goes_on_with_ours_until_an_answer_is_correct(name):
    ours = getattr(check, name)(stub).or_ours
    assert getattr(check, name)(ours).state == "correct"


def test_who_lacks_transformers_reads_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    check.foreign_model.cache_clear()
    with pytest.raises(ImportError, match=r"mobileinst\[models\]") as error:
        check.foreign_model()
    assert "\n" not in str(error.value)
    assert check.instance_wins(one_by_one)  # exercises without it go on


# --- what the lesson counts and draws


def test_bytes_of_what_is_made_by_hand():
    x = torch.zeros(3, 5)
    with check.Allocations() as made:
        y = x + 1  # 60 bytes
        y.mul_(2)  # in place
        y.T.reshape(-1)  # a view, then 60 bytes
        (x @ x.T).sum(dim=0)  # 36 and 12
    assert made.bytes == 60 + 60 + 36 + 12


def test_attention_makes_the_tables_of_the_formula():
    x = torch.zeros(1, 2, 3 * 7, 4)  # 2 heads, 3 frames of 7 tokens
    clip, _ = check.attention_bytes(stub).or_ours(3, 7, 5, 2)
    with check.Allocations() as made:
        x @ x.transpose(-1, -2)
    assert made.bytes == clip == 4 * 2 * 21 * 21


class Scripted:
    """A model of three queries whose masks are written down: frames are numbered by their first pixel."""

    config = QueryConfig(("thing",), 1, 3)

    def __init__(self, queries):
        self.queries = queries  # of each frame: the half of the picture that each query fills, or none

    def eval(self):
        return self

    def encode(self, frames):
        t = round(255 * frames[0, 0, 0, 0].item())
        features = torch.zeros(1, 2, 16, 16)
        features[:, 0, :, :8], features[:, 1, :, 8:] = 9, 9
        kernels = torch.tensor([[-1.0, -1], [2, -1], [-1, 2]])[torch.tensor(self.queries[t])]
        return QueryFrame(features - 3, lambda: (torch.full((1, 3, 1), 0.9), kernels[None]), (64, 64))


class Halves:
    """A clip of so many frames, whose one instance is the left half."""

    labels = (0,)

    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return self.frames

    def __iter__(self):
        return (np.full((64, 64, 3), t, np.uint8) for t in range(self.frames))

    def masks(self, t):
        return np.arange(64)[None, None].repeat(64, axis=1) < 32


def test_a_handover_is_where_another_query_holds_and_the_old_one_has_left():
    nothing, left, right = 0, 1, 2
    model = Scripted(
        [
            (left, right, nothing),  # 0 holds
            (left, right, nothing),
            (right, left, nothing),  # 1 took over, 0 has left
            (left, left, nothing),  # 0 or 1 holds, and both fit: no handover
            (nothing, nothing, nothing),  # nobody holds
            (nothing, nothing, left),  # 2 took over from whoever held two frames before
        ]
    )
    kernels, rows = check.handovers(model, [Halves(6), Halves(3)], gap=2)
    assert kernels.shape == (9, 3, 2) and HOLD_IOU == 0.5
    # the second clip begins at frame 6
    assert rows.tolist() == [[0, 2, 0, 1], [3, 5, 0, 2], [6, 8, 0, 1]]


def test_the_picture_of_the_family_marks_what_is_said():
    figure = check.plot_family({"YOLACT": (2019, "#..."), "MobileInst": (2023, "####"), "SegFS": (2026, "ooo.")})
    (axes,) = figure.axes
    marks = [(int(dot.get_offsets()[0][1]), dot.get_facecolor()[0][3]) for dot in axes.collections]
    assert marks == [(0, 1), *[(1, 1)] * 4, *[(2, 0)] * 3]  # the face of a ring is transparent
    words = {text.get_text() for text in axes.texts}
    assert {"YOLACT", "MobileInst", "SegFS", "2019", "2026", *check.IDEAS} <= words


def test_curves_of_all_panels_are_in_the_legend():
    curves = {"a": [1, 2], "b": [3, 4]}
    figure = check.plot_lines({"one": curves, "two": {"a": [5, 6]}}, [1, 5], "Head", "note")
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    assert figure.alt == "Head. note"


def test_prototypes_are_tracked_and_no_object_is_nobody():
    encode = check.encode_frames(stub).or_ours
    network = check.Prototypes()
    model = SimpleNamespace(
        config=QueryConfig(("red", "green", "blue"), 3, 4), encode=lambda frames: encode(network, frames)
    )
    model.eval = lambda: model
    frame = np.full((64, 96, 3), 40, np.uint8)
    frame[8:40, 8:40], frame[16:48, 56:88] = (255, 0, 0), (110, 110, 110)
    something = encode(network, image_to_batch(frame)).out.class_logits.sigmoid().sum(-1)[0]
    assert (something > 0.9).tolist() == [False, False, True, False] and something.sort().values[2] < 0.1
    result = KernelTracker(model, 3, "mask").step(frame)
    assert [model.config.class_names[label] for label in result.labels] == ["red"]
    truth = (frame == (255, 0, 0)).all(-1)
    assert (result.masks()[0] & truth).sum() / (result.masks()[0] | truth).sum() > 0.8
