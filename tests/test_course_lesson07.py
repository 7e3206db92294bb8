"""The checks of lesson 07: students' mistakes meet their hint."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from minst.course import lesson07 as check
from minst.model import apply_kernels, image_to_batch, upsample_masks

SOLUTIONS = (
    Path(__file__).resolve().parents[1]
    / "notebooks"
    / "solutions"
    / "07_kernel_reuse_and_association.py"
)


@pytest.fixture(scope="module")
def solved() -> dict:
    return runpy.run_path(str(SOLUTIONS))


# --- what students write


def associates_with_nothing(frame, reuse_interval):
    names = ["backbone", "mask decoder"]
    return names + ["instance decoder", "association"] if frame % reuse_interval == 0 else names


def rests(frame, reuse_interval):
    if frame % reuse_interval:
        return []
    return ["backbone", "mask decoder", "instance decoder"] + (["association"] if frame else [])


def counts_from_one(frame, reuse_interval):
    names = ["backbone", "mask decoder"]
    return (
        names + ["instance decoder", "association"] if (frame + 1) % reuse_interval == 0 else names
    )


def decodes_always(frame, reuse_interval):
    return ["backbone", "mask decoder", "instance decoder"] + ["association"] * (frame > 0)


def favourite(old, new):
    old, new = (torch.nn.functional.normalize(k, dim=1) for k in (old, new))
    return (old @ new.T).max(dim=1).indices


def best_first(old, new):
    cosine = torch.nn.functional.cosine_similarity(old[:, None], new[None], dim=-1)
    pairs = sorted(((-float(cosine[i, j]), i, j) for i in range(len(old)) for j in range(len(new))))
    found = {}
    for _, i, j in pairs:
        if i not in found and j not in found.values():
            found[i] = j
    return [found[i] for i in range(len(old))]


def row_by_row(old, new):
    cosine, found = torch.nn.functional.cosine_similarity(old[:, None], new[None], dim=-1), []
    for row in cosine.tolist():
        found.append(max((j for j in range(len(new)) if j not in found), key=row.__getitem__))
    return np.array(found)


def no_lengths(old, new):
    return linear_sum_assignment(-(old @ new.T))[1]


def least_alike(old, new):
    cosine = torch.nn.functional.cosine_similarity(old[:, None], new[None], dim=-1)
    return linear_sum_assignment(cosine)[1]


def the_other_way_round(old, new):
    cosine = torch.nn.functional.cosine_similarity(new[:, None], old[None], dim=-1)
    return linear_sum_assignment(cosine, maximize=True)[1]


def tracker(**slips):
    """A student's tracker, written without minst.tracking, with some slip."""

    def track(model, frames, T, threshold):
        result, names, memory, old_scores = [], {}, None, None
        for t, frame in enumerate(frames):
            encoded = model.encode(image_to_batch(frame))
            if t % T == 0 or slips.get("every"):
                output = model.decode(encoded)
                kernels, scores = output.kernels[0], output.scores()[0].max(-1).values
                order = np.arange(len(kernels))
                if memory is not None and not slips.get("lazy"):
                    cosine = torch.nn.functional.cosine_similarity(
                        memory[:, None], kernels[None], dim=-1
                    )
                    both = 1 if slips.get("silent") else old_scores[:, None] * scores
                    score = cosine * both
                    if slips.get("live"):  # the others take what is left
                        score = score * (old_scores[:, None] >= threshold)
                    score = score + 1e-6 * torch.eye(len(score))
                    order = linear_sum_assignment(score.numpy(), maximize=True)[1]
                    order = order.argsort() if slips.get("inverse") else order
                kernels = kernels[order]
                scores = scores if slips.get("scores") else scores[order]
                memory = memory if slips.get("first") and memory is not None else kernels
                key, old_scores = encoded, scores
            result.append({})
            for slot in range(len(kernels)):
                if scores[slot] >= threshold:
                    names.setdefault(slot, slot + 1 if slips.get("slot") else len(names) + 1)
                    used = (key if slips.get("still") else encoded).x_mask
                    mask = (
                        upsample_masks(
                            apply_kernels(kernels[None, slot : slot + 1], used), encoded.size
                        )[0, 0]
                        >= 0
                    )
                    result[-1][names[slot]] = mask if not slips.get("small") else mask[::8, ::8]
        return result[1:] if slips.get("short") else result

    return track


