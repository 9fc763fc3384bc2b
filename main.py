"""The composition root: bind options, build what they name, run one action, write the record."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs import console, kinds, run_directory, sweep
from configs.binding import bind
from configs.cli import Bound, HelpRequested, parse
from configs.config_table import show_config
from configs.faults import Findings, InputFault
from configs.model_name import ModelName, model_name
from configs.options import Options
from configs.run_directory import RunDirectory
from configs.seeds import derive
from configs.toml_text import config_text
from dataset.rows import TaskRows, Wanted, gather, wanted
from dataset.task import Task, TaskKind
from model import source as sources
from model.adapter_files import trained_prompt
from model.plan import Plan, read_plan

_MAX_TOKENS = 512


@dataclass(frozen=True)
class Prepared:
    """Everything that could be read and checked without the heavy libraries.

    Args:
        bound: the command line.
        name: family and method of `--model`.
        task: the data set.
        needed: the splits the action uses.
        rows: examples; None when they must be fetched from the hub first.
        source: where network and tokenizer come from.
        plan: the LoRA configuration, if one is given.
        run: the directory of a run that goes on; None for a new one.
    """

    bound: Bound
    name: ModelName
    task: Task
    needed: Wanted
    rows: TaskRows | None
    source: sources.Source
    plan: Plan | None
    run: RunDirectory | None

    @property
    def options(self) -> Options:
        """The effective options."""
        return self.bound.options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one action and return its exit code; every expected fault is a line, never a traceback."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except HelpRequested as request:
        console.say(request.text)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return console.tell(error)


def _run(arguments: Sequence[str]) -> int:
    bound = parse(arguments)
    console.configure_logging(bound.options.log_level)
    if bound.options.seeds is not None and not bound.options.print_config:
        return sweep.run(_prepare(bound).bound, arguments, Path(__file__))  # its rows are let go
    prepared = _prepare(bound)
    try:
        return _act(prepared, arguments)
    finally:
        if prepared.run is not None:
            prepared.run.release()


def _act(prepared: Prepared, arguments: Sequence[str]) -> int:
    bound = prepared.bound
    if bound.options.print_config:
        show_config(prepared.bound, everything=True)
        return 0
    if prepared.run is not None and prepared.run.summary.exists():
        console.say(f"complete: {prepared.run.path}")
        return 0
    show_config(prepared.bound, everything=False)
    for note in (*bound.notes, *(prepared.plan.notes if prepared.plan else ())):
        console.say(f"note: {note}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin at barriers make a step several times slower as soon as the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    job = _compose(prepared, arguments)
    try:
        return kinds.load("model.actions", bound.action.replace("-", "_"), "ACTION")(job)
    finally:
        if job.directory is not None:
            job.directory.release()


def _prepare(bound: Bound) -> Prepared:
    """Read every file that the options name, as far as that needs no heavy library.

    Raises:
        InputFault: with the faults of all of them, a line each.
    """
    options = bound.options
    findings = Findings()
    attempt = findings.attempt
    name = model_name(options.model, "--model")
    bound, task = attempt(partial(_task, bound)) or (bound, None)
    plan = None
    if options.lora_config is not None:
        plan = attempt(partial(read_plan, options.lora_config))
    source = attempt(partial(_source, options, name))
    needed = None if task is None else wanted(task, bound.action, options.write_predictions)
    rows = None
    if task is not None and (task.hub is None or options.dataset_dir is not None):
        rows = attempt(partial(gather, task, needed, options.dataset_dir, max_bad_rows=options.max_bad_rows))
    run = None
    if options.resume_training and not findings.lines:
        run = attempt(partial(run_directory.of_checkpoint, Path(options.load), console.rank()))
    findings.settle()
    return Prepared(bound, name, task, needed, rows, source, plan, run)


def _task(bound: Bound) -> tuple[Bound, Task]:
    """Load the data set's kind and bind its table; an action that was not given is the set's own."""
    options = bound.options
    kind: TaskKind = kinds.load("dataset.tasks", options.dataset, "TASK")
    if not bound.is_given("task"):
        bound = dataclasses.replace(bound, options=dataclasses.replace(options, task=kind.actions[0]))
    elif options.task not in kind.actions:
        raise InputFault(f"--task: {options.dataset} serves {', '.join(kind.actions)}, got '{options.task}'")
    bound = bound.with_absolute("data", kind.paths)
    where = f"{bound.table_files['data']}: [data]" if "data" in bound.tables else "[data]"
    table = dict(bound.tables.get("data", {}))
    known = {field.name for field in dataclasses.fields(kind.options)}
    if "task" in known:
        table.setdefault("task", bound.options.task)
    if "template" in known and bound.action == "test" and "prompt" not in table:
        table = trained_prompt(options.adapter, options.dataset) | table
    task = kind.build(bind(kind.options, table, where))
    if not bound.is_given("task") and task.serves is not None:
        bound = dataclasses.replace(bound, options=dataclasses.replace(bound.options, task=task.serves))
    return bound, task


def _source(options: Options, name: ModelName) -> sources.Source:
    """Return where network and tokenizer come from, after checking the files that are there."""
    source = sources.of_base(options, is_plain=name.method == "full")
    sources.check(source, pretrained=options.pretrained)
    if options.load_type != "hf" and not Path(options.load).is_file():
        raise InputFault(f"--load: no file '{options.load}'")
    return source


def _fetched(prepared: Prepared) -> Prepared:
    """Fetch the rows from the hub, now that the library may be imported."""
    from dataset import hub

    options = prepared.options
    if options.disable_dataset_cache:
        hub.disable_cache()
    fetch = partial(hub.load, offline=options.offline)
    rows = gather(prepared.task, prepared.needed, None, max_bad_rows=options.max_bad_rows, fetch=fetch)
    return dataclasses.replace(prepared, rows=rows)


def _compose(prepared: Prepared, arguments: Sequence[str]) -> Any:
    """Load the network, encode the data and put the run together: the one place where both meet."""
    import lightning

    from model.checkpoint import load_checkpoint
    from model.job import Job
    from model.training import check_devices

    options = prepared.options
    console.configure_logging(options.log_level)  # again: importing Lightning sets its own
    check_devices(options)
    prepared = prepared if prepared.rows else _fetched(prepared)
    rows, task = prepared.rows, prepared.rows.task
    lightning.seed_everything(derive(options.seed, "process", console.rank()) % 2**32, verbose=False)
    backbone = _backbone(prepared, task)
    data, example = _data(prepared, backbone)
    job = Job(
        action=prepared.bound.action,
        options=options,
        config_text=config_text(prepared.bound),
        task=_facts(task, rows),
        data=data,
        rows=rows.account(data.dropped),
        digests=rows.digests(),
        assembled=_assembled(prepared, backbone),
        base=str(prepared.source.path or prepared.source.word),
        checkpoint=load_checkpoint(Path(options.load)) if options.load_type == "pl" else None,
        preview=example,
        directory=None,
        command=arguments,
    )
    job.adopt()
    return job if options.dry_run else dataclasses.replace(job, directory=_directory(prepared))


def _data(prepared: Prepared, backbone: Any) -> tuple[Any, str]:
    """Encode every split; return the data module and one example as it is learned."""
    from dataset.encoding import encode, preview
    from dataset.module import TaskData
    from model.backbone import max_tokens

    options, rows = prepared.options, prepared.rows
    given = options.max_token_len is not None
    limit = max_tokens(backbone, options.max_token_len if given else _MAX_TOKENS, given=given)
    splits = {
        name: encode(rows.task, name, split.examples, backbone.tokenizer, limit)
        for name, split in rows.splits.items()
    }
    data = TaskData(
        splits,
        options.batch_size,
        options.seed,
        backbone.tokenizer.pad_token_id,
        length_grouped=options.length_grouped,
        num_workers=options.num_workers,
        limit_test_samples=options.limit_test_samples,
    )
    return data, preview(next(iter(splits.values())), 0, backbone.tokenizer, rows.task.labels)


def _assembled(prepared: Prepared, backbone: Any) -> Any:
    """Attach what the plan or the adapter says; a plain model trains whole."""
    from model.assembly import assemble, plain

    if prepared.name.method == "full":
        return plain(backbone)
    adapter = prepared.options.adapter[0] if prepared.options.adapter else None
    return assemble(backbone, prepared.plan, adapter, prepared.options.seed)


def _backbone(prepared: Prepared, task: Task) -> Any:
    """Load network and tokenizer, with a head for the task."""
    from model.backbone import load_backbone, load_from_state_dict

    options = prepared.options
    backbone = load_backbone(
        prepared.source,
        task.objective,
        task.labels,
        expected=prepared.name.family,
        pretrained=options.pretrained,
        seed=options.seed,
        base_dtype=options.base_dtype,
    )
    return load_from_state_dict(backbone, Path(options.load)) if options.load_type == "pt" else backbone


def _facts(task: Task, rows: TaskRows) -> Any:
    """Return what the network's side must know of the task."""
    from model.job import TaskFacts

    tests = rows.splits["test"].examples if "test" in rows.splits else []
    generation = task.generation
    return TaskFacts(
        name=task.name,
        objective=task.objective,
        metrics=task.metrics,
        selection=task.selection.name,
        maximise=task.selection.maximise,
        classes=task.labels,
        template=task.template,
        max_new_tokens=None if generation is None else generation.max_new_tokens,
        score=None if generation is None else generation.score,
        golds=[example.gold or "" for example in tests],
        prompts=[example.texts[0] for example in tests],
    )


def _directory(prepared: Prepared) -> RunDirectory:
    """Return the directory of the run that goes on, or a new one."""
    if prepared.run is not None:
        return prepared.run
    options = prepared.options
    automatic = run_directory.automatic_name(options)
    return run_directory.hand_down(options.project_dir, options.project, automatic, console.rank())


if __name__ == "__main__":
    sys.exit(main())
