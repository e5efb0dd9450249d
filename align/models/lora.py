"""LoRA (Hu et al., 2106.09685): chooses the weights that get an adapter, and freezes weights that text never uses.

A small forward pass over text finds the layers, so no model family is known by name. Weights that text does not use are
frozen. Routers get no adapter.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from align import sections
from align.errors import UserError
from align.models.adapters import POLICY, adapted_weight, tie_adapters, trained_parameters, tuned_layers
from align.models.merging import answer, probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUTER = re.compile(r"(^|\.)(router|router_gate|gate|shared_expert_gate)(\.|$)")


def add_lora(base: PreTrainedModel, model: sections.Model) -> Any:
    """`base` with a new adapter in fp32; only the adapter is trained. Its B is zero, so outputs do not change yet."""
    from peft import LoraConfig, TaskType, get_peft_model

    modules, experts = targets(base, model.lora)
    config = LoraConfig(
        r=model.lora.rank,
        lora_alpha=model.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=model.lora.dropout,
        target_modules=modules,
        target_parameters=experts or None,
        fan_in_fan_out=_has_conv1d(base),
        task_type=TaskType.CAUSAL_LM if base.get_output_embeddings() is not None else None,
        base_model_name_or_path=model.path,
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")  # see `merging.merge`
            adapted: Any = get_peft_model(base, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules = {model.lora.target_modules}: {error}") from None
    adapted.peft_config[POLICY].base_model_name_or_path = model.path  # may itself be an adapter
    tie_adapters(adapted, POLICY)
    return adapted


def targets(base: Any, lora: sections.Lora) -> tuple[list[str], list[str]]:
    """The names of the linear layers that get an adapter, and of the parameters with stacked experts' matrices.

    By default all layers that a pass over text uses, except the vocabulary head and routers, which choose experts: a
    router's outputs are compared, not added up. A parameter with several experts' matrices has three dimensions; PEFT
    adapts it by `target_parameters`, without dropout. Raises `UserError` if the recipe names a router.
    """
    called = called_by_text(base)
    experts = [name for name, module in base.named_modules() if module in called for name in _stacked(name, module)]
    if lora.target_modules is not None:
        return _chosen(base, lora.target_modules, experts)
    left_out = routers(base) | {name for name, module in base.named_modules() if module is base.get_output_embeddings()}
    linear = [
        name
        for name, module in base.named_modules()
        if called.get(module) and name not in left_out and not _is_fused(base, name)
    ]
    modules = _kept_by_peft(base, linear)
    parameters = [] if lora.dropout else experts + [f"{name}.weight" for name in linear if name not in modules]
    parameters = [name for name in parameters if base.get_parameter(name).is_floating_point()]
    names_of_parameters = [name for name, _ in base.named_parameters(remove_duplicate=False)]
    return (
        _shortened(modules, [name for name, _ in base.named_modules(remove_duplicate=False)]),
        _shortened(parameters, names_of_parameters),
    )


def _chosen(base: Any, names: list[str], experts: list[str]) -> tuple[list[str], list[str]]:
    """A recipe's target modules, split into modules and stacked experts' parameters."""
    for name in routers(base):
        if any(f".{name}".endswith(f".{wanted}") for wanted in names):
            raise UserError(
                f"model.lora.target_modules = {names}: {name} is a router, which chooses experts and gets no adapter; "
                "give other modules"
            )
    stacked = [name for name in experts if any(f".{name}".endswith(f".{wanted}") for wanted in names)]
    return [wanted for wanted in names if not any(f".{name}".endswith(f".{wanted}") for name in stacked)], stacked


def called_by_text(model: Any) -> dict[nn.Module, bool]:
    """The modules that a pass over text calls, and for each whether an adapter's output could be added to its output.

    Experts that got no token are included if another module of the same class in their list was called. If no pass is
    possible (without data, or before the model is on the device that its code needs), all modules of the part with the
    word embedding count.
    """
    called: dict[nn.Module, bool] = {}

    def note(module: nn.Module, given: Any, made: Any) -> None:
        fits = _is_linear(module) and isinstance(made, Tensor) and bool(given)
        called[module] = fits and made.shape == (*given[0].shape[:-1], n_out(module))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            answer(model, probe(model))
    except Exception:  # a model's code may raise anything
        called = {module: _is_linear(module) for module in _part_with_embedding(model).modules()}
    finally:
        for hook in hooks:
            hook.remove()
    for row in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        alike = {type(module): module for module in row if module in called}
        for module in row:
            if module not in called and type(module) in alike:
                pairs = zip(module.modules(), alike[type(module)].modules(), strict=False)
                called |= {part: called[like] for part, like in pairs if like in called}
    return called


def freeze_unreached(model: Any) -> None:
    """Freezes weights that text does not use, such as a vision tower: they get no gradient, and DDP would wait for it.

    A weight is used if the output of a pass depends on it, or if it belongs to a module that was called, because not
    every batch chooses every expert.
    """
    reached = {id(p) for module in called_by_text(model) for p in module.parameters(recurse=False)}
    try:
        with torch.enable_grad():
            reached |= _leaves(answer(model, probe(model)))
        with torch.no_grad():  # resets a state that the model keeps (RecurrentGemma), which would hold the graph
            answer(model, probe(model))
    except Exception:  # as above
        return
    for parameter in model.parameters():
        if id(parameter) not in reached:
            parameter.requires_grad_(False)


def hold_idle_experts(model: nn.Module) -> None:
    """Adds every expert module to each pass with weight 0.

    An expert that gets no token has no gradient in this process, and the other processes would wait for it. Experts
    stacked in one parameter always have a gradient.
    """
    for block in model.modules():
        experts = getattr(block, "experts", None)
        if isinstance(experts, nn.ModuleList):
            block.register_forward_hook(_hold)


def _hold(block: Any, given: Any, made: Any) -> Any:
    idle = [p.flatten()[0] for p in block.experts.parameters() if p.requires_grad]
    if not idle or not torch.is_grad_enabled():
        return made
    nothing = 0 * torch.stack(idle).sum()
    return made + nothing if isinstance(made, Tensor) else type(made)([made[0] + nothing, *made[1:]])


def _leaves(output: Tensor) -> set[int]:
    """The `id`s of the parameters that an output was computed from."""
    found, waiting, seen = set(), [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


class Shares(NamedTuple):
    """Counts of a model's weights without adapters, each shared weight once."""

    whole: int
    adapted: int  # weights with an adapter
    bare_experts: int  # weights in experts' matrices without an adapter
    quantised: int
    trained: int  # trained numbers; those of an adapter are not in `whole`

    def lines(self, bits: str = "none") -> list[str]:
        """Lines for the log; none if all weights are trained."""
        if not self.adapted and self.trained == self.whole:
            return []
        if not self.adapted:
            return [
                f"of {self.whole:,} weights {self._share(self.trained)} are trained; the others are not used by text "
                "and are frozen"
            ]
        low = f", {self._share(self.quantised)} are in {bits.removesuffix('bit')} bits" if bits != "none" else ""
        experts = f" (experts' matrices: {self._share(self.bare_experts)})" if self.bare_experts else ""
        return [
            f"of {self.whole:,} weights {self._share(self.adapted)} have an adapter ({self.trained:,} trained numbers)"
            f"{low}; {self._share(self.whole - self.adapted)} have none{experts}"
        ]

    def _share(self, part: int) -> str:
        return f"{part / self.whole:.1%}"


