"""The composition root, the one place where data and network meet.

1. bind: the command line and its TOML files become checked options (`parse`);
2. prepare: every file that the options name is read and checked, without a heavy library (`_prepare`);
3. compose: the network is loaded, the data encoded, the adapters attached (`_compose`);
4. run: the action does its work in the directory of the run (`_act`).
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from configs.command_line import sweep
from configs.command_line.bound import Bound
from configs.command_line.cli import HelpRequested, parse
from configs.command_line.config_file import config_text, show_config
from configs.runs import run_directory
from configs.runs.adapter_record import FLOW, own_record
from configs.runs.run_directory import RunDirectory
from configs.runtime import console, kinds
from configs.runtime.faults import Findings, InputFault
from configs.runtime.seeds import derive
from configs.schema.model_name import ModelName, model_name
from configs.schema.options import Options
from configs.toml.writer import toml_text
from dataset.mixture.bind_parts import bind_parts
from dataset.mixture.gather_parts import Request
from dataset.mixture.parts import Part
from dataset.mixture.run_rows import RunRows, fetch_rows, read_rows
from dataset.rows.row_notes import refusals, repeated_rows
from dataset.rows.task_rows import TaskRows
from model.assembly.placement import Plans, read_plans
from model.exchange.adapter_directory import (
    checked_files,
    find_adapter,
    require_fit,
    require_task,
    trained_prompt,
)
from model.network.source import Source, base_source
from model.network.source_files import check_source, family_of, read_config
from model.plan.flow_table import FIXED, FlowSettings, flow_settings
from model.tensors.checkpoint_file import checkpoint_tree

if TYPE_CHECKING:
    from model.run.job import Job


@dataclass(frozen=True)
class Prepared:
    """Everything that can be read and checked without a heavy library.

    Args:
        bound: the checked command line.
        name: family and method of `--model`.
        rows: the rows of the data sets, as far as they are in local files.
        source: where network and tokenizer are loaded from.
        plans: which adapters go where.
        run: the directory of the run that is resumed; None for a new run.
        flow: how several adapters are fused; None with one or none.
    """

    bound: Bound
    name: ModelName
    rows: RunRows
    source: Source
    plans: Plans
    run: RunDirectory | None
    flow: FlowSettings | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one action and return its exit code; expected faults are printed as lines, without a traceback."""
    console.prepare_process()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except HelpRequested as request:
        console.say(request.text)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return console.report(error)


def _run(arguments: Sequence[str]) -> int:
    bound = parse(arguments)
    console.configure_logging(bound.options.log_level)
    if bound.options.seeds is not None and not bound.options.print_config:
        bound = _prepare(bound).bound  # checks everything, keeps no rows: each seed has its own process
        return sweep.run(bound, arguments, Path(__file__))
    prepared = _prepare(bound)
    with prepared.run or nullcontext():
        return _act(prepared, arguments)


def _prepare(bound: Bound) -> Prepared:
    """Read and check every local file that the options name.

    Raises:
        InputFault: with the faults of all files, a line each.
    """
    options, findings = bound.options, Findings()
    name = model_name(options.model, "--model")
    bound, parts = findings.attempt(partial(_parts, bound)) or (bound, ())
    plans = read_plans(options, findings)
    flow = findings.attempt(partial(_flow, bound))
    findings.lines += plans.faults(bound.action, options)
    source = findings.attempt(partial(_source, options, name))
    if name.method != "full":
        for path in options.adapter or ():
            findings.attempt(partial(_check_adapter, path, source, parts, trains=bound.action != "test"))
    mmlu = options.mmlu_mode if bound.action in ("train", "test") else None
    request = Request(bound.action, options.write_predictions, options.max_bad_rows, mmlu)
    rows = read_rows(parts, request, options.mmlu_dir, findings)
    run = None
    if options.checkpoint is not None and options.checkpoint.is_file():
        findings.attempt(partial(checkpoint_tree, options.checkpoint))
    if options.resume_training and options.checkpoint is not None and not findings.lines:
        run = findings.attempt(partial(run_directory.of_checkpoint, options.checkpoint, console.rank()))
    findings.settle()
    assert source is not None  # a refused source left its lines
    return Prepared(bound, name, rows, source, plans, run, flow)


def _parts(bound: Bound) -> tuple[Bound, tuple[Part, ...]]:
    """Bind the data sets; `test` uses the prompt that an adapter was trained with."""
    options = bound.options
    prompt = trained_prompt(options.adapter, options.dataset) if bound.action == "test" else {}
    return bind_parts(bound, prompt)


def _flow(bound: Bound) -> FlowSettings | None:
    """Bind the table `[flow]`; None where there are no sets to fuse, as after a Flow adapter."""
    paths = bound.options.adapter
    if len(paths) < 2 or FLOW in own_record(find_adapter(paths[0], "--adapter")):
        return None
    where = f"{bound.table_files['flow']}: [flow]" if "flow" in bound.tables else "[flow]"
    found = flow_settings(bound.tables.get("flow", {}), where, len(paths))
    if bound.action == "train" and found.combine in FIXED:
        raise InputFault(f'{where}: combine: "{found.combine}" has nothing to train; evaluate it with test')
    return found


