"""The pretraining core: a GPT of our own that Hugging Face knows. Importing this package registers it with `Auto*`."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from align.gpt.config import GPTConfig
from align.gpt.model import GPTForCausalLM, GPTModel
from align.gpt.presets import PRESETS, preset

__all__ = ["PRESETS", "GPTConfig", "GPTForCausalLM", "GPTModel", "preset"]

AutoConfig.register(GPTConfig.model_type, GPTConfig)
AutoModel.register(GPTConfig, GPTModel)
AutoModelForCausalLM.register(GPTConfig, GPTForCausalLM)
