"""The composition root: bind options, build what they name, run one action, write the record."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs import console, kinds, run_directory, sweep
from configs.cli import Bound, HelpRequested, parse
from configs.config_table import show_config
from configs.faults import Findings, InputFault
from configs.model_name import ModelName, model_name
from configs.options import Options
from configs.run_directory import RunDirectory
from configs.seeds import derive
from configs.toml_text import config_text, toml_text
from dataset.gathering import Request, gather_parts, join
from dataset.mmlu import Questions, from_hub, read_files
from dataset.parts import Part, bind_parts
from dataset.rows import TaskRows
from dataset.task import Task
from model import source as sources
from model.adapter_files import trained_prompt
from model.plans import Plans, read_plans


@dataclass(frozen=True)
class Prepared:
    """Everything that could be read and checked without the heavy libraries.

    Args:
        bound: the command line.
        name: family and method of `--model`.
        parts: the data set, or those of a mixture.
        request: what the action needs of them.
        found: part -> its examples; those that must be fetched from the hub are missing.
        source: where network and tokenizer come from.
        plans: where adapters sit.
        run: the directory of a run that goes on; None for a new one.
        questions: those of MMLU, if they come from files.
    """

    bound: Bound
    name: ModelName
    parts: tuple[Part, ...]
    request: Request
    found: Mapping[str, TaskRows]
    source: sources.Source
    plans: Plans
    run: RunDirectory | None
    questions: Mapping[str, Questions] | None

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
    for note in (*bound.notes, *prepared.plans.notes(bound.action)):
        console.say(f"note: {note}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin at barriers make a step several times slower as soon as the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    job = _compose(prepared, arguments)
    action = kinds.load(kinds.ACTIONS, bound.action.replace("-", "_"))
    action.check(job)
    if not bound.options.dry_run:
        job = dataclasses.replace(job, directory=_directory(prepared))
    try:
        return action.run(job)
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
    bound, parts = attempt(partial(_parts, bound)) or (bound, ())
    plans = read_plans(options, findings)
    findings.lines += plans.unanswered(bound.action) if bound.action == "test" else []
    findings.lines += [] if options.adapter or options.load_type == "pl" else plans.unfilled()
    findings.lines += plans.unsuited(bound.action, options.max_epochs)
    source = attempt(partial(_source, options, name))
    mmlu = options.mmlu_mode if bound.action in ("train", "test") else None
    request = Request(bound.action, options.write_predictions, options.max_bad_rows, mmlu)
    found = attempt(partial(gather_parts, parts, request, {})) or {}
    directory = options.mmlu_dir if mmlu else None
    allowed = options.max_bad_rows - sum(rows.counts()["refused"] for rows in found.values())
    questions = directory and attempt(partial(read_files, directory, bound.action, allowed))
    if parts and len(found) == len(parts) and bool(mmlu) == bool(questions):
        attempt(partial(join, parts, found, mmlu, questions))
    run = None
    if options.resume_training and not findings.lines:
        run = attempt(partial(run_directory.of_checkpoint, Path(options.load), console.rank()))
    findings.settle()
    return Prepared(bound, name, parts, request, found, source, plans, run, questions)


def _parts(bound: Bound) -> tuple[Bound, tuple[Part, ...]]:
    """Bind the data sets; `test` takes the prompt an adapter was trained with."""
    options = bound.options
    prompt = trained_prompt(options.adapter, options.dataset) if bound.action == "test" else {}
    return bind_parts(bound, prompt)


def _source(options: Options, name: ModelName) -> sources.Source:
    """Return where network and tokenizer come from, after checking the files that are there."""
    source = sources.of_base(options, is_plain=name.method == "full")
    sources.check(source, pretrained=options.pretrained)
    if options.load_type != "hf" and not Path(options.load).is_file():
        raise InputFault(f"--load: no file '{options.load}'")
    return source


def _rows(prepared: Prepared) -> TaskRows:
    """Return all rows, those of the hub fetched now that the library may be imported."""
    options, found, questions = prepared.options, prepared.found, prepared.questions
    mmlu = prepared.request.mmlu
    if len(found) < len(prepared.parts) or bool(mmlu) != bool(questions):
        from dataset import hub  # takes a second to import, and most runs name their files

        if options.disable_dataset_cache:
            hub.disable_cache()
        fetch = partial(hub.load, offline=options.offline)
        found = gather_parts(prepared.parts, prepared.request, found, fetch)
        questions = questions or (mmlu and from_hub(prepared.bound.action, fetch))
    return join(prepared.parts, found, mmlu, questions)


def _compose(prepared: Prepared, arguments: Sequence[str]) -> Any:
    """Load the network, encode the data and put the run together: the one place where both meet."""
    import lightning

    from model.checkpoint import load_checkpoint
    from model.job import Job, TaskFacts
    from model.training import check_devices

    options = prepared.options
    console.configure_logging(options.log_level)  # again: importing Lightning sets its own
    check_devices(options)
    rows = _rows(prepared)
    task = rows.task
    plans, corpus = _settled(prepared, rows)
    lightning.seed_everything(derive(options.seed, "process", console.rank()) % 2**32, verbose=False)
    backbone = _backbone(prepared, task)
    data, shares, example = _data(prepared, rows, backbone)
    job = Job(
        action=prepared.bound.action,
        options=options,
        config_text=config_text(prepared.bound),
        task=TaskFacts.of(task, prepared.parts, rows.splits),
        data=data,
        rows=rows.account(data.dropped, shares, data.cut),
        digests=rows.digests(),
        assembled=_assembled(prepared, plans, backbone),
        base=str(prepared.source.path or prepared.source.word),
        checkpoint=load_checkpoint(Path(options.load)) if options.load_type == "pl" else None,
        preview=example,
        directory=None,
        command=arguments,
        corpus=corpus,
    )
    job.adopt()
    return job


def _data(prepared: Prepared, rows: TaskRows, backbone: Any) -> tuple[Any, dict[str, int], str]:
    """Encode every split; return the data module, a mixture's shares and an example as it is learned."""
    from dataset.blend import blend
    from dataset.encoding import encode
    from dataset.module import TaskData
    from dataset.preview import preview
    from model.backbone import max_tokens

    options = prepared.options
    given = options.max_token_len is not None
    splits = {}
    for name, split in rows.splits.items():
        task = rows.tasks.get(name, rows.task)
        limit = max_tokens(backbone, options.max_token_len if given else task.length, given=given)
        splits[name] = encode(task, name, split.examples, backbone.tokenizer, limit)
    blended, shares = blend(splits, prepared.parts)
    data = TaskData(
        blended,
        options.batch_size,
        options.seed,
        backbone.tokenizer.pad_token_id,
        length_grouped=options.length_grouped,
        num_workers=options.num_workers,
        limit_test_samples=options.limit_test_samples,
    )
    firsts = {f"{part}: ": names[0] for part, names in rows.parts.items()} or {"": next(iter(splits))}
    examples = (
        begin + preview(splits[name], 0, backbone.tokenizer, rows.task.labels)
        for begin, name in firsts.items()
    )
    return data, shares, "\n".join(examples)


