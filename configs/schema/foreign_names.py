"""Option names of other programs, so that a refusal can name the option of this one.

Collected from the command lines of transformers' Trainer, PEFT's examples, LLaMA-Factory, litgpt,
LightningCLI and lm-evaluation-harness. A value is either the name of an option or a sentence
that explains what to write.
"""

from configs.schema.lookup import keys

_LORA_TOML = "ranks and other adapter settings are in the LoRA TOML of --lora-config"
_RESUME = "write --resume-training RUN"
_ACTION = "ACTION, the first argument, decides what runs: train, test, imp-test or train-dyrealloc"

FOREIGN_NAMES: dict[str, str] = {
    **dict.fromkeys(("lr", "base_lr", "peak_lr"), "learning_rate"),
    **dict.fromkeys(("classifier_lr", "head_lr"), "head_learning_rate"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "gradient_accumulation", "grad_accum", "accumulate_grad"),
        "accumulate_grad_batches",
    ),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "epochs", "n_epochs"), "max_epochs"),
    **dict.fromkeys(("num_steps", "total_steps", "max_iters", "train_steps"), "max_steps"),
    **dict.fromkeys(
        (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "train_batch_size",
            "micro_batch_size",
            "global_batch_size",
        ),
        "batch_size",
    ),
    **dict.fromkeys(("output_dir", "out_dir", "default_root_dir", "logging_dir"), "project_dir"),
    **dict.fromkeys(("run_name", "experiment_name", "exp_name"), "project"),
    **dict.fromkeys(
        ("model_name_or_path", "model_name", "base_model", "pretrained_model_name_or_path", "checkpoint_dir"),
        "write --load for the network's weights and --model FAMILY_lora for what is trained on them",
    ),
    **dict.fromkeys(("adapter_name_or_path", "lora_path", "peft", "peft_path", "adapter_dir"), "adapter"),
    **dict.fromkeys(
        ("resume_from_checkpoint", "ckpt_path", "resume", "resume_from", "checkpoint_path"), _RESUME
    ),
    **dict.fromkeys(
        ("lora_rank", "lora_r", "rank", "r", "lora_alpha", "lora_dropout", "lora_target", "target_modules"),
        _LORA_TOML,
    ),
    **dict.fromkeys(("lr_scheduler_type", "scheduler", "lr_schedule", "schedule"), "lr_scheduler"),
    **dict.fromkeys(
        ("warmup_steps", "warmup", "lr_warmup_steps"), "write --warmup-ratio, a share of all steps"
    ),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "clip_grad_norm", "gradient_clip"), "gradient_clip_val"),
    **dict.fromkeys(("optim", "optimizer_name"), "optimizer"),
    **dict.fromkeys(
        ("max_seq_length", "max_seq_len", "cutoff_len", "max_length", "model_max_length", "block_size"),
        "max_token_len",
    ),
    **dict.fromkeys(("logging_steps", "log_interval", "log_freq"), "log_every_n_steps"),
    **dict.fromkeys(("save_steps", "save_interval", "checkpoint_every"), "checkpoint_every_n_steps"),
    **dict.fromkeys(("dataloader_num_workers", "workers"), "num_workers"),
    **dict.fromkeys(("devices", "gpus", "n_gpus", "num_gpus", "nproc_per_node"), "num_devices"),
    **dict.fromkeys(("nnodes", "num_machines"), "nodes"),
    **dict.fromkeys(("bf16", "fp16"), "write --precision bf16-mixed or 16-mixed"),
    **dict.fromkeys(("torch_dtype", "dtype", "quantization_bit"), "base_dtype"),
    "load_in_4bit": "write --base-dtype nf4",
    "load_in_8bit": "write --base-dtype int8",
    **dict.fromkeys(("attn_implementation", "flash_attn"), "attention"),
    "torch_compile": "compile",
    "gradient_checkpoint": "gradient_checkpointing",
    "group_by_length": "length_grouped",
    **dict.fromkeys(("early_stopping", "patience"), "early_stopping_patience"),
    **dict.fromkeys(("data_dir", "data_path", "dataset_path"), "dataset_dir"),
    **dict.fromkeys(
        ("train_file", "validation_file", "test_file", "data_files"),
        "write --dataset local and name the files in the TOML table [data]",
    ),
    **dict.fromkeys(("dataset_name", "task_name", "tasks"), "dataset"),
    **dict.fromkeys(
        ("max_samples", "max_eval_samples", "max_predict_samples", "limit"), "limit_test_samples"
    ),
    **dict.fromkeys(("random_seed", "data_seed", "global_seed"), "seed"),
    **dict.fromkeys(("use_cpu", "no_cuda", "cpu_only", "device"), "write --accelerator cpu or gpu"),
    **dict.fromkeys(("deepspeed", "fsdp", "distributed_backend"), "strategy"),
    "fast_dev_run": "write --dry-run to check a run, or --max-steps 1 to try one step",
    "overfit_batches": "write --max-steps and a small training file",
    **dict.fromkeys(("do_train", "do_eval", "do_predict", "stage", "finetuning_type"), _ACTION),
    "overwrite_output_dir": "a run directory is not overwritten; give another --project",
    "push_to_hub": "nothing is uploaded here; RUN/adapter is in PEFT's format",
    "trust_remote_code": "code in the directory of a model is never run",
}
"""Name in snake case -> our option, or a sentence."""


def foreign_option(name: str) -> str | None:
    """Return our option for a flag or key of another program, or None where there is none or not just one."""
    found = FOREIGN_NAMES.get(_key(name))
    return found if found in keys() else None


def foreign_advice(name: str, dashes: bool) -> str | None:
    """Return what to write here for a flag or key of another program, or None where it is not known.

    Args:
        name: a flag or key, with or without dashes.
        dashes: whether our option is named as a flag (else as a TOML key).
    """
    option = foreign_option(name)
    if option is None:
        return FOREIGN_NAMES.get(_key(name))
    return f"here it is {keys()[option].flag if dashes else option}"


def _key(name: str) -> str:
    """Return a flag or key as it is written in TOML."""
    return name.lstrip("-").replace("-", "_")
