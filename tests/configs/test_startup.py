"""A misspelt option answers before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

from configs.schema.lookup import flags, keys, meanings, option_specs

HEAVY = ("torch", "lightning", "numpy", "transformers", "datasets", "rich", "matplotlib", "safetensors")
PROGRAM = f"""
import sys, time
import configs.command_line.cli, configs.toml.binding, configs.toml.writer, model.plan.lora_toml
from configs.runtime.faults import InputFault
try:
    configs.command_line.cli.parse(["train", "--max-ep", "3"])
except InputFault as refusal:
    assert "--max-epochs" in refusal.lines[0]
else:
    raise SystemExit("accepted")
print([name for name in {HEAVY} if name in sys.modules], time.process_time())
"""


def test_refusals_are_light():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    heavy, seconds = done.stdout.rsplit(maxsplit=1)
    assert heavy == "[]"
    assert float(seconds) < 0.3


def test_every_option_has_a_meaning_and_one_spelling_each():
    assert set(meanings()) == set(option_specs())
    assert all(text.endswith(".") for text in meanings().values())
    assert {"--dataset-saved-path", "--cpu", "--gpu", "--realloc-N", "--no-pretrained"} <= set(flags())
    assert {"load_name", "training_optimizer", "is_pretrained", "is_to_auto_requeue"} <= set(keys())
    assert "config" not in keys()
