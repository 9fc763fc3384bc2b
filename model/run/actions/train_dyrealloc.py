"""`train-dyrealloc`: train while a search decides at regular intervals which modules are on."""

import time
from pathlib import Path

from configs.runtime import console
from configs.runtime.files import write_bytes
from model.figures.charts import share_lines
from model.figures.heat_maps import heat_map
from model.run.action import Action
from model.run.finish import finish
from model.run.fit import fit
from model.run.job import Job, SearchResult
from model.run.reallocation_search import budget_of, search_of
from model.run.start import start
from model.search.history import History, frequency, frequency_panel
from model.search.reallocation_callback import ReallocationCallback
from model.site import is_shortcut


def run(job: Job) -> int:
    """Train from the beginning or from the checkpoint of `--resume-training`."""
    budget = budget_of(job)
    if not job.options.resume_training:
        for key in budget.sizes:  # all of them train, also those that the configuration disables
            job.assembled.attachments[key].enabled = True
    job.freeze_inactive()
    learner = job.learner(job.data.validation_names)
    search = search_of(job, budget)
    rows = [
        ("search", f"{job.options.importance_test_name}, every {search.every} batches"),
        ("budget", budget.description()),
    ]
    directory = start(job, learner, rows)
    if directory is None:
        return 0
    folder = directory.path / "search"
    callback = ReallocationCallback(search, folder)
    started = time.perf_counter()
    trainer, saver = fit(job, directory, learner, [callback])
    took = time.perf_counter() - started
    title = f"{job.options.importance_test_name} on {job.task.name}"
    pictures = _draw(folder, callback.history, title) if console.rank() == 0 else {}
    result = SearchResult(len(callback.decided), frozenset(budget.sizes), pictures)
    finish(job, directory, trainer, learner, saver, result)
    share = 100 * callback.seconds / took
    on = sum(one.active for key, one in job.assembled.attachments.items() if key in budget.sizes)
    console.say(
        f"search: {len(callback.decided)} decisions, {share:.1f} % of the training time; on at the best"
        f" step: {on} of {len(budget.sizes)} modules, {learner.active_parameters():,} parameters active"
    )
    for heading, picture in pictures.items():
        console.say(f"{heading}: {picture}")
    return 0


def _draw(folder: Path, history: History, title: str) -> dict[str, Path]:
    """Draw how often each module was on and the share of LoRA among them; return heading -> picture."""
    counted = frequency(history)
    pictures = {"How often each module was on": folder / "frequency.png"}
    write_bytes(folder / "frequency.png", heat_map([frequency_panel(counted, title)], "reallocations on"))
    keys = sorted(counted.counts)
    if any(map(is_shortcut, keys)):
        blind = sum(not is_shortcut(key) for key in keys) / len(keys)
        trend = {"LoRA": [one.lora_share for one in history.reallocations]}
        write_bytes(folder / "lora_share.png", share_lines(trend, [blind]))
        pictures["Share of LoRA among the modules that are on"] = folder / "lora_share.png"
    return pictures


def check(job: Job) -> None:
    """Refuse a budget that turns on no module.

    Raises:
        InputFault: naming the flag.
    """
    budget_of(job)


ACTION = Action(run, check)
