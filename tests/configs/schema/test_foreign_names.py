"""Words of other programs are answered with ours."""

import re

import pytest

from configs.runtime.faults import InputFault
from configs.schema.foreign_names import FOREIGN_NAMES, foreign_advice
from configs.schema.lookup import flags, keys


def test_every_answer_names_options_that_there_are():
    for name, answer in FOREIGN_NAMES.items():
        assert name not in keys(), name
        assert re.fullmatch(r"[a-z0-9_]+", name)
        named = re.findall(r"--[a-z-]+", answer)
        assert (
            answer in keys() or named or name in ("push_to_hub", "trust_remote_code") or "ACTION" in answer
        ), name
        assert set(named) <= set(flags()), name


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--lr", "1e-3"], "--lr: unknown option; here it is --learning-rate"),
        (
            ["--gradient-accumulation-steps", "4"],
            "--gradient-accumulation-steps: unknown option; here it is --accumulate-grad-batches",
        ),
        (["--output_dir=x"], "--output_dir: unknown option; here it is --project-dir"),
        (
            ["--fast-dev-run"],
            "--fast-dev-run: unknown option; write --dry-run to check a run, or --max-steps 1 to try one"
            " step",
        ),
        (["max_steps=3"], "max_steps=3: unexpected argument; write --max-steps 3"),
        (["trainer.max_steps=3"], "trainer.max_steps=3: unexpected argument; write --max-steps 3"),
        (["lr=3"], "lr=3: unexpected argument; here it is --learning-rate"),
    ],
)
def test_a_foreign_flag_is_answered_with_ours(bound, words, line):
    with pytest.raises(InputFault) as refused:
        bound(*words)
    assert refused.value.lines == (line,)


def test_a_foreign_key_is_answered_with_ours(bound, tmp_path):
    (tmp_path / "run.toml").write_text("gradient_accumulation_steps = 2\n")
    with pytest.raises(InputFault) as refused:
        bound("--config", "run.toml")
    assert refused.value.lines == (
        f"{tmp_path}/run.toml:1: unknown key 'gradient_accumulation_steps'; here it is"
        " accumulate_grad_batches",
    )


def test_an_unknown_word_stays_unknown():
    assert foreign_advice("--zebra", dashes=True) is None
