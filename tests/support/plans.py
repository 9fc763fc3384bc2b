"""Texts of plans and a model to resolve them against."""

from model.network.family import Dimensions
from model.site import LINEAR_ROLES

METHODS = ("aflora", "hydra", "lora", "lora_moe", "lora_split", "shortcut", "vera")
NO_GATE = tuple(role for role in LINEAR_ROLES if role != "gate")
SIZE = Dimensions(layers=2, heads=4, key_value_heads=2)
BODY = 'lora_alpha = 16\nlora_dropout = 0.1\nadapter_name = "a"\ndisable_adapter = false\n'
DEFAULT = f"[default]\nr = 8\n{BODY}"


def table(name, rank, body=BODY):
    return f"[{name}]\nr = {rank}\n{body}"