def kernels_with(own, swap=True, shape=None):
    def fool(x_mask):
        old = torch.zeros(2, shape or len(x_mask))
        old[0, 0] = old[1, 1] = 1
        new = old.flip(0) if swap else old.clone()
        for kernels in (old, new):
            kernels[0, 2] = own
            kernels[1, 3] = own
        return old, new

    return fool


def only_new(x_mask):
    old, new = kernels_with(3.0)(x_mask)
    new[1] = new[0]
    return old, new


def everywhere(x_mask):
    return torch.ones(2, len(x_mask)), torch.ones(2, len(x_mask))


def mean_of_all_frames(scores, T, threshold):
    return torch.stack(
        [scores[: t + 1][scores[: t + 1].amax(1) >= threshold].mean(0) for t in range(len(scores))]
    )


def blind_frames_too(scores, T, threshold):
    return torch.stack([scores[: t + 1 : T].mean(0) for t in range(len(scores))])


def whole_video(scores, T, threshold):
    keys = scores[::T]
    return keys[keys.amax(1) >= threshold].mean(0).repeat(len(scores), 1)


def limit_per_class(scores, T, threshold):
    keys = [scores[: t + 1 : T] for t in range(len(scores))]
    return torch.stack([(k * (k >= threshold)).sum(0) / (k >= threshold).sum(0).clamp(min=1) for k in keys])


WRONG = [
    ("modules_run", associates_with_nothing, "no older kernel"),
    ("modules_run", rests, "never rest"),
    ("modules_run", decodes_always, "reused"),
    ("modules_run", counts_from_one, "expected"),
    (
        "modules_run",
        lambda t, T: [["backbone", "mask decoder"], rests(t + 1, T)][(t + 1) % T == 0],
        "count from 0",
    ),
    ("cosine_association", favourite, "One to one"),
    ("cosine_association", best_first, "greedy"),
    ("cosine_association", row_by_row, "greedy"),
    ("cosine_association", no_lengths, "Long kernels"),
    ("cosine_association", least_alike, "maximize"),
    ("cosine_association", the_other_way_round, "new query of every old"),
    ("track", tracker(lazy=True), "Nobody is associated"),
    ("track", tracker(inverse=True), "wrong way round"),
    ("track", tracker(every=True), "0, T, 2 T"),
    ("track", tracker(still=True), "stand still"),
    ("track", tracker(first=True), "last key frame"),
    ("track", tracker(scores=True), "their scores are not"),
    ("track", tracker(silent=True), "silent duplicates"),
    ("track", tracker(live=True), "All slots are associated"),
    ("track", tracker(slot=True), "not slot numbers"),
    ("track", tracker(small=True), "shape"),
    ("track", tracker(short=True), "expected"),
    ("fool_cosine", kernels_with(0.5), "cosine sees"),
    ("fool_cosine", kernels_with(3.0, swap=False), "nothing has moved"),
    ("fool_cosine", only_new, "exactly on B"),
    ("fool_cosine", everywhere, "exactly on A"),
    ("fool_cosine", kernels_with(3.0, shape=11), "the shape is"),
]


@pytest.mark.parametrize(("name", "answer", "word"), WRONG)
def test_a_wrong_answer_meets_its_hint(name, answer, word):
    for _ in range(2):
        verdict = getattr(check, name)(answer)
        assert verdict.state == "wrong" and word in verdict.reason, verdict


def test_another_way_to_the_same_answers():
    assert check.track(tracker()).state == "correct"  # without minst.tracking, tensors for arrays
    assert check.track(lambda *given: tuple(tracker()(*given))).state == "correct"
    assert check.fool_cosine(kernels_with(1.5)).state == "correct"


