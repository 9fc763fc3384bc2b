"""Every key of a batch that the code names is in the table."""

import ast

from configs.schema.batch_keys import KEYS, NETWORK_INPUTS
from tests.support.tree import TREES, files

NAMES = [key.name for key in KEYS]
BATCHES = ("batch", "item", "items[0]", "batches[0]")


def test_names_are_unique_and_tokens_are_padded():
    assert len(set(NAMES)) == len(NAMES)
    for key in KEYS:
        assert key.padding is None or any("T" in shape for shape in key.shapes), key.name
    assert {"input_ids", "attention_mask"} <= set(NETWORK_INPUTS)


def test_code_names_no_other_key():
    used = {
        node.slice.value
        for path in files("dataset", "model", "tools")
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value) in BATCHES
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }
    assert {"input_ids", "labels", "letters", "index"} <= used <= set(NAMES)
