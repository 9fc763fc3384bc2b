"""The card has what a hub reads and leaves the licence open."""

from dataclasses import replace

from model.run.model_card import CardFacts, model_card

FACTS = CardFacts(
    base="org/base",
    dataset="gsm8k",
    task="causal_language_modeling",
    methods={"lora"},
    metric="val/loss",
    value=0.25,
    step=3,
    template="Q: {question}\nA: ",
)


def test_the_card_names_base_method_and_metric():
    card = model_card(FACTS)
    assert card.startswith("---\nlibrary_name: peft\nbase_model: org/base\ntags:\n- lora\n---\n")
    assert "| val/loss | 0.25 at step 3 |" in card
    assert "| licence | not stated |" in card
    assert "license:" not in card


def test_a_path_is_no_name_for_a_hub_and_other_tools_are_not_named():
    card = model_card(replace(FACTS, base="/some/where", only_here=("hydra",), value=None))
    assert "base_model" not in card
    assert "library_name" not in card
    assert "PEFT cannot represent hydra" in card