def test_a_pixel_on_the_edge_is_no_mistake_and_a_lost_instance_is():
    def nearly(*given, drop=0):
        found = tracker()(*given)
        mask = next(iter(found[0].values()))
        mask[0, 0] ^= True
        return [dict(list(frame.items())[drop:]) for frame in found]

    assert check.track(nearly).state == "correct"
    assert "keys" in check.track(lambda *given: nearly(*given, drop=1)).reason


SLIPS = [
    ("running", mean_of_all_frames, "key frames have new scores"),
    ("running", blind_frames_too, "did not see"),
    ("running", whole_video, "later ones"),
    ("running", limit_per_class, "The limit is for the best class"),
    ("product", lambda k, x: k @ x.flatten(2), "the shape is (2, 20, 768), expected (2, 20, 24, 32)"),
    ("score", lambda classes, objectness: classes.sigmoid() * objectness.sigmoid()[..., None], "element [0, 0, 0]"),
    ("attend", lambda layer, q, k, v: layer.out(layer.v(v).mean(1, True).expand_as(q)), "element [0, 0, 0]"),
    ("say", lambda heads, z, q: heads(z), "value[0]: element"),  # who speaks?
    ("look", lambda stage, z, q, x, pos: stage(z, q, x + pos, pos), "element"),
    ("focal", lambda logits, targets, count: 1 / 0, "ZeroDivisionError"),
    ("associate", lambda old, s, new, t: favourite(old, new), "element"),
]


@pytest.mark.parametrize(("stage", "answer", "word"), SLIPS)
def test_a_stage_from_memory_is_judged_by_itself(solved, stage, answer, word):
    model = check._shipped()
    right = solved["from_memory"](model)
    verdict = check.from_memory(lambda model: right | {stage: answer})
    lines = str(verdict).splitlines()
    (line,) = [line for line in lines if line.startswith(f"✘ {stage}")]
    assert verdict.state == "wrong" and word in line and "14 of 15" in lines[0]
    assert sum(line.startswith("✔") for line in lines) == 14
    mended = verdict.or_ours(model)  # all stages: the answer's where they are right
    assert mended[stage] is not answer and mended["dice" if stage != "dice" else "focal"] in right.values()
    assert check.from_memory(mended).state == "correct"


def test_any_subset_of_stages_is_judged_and_the_rest_is_not_attempted(solved):
    right = solved["from_memory"](check._shipped())
    some = check.from_memory({"reuse": right["reuse"], "score": right["score"]})
    assert some.state == "not attempted" and "2 of 15" in str(some)
    assert str(some).count("○") == 14 and str(some).count("✔") == 2  # the verdict itself and 13 stages

    class Mine:
        product = right["product"]

        @staticmethod
        def score(classes, objectness):
            raise NotImplementedError

    some = check.from_memory(Mine)
    assert some.state == "not attempted" and str(some).count("✔") == 1
    assert set(some.or_ours(check._shipped())) == set(right)
    assert check.from_memory(right).state == check.from_memory(lambda model: right).state == "correct"


def test_what_is_no_set_of_stages_is_said():
    assert "it gives ['produkt']" in check.from_memory({"produkt": print}).reason
    assert "expected a dict" in check.from_memory({}).reason
    assert "expected a dict" in check.from_memory(lambda model: [model]).reason


@torch.no_grad()
def test_running_scores_are_those_of_the_tracker(solved):
    from minst import KernelTracker, MobileInst, load_sample

    model, scores, known = MobileInst.from_pretrained("shapes-tiny"), [], []
    online = KernelTracker(model, reuse_interval=3, association="cosine")
    for _, image in zip(range(10), load_sample("occlusion")):
        online.step(image)
        scores.append(
            model(image_to_batch(image)).scores()[0][online.slots.queries]
        )  # (N, K), in the order of the slots
        known.append(online.slots.means().clone())
    running = solved["from_memory"](model)["running"]
    for slot, expected in enumerate(torch.stack(known, dim=1)):
        found = running(torch.stack(scores)[:, slot], 3, 0.5)
        torch.testing.assert_close(found, expected)
