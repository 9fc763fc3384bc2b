"""The schema: every option of the command line and of a config TOML, with its values, default and meaning."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from configs.runtime import kinds
from configs.schema.batch_limit import BatchLimit
from configs.schema.number_values import Batches, Real, Whole
from configs.schema.values import Choice, Listed, PathText, Repeated, Switch, Word

ACTIONS = ("train", "test", "imp-test", "train-dyrealloc")
MIXTURE = "mix"
"""The value of `--dataset` for several data sets in one run."""
DEEPSPEED = ("deepspeed_stage_2", "deepspeed_stage_3", "deepspeed_stage_3_offload")
"""Values of `--strategy` that need the optional package `deepspeed`."""
ShortcutNorm = Literal["exact", "renorm"]
ReallocationMode = Literal["off", "combined", "separated"]
FREE_TABLES = ("data", "flow")
"""TOML tables a config file may contain besides the options; the data set's own options bind them later."""

RETIRED = {
    "to_debug": "write dry_run = true to check a run, or max_steps = 1 to try one step",
    "github_ci": "it was for that program's own tests; leave it out",
    "alpha": "a fixed coefficient belongs in the LoRA TOML, as importance_alpha in its tables",
    "alpha_test_batch_num": 'write imp_limit_test_batches = N and importance_test_name = "alpha_test"',
}
"""Keys of the earlier implementation that are refused, and what to write instead."""

_TRAINING = ("train", "train-dyrealloc")
_FITTING = ("imp-test", *_TRAINING)
"""Actions that take optimiser steps; `imp-test` does for heuristics that need trained adapters."""

_SEARCHING = ("imp-test", "train-dyrealloc")


@dataclass(frozen=True)
class Option:
    """What the schema records about an option besides its values, default and meaning.

    Args:
        group: heading in `--help`.
        actions: the actions that use it; the others accept it and print a note.
        flags: aliases on the command line, without dashes.
        keys: aliases in TOML.
        derived: the default is computed from other options.
    """

    group: str
    actions: tuple[str, ...] = ACTIONS
    flags: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    derived: bool = False


_RUN = Option("What runs")
_WEIGHTS = Option("Weights")
_TRAIN = Option("Training", _FITTING)
_COMPUTE = Option("Devices and numbers")
_SEARCH = Option("Importance search", _SEARCHING)
_DYNAMIC = Option("Importance search", ("train-dyrealloc",))
_RECORD = Option("Record")

QUANTIZED_DTYPES = kinds.names(kinds.QUANTIZERS)
"""Data types of frozen linear layers only; the rest of the network is then in bfloat16."""

