"""Load the base that the options name, and attach and load adapters."""

from collections.abc import Sequence

from configs.runtime.faults import InputFault
from configs.schema.model_name import ModelName
from configs.schema.options import Options
from model.assembly.assembly import Assembled, assemble, fully_trained, require_shortcuts
from model.assembly.placement import Plans
from model.exchange.adapter_directory import find_adapter
from model.exchange.fusion import open_adapters
from model.network.backbone import Backbone, load_backbone, load_from_state_dict
from model.network.source import Source
from model.plan.flow_table import FlowSettings


def load_base(
    options: Options, name: ModelName, source: Source, objective: str, labels: Sequence[str]
) -> Backbone:
    """Load network and tokenizer, with a head for the task.

    Args:
        options: the effective options.
        name: family and method of `--model`.
        source: where network and tokenizer come from.
        objective: classification, regression or language_modeling.
        labels: class names in the order of their ids.

    Raises:
        InputFault: naming the file, tensor or flag.
    """
    backbone = load_backbone(
        source,
        objective,
        labels,
        expected=name.family,
        pretrained=options.pretrained,
        seed=options.seed,
        base_dtype=options.base_dtype,
        attention=options.attention,
    )
    if options.state_dict is None:
        return backbone
    return load_from_state_dict(backbone, options.state_dict)


def with_adapters(
    options: Options,
    name: ModelName,
    backbone: Backbone,
    plans: Plans,
    flow: FlowSettings | None,
    *,
    trains: bool,
) -> Assembled:
    """Attach the adapters that the plans or an adapter's files describe; a plain model trains every weight.

    Args:
        options: the effective options.
        name: family and method of `--model`.
        backbone: the loaded network.
        plans: which adapters go where.
        flow: how several adapters are fused; None with one or none.
        trains: whether the action trains.

    Raises:
        InputFault: when plans, adapter and network do not fit each other.
    """
    if name.method == "full":
        return fully_trained(backbone)
    adapter = find_adapter(options.adapter[0], "--adapter") if options.adapter else None
    opened = open_adapters(options.adapter, flow)
    assembled = assemble(backbone, plans, adapter, options.seed, options.shortcut_norm, opened)
    if trains and assembled.outside:
        what = f"{adapter} has a LoRA outside the layers ({', '.join(assembled.outside)})"
        raise InputFault(f"--adapter: {what}, which cannot be trained here; merge it first with tools.merge")
    require_shortcuts(assembled, options.model, wanted=name.method == "lora_ags", where=str(adapter))
    return assembled
