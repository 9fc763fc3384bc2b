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
"""The word of `--dataset` for several data sets in one run."""
DEEPSPEED = ("deepspeed_stage_2", "deepspeed_stage_3", "deepspeed_stage_3_offload")
"""Words of `--strategy` that need the optional package `deepspeed`."""
ShortcutNorm = Literal["exact", "renorm"]
ReallocationMode = Literal["off", "combined", "separated"]
FREE_TABLES = ("data",)
"""TOML tables users may write beside the options; they are bound later, by the data set's own options."""

RETIRED = {
    "to_debug": "write dry_run = true to check a run, or max_steps = 1 to try one step",
    "github_ci": "it served the tests of that program; leave it out",
    "alpha": "a fixed coefficient stands in the LoRA TOML; write importance_alpha in its tables",
}
"""Keys of the earlier implementation that are refused, and what to write instead."""

_TRAINING = ("train", "train-dyrealloc")
_FITTING = ("imp-test", *_TRAINING)
"""Actions that take optimiser steps; `imp-test` does for heuristics that need trained adapters."""

_SEARCHING = ("imp-test", "train-dyrealloc")


@dataclass(frozen=True)
class Option:
    """What the schema knows about an option beside its values, default and meaning.

    Args:
        group: heading in `--help`.
        actions: the actions that use it; the others accept it and say so in a note.
        flags: further spellings on the command line, without dashes.
        keys: further spellings in TOML.
        derived: where nothing is given, the value follows from other options, not from a fixed default.
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
"""Number formats of frozen linears alone; the rest of the network is then in bfloat16."""

_LIGHTNING_PRECISION = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class Options:
    """Every option as `parse` completes them: paths are absolute, `model` and `dataset` are not empty."""

    config: Annotated[tuple[Path, ...], Repeated(PathText()), _RUN] = field(default=(), compare=False)
    """TOML file with options; later files win, the command line wins over all of them."""
    model: Annotated[str, Word(), _RUN] = ""
    """FAMILY_lora, FAMILY_lora_ags (with shortcuts; FAMILY auto: the network's own), or a hub name or
    directory (plain model, trained as a whole). Required."""
    dataset: Annotated[str, Word(), _RUN] = ""
    """Data set, local (columns described in the TOML table [data]), or mix (several, each a TOML table
    [[data.mix]]). Required."""
    dataset_dir: Annotated[
        Path | None,
        PathText(),
        Option("What runs", flags=("dataset-saved-path",), keys=("dataset_saved_path",)),
    ] = None
    """Directory with the set's own files in their official layout, or its parent; then nothing is fetched."""
    task: Annotated[
        str,
        Choice("task", ("classification", "causal_language_modeling", "summarization")),
        _RUN,
    ] = "classification"
    """What is learned from the data set."""
    seed: Annotated[int, Whole(0, 2**32 - 1), _RUN] = 0
    """Seed of every random choice."""
    seeds: Annotated[
        tuple[int, ...] | None,
        Listed(Whole(0, 2**32 - 1)),
        Option("What runs", _TRAINING),
    ] = None
    """One run per seed in <project>-seedK, then a table; run again, it goes on."""
    mmlu_mode: Annotated[
        str | None,
        Choice("MMLU mode", ("zs", "fs")),
        Option("What runs", ("train", "test")),
    ] = None
    """Evaluate on MMLU, zero-shot or five-shot, in place of the data set's own evaluation sets."""
    mmlu_dir: Annotated[Path | None, PathText(), Option("What runs", ("train", "test"))] = None
    """Directory with MMLU's own files, data/test/SUBJECT_test.csv and so on. Not given: the hub's copy."""
    max_token_len: Annotated[int | None, Whole(), _RUN] = None
    """Longest input in tokens; 0 or less: the tokenizer's limit. Not given: 512, cut to the model's limit.
    A larger value that is given is refused."""
    max_bad_rows: Annotated[int, Whole(0), _RUN] = 0
    """Malformed data rows that may be left out before the run is refused."""
    limit_test_samples: Annotated[int | None, Whole(1), _RUN] = None
    """Use the first so many test rows only."""
    disable_dataset_cache: Annotated[bool, Switch(), _RUN] = False
    """Prepare the data set anew instead of reading a cached copy."""

    load: Annotated[str | None, Word(), Option("Weights", keys=("load_name",))] = None
    """Hub name, local directory, .gguf file, package:MODULE/PATH, or the file --load-type pt or pl reads."""
    load_type: Annotated[str, Choice("load type", ("hf", "pt", "pl")), _WEIGHTS] = "hf"
    """hf: saved model, hub name or GGUF; pt: state dict; pl: checkpoint of this project."""
    backbone_model: Annotated[str | None, Word(), _WEIGHTS] = None
    """Hub name or directory of the frozen base when --load is pt or pl. Not given: that of its run."""
    pretrained: Annotated[bool, Switch(), Option("Weights", keys=("is_pretrained",), derived=True)] = False
    """Load weights, or draw them at random from the config. Not given: on when --load is given."""
    adapter: Annotated[tuple[Path, ...], Repeated(PathText()), _WEIGHTS] = ()
    """Directory in PEFT format whose A and B are loaded into the injected adapters."""
    lora_config: Annotated[Path | None, PathText(), _WEIGHTS] = None
    """TOML file that says where adapters sit and what rank they have."""
    shortcut_config: Annotated[Path | None, PathText(), _WEIGHTS] = None
    """TOML file of the low-rank shortcuts."""
    shortcut_norm: Annotated[ShortcutNorm, Choice("shortcut norm", get_args(ShortcutNorm)), _WEIGHTS] = (
        "exact"
    )
    """Shortcut terms join the sum before the norm that follows it, or get one more norm of their own."""
    resume_training: Annotated[bool, Switch(), _TRAIN] = False
    """Go on where the checkpoint of --load stopped, in its run directory; needs --load-type pl."""
    offline: Annotated[bool, Switch(), _WEIGHTS] = False
    """Never ask a hub."""

    batch_size: Annotated[int, Whole(1), _RUN] = 16
    """Examples per batch and device."""
    optimizer: Annotated[
        str,
        Choice("optimizer", ("adam", "sgd", "adamw")),
        Option("Training", _FITTING, keys=("training_optimizer",)),
    ] = "adamw"
    """Optimizer."""
    learning_rate: Annotated[float, Real(0), _TRAIN] = 1e-4
    """Learning rate of the adapters, or of the whole plain model."""
    head_learning_rate: Annotated[float | None, Real(0), _TRAIN] = None
    """Learning rate of the classification head. Not given: --learning-rate."""
    weight_decay: Annotated[float, Real(0), _TRAIN] = 0.0
    """Decoupled weight decay (adamw) or L2 term (adam, sgd)."""
    head_weight_decay: Annotated[float | None, Real(0), _TRAIN] = None
    """That of the classification head's matrices. Not given: --weight-decay."""
    lr_scheduler: Annotated[
        str, Choice("learning-rate scheduler", ("none", "linear", "cosine_annealing")), _TRAIN
    ] = "none"
    """Learning-rate schedule."""
    eta_min: Annotated[float, Real(0), _TRAIN] = 0.0
    """Learning rate at the end of a linear or cosine schedule."""
    warmup_ratio: Annotated[float, Real(0, 1), _TRAIN] = 0.0
    """Share of the optimiser steps in which the learning rate rises from 0."""
    gradient_clip_val: Annotated[float | None, Real(0, low_open=True), _TRAIN] = None
    """Largest gradient norm. Not given: no clipping."""
    max_epochs: Annotated[int, Whole(1), _TRAIN] = 20
    """Epochs."""
    max_steps: Annotated[int, Whole(1, also={-1: "no limit"}), _TRAIN] = -1
    """Optimiser steps."""
    accumulate_grad_batches: Annotated[int, Whole(1), _TRAIN] = 1
    """Batches whose gradients are summed into one optimiser step."""
    early_stopping_patience: Annotated[int | None, Whole(1), _TRAIN] = None
    """Stop after so many evaluations without a better one. Not given: never."""
    length_grouped: Annotated[bool, Switch(), _TRAIN] = False
    """Put examples of similar length into one batch."""
    gradient_checkpointing: Annotated[bool, Switch(), _TRAIN] = False
    """Recompute activations in the backward pass to save memory."""

    precision: Annotated[
        str,
        Choice(
            "precision",
            ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true"),
            _LIGHTNING_PRECISION,
        ),
        _COMPUTE,
    ] = "32-true"
    """Lightning's precision."""
    base_dtype: Annotated[str, Choice("data type", ("float32", "bfloat16", *QUANTIZED_DTYPES)), _COMPUTE] = (
        "float32"
    )
    """How frozen weights are stored; adapters stay float32. int8, nf4: the layers' linears, the rest in
    bfloat16; they need the package bitsandbytes."""
    attention: Annotated[str, Choice("attention", ("auto", "eager")), _COMPUTE] = "auto"
    """How attention is computed: as the network chooses, or by plain products."""
    compile: Annotated[bool, Switch(), Option("Devices and numbers", _TRAINING)] = False
    """Compile the network's layers while training; needs a C++ compiler on the CPU."""
    accelerator: Annotated[str, Choice("accelerator", ("auto", "cpu", "gpu")), _COMPUTE] = "auto"
    """Kind of device."""
    num_devices: Annotated[int, Whole(1), Option("Devices and numbers", flags=("gpu",), keys=("gpu",))] = 1
    """Devices per node."""
    nodes: Annotated[int, Whole(1), Option("Devices and numbers", keys=("num_nodes",))] = 1
    """Nodes."""
    num_workers: Annotated[int, Whole(0), Option("Devices and numbers", flags=("cpu",), keys=("cpu",))] = 0
    """Processes that prepare batches."""
    strategy: Annotated[
        str,
        Choice("strategy", ("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", *DEEPSPEED)),
        _COMPUTE,
    ] = "auto"
    """How processes share the work."""
    auto_requeue: Annotated[
        bool,
        Switch(),
        Option("Devices and numbers", _TRAINING, keys=("is_to_auto_requeue",)),
    ] = False
    """On SLURM's SIGUSR1 save and queue the job again, which then goes on; needs --project."""

    importance_test_name: Annotated[str, Choice("heuristic", kinds.names(kinds.HEURISTICS)), _SEARCH] = (
        "constant"
    )
    """How the importance of a module is measured."""
    imp_limit_test_batches: Annotated[BatchLimit, Batches(), _SEARCH] = BatchLimit(count=32)
    """Training batches a score is made of: a number, or a share of all."""
    metric_red_tolerance: Annotated[float, Real(), _SEARCH] = 0.01
    """Alpha test: drop of the metric that is still accepted."""
    alpha_limit_zptrain_batches: Annotated[BatchLimit, Batches(), _SEARCH] = BatchLimit(count=32)
    """Alpha test: batches of each epoch that the adapters are trained on first."""
    score_init: Annotated[str | None, Choice("score start", ("as_is", "random_b")), _SEARCH] = None
    """Score the weights as they are or with random B. Not given: random_b for snip, synflow in imp-test."""
    synflow_objective: Annotated[str, Choice("objective", ("sum", "loss")), _SEARCH] = "sum"
    """Synflow: the sum of the outputs or the task's loss."""
    turn_on_percentile: Annotated[float, Real(0, 1, low_open=True), _SEARCH] = 0.25
    """Share of the modules that are on."""
    budget_params: Annotated[int | None, Whole(1), _SEARCH] = None
    """Budget in parameters instead of --turn-on-percentile."""
    realloc_N: Annotated[BatchLimit, Batches(), _DYNAMIC] = BatchLimit(ratio=0.1)  # noqa: N815 (published name)
    """Batches between two reallocations."""
    dyrealloc_ags_mode: Annotated[
        ReallocationMode, Choice("reallocation mode", get_args(ReallocationMode)), _DYNAMIC
    ] = "off"
    """Whether shortcuts are reallocated: not at all, from one budget with the adapters, or from their own."""
    constant_warmup_epochs: Annotated[int, Whole(0), _DYNAMIC] = 0
    """Epochs of uniformly random choices before scores are used."""
    realloc_hist_path: Annotated[
        Path | None,
        PathText(),
        Option("Importance search", ("train", "test")),
    ] = None
    """History whose last entry is applied."""

    project_dir: Annotated[Path, PathText(), _RECORD] = Path("outputs")
    """Directory of all runs."""
    project: Annotated[str | None, Word(is_name=True), _RECORD] = None
    """Name of the run's directory. Not given: made from model, task and dataset."""
    log_level: Annotated[str, Choice("level", _LEVELS), _RECORD] = "info"
    """Least level of log lines that are shown."""
    log_every_n_steps: Annotated[int, Whole(1), Option("Record", _FITTING)] = 50
    """Optimiser steps between two writes of the loss log and two points of the TensorBoard curves."""
    checkpoint_every_n_steps: Annotated[int | None, Whole(1), Option("Record", _FITTING)] = None
    """Optimiser steps between two checkpoints, beside those at each epoch's end."""
    write_predictions: Annotated[bool, Switch(), _RECORD] = False
    """Write files with the predictions for unlabelled splits, and all generated answers."""
    print_config: Annotated[bool, Switch(), _RECORD] = False
    """Print the effective configuration and stop."""
    dry_run: Annotated[bool, Switch(), _RECORD] = False
    """Check and build everything, train nothing."""

    @property
    def state_dict(self) -> Path | None:
        """The file of `--load` with `--load-type pt`."""
        return Path(self.load) if self.load is not None and self.load_type == "pt" else None

    @property
    def checkpoint(self) -> Path | None:
        """The file of `--load` with `--load-type pl`."""
        return Path(self.load) if self.load is not None and self.load_type == "pl" else None
