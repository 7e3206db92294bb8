"""Which names are of one category, and what may be handed over in the place of weights. Frames: test_adapters.py."""

import pytest
import torch

from minst.model import MobileInst
from minst.protocol import category_key, open_model


@pytest.mark.parametrize(
    "names",
    [
        ("tennis_racket", "Tennis Racket", "tennis-racket"),
        ("aeroplane", "airplane", "Airplane"),
        ("motorbike", "motorcycle", "Motor_Bike"),
        ("tvmonitor", "tv", "TV"),
        ("sofa", "couch"),
        ("diningtable", "dining table"),
        ("물고기", "물_고기"),
    ],
)
def test_names_of_one_category(names):
    assert len({category_key(name) for name in names}) == 1


def test_names_of_different_categories_stay_apart():
    names = ["person", "people", "car", "sedan", "bear", "teddy bear", "cat", "cattle", "tv", "cow", "sea lion", "lion"]
    assert len({category_key(name) for name in names}) == len(names)


def test_a_name_a_folder_and_a_model_are_opened(tmp_path, tiny, colours):
    tiny.save_pretrained(tmp_path)
    for named in (tmp_path, str(tmp_path)):
        opened = open_model(named)
        assert isinstance(opened, MobileInst) and not opened.training
        frames = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(opened(frames).kernels, tiny(frames).kernels, atol=1e-4, rtol=1e-3)
    model = colours("a", "b", "c").train()
    assert open_model(model, torch.device("cpu")) is model and not model.training
    with pytest.raises(FileNotFoundError, match="none-such"):
        open_model("none-such")
