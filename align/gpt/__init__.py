"""Our GPT as a Hugging Face model, for pretraining. Importing this package registers it with `Auto*`."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from align.gpt.config import GPTConfig
from align.gpt.model import GPTForCausalLM, GPTForSequenceClassification, GPTModel
from align.gpt.presets import PRESETS, preset

__all__ = ["PRESETS", "GPTConfig", "GPTForCausalLM", "GPTForSequenceClassification", "GPTModel", "preset"]

AutoConfig.register(GPTConfig.model_type, GPTConfig)
AutoModel.register(GPTConfig, GPTModel)
AutoModelForCausalLM.register(GPTConfig, GPTForCausalLM)
AutoModelForSequenceClassification.register(GPTConfig, GPTForSequenceClassification)