def shares(model: nn.Module) -> Shares:
    """Counts the weights of a model that have an adapter, that are in low bits, that are trained."""
    adapted = {id(adapted_weight(layer)) for layer in tuned_layers(model)}
    found: dict[int, tuple[int, bool, bool]] = {}  # size, whether it is an expert's, whether it is in low bits
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if "lora_" not in f"{path}.{name}":
                size = n_in(module) * n_out(module) if name == "weight" and _is_linear(module) else p.numel()
                is_expert = "experts" in f"{path}.{type(module).__name__}".lower() and _is_matrix(name, p)
                found[id(p)] = (size, is_expert, not p.is_floating_point())
    return Shares(
        whole=sum(size for size, _, _ in found.values()),
        adapted=sum(size for key, (size, _, _) in found.items() if key in adapted),
        bare_experts=sum(size for key, (size, expert, _) in found.items() if expert and key not in adapted),
        quantised=sum(size for size, _, low in found.values() if low),
        trained=sum(p.numel() for p in trained_parameters(model).values()),
    )


def routers(model: Any) -> set[str]:
    """The names of modules that choose or weigh experts, and of their parts."""
    names = [name for name, _ in model.named_modules()]
    return {name for name in names if ROUTER.search(name)} if any("expert" in name.lower() for name in names) else set()


def n_in(module: Any) -> int:
    """The input width of a linear layer."""
    return module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features


def n_out(module: Any) -> int:
    """The output width of a linear layer."""
    return module.nf if isinstance(module, Conv1D) else module.out_features


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _is_fused(model: Any, name: str) -> bool:
    """Whether fast code reads a layer's weight directly and skips its adapter: the last matrix of a Mamba mixer."""
    above, _, own = name.rpartition(".")
    mixer = model.get_submodule(above)
    return own == "out_proj" and hasattr(mixer, "A_log") and hasattr(mixer, "D")


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")


def _stacked(path: str, module: nn.Module) -> list[str]:
    """The names of a module's parameters with stacked experts' matrices."""
    if "expert" not in f"{path}.{type(module).__name__}".lower():
        return []
    return [f"{path}.{name}" for name, p in module.named_parameters(recurse=False) if p.ndim == 3]


def _kept_by_peft(base: Any, names: list[str]) -> list[str]:
    """The names without those that PEFT mistakes for experts that transformers 5 has fused.

    Examples are Qwen2-MoE's shared expert and DeepSeek's dense blocks. They are adapted as parameters.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(config, base, None)
    return [name for name in names if name in (config.target_modules or [])]


def _shortened(names: list[str], among: list[str]) -> list[str]:
    """The shortest endings that match these names and no others; layers with one name in all blocks appear once."""
    everywhere, wanted = (Counter(end for name in group for end in _ends(name)) for group in (among, names))
    return sorted({next(end for end in _ends(name) if everywhere[end] == wanted[end]) for name in names})


def _ends(name: str) -> list[str]:
    """`c`, `b.c`, `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _part_with_embedding(model: Any) -> nn.Module:
    """The smallest part of a model that has both the word embedding and a list of blocks."""
    embedding = model.get_input_embeddings()
    parts = [module for module in model.modules() if any(m is embedding for m in module.modules())]
    return [module for module in parts if any(isinstance(m, nn.ModuleList) for m in module.modules())][-1]


def _has_conv1d(model: torch.nn.Module) -> bool:
    """Whether the model has GPT-2's `Conv1D`, which stores its weight transposed."""
    return any(isinstance(module, Conv1D) for module in model.modules())
