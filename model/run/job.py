"""What an action is given: a run with everything built and checked, and nothing executed yet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lightning import LightningDataModule

from configs.runs.run_directory import RunDirectory
from configs.runtime import console
from configs.runtime.faults import InputFault
from configs.schema.options import Options
from model.assembly.assembly import Assembled, require_base
from model.freezing.record import FreezingHistory
from model.run.report import Summary
from model.run.run_data import RunData
from model.run.task_facts import TaskFacts
from model.site import SiteKey
from model.training.learners.finetune import FineTuner
from model.training.multiple_choice import MultipleChoice
from model.training.objective import Objective, build
from model.training.optimizer import OptimizerSettings


class Steps(NamedTuple):
    """Optimiser steps of a run: the best one, and how many were taken."""

    best: int = 0
    taken: int = 0


class SearchResult(NamedTuple):
    """What a search, or freezing, did during training.

    Args:
        decisions: reallocations.
        eligible: the modules that it switched; None: all modules of the run count.
        pictures: heading -> picture in the run directory.
        freezing: which matrices were frozen when; None without freezing.
    """

    decisions: int = 0
    eligible: Collection[SiteKey] | None = None
    pictures: Mapping[str, Path] = {}
    freezing: FreezingHistory | None = None


NO_SEARCH = SearchResult()


@dataclass(frozen=True)
class Job:
    """One run, ready to start.

    Args:
        action: that of the command line.
        options: the effective options.
        config_text: the content of `config.toml`.
        task: what is known about the data set.
        data: its batches.
        rows: rows read, used and refused, in total and by split, and the reasons.
        digests: split -> SHA-256 of its examples.
        assembled: network and adapters.
        base: path or name of the frozen base, as other tools load it.
        checkpoint: the checkpoint of `--load` with `--load-type pl`; `restore` loads its tensors.
        preview: one decoded example with its loss mask.
        directory: the run directory, open and locked; None for a dry run.
        command: the command line as typed.
        corpus: name -> content of the files for `search/` about the clusters of the training texts.
        refusals: how many rows of each split are refused for which reason, a line each.
        notes: what is to be known about the rows, a line each.
    """

    action: str
    options: Options
    config_text: str
    task: TaskFacts
    data: RunData
    rows: Mapping[str, Any]
    digests: Mapping[str, str]
    assembled: Assembled
    base: str
    checkpoint: Mapping[str, Any] | None
    preview: str
    directory: RunDirectory | None
    command: Sequence[str]
    corpus: Mapping[str, bytes] = field(default_factory=dict)
    refusals: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def selection_metric(self) -> str:
        """The metric that chooses the best step, with its split."""
        return f"val/{self.task.selection}"

    @property
    def datamodule(self) -> LightningDataModule:
        """The data as Lightning takes it; a protocol cannot demand a class of Lightning."""
        assert isinstance(self.data, LightningDataModule), type(self.data)
        return self.data

    def freeze_inactive(self) -> None:
        """Freeze the adapters that stay off in this run: no gradient, no update, no decay.

        A checkpoint decides by its switches, since in a search modules train that are off at the moment;
        without one the modules that are off now are frozen. A second call changes nothing more.
        """
        known = None if self.checkpoint is None else self.checkpoint["switches"]
        for key, attachment in self.assembled.attachments.items():
            trains = attachment.active if known is None else str(key) in known
            if not trains:
                attachment.adapter.requires_grad_(False)

    def learner(self, evaluations: Sequence[str]) -> FineTuner:
        """Return the learner of this run; it trains what requires a gradient, see `freeze_inactive`.

        Args:
            evaluations: names of its evaluation sets.
        """
        options = self.options
        head_lr = options.learning_rate if options.head_learning_rate is None else options.head_learning_rate
        settings = OptimizerSettings(
            optimizer=options.optimizer,
            lr=options.learning_rate,
            head_lr=head_lr,
            weight_decay=options.weight_decay,
            schedule=options.lr_scheduler,
            warmup_ratio=options.warmup_ratio,
            lowest_lr=options.eta_min,
            fused=options.precision != "16-mixed",
            head_weight_decay=options.head_weight_decay,
            betas=(options.adam_beta1, options.adam_beta2),
            epsilon=options.adam_epsilon,
        )
        return FineTuner(
            self.assembled.network,
            self.assembled.attachments,
            head=self.assembled.head,
            objective=self._objective(),
            optimizer_settings=settings,
            evaluations=evaluations,
        )

    def _objective(self) -> Objective:
        """Return loss and metrics; in MMLU mode the evaluation is multiple choice."""
        task = self.task
        built = build(task.objective, task.metrics, len(task.classes))
        return MultipleChoice(built, task.metrics) if task.selection == "mmlu" else built

    def restore(self) -> None:
        """Load the tensors and switches of the checkpoint, if there is one, before any file is written.

        Raises:
            InputFault: when they do not fit the trainable tensors, the base or the data of this run.
        """
        recorded = (self.assembled.metadata or {}).get("labels")
        self._require_classes(recorded, "--adapter")
        if self.checkpoint is None:
            return
        facts = self.checkpoint["facts"]
        self._require_classes(facts.get("labels"), "--load")
        require_base(self.assembled.backbone, facts)
        if self.options.resume_training:
            self._require_data(facts["data_digests"])
        if facts.get("sets") != (None if self.assembled.fused is None else self._set_digests()):
            raise InputFault(
                "--adapter: these are not the sets that the checkpoint's gates were trained with"
            )
        self.freeze_inactive()
        self.learner(()).load_trained(self.checkpoint, str(self.options.load))
        if not self.options.resume_training:  # a history that is given counts more than the checkpoint
            for key, on in self.assembled.switches.items():
                if key in self.assembled.attachments:
                    self.assembled.attachments[key].enabled = on

    def _require_classes(self, recorded: Sequence[str] | None, flag: str) -> None:
        """Refuse the trained classes in another order, of which every answer would be counted wrong."""
        ours = list(self.task.classes)
        if not recorded or not ours or list(recorded) == ours:
            return
        if sorted(recorded) == sorted(ours):
            raise InputFault(
                f"{flag}: was trained with the classes {', '.join(recorded)} in this order, the data set has"
                f" {', '.join(ours)}; give its labels in the order of training"
            )
        console.say(
            f"note: {flag}: was trained for {', '.join(recorded)}, the data set has {', '.join(ours)}"
        )

    def _require_data(self, recorded: Mapping[str, str]) -> None:
        """Refuse to resume with other examples than the run was started with."""
        changed = [name for name, digest in recorded.items() if self.digests.get(name) != digest]
        if changed:
            raise InputFault(
                f"--dataset: {', '.join(changed)} of {self.task.name} changed since the run was started"
            )

    def summary(
        self,
        learner: FineTuner,
        metrics: Mapping[str, float],
        *,
        split: str,
        value: float | None,
        steps: Steps,
        searched: SearchResult = NO_SEARCH,
    ) -> Summary:
        """Return the content of `summary.json`.

        Args:
            learner: counts the trainable parameters.
            metrics: every final number by name.
            split: the split that `value` was computed on.
            value: the value of the metric that chooses the best step.
            steps: the best step, and how many were taken.
            searched: what a search or freezing did.
        """
        groups = learner.trainable_counts()
        metric = {
            "name": self.selection_metric,
            "direction": "max" if self.task.maximise else "min",
            "split": split,
            "value": value,
            "best_step": steps.best,
        }
        modules = self.assembled.attachments
        eligible = modules if searched.eligible is None else searched.eligible
        search = {
            "decisions": searched.decisions,
            "enabled": sum(modules[key].active for key in eligible),
            "eligible": len(eligible),
        }
        freezing = None if searched.freezing is None else searched.freezing.summary(steps.taken)
        counts = groups | {"total": sum(groups.values())}
        return Summary(metric, metrics, counts, steps.taken, self.rows, search, freezing)

    def checkpoint_facts(self) -> dict[str, Any]:
        """Return what a checkpoint records about its base, model and data."""
        backbone = self.assembled.backbone
        return {
            "base": backbone.word,
            "base_digest": backbone.digest,
            "pretrained": bool(self.options.pretrained),
            "seed": self.options.seed,
            "model": self.options.model,
            "dataset": self.task.name,
            "labels": list(self.task.classes),
            "data_digests": dict(self.digests),
            **({"sets": self._set_digests()} if self.assembled.fused is not None else {}),
        }

    def _set_digests(self) -> list[str]:
        """Return the digests of the fused sets, in order."""
        assert self.assembled.fused is not None
        return [one[part] for one in self.assembled.fused["sets"] for part in ("tensors", "config")]

    def evaluation_options(self) -> dict[str, Any]:
        """Return the options that the result of an evaluation depends on; they are saved with the adapter."""
        names = ["dataset", "task", "batch_size", "max_token_len"]
        names += ["precision", "base_dtype", "attention", "seed"]
        if self.assembled.stream is not None:
            names.append("shortcut_norm")
        chosen = {
            name: getattr(self.options, name) for name in names if getattr(self.options, name) is not None
        }
        return chosen | ({"data": dict(self.task.table)} if self.task.table else {})
