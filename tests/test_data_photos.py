"""Pseudo-clips: masks follow what is seen, nothing depends on who asks, and what an image says of
categories is what a clip says."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from minst import backbones, training
from minst.data.batches import ClipBatches, FolderClips
from minst.data.coco import open_folder
from minst.data.photos import PhotoClip, PhotoClips, cut, lit, spoilt
from minst.data.shapes import ShapesConfig, write_shapes_dataset
from minst.recipes import recipe
from minst.rle import encode

SIZE = (72, 96)
NAMES = ("cat", "dog", "person")
COLORS = {"cat": (250, 20, 20), "dog": (20, 250, 20), "person": (20, 20, 250)}


def photograph(seed, things, size=SIZE):
    """A grey picture with boxes of the colours of `things`, and their masks."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 110, (*size, 3), dtype=np.uint8)
    masks = []
    for k, name in enumerate(things):
        mask = np.zeros(size, bool)
        mask[12 + 4 * k : 44 + 4 * k, 6 + 30 * k : 34 + 30 * k] = True
        image[mask] = COLORS[name]
        masks.append(mask)
    return image, masks


def write_folder(root, photos, size=SIZE):
    """photos: for each the names of what it shows, "name!" for a crowd region."""
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": 7 + k, "name": name} for k, name in enumerate(NAMES)]
    (root / "images").mkdir(parents=True)
    for i, said in enumerate(photos):
        things = [name.rstrip("!") for name in said]
        image, masks = photograph(i, things, size)
        Image.fromarray(image).save(root / "images" / f"{i}.png")
        shape = {"height": size[0], "width": size[1]}
        content["images"].append({"id": i, "file_name": f"{i}.png", **shape})
        for name, thing, mask in zip(said, things, masks):
            entry = {"id": len(content["annotations"]), "image_id": i, "segmentation": encode(mask)}
            entry |= {"category_id": 7 + NAMES.index(thing), "iscrowd": int(name.endswith("!"))}
            content["annotations"].append(entry)
    (root / "annotations.json").write_text(json.dumps(content))
    return open_folder(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    photos = [["cat"], ["dog"], [], ["person"], ["cat", "dog"], ["cat", "person"], ["cat!", "dog"]]
    return write_folder(tmp_path_factory.mktemp("photos"), photos)


def still(dataset, **changes):
    fields = {"motion": 0.0, "pasted": 0.0, "effects": 0.0, "negatives": 0.0}
    return PhotoClips(dataset, 3, SIZE, **{**fields, **changes})


def same(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.masks, b.masks)


def test_without_motion_a_photograph_is_itself(tmp_path):
    clip = still(write_folder(tmp_path, [["cat", "dog"]]))(0)
    image, masks = photograph(0, ["cat", "dog"])
    assert len(clip) > 1 and clip.labels.tolist() == [0, 1]
    for t in (0, len(clip) - 1):
        seen = clip.render(t)
        assert seen.image.dtype == np.uint8 and np.array_equal(seen.image, image)
        assert np.array_equal(seen.masks, masks)


def test_masks_follow_the_motion(tmp_path):
    """Nothing but the cats is red: in every frame the red pixels are the mask."""
    clips = still(write_folder(tmp_path, [["cat"], ["cat", "dog"]]), motion=1.0)
    moved = 0.0
    for index in range(12):
        clip = clips(index)
        frames = [clip.render(t) for t in (0, 6, 11)]
        for frame in frames:
            red = frame.image[..., 0].astype(int) - frame.image[..., 2] > 100
            red &= frame.image[..., 0].astype(int) - frame.image[..., 1] > 100
            mask = frame.masks[clip.labels == 0].any(0)
            both, either = (red & mask).sum(), (red | mask).sum()
            assert either < 60 or both / either > 0.85, (index, both, either)
        first, last = (frame.masks[0] for frame in frames[::2])
        moved = max(moved, 1 - (first & last).sum() / max(1, (first | last).sum()))
    assert moved > 0.2


def test_what_is_pasted_hides_what_lies_behind(folder):
    """Visible parts alone: no pixel belongs to two, and a pasted box has its own colour."""
    clips = PhotoClips(folder, 5, SIZE, ("cat", "dog"), effects=0.0, negatives=0.0)
    several = 0
    for index in range(24):
        clip = clips(index)
        frame = clip.render(4)
        assert frame.masks.shape == (len(clip.labels), *SIZE)
        assert frame.masks.sum(0).max() <= 1
        several += len(clip.labels) > 2
        for label, mask in zip(clip.labels, frame.masks):
            if mask.sum() > 150:  # light is fitted, so that a colour is only the strongest one
                assert frame.image[mask].mean(0).argmax() == label, index
    assert several > 4


def test_what_means_nothing_is_never_taught_but_seen(folder):
    """Persons are blue; cats and dogs are learned."""
    clips = PhotoClips(folder, 5, SIZE, ("cat", "dog"), effects=0.0)
    blue = 0
    for index in range(40):
        clip = clips(index)
        frame = clip.render(4)
        assert set(clip.labels.tolist()) <= {0, 1}
        numbered = {int(n) for layer in clip.layers for n in layer.owner.unique()}
        assert numbered | {0} == set(range(len(clip.labels) + 1))
        image = frame.image.astype(int)
        persons = (image[..., 2] - image[..., :2].max(-1)) > 120
        assert not (persons & frame.masks.any(0)).sum() > 60  # edges are half each
        blue += persons.sum() > 200
    assert blue > 8


def test_the_order_of_categories_is_that_of_the_labels(folder):
    clips = still(folder, categories=("dog", "cat"))
    assert clips.categories == ("dog", "cat")
    for index in range(8):
        clip = clips(index)
        frame = clip.render(0)
        for label, mask in zip(clip.labels, frame.masks):
            assert tuple(frame.image[mask][0]) == COLORS[clips.categories[label]]


def test_negatives_are_photographs_without_any_of_the_categories(folder):
    """Of seven photographs two hold neither a cat nor a dog; a crowd region is no negative."""
    clips = still(folder, categories=("cat", "dog"), negatives=1.0)
    seen = set()
    for index in range(24):
        clip = clips(index)
        frame = clip.render(0)
        assert not len(clip.labels) and frame.masks.shape == (0, *SIZE)
        matching = [i for i in range(7) if np.array_equal(frame.image, folder[i].image(0))]
        seen.update(matching)
    assert seen == {2, 3}
    # all categories: one photograph is left
    assert np.array_equal(still(folder, negatives=1.0)(0).render(0).image, folder[2].image(0))


def test_a_surface_holds_nothing_that_is_taught(folder, monkeypatch):
    """The piece comes out of any photograph whose instances are all known, and out of no crowd."""
    clips = still(folder, categories=("cat", "dog"), motion=1.0, negatives=1.0)
    sources, photo = set(), PhotoClips._photo
    monkeypatch.setattr(PhotoClips, "_photo", lambda self, i: sources.add(i) or photo(self, i))
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(60):
        surface = clips._surface(rng)
        if surface is not None:
            colours = {tuple(colour) for colour in surface.image.reshape(-1, 3).tolist()}
            assert not colours & {COLORS["cat"], COLORS["dog"]}
            assert not surface.owner.any() and not len(surface.labels)
            sizes.add(surface.image.shape[0])
    assert sources == {0, 1, 2, 3, 4, 5}
    assert min(sizes) < 36 < 72 < max(sizes)  # enlarged ones, and mirrored ones of three sides
    for index in range(40):
        frame = clips(index).render(3)
        reddish = frame.image[..., 0].astype(int) - frame.image[..., 1] > 100
        assert not reddish.any() and frame.masks.shape == (0, *SIZE)  # no cat


def test_a_mosaic_shows_four_photographs_and_numbers_on(folder):
    """Each quarter is one photograph, reduced, and its instances follow those of the one before."""
    clips = still(folder, categories=("cat", "dog"), motion=1.0)
    four = [clips._photo(i) for i in (4, 3, 0, 2)]  # cat and dog, a person, a cat, nothing
    whole = clips._mosaic(four)
    assert whole.image.shape == (2 * 54, 2 * 72, 3) and whole.owner.shape == (108, 144)
    assert whole.labels.tolist() == [0, 1, -1, 0]
    for k, (photo, numbers) in enumerate(zip(four, ([0, 1, 2], [0, 3], [0, 4], [0]))):
        quarter = np.s_[54 * (k // 2) : 54 * (k // 2) + 54, 72 * (k % 2) : 72 * (k % 2) + 72]
        assert np.unique(whole.owner[quarter]).tolist() == numbers
        for before, number in enumerate(numbers):
            share = (photo.owner == before).mean()
            assert (whole.owner[quarter] == number).mean() == pytest.approx(share, abs=0.02)
        assert np.abs(whole.image[quarter].mean((0, 1)) - photo.image.mean((0, 1))).max() < 3
    # a byte numbers 255: what has no number left is seen and not taught
    many = four[0]._replace(labels=np.zeros(254, dtype=np.int64))
    full = clips._mosaic([many, four[0], four[2], four[3]])
    assert len(full.labels) == 255 and set(np.unique(full.owner)) == {0, 1, 2, 255}


def test_mosaics_come_in_their_share_and_larger_ones_hide_smaller_ones(folder, monkeypatch):
    clips = PhotoClips(folder, 5, SIZE, negatives=0.0)
    made, mosaic = [], PhotoClips._mosaic
    monkeypatch.setattr(PhotoClips, "_mosaic", lambda *of: made.append(1) or mosaic(*of))
    several = [clips(index).layers[1:] for index in range(200)]
    assert len(made) / 200 == pytest.approx(0.4, abs=0.1)
    several = [[layer.area() for layer in layers] for layers in several if len(layers) > 2]
    rising = np.mean([areas == sorted(areas) for areas in several])
    assert len(several) > 60 and 0.5 < rising < 0.75  # half, and some by chance
    made.clear()
    clips = still(folder)
    for index in range(20):
        clips(index)
    assert not made  # without motion a photograph is itself


def test_a_photograph_with_a_crowd_region_is_no_background(folder):
    clips = still(folder, categories=("cat", "dog"))
    shown = [clips(index).render(0).image for index in range(40)]
    assert not any(np.array_equal(image, folder[6].image(0)) for image in shown)
    # of a category that is not learned it says nothing
    clips = still(folder, categories=("dog",))
    shown = [clips(index).render(0).image for index in range(40)]
    assert any(np.array_equal(image, folder[6].image(0)) for image in shown)


def test_a_crowd_region_is_never_cut_out_as_an_instance(tmp_path):
    folder = write_folder(tmp_path, [["cat!", "dog"], [], ["dog"]])
    clips = PhotoClips(folder, 1, SIZE, effects=0.0)
    assert {int(label) for i in range(30) for label in clips(i).labels} == {1}


def test_a_clip_is_a_function_of_seed_and_index(folder):
    one, other = PhotoClips(folder, 3, SIZE), PhotoClips(folder, 3, SIZE)
    for index in (5, 0, 3):  # in whatever order, before and after
        late = one(index).render(7)
        assert same(late, other(index).render(7)) and same(late, one(index).render(7))
    received = pickle.loads(pickle.dumps(one))
    assert same(received(2).render(1), other(2).render(1))
    differ = [PhotoClips(folder, seed, SIZE)(index) for seed, index in ((3, 6), (4, 5), (3, 7))]
    frames = [clip.render(3) for clip in [one(5), *differ]]
    assert not any(same(a, b) for k, a in enumerate(frames) for b in frames[:k])


def test_categories_are_drawn_by_the_root_of_their_number(tmp_path):
    """Nine photographs of cats, one of a dog: 3 to 1."""
    clips = still(write_folder(tmp_path, [["cat"]] * 9 + [["dog"]]))
    labels = [int(clips(index).labels[0]) for index in range(400)]
    assert np.mean(labels) == pytest.approx(0.25, abs=0.07)


def test_large_photographs_are_reduced(tmp_path):
    """To a shorter side of 1.5 times the frame's: 48 pixels of 480 are 7.2 of 72."""
    clips = still(write_folder(tmp_path, [["cat"]], (480, 640)))
    frame = clips(0).render(0)
    assert frame.masks.shape == (1, *SIZE)
    assert frame.masks.mean() == pytest.approx(32 * 28 / (480 * 640), rel=0.4)
    assert {photo.owner.shape for photo in clips._photos.values()} == {(108, 144)}


def test_unknown_categories_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no category 'cow'; there are: cat, dog, person"):
        PhotoClips(folder, categories=("cat", "cow"))
    empty = write_folder(tmp_path, [[], ["person"]])
    with pytest.raises(ValueError, match="no image with an instance of cat, dog"):
        PhotoClips(empty, categories=("cat", "dog"))


def test_a_broken_photograph_is_named(tmp_path):
    clips = still(write_folder(tmp_path, [["cat"]]))
    path = tmp_path / "images" / "0.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"0\.png: not a readable image"):
        clips(0)


def test_a_cut_out_has_soft_edges():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 6:12] = True
    pixels = cut(np.full((20, 20, 3), 80, np.uint8), mask)
    assert pixels.shape == (4, 14, 10)
    opacity = pixels[3]
    assert opacity[6, 5] == 1 and opacity[0, 0] == 0
    assert opacity[2, 5] == pytest.approx(2 / 3) and opacity[1, 5] == pytest.approx(1 / 3)


def test_light_comes_nearer_by_its_share():
    pixels = torch.cat([torch.full((3, 8, 8), 200.0), torch.ones(1, 8, 8)])
    light = torch.full((3, 1, 1), 100.0), torch.full((1, 1, 1), 30.0)
    assert lit(pixels, light, 0.25)[:3].mean() == pytest.approx(175)
    assert torch.equal(lit(pixels, light, 0.0), pixels)


def test_effects_keep_the_picture():
    image = np.full((*SIZE, 3), 100, np.float32)
    seen = [spoilt(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(frame.shape == image.shape and abs(frame.mean() - 100) < 2 for frame in seen)
    assert any(frame.std() > 1 for frame in seen) and any(frame.std() == 0 for frame in seen)


def small(**changes):
    fields = {"pairs": 2, "height": 72, "width": 96, "iterations": 2, "device": "cpu", "workers": 0}
    return recipe("photos", **{**fields, "data": "given", "warmup": 1, **changes})


def test_batches_of_pairs_and_of_images(folder):
    """Ids say which instance of a pair is which; a frame without any is there, too."""
    config = small(iterations=12, train_on="pairs", image_share=0.5)
    clips = PhotoClips(folder, 0, (72, 96), ("cat", "dog"))
    batches = [ClipBatches(config, clips)[i] for i in range(12)]
    assert {batch.is_pairs for batch in batches} == {True, False}
    assert all(batch.frames.shape == (4, 3, 72, 96) for batch in batches)
    assert any(not len(target.labels) for batch in batches for target in batch.instances)
    for batch in (batch for batch in batches if batch.is_pairs):
        for now, later in zip(batch.instances[:2], batch.instances[2:]):
            names = dict(zip(now.ids.tolist(), now.labels.tolist()))
            assert all(
                names.get(i, k) == k for i, k in zip(later.ids.tolist(), later.labels.tolist())
            )


def test_which_folders_become_pseudo_clips(folder, tmp_path):
    clips = training.folder_clips(small(data=str(folder.root), categories="dog,cat"))
    assert isinstance(clips, PhotoClips) and clips.categories == ("dog", "cat")
    assert isinstance(clips(0), PhotoClip) and clips.size == (72, 96)
    # videos, or stills in their form, are taken as they are
    write_shapes_dataset(tmp_path / "videos", 1, ShapesConfig(frames=2))
    clips = training.folder_clips(small(data=str(tmp_path / "videos")))
    assert isinstance(clips, FolderClips)


def test_a_training_starts_from_a_public_backbone_and_keeps_what_is_frozen(folder, tmp_path):
    """After two steps the frozen blocks are those of the file, as half floats; the others moved."""
    torch.manual_seed(7)
    public = {
        key: value.half() for key, value in backbones.build("mobilenetv2").state_dict().items()
    }
    public = {key: value for key, value in public.items() if key.startswith("features.")}
    save_file(public | {"classifier.1.bias": torch.ones(3)}, tmp_path / "public.safetensors")
    config = small(
        data=str(folder.root),
        categories="cat,dog",
        out=str(tmp_path / "run"),
        freeze_blocks=3,
        backbone_weights=str(tmp_path / "public.safetensors"),
        ema=0.5,
    )
    after = training.MobileInst.from_pretrained(training.train(config))
    assert after.config.class_names == ("cat", "dog")
    found = after.backbone.state_dict()
    changed = {
        key for key, value in public.items() if not found[key].equal(value.to(found[key].dtype))
    }
    assert {key.split(".")[1] for key in changed} == {str(k) for k in range(3, 18)}
    assert json.loads((tmp_path / "run" / "train.json").read_text())["freeze_blocks"] == 3


def test_more_frozen_blocks_than_there_are(folder):
    with pytest.raises(ValueError, match="freeze_blocks is 99; the backbone has 19 blocks"):
        training.start(small(freeze_blocks=99), categories=("cat", "dog"))