_LIGHTNING_PRECISION = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class Options:
    """Every option as `parse` completes them: paths are absolute, `model` and `dataset` are not empty."""

    config: Annotated[tuple[Path, ...], Repeated(PathText()), _RUN] = field(default=(), compare=False)
    """TOML file with options. Later files override earlier ones, the command line overrides all of them."""
    model: Annotated[str, Word(), _RUN] = ""
    """FAMILY_lora or FAMILY_lora_ags (with shortcuts), where FAMILY may be auto, the loaded network's own; or
    a hub name or directory: a plain model, fully fine-tuned. Required."""
    dataset: Annotated[str, Word(), _RUN] = ""
    """A data set; local: your own files, described in the TOML table [data]; mix: several data sets, each a
    TOML table [[data.mix]]. Required."""
    dataset_dir: Annotated[
        Path | None,
        PathText(),
        Option("What runs", flags=("dataset-saved-path",), keys=("dataset_saved_path",)),
    ] = None
    """Directory with the data set's files in their official layout, or its parent; then nothing is
    downloaded."""
    task: Annotated[
        str,
        Choice("task", ("classification", "causal_language_modeling", "summarization")),
        _RUN,
    ] = "classification"
    """What the network learns from the data set."""
    seed: Annotated[int, Whole(0, 2**32 - 1), _RUN] = 0
    """Seed of every random choice."""
    seeds: Annotated[
        tuple[int, ...] | None,
        Listed(Whole(0, 2**32 - 1)),
        Option("What runs", _TRAINING),
    ] = None
    """One run per seed, in <project>-seedK, then a table of all results. The same command resumes it."""
    mmlu_mode: Annotated[
        str | None,
        Choice("MMLU mode", ("zs", "fs")),
        Option("What runs", ("train", "test")),
    ] = None
    """Evaluate on MMLU, zero-shot (zs) or five-shot (fs), instead of the data set's own evaluation splits."""
    mmlu_dir: Annotated[Path | None, PathText(), Option("What runs", ("train", "test"))] = None
    """Directory with the files of MMLU, data/test/SUBJECT_test.csv and so on. Default: the hub's copy."""
    max_token_len: Annotated[int | None, Whole(), _RUN] = None
    """Longest input in tokens; 0 or less: the tokenizer's limit. Default: 512 (lora_flow: 4096), or the
    model's limit if smaller. A given value above the model's limit is an error."""
    max_bad_rows: Annotated[int, Whole(0), _RUN] = 0
    """Number of malformed data rows that may be skipped; one more is an error."""
    limit_test_samples: Annotated[int | None, Whole(1), _RUN] = None
    """Use only the first N test rows."""
    disable_dataset_cache: Annotated[bool, Switch(), _RUN] = False
    """Prepare the data set again instead of reading a cached copy."""

    load: Annotated[str | None, Word(), Option("Weights", keys=("load_name",))] = None
    """Hub name, directory, .gguf file or package:MODULE/PATH; a run's directory, which means its best.ckpt
    (resumed: last.ckpt); with --load-type pt or pl the file to read."""
    load_type: Annotated[str, Choice("load type", ("hf", "pt", "pl")), _WEIGHTS] = "hf"
    """hf: saved model, hub name or GGUF file; pt: state dict; pl: checkpoint of this program. Default: pl
    where --load is a run or a .ckpt file."""
    backbone_model: Annotated[str | None, Word(), _WEIGHTS] = None
    """Hub name or directory of the frozen base, with --load-type pt or pl. Default: that of the checkpoint's
    run."""
    pretrained: Annotated[bool, Switch(), Option("Weights", keys=("is_pretrained",), derived=True)] = False
    """Load weights, or initialise them at random from the configuration. Default: on when --load is
    given, and for a plain model."""
    adapter: Annotated[tuple[Path, ...], Repeated(PathText()), _WEIGHTS] = ()
    """Adapter directory in PEFT's format; its tensors are loaded into the adapters. Several are fused by
    gates, the task's last; the TOML table [flow] says how."""
    lora_config: Annotated[Path | None, PathText(), _WEIGHTS] = None
    """TOML file with the adapters: which modules have one, its method and rank."""
    shortcut_config: Annotated[Path | None, PathText(), _WEIGHTS] = None
    """TOML file with the low-rank shortcuts."""
    shortcut_norm: Annotated[ShortcutNorm, Choice("shortcut norm", get_args(ShortcutNorm)), _WEIGHTS] = (
        "exact"
    )
    """exact: shortcut terms are added before the norm that follows; renorm: they get an additional norm."""
    resume_training: Annotated[bool, Switch(names="load"), _TRAIN] = False
    """Resume a run in its own directory: --resume-training RUN, or with --load and one of its checkpoints."""
    offline: Annotated[bool, Switch(), _WEIGHTS] = False
    """Use only local files and the local cache, never a hub."""

    batch_size: Annotated[int, Whole(1), _RUN] = 16
    """Examples per batch, on each device."""
    optimizer: Annotated[
        str,
        Choice("optimizer", ("adam", "sgd", "adamw")),
        Option("Training", _FITTING, keys=("training_optimizer",)),
    ] = "adamw"
    """Optimizer."""
    learning_rate: Annotated[float, Real(0), _TRAIN] = 1e-4
    """Learning rate of the adapters, or of the whole plain model."""
    head_learning_rate: Annotated[float | None, Real(0), _TRAIN] = None
    """Learning rate of the classification head. Default: --learning-rate."""
    weight_decay: Annotated[float, Real(0), _TRAIN] = 0.0
    """Decoupled weight decay (adamw) or L2 penalty (adam, sgd)."""
    head_weight_decay: Annotated[float | None, Real(0), _TRAIN] = None
    """Weight decay of the classification head's matrices. Default: --weight-decay."""
    adam_beta1: Annotated[float, Real(0, 1, high_open=True), _TRAIN] = 0.9
    """Decay of the first moment, of adam and adamw."""
    adam_beta2: Annotated[float, Real(0, 1, high_open=True), _TRAIN] = 0.999
    """Decay of the second moment, of adam and adamw."""
    adam_epsilon: Annotated[float, Real(0, low_open=True), _TRAIN] = 1e-8
    """What is added to the root of the second moment, of adam and adamw."""
    lr_scheduler: Annotated[
        str, Choice("learning-rate scheduler", ("none", "linear", "cosine_annealing")), _TRAIN
    ] = "none"
    """Learning-rate schedule."""
    eta_min: Annotated[float, Real(0), _TRAIN] = 0.0
    """Learning rate at the end of a linear or cosine schedule."""
    warmup_ratio: Annotated[float, Real(0, 1), _TRAIN] = 0.0
    """Fraction of the optimiser steps in which the learning rate rises from 0."""
    gradient_clip_val: Annotated[float | None, Real(0, low_open=True), _TRAIN] = None
    """Largest gradient norm. Default: no clipping."""
    max_epochs: Annotated[int, Whole(1), _TRAIN] = 20
    """Largest number of epochs."""
    max_steps: Annotated[int, Whole(1, also={-1: "no limit"}), _TRAIN] = -1
    """Largest number of optimiser steps."""
    accumulate_grad_batches: Annotated[int, Whole(1), _TRAIN] = 1
    """Batches per optimiser step, whose gradients are accumulated."""
    early_stopping_patience: Annotated[int | None, Whole(1), _TRAIN] = None
    """Stop after this many evaluations without improvement. Default: never."""
    length_grouped: Annotated[bool, Switch(), _TRAIN] = False
    """Batch examples of similar length together."""
    gradient_checkpointing: Annotated[bool, Switch(), _TRAIN] = False
    """Recompute activations in the backward pass, to save memory."""

    precision: Annotated[
        str,
        Choice(
            "precision",
            ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true"),
            _LIGHTNING_PRECISION,
        ),
        _COMPUTE,
    ] = "32-true"
    """Precision of training and evaluation, as Lightning names it."""
    base_dtype: Annotated[str, Choice("data type", ("float32", "bfloat16", *QUANTIZED_DTYPES)), _COMPUTE] = (
        "float32"
    )
    """Data type of frozen weights; adapters stay in float32. int8 and nf4 quantize the linear layers,
    keep the rest in bfloat16 and need the package bitsandbytes."""
    attention: Annotated[str, Choice("attention", ("auto", "eager")), _COMPUTE] = "auto"
    """Attention implementation: auto leaves it to transformers, eager computes plain matrix products."""
    compile: Annotated[bool, Switch(), Option("Devices and numbers", _TRAINING)] = False
    """Compile the network's layers for training; on a CPU this needs a C++ compiler."""
    accelerator: Annotated[str, Choice("accelerator", ("auto", "cpu", "gpu")), _COMPUTE] = "auto"
    """Type of device."""
    num_devices: Annotated[
        int, Whole(1, 1024), Option("Devices and numbers", flags=("gpu",), keys=("gpu",))
    ] = 1
    """Devices per node."""
    nodes: Annotated[int, Whole(1, 65536), Option("Devices and numbers", keys=("num_nodes",))] = 1
    """Nodes."""
    num_workers: Annotated[
        int, Whole(0, 1024), Option("Devices and numbers", flags=("cpu",), keys=("cpu",))
    ] = 0
    """Worker processes that prepare batches."""
    strategy: Annotated[
        str,
        Choice("strategy", ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", *DEEPSPEED)),
        _COMPUTE,
    ] = "auto"
    """How several processes share the work."""
    auto_requeue: Annotated[
        bool,
        Switch(),
        Option("Devices and numbers", _TRAINING, keys=("is_to_auto_requeue",)),
    ] = False
    """On SIGUSR1 from SLURM, save a checkpoint and requeue the job, which then resumes; needs --project."""

    importance_test_name: Annotated[str, Choice("heuristic", kinds.names(kinds.HEURISTICS)), _SEARCH] = (
        "constant"
    )
    """How the importance (saliency) of a module is measured."""
    imp_limit_test_batches: Annotated[BatchLimit, Batches(), _SEARCH] = BatchLimit(count=32)
    """Training batches that a score is computed from: a number, or a fraction of all."""
    metric_red_tolerance: Annotated[float, Real(), _SEARCH] = 0.01
    """Alpha test: largest accepted reduction of the metric."""
    alpha_limit_zptrain_batches: Annotated[BatchLimit, Batches(), _SEARCH] = BatchLimit(count=32)
    """Alpha test: batches per epoch of the training that precedes it."""
    score_init: Annotated[str | None, Choice("score start", ("as_is", "random_b")), _SEARCH] = None
    """Score the weights as they are, or with random B. Default: random_b for snip and synflow in imp-test."""
    synflow_objective: Annotated[str, Choice("objective", ("sum", "loss")), _SEARCH] = "sum"
    """Synflow: differentiate the sum of the outputs, or the task's loss."""
    turn_on_percentile: Annotated[float, Real(0, 1, low_open=True), _SEARCH] = 0.25
    """Fraction of the modules that are turned on."""
    budget_params: Annotated[int | None, Whole(1), _SEARCH] = None
    """Budget as a number of parameters, instead of --turn-on-percentile."""
    realloc_N: Annotated[BatchLimit, Batches(), _DYNAMIC] = BatchLimit(ratio=0.1)  # noqa: N815 (published name)
    """Batches between two reallocations: a number, or a fraction of an epoch."""
    dyrealloc_ags_mode: Annotated[
        ReallocationMode, Choice("reallocation mode", get_args(ReallocationMode)), _DYNAMIC
    ] = "off"
    """Whether shortcuts are reallocated: off, from one budget combined with the adapters, or from a separate
    one."""
    constant_warmup_epochs: Annotated[int, Whole(0), _DYNAMIC] = 0
    """Epochs of uniformly random reallocation before scores are used."""
    realloc_hist_path: Annotated[
        Path | None,
        PathText(),
        Option("Importance search", ("train", "test")),
    ] = None
    """History file whose last reallocation is applied."""

    project_dir: Annotated[Path, PathText(), _RECORD] = Path("outputs")
    """Parent directory of all runs."""
    project: Annotated[str | None, Word(is_name=True), _RECORD] = None
    """Name of the run's directory. Default: built from model, task and data set."""
    log_level: Annotated[str, Choice("level", _LEVELS), _RECORD] = "info"
    """Lowest level of the log messages that are shown."""
    log_every_n_steps: Annotated[int, Whole(1), Option("Record", _FITTING)] = 50
    """Optimiser steps between two writes of the loss log, and between two points of TensorBoard's curves."""
    checkpoint_every_n_steps: Annotated[int | None, Whole(1), Option("Record", _FITTING)] = None
    """Optimiser steps between two checkpoints, in addition to one after each epoch."""
    write_predictions: Annotated[bool, Switch(), _RECORD] = False
    """Write the predictions for unlabelled splits and all generated answers to files."""
    print_config: Annotated[bool, Switch(), _RECORD] = False
    """Print the effective configuration and exit."""
    dry_run: Annotated[bool, Switch(), _RECORD] = False
    """Check and build everything, without training or evaluation."""

    @property
    def state_dict(self) -> Path | None:
        """The file of `--load` with `--load-type pt`."""
        return Path(self.load) if self.load is not None and self.load_type == "pt" else None

    @property
    def checkpoint(self) -> Path | None:
        """The file of `--load` with `--load-type pl`."""
        return Path(self.load) if self.load is not None and self.load_type == "pl" else None
