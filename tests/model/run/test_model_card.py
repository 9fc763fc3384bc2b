"""The card has what a hub reads, code that runs, and leaves the licence open."""

from dataclasses import replace

from huggingface_hub import ModelCard

from model.run.model_card import CardFacts, Result, model_card

FACTS = CardFacts(
    base="org/base",
    dataset="gsm8k",
    hubs=("openai/gsm8k",),
    task="causal_language_modeling",
    methods={"lora"},
    result=Result("val/loss", 0.25, 3),
    template="Q: {question}\nA: ",
)


def test_a_hub_reads_base_data_set_and_metric_from_the_card():
    data = ModelCard(model_card(FACTS)).data
    assert (data.base_model, data.datasets, data.library_name) == ("org/base", ["openai/gsm8k"], "peft")
    assert (data.pipeline_tag, data.tags, data.license) == ("text-generation", ["lora"], None)
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("openai/gsm8k", "gsm8k")
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("validation", "loss", 0.25)


def test_a_person_reads_them_too():
    card = model_card(FACTS)
    assert "| val/loss | 0.25 at step 3 |" in card
    assert "| licence | not stated |" in card


def test_a_path_is_no_name_for_a_hub_and_other_tools_are_not_named():
    card = model_card(replace(FACTS, base="/some/where", hubs=(), only_here=("hydra",), result=None))
    data = ModelCard(card).data
    assert (data.base_model, data.library_name, data.eval_results) == (None, None, None)
    assert "PEFT cannot represent hydra" in card
    assert "/some" not in card
    assert "| base | `where` |" in card


def test_the_code_of_the_card_defines_what_it_uses():
    for facts in (FACTS, replace(FACTS, base="package:a/b.gguf", task="classification", classes=3)):
        code = model_card(facts).partition("```python\n")[2].partition("```")[0]
        compile(code, "card", "exec")
        assert "base = AutoModelFor" in code
        assert ("num_labels=3" in code) == (facts.classes == 3)


def test_what_is_not_known_is_left_out():
    card = model_card(CardFacts(base="org/base", task=None, methods={"lora"}))
    assert "data set" not in card
    assert "| evaluation | none |" in card
    assert ModelCard(card).data.eval_results is None
