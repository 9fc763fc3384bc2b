"""A run's facts of its task come from the data set, with prompts and gold answers of the test set."""

from types import SimpleNamespace

from model.run.task_facts import TaskFacts


def _task(**changes):
    plain = {
        "name": "gsm8k",
        "objective": "language_modeling",
        "metrics": ("perplexity",),
        "selection": SimpleNamespace(name="loss", maximise=False),
        "labels": (),
        "generation": None,
        "template": "Q: {question}",
        "hub": ("openai/gsm8k", "main"),
    }
    return SimpleNamespace(**plain | changes)


def _part(name="", **changes):
    return SimpleNamespace(name=name, task=_task(**changes), table={"columns": "q"} if not name else {})


def test_a_single_data_set_has_no_templates_by_part():
    facts = TaskFacts.of(_task(), [_part()], {})
    assert (facts.name, facts.selection, facts.maximise) == ("gsm8k", "loss", False)
    assert (facts.template, facts.templates, facts.table) == ("Q: {question}", {}, {"columns": "q"})
    assert facts.generation is None
    assert facts.hubs == ["openai/gsm8k"]


def test_the_parts_of_a_mixture_keep_their_templates():
    parts = [_part("one", template="A"), _part("two", template=None)]
    assert TaskFacts.of(_task(template=None), parts, {}).templates == {"one": "A"}


def test_generated_answers_have_the_prompts_and_golds_of_the_test_set():
    task = _task(generation=SimpleNamespace(max_new_tokens=9, score=lambda text, gold: {"m": 1.0}))
    rows = [SimpleNamespace(texts=("p", "rest"), gold="7"), SimpleNamespace(texts=("q",), gold=None)]
    generation = TaskFacts.of(task, [_part()], {"test": SimpleNamespace(examples=rows)}).generation
    assert (generation.prompts, generation.golds, generation.max_new_tokens) == (["p", "q"], ["7", ""], 9)
    assert TaskFacts.of(task, [_part()], {}).generation.golds == []