def _settled(prepared: Prepared, rows: TaskRows) -> tuple[Plans, dict[str, bytes]]:
    """Return the plans with the number that `heads = "auto"` asks the training texts for, and its report."""
    if not prepared.plans.asks_corpus:
        return prepared.plans, {}
    from dataset.clustering import cluster_rows
    from model.figures import elbow

    report = cluster_rows(rows, prepared.options.seed)
    console.say(f'note: heads = "auto": {report.facts()}')
    picture = elbow({point.k: point.error for point in report.curve}, report.chosen)
    text = toml_text(report.table()).encode()
    return prepared.plans.with_heads(report.chosen), {"clusters.toml": text, "clusters.png": picture}


def _assembled(prepared: Prepared, plans: Plans, backbone: Any) -> Any:
    """Attach what the plan or the adapter says; a plain model trains whole."""
    from model.assembly import assemble, plain, require_shortcuts

    options, method = prepared.options, prepared.name.method
    if method == "full":
        return plain(backbone)
    adapter = options.adapter[0] if options.adapter else None
    assembled = assemble(backbone, plans, adapter, options.seed, options.shortcut_norm)
    require_shortcuts(assembled, options.model, wanted=method == "lora_ags", where=str(adapter))
    return assembled


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
        attention=options.attention,
    )
    return load_from_state_dict(backbone, Path(options.load)) if options.load_type == "pt" else backbone


def _directory(prepared: Prepared) -> RunDirectory:
    """Return the directory of the run that goes on, or a new one."""
    if prepared.run is not None:
        return prepared.run
    options = prepared.options
    automatic = run_directory.automatic_name(options)
    return run_directory.hand_down(options.project_dir, options.project, automatic, console.rank())


if __name__ == "__main__":
    sys.exit(main())
