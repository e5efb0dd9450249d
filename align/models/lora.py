"""LoRA adapters (Hu et al., 2106.09685) and low bits: what stands on a base, and what it is kept in."""

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
from align.models.adapters import (
    POLICY,
    Role,
    adapted_weight,
    adapter_parameters,
    fitting_tensors,
    tie_adapters,
    trained_parameters,
    trunk_of,
    tuned_layers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNPACKED = ("bitsandbytes", "mxfp4", "fp8")  # of the ways to store weights in low bits, those that are undone here
TOLERANCE = 1e-3  # of a merged model's outputs in fp32, of their spread
ROUTER = re.compile(r"(^|\.)(router|router_gate|gate|shared_expert_gate)(\.|$)")


def check_quantization(bits: str) -> None:
    """Quantises a small matrix and multiplies with it, forwards and backwards, where models will be.

    Raises `UserError` if this machine cannot: bitsandbytes is missing, too old, or has nothing for this device.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Linear8bitLt

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng():
            layer = Linear8bitLt(64, 64, has_fp16_weights=False) if bits == "8bit" else Linear4bit(64, 64)
            x = torch.ones(2, 64, device=device, requires_grad=True)
            layer.to(device)(x).sum().backward()
    except Exception as error:  # whatever a package or a library that is not right raises
        raise UserError(
            f"model.quantization = {bits}: this machine cannot do it ({type(error).__name__}: {first_line(error)}). "
            "Install or upgrade bitsandbytes (pip install -U bitsandbytes), or set model.quantization=none"
        ) from None


def quantization_config(bits: str, dtype: torch.dtype) -> Any:
    """8 bits by LLM.int8() (Dettmers et al., 2208.07339), 4 by NF4 with double quantisation (QLoRA, 2305.14314)."""
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def packed_as(config: Any, path: str, key: str) -> str:
    """How a model's files hold its weights in low bits, by transformers' name; "" if they do not.

    Raises `UserError` for a way that is not undone here: nothing could be trained in it, or merged into it.
    """
    settings = getattr(config, "quantization_config", None) or {}
    method = str(getattr(settings, "quant_method", None) or dict(settings).get("quant_method", ""))
    if method and method not in UNPACKED:
        raise UserError(
            f"{key} = {path!r}: its weights are stored in low bits ({method}), which can be neither trained nor merged "
            "with an adapter; give the model in full precision, with model.adapter=lora model.quantization=4bit if it "
            "shall take little memory"
        )
    return method


def unpacking(method: str) -> dict[str, Any]:
    """What tells `from_pretrained` to unpack weights as it reads them; bitsandbytes' are unpacked afterwards."""
    from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

    configs: dict[str, Any] = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
    return {"quantization_config": configs[method](dequantize=True)} if method in configs else {}


def unpacked(model: Any, dtype: torch.dtype) -> Any:
    """A model whose files were packed, as any other: all its weights in `dtype`."""
    transposed = [name for name, m in model.named_modules() if getattr(m, "source_cls", None) is Conv1D]
    if any(not p.is_floating_point() for p in model.parameters()):
        model = model.dequantize(dtype)
    elif hasattr(model, "hf_quantizer"):
        model.hf_quantizer.remove_quantization_config(model)
    for name in transposed:
        linear = model.get_submodule(name)
        plain = Conv1D(linear.out_features, linear.in_features)
        plain.weight, plain.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias
        model.set_submodule(name, plain)
    model._weight_conversions = None  # how its weights were read: they would be written so
    return model.to(dtype).requires_grad_(True)


def add_lora(base: PreTrainedModel, model: sections.Model) -> Any:
    """`base` with a fresh adapter, in fp32 and alone trained. Its B is zero, so the function is still the base's."""
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
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")  # see `merge`
            adapted: Any = get_peft_model(base, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules = {model.lora.target_modules}: {error}") from None
    adapted.peft_config[POLICY].base_model_name_or_path = model.path  # which may itself be an adapter
    tie_adapters(adapted, POLICY)
    return adapted


def targets(base: Any, lora: sections.Lora) -> tuple[list[str], list[str]]:
    """The names of the linear layers that get an adapter, and of the parameters that hold many experts' matrices.

    By default all that a pass over text goes through, but for the vocabulary head and routers, which choose experts: a
    router's outputs are compared, not added up. What several experts' matrices are stacked in has three dimensions;
    PEFT adapts it by `target_parameters`, without dropout. Raises `UserError` for a router that the recipe names.
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
    """A recipe's target modules, those that are experts' parameters apart."""
    for name in routers(base):
        if any(f".{name}".endswith(f".{wanted}") for wanted in names):
            raise UserError(
                f"model.lora.target_modules = {names}: {name} is a router, which chooses experts and is left as it is; "
                "name other modules"
            )
    stacked = [name for name in experts if any(f".{name}".endswith(f".{wanted}") for wanted in names)]
    return [wanted for wanted in names if not any(f".{name}".endswith(f".{wanted}") for name in stacked)], stacked


def called_by_text(model: Any) -> dict[nn.Module, bool]:
    """The modules that a pass over text calls, and for each whether an adapter's product could be added to its output.

    Experts that no token of the pass was sent to are told by their like: of a list of modules one of the same class
    was called. Where no pass is possible (without data, or before a model is on the device that its code wants), all
    that stands beside the embedding of words counts.
    """
    called: dict[nn.Module, bool] = {}

    def note(module: nn.Module, given: Any, made: Any) -> None:
        fits = _is_linear(module) and isinstance(made, Tensor) and bool(given)
        called[module] = fits and made.shape == (*given[0].shape[:-1], n_out(module))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            answer(model, probe(model))
    except Exception:  # whatever the code of a model raises
        called = {module: _is_linear(module) for module in _beside_embedding(model).modules()}
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
    """Freezes what no text reaches, such as a vision tower: nothing trains it, and other processes would wait for it.

    Reached is what the output of a pass depends on, and what belongs to modules that were called, for an expert is not
    chosen by every batch.
    """
    reached = {id(p) for module in called_by_text(model) for p in module.parameters(recurse=False)}
    try:
        with torch.enable_grad():
            reached |= _leaves(answer(model, probe(model)))
        with torch.no_grad():  # a state that the model itself keeps (RecurrentGemma) would hold on to the graph
            answer(model, probe(model))
    except Exception:  # as above
        return
    for parameter in model.parameters():
        if id(parameter) not in reached:
            parameter.requires_grad_(False)


def hold_idle_experts(model: nn.Module) -> None:
    """Lets every expert that is a module of its own take part in each pass, with a weight of 0.

    One that no token was sent to has no gradient in this process, and the others would wait for it. Experts that are
    stacked in one parameter always have one.
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
    """The ids of the parameters that an output was computed from."""
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


def probe(model: Any) -> Tensor:
    """(8, 8) ids from all over the vocabulary, none of them one that the configuration gives a meaning."""
    meanings = [value for name, value in model.config.to_dict().items() if name.endswith("token_id")]
    special = {word for value in meanings for word in (value if isinstance(value, list) else [value])}
    plain = [word for word in range(model.config.get_text_config().vocab_size) if word not in special]
    return torch.tensor([plain[i * len(plain) // 64] for i in range(64)], device=model.device).view(8, 8)


def answer(model: Any, ids: Tensor) -> Tensor:
    """Logits, or a trunk's last hidden state, in evaluation mode and as they are; (batch, time, n)."""
    was_training = [module for module in model.modules() if module.training]
    try:
        found = model.eval()(input_ids=ids, use_cache=False)
    finally:
        for module in was_training:
            module.training = True
    return found.logits if getattr(found, "logits", None) is not None else found.last_hidden_state


def merge(adapted: Any, folder: str) -> Any:
    """A PEFT model as a plain one, with its adapter's products added to the weights.

    A head that was adapted and shares its weight with the embedding gets one of its own; layers that share a weight and
    an adapter take it once. Raises `UserError` if the plain model answers otherwise than the adapted one.
    """
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.peft_config[POLICY].peft_type.value
        raise UserError(f"{folder}: an adapter of the kind {kind} is no part of a whole model; give one of LoRA's kind")
    ids = probe(adapted)
    expected = _answer_or_none(adapted, ids)
    places = Counter(id(p) for _, p in adapted.named_parameters(remove_duplicate=False))
    ends = [_weight_holder(adapted.get_input_embeddings()), _weight_holder(adapted.get_output_embeddings())]
    first: dict[int, Any] = {}
    for layer in tuned_layers(adapted):
        weight, holder = adapted_weight(layer), layer.get_base_layer()
        if places[id(weight)] > 1 and holder in ends:
            holder.weight = nn.Parameter(weight.detach().clone())
        elif first.setdefault(id(weight), layer) is not layer:
            layer.merged_adapters.extend(layer.active_adapters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that they are tied no more
            merged = adapted.merge_and_unload().requires_grad_(True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{folder}: this adapter cannot be merged into its base: {first_line(error)}") from None
    check_same(_answer_or_none(merged, ids), expected, folder)
    return merged


@torch.no_grad()
def _answer_or_none(model: Any, ids: Tensor) -> Tensor | None:
    """None, with a warning, from a model whose code does not run on this device."""
    try:
        return answer(model, ids)
    except Exception as error:  # whatever the code of a model raises
        warnings.warn(f"a merged model is not compared with its adapter: {first_line(error)}", stacklevel=2)
        return None


def check_same(found: Tensor | None, expected: Tensor | None, folder: str) -> None:
    """Raises `UserError` unless a merged model answers as what it was made of. found, expected: (8, time, n).

    One row of eight may differ: where two experts are as good as equal, rounding decides between them.
    """
    if found is None or expected is None:
        return
    spread = float(expected.float().std())
    apart = (found.float().cpu() - expected.float().cpu()).square().flatten(1).mean(1).sqrt()
    if not float(apart.sort().values[-2]) <= TOLERANCE * spread:
        raise UserError(
            f"{folder}: a whole model made of this adapter and its base answers otherwise than the two did (by "
            f"{float(apart.max()):.3g}, where answers spread by {spread:.3g}), so none is written. The adapter is kept "
            "as it is: use it with PEFT on the base that it was trained on, or train one of plain LoRA"
        )


def check_trained(model: Any, adapter: str, merged: Any, folder: str) -> None:
    """Raises `UserError` unless a folder holds what a PEFT model's adapter is now, and `merged` answers like both.

    A base in low bits or bf16 answers otherwise than the whole one by its rounding; there the adapter's numbers alone
    are compared, which `merge` has held against the whole base.
    """
    tensors = fitting_tensors(model, adapter, folder)
    if any(not torch.equal(p.cpu(), tensors[name]) for name, p in adapter_parameters(model, adapter).items()):
        raise UserError(f"{folder}: what is written there is not the adapter that was trained; is the disk sound?")
    role, whole = Role(), model.get_base_model()
    role.model, role.adapter = whole, adapter
    trained = whole if merged.get_output_embeddings() is not None else trunk_of(whole)
    exact = all(p.dtype == torch.float32 for p in whole.parameters())
    if not exact:
        return
    with role.active():
        expected = _answer_or_none(trained, probe(trained))
    check_same(_answer_or_none(merged, probe(merged)), expected, folder)


class Shares(NamedTuple):
    """Numbers of a model, its adapters aside, each weight once."""

    whole: int
    adapted: int  # with an adapter beside them
    bare_experts: int  # experts' matrices without one
    quantised: int
    trained: int  # those of an adapter are not among `whole`

    def lines(self, bits: str = "none") -> list[str]:
        """In words, where not all is trained."""
        if not self.adapted and self.trained == self.whole:
            return []
        if not self.adapted:
            return [
                f"of {self.whole:,} weights {self._share(self.trained)} are trained; no text reaches the others, which "
                "are frozen"
            ]
        low = f", {self._share(self.quantised)} are in {bits.removesuffix('bit')} bits" if bits != "none" else ""
        experts = f", experts' matrices: {self._share(self.bare_experts)}" if self.bare_experts else ""
        return [
            f"of {self.whole:,} weights {self._share(self.adapted)} have an adapter beside them ({self.trained:,} "
            f"numbers, which are trained){low}; {self._share(self.whole - self.adapted)} have none{experts}"
        ]

    def _share(self, part: int) -> str:
        return f"{part / self.whole:.1%}"


def shares(model: nn.Module) -> Shares:
    """How much of a model an adapter reaches, how much is in low bits, how much is trained."""
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


def check_quantized(model: Any, bits: str) -> None:
    """Raises `UserError` if nothing of a model came into low bits."""
    if all(p.is_floating_point() for p in model.parameters()):
        raise UserError(
            f"model.quantization = {bits}: bitsandbytes finds no linear layer of PyTorch's own class in "
            f"{type(model).__name__}, so nothing would be in {bits.removesuffix('bit')} bits; set "
            "model.quantization=none"
        )


def routers(model: Any) -> set[str]:
    """The names of what chooses experts, or weighs them, and of its parts."""
    names = [name for name, _ in model.named_modules()]
    return {name for name in names if ROUTER.search(name)} if any("expert" in name.lower() for name in names) else set()


def n_in(module: Any) -> int:
    """The width of what a linear layer takes."""
    return module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features


def n_out(module: Any) -> int:
    """The width of what a linear layer gives."""
    return module.nf if isinstance(module, Conv1D) else module.out_features


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _is_fused(model: Any, name: str) -> bool:
    """Whether fast code takes a layer's weight past the layer, and its adapter: the last matrix of a Mamba mixer."""
    above, _, own = name.rpartition(".")
    mixer = model.get_submodule(above)
    return own == "out_proj" and hasattr(mixer, "A_log") and hasattr(mixer, "D")


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")


def _stacked(path: str, module: nn.Module) -> list[str]:
    """The names of a module's parameters that are several experts' matrices."""
    if "expert" not in f"{path}.{type(module).__name__}".lower():
        return []
    return [f"{path}.{name}" for name, p in module.named_parameters(recurse=False) if p.ndim == 3]


def _kept_by_peft(base: Any, names: list[str]) -> list[str]:
    """Without the layers whose names PEFT takes for those of experts that transformers 5 has fused.

    As the shared expert's beside Qwen2-MoE's, or the dense blocks below DeepSeek's: they are adapted as parameters.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=names)
    convert_peft_config_for_transformers(config, base, None)
    return [name for name in names if name in (config.target_modules or [])]


def _shortened(names: list[str], among: list[str]) -> list[str]:
    """The same names by as much of their ends as no other name has: of a block's layers alike in all blocks once."""
    everywhere, wanted = (Counter(end for name in group for end in _ends(name)) for group in (among, names))
    return sorted({next(end for end in _ends(name) if everywhere[end] == wanted[end]) for name in names})


def _ends(name: str) -> list[str]:
    """`c`, `b.c`, `a.b.c` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _beside_embedding(model: Any) -> nn.Module:
    """The smallest part of a model that has both the embedding of words and a list of blocks."""
    embedding = model.get_input_embeddings()
    parts = [module for module in model.modules() if any(m is embedding for m in module.modules())]
    return [module for module in parts if any(isinstance(m, nn.ModuleList) for m in module.modules())][-1]


def _weight_holder(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _has_conv1d(model: torch.nn.Module) -> bool:
    """GPT-2's `Conv1D` keeps its weight transposed."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def first_line(error: Exception) -> str:
    """What an error says, without the pages below."""
    return next(iter(str(error).strip().splitlines()), "")
