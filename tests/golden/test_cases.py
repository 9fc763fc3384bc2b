"""There are golden cases to test against."""

import pytest

from tests.support.golden import GOLDEN, OWN, case_paths

pytestmark = pytest.mark.golden
PATTERNS = (
    "lora_*.safetensors",
    "hydra_*.safetensors",
    "aflora_layer_*.safetensors",
    "aflora_freeze_*.safetensors",
    "saliency_*",
    "realloc_static*.json",
    "realloc_dynamic*.json",
    "shortcut_*",
)


def test_there_are_cases():
    found = [pattern for pattern in PATTERNS if case_paths(pattern)]
    assert found, f"no cases in {GOLDEN}"


def test_the_own_folder_has_cases_of_every_kind():
    assert [pattern for pattern in PATTERNS if not list(OWN.glob(pattern))] == []
