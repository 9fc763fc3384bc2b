"""The task of an adapter is known before torch is imported."""

import json

import pytest
import torch
from safetensors.torch import save_file

from configs.runtime.faults import InputFault
from model.exchange.adapter_directory import find_adapter, labels, objective, read_files, trained_prompt

OWN = {"sha256": {"adapter_model.safetensors": "0" * 64}}
"""What marks a metadata.json as written by this program."""


def _adapter(directory, metadata=None, head=None, **config):
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors = {"base_model.model.a.lora_A.weight": torch.zeros(2, 4)}
    save_file({**tensors, **(head or {})}, directory / "adapter_model.safetensors")
    if metadata is not None:
        (directory / "metadata.json").write_text(json.dumps(OWN | metadata))
    return directory


def test_a_run_directory_means_its_adapter(tmp_path):
    place = _adapter(tmp_path / "run" / "adapter")
    assert find_adapter(tmp_path / "run", "--adapter") == find_adapter(place, "--adapter") == place
    with pytest.raises(InputFault, match="--adapter: .* is neither an adapter .* nor a run"):
        find_adapter(tmp_path, "--adapter")


def test_the_objective_is_recorded_or_given(tmp_path):
    bare = read_files(_adapter(tmp_path / "bare"), "--adapter")
    with pytest.raises(InputFault, match="--task: required"):
        objective(bare, None)
    assert objective(bare, "causal_language_modeling") == "language_modeling"
    assert objective(bare, "summarization") == "language_modeling"
    causal = read_files(_adapter(tmp_path / "causal", task_type="CAUSAL_LM"), "--adapter")
    assert objective(causal, None) == "language_modeling"
    with pytest.raises(InputFault, match="--task: .* was trained for CAUSAL_LM, got 'classification'"):
        objective(causal, "classification")


def test_the_prompt_of_the_same_data_set_is_taken(tmp_path):
    def recorded(name, **metadata):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata.json").write_text(json.dumps(OWN | metadata))
        return [tmp_path / name]

    own = recorded("own", template="Q: {question}", evaluation={"dataset": "gsm8k"})
    assert trained_prompt(own, "gsm8k") == {"template": "Q: {question}"}
    assert trained_prompt(own, "billsum") == {}
    assert trained_prompt(recorded("none", template=None, evaluation={"dataset": "rte"}), "rte") == {}
    mixed = recorded("mixed", template=None, templates={"gsm8k": "Q"}, evaluation={"dataset": "mix"})
    assert trained_prompt(mixed, "gsm8k") == {"template": "Q"}
    assert trained_prompt(mixed, "billsum") == trained_prompt(mixed, "mix") == {}
    with pytest.raises(InputFault, match="metadata.json: templates: must be a table of strings"):
        trained_prompt(recorded("broken", templates={"gsm8k": 3}), "gsm8k")
    assert trained_prompt([tmp_path / "foreign"], "gsm8k") == trained_prompt([], "gsm8k") == {}
    with pytest.raises(InputFault, match="metadata.json: template: must be a string or null"):
        trained_prompt(recorded("spoilt", template=3), "gsm8k")


def test_classes_are_recorded_or_counted_at_the_head(tmp_path):
    head = {"base_model.model.classifier.dense.weight": torch.zeros(4, 4)}
    head["base_model.model.classifier.out_proj.weight"] = torch.zeros(3, 4)
    foreign = read_files(_adapter(tmp_path / "foreign", head=head, task_type="SEQ_CLS"), "--adapter")
    assert labels(foreign) == ("LABEL_0", "LABEL_1", "LABEL_2")
    ours = {"labels": ["no", "yes"], "evaluation": {"task": "classification"}}
    own = read_files(_adapter(tmp_path / "own", ours, task_type="SEQ_CLS"), "--adapter")
    assert (labels(own), objective(own, None)) == (("no", "yes"), "classification")


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({"evaluation": []}, "evaluation: must be a table"),
        ({"template": 3}, "template: must be a string or null"),
        ({"labels": [1]}, "labels: must be a list of strings"),
    ],
)
def test_metadata_of_another_form_is_refused(tmp_path, metadata, line):
    with pytest.raises(InputFault, match=line):
        read_files(_adapter(tmp_path / "a", metadata), "--adapter")


def test_one_output_is_a_regression(tmp_path):
    head = {"base_model.model.score.weight": torch.zeros(1, 4)}
    files = read_files(_adapter(tmp_path / "a", {"labels": []}, head, task_type="SEQ_CLS"), "--adapter")
    assert objective(files, None) == "regression"
