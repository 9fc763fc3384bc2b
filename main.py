"""The composition root: bind options, build what they name, run one action, write the record."""

import dataclasses
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs import console, kinds, run_directory
from configs.binding import bind
from configs.cli import Bound, HelpRequested, parse
from configs.config_table import show_config
from configs.faults import Fault, InputFault
from configs.model_name import ModelName, model_name
from configs.options import Options
from configs.run_directory import RunDirectory
from configs.seeds import derive
from configs.toml_text import config_text
from dataset.rows import TaskRows, Wanted, gather, wanted
from dataset.task import Task, TaskKind
from model import source as sources
from model.plan import Plan, read_plan

_DEFECT, _SYSTEM = 1, 4


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
    except Fault as fault:
        for line in fault.lines:
            console.fault(line)
        return fault.exit_code
    except (OSError, MemoryError) as error:
        console.fault(f"{getattr(error, 'filename', None) or 'memory'}: {error}")
        return _SYSTEM
    except KeyboardInterrupt:
        console.fault("stopped by signal 2")
        return 130
    except Exception as error:
        if console.rank():
            console.fault(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return _SYSTEM if _lost_process(error) else _DEFECT


def _run(arguments: Sequence[str]) -> int:
    bound = parse(arguments)
    console.configure_logging(bound.options.log_level)
    prepared = _prepare(bound)
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
    return kinds.load("model.actions", bound.action.replace("-", "_"), "ACTION")(job)


def _prepare(bound: Bound) -> Prepared:
    """Read every file that the options name, as far as that needs no heavy library.

    Raises:
        InputFault: with the faults of all of them, a line each.
    """
    options = bound.options
    faults: list[str] = []

    def attempt(step: Any) -> Any:
        try:
            return step()
        except InputFault as fault:
            faults.extend(fault.lines)
            return None

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
    if options.resume_training and not faults:
        run = attempt(partial(_reopen, Path(options.load)))
    if faults:
        raise InputFault(*faults)
    return Prepared(bound, name, task, needed, rows, source, plan, run)


def _task(bound: Bound) -> tuple[Bound, Task]:
    """Load the data set's kind and bind its table; an action that was not given is the set's own."""
    options = bound.options
    kind: TaskKind = kinds.load("dataset.tasks", options.dataset, "TASK")
    if not bound.is_given("task"):
        bound = dataclasses.replace(bound, options=dataclasses.replace(options, task=kind.actions[0]))
    elif options.task not in kind.actions:
        raise InputFault(f"--task: {options.dataset} serves {', '.join(kind.actions)}, got '{options.task}'")
    bound = dataclasses.replace(bound, tables=_absolute(bound.tables, kind.paths))
    where = f"{bound.table_files['data']}: [data]" if "data" in bound.tables else "[data]"
    table = dict(bound.tables.get("data", {}))
    known = {field.name for field in dataclasses.fields(kind.options)}
    if "task" in known:
        table.setdefault("task", bound.options.task)
    return bound, kind.build(bind(kind.options, table, where))


def _absolute(tables: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Make the files that `[data]` names absolute, so that the recorded configuration works from anywhere."""
    data = dict(tables.get("data", {}))
    for key in keys:
        if isinstance(data.get(key), str) and Path(data[key]).is_file():
            data[key] = str(Path(data[key]).absolute())
    return {**tables, "data": data} if data else tables


def _source(options: Options, name: ModelName) -> sources.Source:
    """Return where network and tokenizer come from, after checking the files that are there."""
    if options.load_type == "hf":
        word, flag = (options.load, "--load") if options.load else (options.model, "--model")
        if name.family is not None and options.load is None:
            word, flag = options.backbone_model, "--load"
    else:
        word, flag = options.backbone_model, "--backbone-model"
        if word is None and name.method == "full":
            word, flag = options.model, "--model"
    if word is None:
        raise InputFault(f"{flag}: required, it names the frozen base: a directory, a .gguf file, a hub name")
    source = sources.resolve(word, flag, offline=options.offline)
    sources.check(source, pretrained=options.pretrained)
    if options.load_type != "hf" and not Path(options.load).is_file():
        raise InputFault(f"--load: no file '{options.load}'")
    return source


def _reopen(checkpoint: Path) -> RunDirectory:
    path = checkpoint.absolute().parent.parent
    return run_directory.reopen(path) if console.rank() == 0 else RunDirectory(path)


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

    from dataset.encoding import encode, preview
    from dataset.module import TaskData
    from model.assembly import assemble, plain
    from model.backbone import max_tokens
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
    limit = max_tokens(
        backbone,
        512 if options.max_token_len is None else options.max_token_len,
        given=options.max_token_len is not None,
    )
    splits = {
        name: encode(task, name, split.examples, backbone.tokenizer, limit)
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
    if prepared.name.method == "full":
        assembled = plain(backbone)
    else:
        adapter = options.adapter[0] if options.adapter else None
        assembled = assemble(backbone, prepared.plan, adapter, options.seed)
    job = Job(
        action=prepared.bound.action,
        options=options,
        config_text=config_text(prepared.bound),
        task=_facts(task, rows),
        data=data,
        rows=rows.account({name: split.dropped for name, split in splits.items()}),
        digests=rows.digests(),
        assembled=assembled,
        base=str(prepared.source.path or prepared.source.word),
        checkpoint=load_checkpoint(Path(options.load)) if options.load_type == "pl" else None,
        preview=preview(next(iter(splits.values())), 0, backbone.tokenizer, task.labels),
        directory=None,
        command=arguments,
    )
    job.adopt()
    return job if options.dry_run else dataclasses.replace(job, directory=_directory(prepared))


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
    """Open the run's directory: the one that goes on, the first process's, or a new one."""
    if prepared.run is not None:
        return prepared.run
    options = prepared.options
    if console.rank() != 0:
        return RunDirectory(Path(os.environ.get(run_directory.HANDED_DOWN, options.project_dir)))
    automatic = "_".join((options.model.replace("/", "-").strip("-"), options.task, options.dataset))
    directory = run_directory.create(options.project_dir, options.project, automatic)
    os.environ[run_directory.HANDED_DOWN] = str(directory.path)
    return directory


def _lost_process(error: Exception) -> bool:
    """Tell whether a collective failed because another process of the run is gone."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("connection closed by peer", "connection reset by peer", "gloo", "nccl")
    )


if __name__ == "__main__":
    sys.exit(main())