def _source(options: Options, name: ModelName) -> Source:
    """Return where network and tokenizer are loaded from, after checking the local files."""
    source = base_source(options, is_plain=name.method == "full")
    check_source(source, pretrained=options.pretrained)
    file = options.state_dict or options.checkpoint
    if file is not None and not file.is_file():
        raise InputFault(f"--load: no file '{file}'")
    return source


def _check_adapter(path: Path, source: Source | None, parts: Sequence[Part], *, trains: bool) -> None:
    """Refuse an adapter that does not fit the base or the data set, before a heavy library is imported."""
    files = checked_files(path, "--adapter")
    for part in parts:
        require_task(files, part.task.objective, trains=trains)
    if source is not None and source.kind != "hub":
        config = read_config(source)
        require_fit(files, config, family_of(config, source))


def _act(prepared: Prepared, arguments: Sequence[str]) -> int:
    """Show the configuration, compose the run and let the action do its work; return the exit code."""
    bound = prepared.bound
    if bound.options.print_config:
        show_config(bound, everything=True)
        return 0
    if prepared.run is not None and prepared.run.summary.exists():
        console.say(f"complete: {prepared.run.path}")
        return 0
    show_config(bound, everything=False)
    for note in (*bound.notes, *prepared.plans.notes(bound.action)):
        console.say(f"note: {note}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin at barriers make a step several times slower when other processes need the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    job = _compose(prepared, arguments)
    action = kinds.load(kinds.ACTIONS, bound.action.replace("-", "_"))
    action.check(job)
    if bound.options.dry_run:
        return action.run(job)
    with _directory(prepared) as directory:
        return action.run(dataclasses.replace(job, directory=directory))


def _compose(prepared: Prepared, arguments: Sequence[str]) -> "Job":
    """Load the network, encode the data, attach the adapters; return the run that is ready to start."""
    import lightning

    from dataset.batches.serve import serve
    from model.assembly.compose import load_base, with_adapters
    from model.network.backbone import max_tokens
    from model.run.job import Job
    from model.run.task_facts import TaskFacts
    from model.tensors.checkpoint import load_run
    from model.training.trainer import check_devices

    bound, name, parts = prepared.bound, prepared.name, prepared.rows.parts
    options, trains = bound.options, bound.action != "test"
    console.configure_logging(options.log_level)  # again: importing Lightning sets its own
    check_devices(options)
    rows = fetch_rows(prepared.rows, offline=options.offline, use_cache=not options.disable_dataset_cache)
    plans, corpus = _with_heads(prepared.plans, rows, options.seed)
    lightning.seed_everything(derive(options.seed, "process", console.rank()) % 2**32, verbose=False)
    backbone = load_base(options, name, prepared.source, rows.task.objective, rows.task.labels)
    served = serve(rows, parts, options, backbone.tokenizer, partial(max_tokens, backbone))
    job = Job(
        action=bound.action,
        options=options,
        config_text=config_text(bound),
        task=TaskFacts.of(rows.task, parts, rows.splits),
        data=served.data,
        rows=rows.account(served.data.dropped, served.shares, served.data.cut, served.data.unscored),
        refusals=refusals(rows, served.data.dropped, served.longest),
        notes=repeated_rows(rows),
        digests=rows.digests(),
        assembled=with_adapters(options, name, backbone, plans, prepared.flow, trains=trains),
        base=backbone.files.location if prepared.source.kind == "gguf" else prepared.source.location,
        checkpoint=None if options.checkpoint is None else load_run(options.checkpoint),
        preview=served.example,
        directory=None,
        command=arguments,
        corpus=corpus,
    )
    job.restore()
    return job


def _with_heads(plans: Plans, rows: TaskRows, seed: int) -> tuple[Plans, dict[str, bytes]]:
    """Replace `heads = "auto"` by the number of clusters in the training texts; return its report too."""
    if not plans.has_auto_heads:
        return plans, {}
    from dataset.clustering.cluster import cluster_rows
    from model.figures.charts import elbow_curve

    report = cluster_rows(rows, seed)
    console.say(f'note: heads = "auto": {report.summary()}')
    picture = elbow_curve({point.k: point.error for point in report.curve}, report.chosen)
    text = toml_text(report.table()).encode()
    return plans.with_heads(report.chosen), {"clusters.toml": text, "clusters.png": picture}


def _directory(prepared: Prepared) -> RunDirectory:
    """Return the directory of the run that is resumed, or make a new one."""
    if prepared.run is not None:
        return prepared.run
    options = prepared.bound.options
    automatic = run_directory.automatic_name(options)
    return run_directory.hand_down(options.project_dir, options.project, automatic, console.rank())


if __name__ == "__main__":
    sys.exit(main())
