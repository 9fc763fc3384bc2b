"""The pictures that runs draw are whole pictures; other end-to-end tests leave their pixels out."""

import pytest
from matplotlib.image import imread

from tests.support.pictures import BLANK, drawn_pictures
from tests.support.runs import run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


FREEZING = {"freezing": {"rule": "epoch", "after_epochs": 1}}
CASES = {
    "hydra": ("train", {"search/router_usage.png", "curves.png"}),
    "aflora": ("train", {"search/freezing.png", "search/trainable.png", "curves.png"}),
    "scores": ("imp-test", {"search/scores_grad_norm.png"}),
    "search": ("train-dyrealloc", {"search/frequency.png", "search/lora_share.png", "curves.png"}),
}


def _options(ground, name):
    if name == "hydra":
        return {"lora_config": ground.plan("drawn-hydra", method="hydra", heads=2)}
    if name == "aflora":
        return {"lora_config": ground.plan("drawn-aflora", FREEZING, method="aflora")}
    search = {"importance_test_name": "grad_norm", "imp_limit_test_batches": 1}
    if name == "scores":
        return search
    dynamic = {"realloc_N": 2, "dyrealloc_ags_mode": "separated", "shortcut_config": ground.shortcuts()}
    return {**search, **dynamic}


@pytest.mark.parametrize("name", CASES)
def test_every_picture_of_a_run_is_drawn(ground, place, name):
    action, pictures = CASES[name]
    _, *words = ground.words("llama", **_options(ground, name))
    with drawn_pictures():
        directory = run(place / name, action, *words)
    assert {str(path.relative_to(directory)) for path in directory.rglob("*.png")} == pictures
    for picture in pictures:
        pixels = imread(directory / picture)
        assert min(pixels.shape[:2]) > 100, picture
        assert pixels.std() > 0.01, picture
        assert (directory / picture).read_bytes() != BLANK
