"""What llama.cpp's converter of adapters refuses or scales differently.

Source: ggml-org/llama.cpp, `convert_lora_to_gguf.py` (which tensors it takes, which keys it reads) and
`llama-adapter.h`: a module's scale is lora_alpha over the rank of its tensor, without patterns or rsLoRA.
"""

from collections.abc import Iterator, Mapping

from model.exchange.adapter_config import PREFIX
from model.exchange.adapter_directory import AdapterFiles, extra_methods

_FACTORS = (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B")
_TAKEN = ("_layernorm", ".norm", ".base_layer.weight")
_CLOSE = 1e-6


def llama_cpp_refusals(files: AdapterFiles, scales: Mapping[str, float], *, folds: bool) -> Iterator[str]:
    """Yield a line for each thing that llama.cpp refuses or computes differently.

    Args:
        files: the adapter.
        scales: module -> the scale that PEFT gives it.
        folds: whether a copy is written, with every scale multiplied into B and one rank.
    """
    where, config = str(files.path / "adapter_config.json"), files.config
    if config.get("peft_type") != "LORA":
        yield f"{where}: peft_type: llama.cpp reads only LORA, got {config.get('peft_type')!r}"
        return
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        yield f"{where}: task_type: llama.cpp runs language models only, got {config['task_type']}"
    if config.get("use_dora"):
        yield f"{where}: use_dora: llama.cpp does not support DoRA"
    only_here = extra_methods(files.metadata)
    if only_here:
        what = ", ".join(only_here)
        yield f"{files.path / 'metadata.json'}: llama.cpp does not support {what}; outputs would differ"
    whole = [
        name for name in files.tensors if not name.endswith(_FACTORS) and not any(w in name for w in _TAKEN)
    ]
    if whole:
        where = str(files.path / "adapter_model.safetensors")
        yield f"{where}: {min(whole)}: llama.cpp takes no modules saved whole"
    elif not folds:
        yield from _other_scales(files, scales, where)


def _other_scales(files: AdapterFiles, scales: Mapping[str, float], where: str) -> Iterator[str]:
    alpha = files.config.get("lora_alpha")
    for module, scale in sorted(scales.items()):
        names = (f"{prefix}{module}.lora_A.weight" for prefix in (PREFIX, ""))
        rank = next(files.tensors[name].shape[0] for name in names if name in files.tensors)
        theirs = alpha / rank if isinstance(alpha, int | float) and rank else 0.0
        if abs(theirs - scale) > _CLOSE * abs(scale):
            what = f"llama.cpp gives {module} the scale {theirs:g}, PEFT {scale:g}"
            yield f"{where}: lora_alpha: {what}; --output writes a copy with one rank and scale"
            return
