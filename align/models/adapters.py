"""Roles and adapters: several roles share one frozen base, each with its own LoRA adapter or none.

A role is a `LanguageModel` or a `ScalarModel`. Each may have its own LoRA adapter (Hu et al., 2106.09685) or none, as
the reference. PEFT keeps one adapter active for the whole model; a role activates its own while it computes.
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

# Names of adapters on one base. "default" is PEFT's name for the first, here the policy's.
POLICY, VALUE, REFERENCE = "default", "value_model", "reference"  # must not be names of layers, as "value" is in some
PEFT_PREFIX = "base_model.model."  # prefix of the names in an adapter file


class Role(nn.Module):
    """A policy, reference, reward or value model. `adapter` names its adapter on a shared base; None is no adapter."""

    adapter: str | None = POLICY
    borrows_trunk = False  # another role owns and trains the trunk; only the head belongs to this role

    @contextmanager
    def active(self) -> Iterator[None]:
        """Activates this role's adapter within the block. Backward passes that recompute must be inside."""
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
        """The layers with PEFT adapters. Cached, because adapters are added before roles."""
        if "_layers" not in self.__dict__:
            found: list[Any] = []
            if any("lora_" in name for name, _ in self.named_parameters()):
                from peft.tuners.tuners_utils import BaseTunerLayer

                found = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
            self.__dict__["_layers"] = found
        return self.__dict__["_layers"]


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training `module` changes. On a shared base only the role's own adapter is included."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not isinstance(module, Role):
        return trained
    if module.borrows_trunk:
        return {name: p for name, p in trained.items() if name.startswith("head.")}
    return {name: p for name, p in trained.items() if "lora_" not in name or _belongs(name, module.adapter)}


def add_adapter(model: Any, name: str, trained: bool = True, config: Any = None) -> None:
    """Adds another LoRA adapter to a PEFT model, by default with the policy's settings. It changes no output yet."""
    config = copy.deepcopy(config or model.peft_config[POLICY])
    config.task_type = model.peft_config[POLICY].task_type  # depends on the base: a whole model or a trunk
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")  # see `merging.merge`
            model.add_adapter(name, config)
    except ValueError as error:
        raise UserError(
            f"the adapter {name} does not fit the policy's base ({error}); give the whole model/ of its run instead"
        ) from None
    tie_adapters(model, name)
    for parameter in adapter_parameters(model, name).values():
        parameter.requires_grad_(trained)


def tie_adapters(model: Any, name: str) -> None:
    """Layers that share a weight, as in Zamba2, also share its adapter, so it is trained and merged once."""
    first: dict[int, Any] = {}
    for layer in tuned_layers(model):
        if name in layer.lora_A:
            twin = first.setdefault(id(adapted_weight(layer)), layer)
            layer.lora_A[name], layer.lora_B[name] = twin.lora_A[name], twin.lora_B[name]


def adapter_parameters(model: Any, name: str) -> dict[str, nn.Parameter]:
    """The parameters of one adapter, by the name of their module within the trunk."""
    named = model.named_parameters(remove_duplicate=False)
    found = {key: p for key, p in named if "lora_" in key and _belongs(key, name)}
    prefix = trunk_prefix(model.get_base_model())
    return {
        f"{key}.".replace(f".{name}.", ".").removeprefix(PEFT_PREFIX).removeprefix(prefix).rstrip("."): p
        for key, p in found.items()
    }


def trunk_of(model: Any) -> Any:
    """The trunk of a language model: the model without its vocabulary head. A trunk is returned as it is."""
    below = model.base_model
    if below is not model or model.get_output_embeddings() is None:
        return below
    words = model.get_input_embeddings()  # the class of Llama 4's text model has a wrong name for its trunk
    return next(child for child in model.children() if any(module is words for module in child.modules()))


def trunk_prefix(model: Any) -> str:
    """The prefix of a trunk's parameter names in the whole model, such as "model."; "" in a trunk."""
    trunk = trunk_of(model)
    name = next(name for name, module in model.named_modules() if module is trunk)
    return f"{name}." if name else ""


def _belongs(key: str, adapter: str | None) -> bool:
    """Whether a parameter belongs to this adapter: .lora_A.default.weight, .lora_embedding_A.default"""
    return f".{adapter}." in f"{key}."


def tuned_layers(model: Any) -> list[Any]:
    """The layers with LoRA adapters of PEFT."""
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def adapted_weight(layer: Any) -> nn.Parameter:
    """The parameter that a PEFT layer adapts."""
    return layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight


def load_adapter(model: Any, name: str, folder: str, trained: bool = True) -> None:
    """Adds the adapter of a folder to a PEFT model. It may have been trained on the whole model or on its trunk.

    Raises `UserError` if it does not fit.
    """
    from peft import LoraConfig

    add_adapter(model, name, trained, LoraConfig.from_pretrained(folder))
    copy_adapter(model, name, folder)


@torch.no_grad()
def copy_adapter(model: Any, name: str, folder: str) -> None:
    """Copies the tensors of a folder into one adapter. Raises `UserError` if they do not fit."""
    tensors = fitting_tensors(model, name, folder)
    for key, parameter in adapter_parameters(model, name).items():
        parameter.copy_(tensors[key])


def fitting_tensors(model: Any, name: str, folder: str) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder, by the module that they adapt.

    Raises `UserError` if they do not match the model's adapter `name`: PEFT silently loads only those that fit, so some
    layers would be adapted and others not.
    """
    from safetensors.torch import load_file

    base = model.get_base_model()
    prefix = trunk_prefix(base) or f"{base.base_model_prefix}."  # of an adapter trained on the whole model
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
    """The error for an adapter that was trained on another model."""
    return UserError(
        f"{folder}: this adapter does not fit its base model at {where}; set base_model_name_or_path in its "
        "adapter_config.json to the model that it was trained on, or train it again"
    )


def save_adapter(model: Any, name: str, folder: Path) -> None:
    """Writes one adapter of a PEFT model as a PEFT folder."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    if name != POLICY:  # PEFT writes all but the default one to a subfolder
        for path in (folder / name).iterdir():
            path.replace(folder / path.name)
        (folder / name).rmdir()
