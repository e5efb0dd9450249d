"""Several adapters on one base: which of them speaks, and which parameters belong to a role.

A role is a `LanguageModel` or a `ScalarModel`. Roles may stand on one frozen base in memory, each with a LoRA adapter
of its own (Hu et al., 2106.09685), or with none, as the reference. PEFT keeps one adapter active for the whole model;
here a role switches to its own for as long as it computes.
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.errors import UserError

# The names of adapters on one base. "default" is PEFT's for the first, the policy's.
POLICY, VALUE, REFERENCE = "default", "value_model", "reference"  # no names of layers, as "value" is in some
PEFT_PREFIX = "base_model.model."  # of the names in an adapter's file


class Role(nn.Module):
    """A model with a purpose. `adapter` names its own adapter on a shared base; None is the base alone."""

    adapter: str | None = POLICY
    borrows_trunk = False  # the trunk is another role's, who trains it; only the head is this one's own

    @contextmanager
    def active(self) -> Iterator[None]:
        """For the block, the base speaks with this role's adapter. Backward passes that recompute belong inside."""
        layers = self._tuned_layers()
        before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
        for layer in layers:
            layer._active_adapter = [self.adapter] if self.adapter else layer._active_adapter
            layer._disable_adapters = self.adapter is None
        try:
            yield
        finally:
            for layer, (name, disabled) in zip(layers, before, strict=True):
                layer._active_adapter, layer._disable_adapters = name, disabled

    def _tuned_layers(self) -> list[Any]:
        """The layers that PEFT has put adapters on; found once, since adapters come before roles."""
        if "_layers" not in self.__dict__:
            found: list[Any] = []
            if any("lora_" in name for name, _ in self.named_parameters()):
                from peft.tuners.tuners_utils import BaseTunerLayer

                found = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
            self.__dict__["_layers"] = found
        return self.__dict__["_layers"]


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training `module` changes; of adapters on a shared base, a role's own alone."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not isinstance(module, Role):
        return trained
    if module.borrows_trunk:
        return {name: p for name, p in trained.items() if name.startswith("head.")}
    return {name: p for name, p in trained.items() if "lora_" not in name or _belongs(name, module.adapter)}


def add_adapter(model: Any, name: str, trained: bool = True, config: Any = None) -> None:
    """Puts another LoRA adapter on a PEFT model's base, of the policy's shape by default. It does nothing yet."""
    config = copy.deepcopy(config or model.peft_config[POLICY])
    config.task_type = model.peft_config[POLICY].task_type  # which says whether it stands on a whole model or a trunk
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")  # see `merging.merge`
            model.add_adapter(name, config)
    except ValueError as error:
        raise UserError(
            f"the adapter {name} cannot stand on the policy's base ({error}); give the whole model/ of its run instead"
        ) from None
    tie_adapters(model, name)
    for parameter in adapter_parameters(model, name).values():
        parameter.requires_grad_(trained)


def tie_adapters(model: Any, name: str) -> None:
    """Layers that share a weight, as Zamba2's blocks do, share its adapter too: so it is trained and merged once."""
    first: dict[int, Any] = {}
    for layer in tuned_layers(model):
        if name in layer.lora_A:
            twin = first.setdefault(id(adapted_weight(layer)), layer)
            layer.lora_A[name], layer.lora_B[name] = twin.lora_A[name], twin.lora_B[name]


def adapter_parameters(model: Any, name: str) -> dict[str, nn.Parameter]:
    """The parameters of one adapter by the name of the module that they adapt, as seen from the trunk."""
    named = model.named_parameters(remove_duplicate=False)
    found = {key: p for key, p in named if "lora_" in key and _belongs(key, name)}
    prefix = trunk_prefix(model.get_base_model())
    return {
        f"{key}.".replace(f".{name}.", ".").removeprefix(PEFT_PREFIX).removeprefix(prefix).rstrip("."): p
        for key, p in found.items()
    }


def trunk_of(model: Any) -> Any:
    """A language model without its vocabulary head; a trunk is its own."""
    below = model.base_model
    if below is not model or model.get_output_embeddings() is None:
        return below
    words = model.get_input_embeddings()  # of Llama 4's text model the class says a wrong name
    return next(child for child in model.children() if any(module is words for module in child.modules()))


def trunk_prefix(model: Any) -> str:
    """What the names of a trunk's parameters begin with in the whole model: "model.", say, or "" in a trunk."""
    trunk = trunk_of(model)
    name = next(name for name, module in model.named_modules() if module is trunk)
    return f"{name}." if name else ""


def _belongs(key: str, adapter: str | None) -> bool:
    """Whether a parameter of an adapter is that one's: .lora_A.default.weight, .lora_embedding_A.default"""
    return f".{adapter}." in f"{key}."


def tuned_layers(model: Any) -> list[Any]:
    """The layers that PEFT has put adapters of LoRA's kind on."""
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def adapted_weight(layer: Any) -> nn.Parameter:
    """The parameter that a layer of PEFT's adapts."""
    return layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight


def load_adapter(model: Any, name: str, folder: str, trained: bool = True) -> None:
    """Puts the adapter of a folder on a PEFT model's base, whether it was trained on the whole model or on its trunk.

    Raises `UserError` if it does not fit.
    """
    from peft import LoraConfig

    add_adapter(model, name, trained, LoraConfig.from_pretrained(folder))
    copy_adapter(model, name, folder)


@torch.no_grad()
def copy_adapter(model: Any, name: str, folder: str) -> None:
    """Reads the tensors of a folder into one adapter. Raises `UserError` if they do not fit."""
    tensors = fitting_tensors(model, name, folder)
    for key, parameter in adapter_parameters(model, name).items():
        parameter.copy_(tensors[key])


def fitting_tensors(model: Any, name: str, folder: str) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's folder by the module that they adapt.

    Raises `UserError` if they are not those of the model's adapter `name`: PEFT loads what fits and is silent about the
    rest, so that some layers would be adapted and others not.
    """
    from safetensors.torch import load_file

    base = model.get_base_model()
    prefix = trunk_prefix(base) or f"{base.base_model_prefix}."  # it may have been trained on the whole model
    saved = load_file(Path(folder) / "adapter_model.safetensors")
    named = {key.removeprefix(PEFT_PREFIX).removeprefix(prefix): value for key, value in saved.items()}
    named = {f"{key}.weight" if key.endswith("_magnitude_vector") else key: value for key, value in named.items()}
    tensors = {key: value for key, value in named.items() if "lora_" in key}
    wanted = adapter_parameters(model, name)
    if {key: value.shape for key, value in tensors.items()} != {key: p.shape for key, p in wanted.items()}:
        odd = sorted(set(tensors) ^ set(wanted)) or [k for k in wanted if tensors[k].shape != wanted[k].shape]
        raise misfit(folder, odd[0])
    return tensors


def misfit(folder: str, where: str) -> UserError:
    """What to say of an adapter that was trained on another model."""
    return UserError(
        f"{folder}: this adapter does not fit the model it shall stand on, at {where}; name the model that it was "
        "trained on as base_model_name_or_path in its adapter_config.json, or train it anew"
    )


def save_adapter(model: Any, name: str, folder: Path) -> None:
    """Writes one adapter of a PEFT model as a PEFT folder."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    if name != POLICY:  # PEFT puts all but the default one into a folder below
        for path in (folder / name).iterdir():
            path.replace(folder / path.name)
        (folder / name).rmdir()
