"""Recipe sections that stages share: model, data, optim, train and the keys of a run. A stage may change defaults."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from align.config import Section

Format = Literal[
    "auto",
    "text",
    "prompt",
    "prompt_completion",
    "messages",
    "alpaca",
    "dolly",
    "sharegpt",
    "sharegpt_preference",
    "hh",
    "preference",
    "question_answer",
    "ranking",
    "arena",
    "arena_pairs",
    "shp",
    "helpsteer",
    "helpsteer2",
    "helpsteer3",
    "oasst",
]


class Lora(Section):
    """Low-rank adapters (Hu et al., 2106.09685)."""

    rank: int = Field(16, gt=0)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: list[str] | None = None
    """Names of the modules to adapt. By default: every weight matrix of the trunk that text uses, except routers."""


class Model(Section):
    """A model to start from."""

    path: str
    """A Hugging Face model folder, a run's model/ folder, a PEFT adapter folder, a .gguf file, or a hub name."""
    adapter: Literal["none", "lora"] = "none"
    """none trains every weight; lora trains an adapter on the frozen base."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Weights of the frozen base in 8 or 4 bits (bitsandbytes); needs adapter: lora to train."""
    lora: Lora = Lora()
    trust_remote_code: bool = False
    """Allow Python code that comes with the model to run. Read that code first."""

    @model_validator(mode="after")
    def _quantized_weights_do_not_train(self) -> Self:
        if self.quantization != "none" and self.adapter == "none":
            raise ValueError(
                f"quantization: {self.quantization} freezes the base; set adapter: lora to train on top of it"
            )
        return self


class PromptedModel(Model):
    """A model that gets prompts through a chat template: its own, or another."""

    template: str | None = None
    """A file with a chat template (Jinja) for the prompts. By default the model's own."""
    template_options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Variables for the chat template, such as {enable_thinking: false}."""


class ComparedModel(PromptedModel):
    """A model that is compared with others."""

    asked: Literal["chat", "plain"] = "chat"
    """How prompts are written: chat uses the chat template; plain makes the last message the first line of a document,
    for a base model."""

    @model_validator(mode="after")
    def _a_document_has_no_template(self) -> Self:
        if self.asked == "plain" and (self.template or self.template_options):
            raise ValueError("template and template_options have no effect with asked: plain; remove them")
        return self


class Source(Section):
    """One of several data sets, with its weight."""

    path: str
    """A file, a folder, or a hub name."""
    weight: float = Field(1.0, gt=0)
    """Passes over this source in one epoch: 2 repeats each row, 0.5 takes a random half of them."""
    split: str | None = None
    """The split of a hub data set. By default data.split."""
    format: Format | None = None
    """The format of this source. By default data.format."""


class Data(Section):
    """The rows to read: local files or a hub name, in any format of align/text/formats.py."""

    path: str | list[str | Source]
    """A file (.json .jsonl .csv .tsv .txt .parquet .arrow), a folder of them, a hub name, or a list with weights."""
    split: str = "train"
    """The split of a hub data set."""
    format: Format = "auto"
    """auto recognises the format by its columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Maps our column names to the file's, such as {prompt: question}."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """System messages: keep; merge (put the text before the next user message, for templates without them); drop."""
    same_role: Literal["refuse", "join"] = "refuse"
    """Two messages of one role in a row: refuse leaves them to the template, which may fail; join makes them one."""
    first_assistant: Literal["keep", "drop"] = "keep"
    """An assistant message before the first user message: keep it as context that is never trained on, or drop it."""
    thoughts: Literal["keep", "inline", "drop"] = "keep"
    """Thoughts (reasoning_content): keep gives them to the template; inline writes <think>…</think> into the content;
    drop removes them."""
    margins: Literal["column", "scores"] = "column"
    """Source of margins: the column margin, or the difference of score_chosen and score_rejected."""
    template: str | None = None
    """A file with a chat template (Jinja) for the conversations; saved with the model. By default the model's own."""
    template_options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Variables for the chat template, such as {enable_thinking: false}; saved with the model."""
    max_tokens: int = Field(512, gt=1)
    """Longest sequence: prompt and answer together."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """A longer row: truncate cuts its end, drop leaves it out. Both are counted in the log."""
    on_error: Literal["stop", "skip"] = "stop"
    """A broken row: stop ends the run, skip leaves it out and lists it in the log."""
    limit: int | None = Field(None, gt=0)
    """Use at most this many rows."""
    validation: float | str = 0.05
    """Held out for validation: a fraction of the rows, or the path of other rows; 0 for none."""

    def of_other_rows(self, path: str, limit: int | None = None) -> Data:
        """These settings for the rows at another path: format auto, no columns mapped, nothing held out."""
        own: dict[str, object] = {
            "path": path,
            "split": "train",
            "format": "auto",
            "columns": {},
            "limit": limit,
            "validation": 0.0,
        }
        return self.model_copy(update=own)

    @field_validator("validation", mode="before")
    @classmethod
    def _fraction_written_as_text(cls, given: object) -> object:
        try:
            return float(given) if isinstance(given, str) else given  # YAML reads 1e-2 as text
        except ValueError:
            return given

    @model_validator(mode="after")
    def _fraction(self) -> Self:
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ValueError(f"validation: a fraction is from 0 to below 1, found {self.validation}")
        return self


class Optim(Section):
    """AdamW and its schedule."""

    name: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit stores its moments in 8 bits (bitsandbytes)."""
    learning_rate: float = Field(1e-5, gt=0)
    """The peak learning rate."""
    batch_size: int = Field(32, gt=0)
    """Examples in one optimizer step, over all processes."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls from its peak to final_ratio times the peak."""
    final_ratio: float = Field(0.1, ge=0, le=1)
    """The last learning rate divided by the peak (InstructGPT: cosine to 10%)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate rises linearly from 0 to the peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of Adam's moments (InstructGPT and GPT-3: 0.9, 0.95)."""
    eps: float = Field(1e-8, gt=0)
    """Adam's epsilon."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, on matrices only."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""


class Train(Section):
    """Length of the training loop, precision, micro-batches, validation, checkpoints."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the data. Give either epochs or steps."""
    steps: int | None = Field(None, gt=0)
    """Optimizer steps. Give either epochs or steps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 if the device computes it natively, else fp32. Trained weights are always stored in fp32."""
    save_dtype: Literal["as_loaded", "fp32", "bf16"] = "as_loaded"
    """Precision of model/; as_loaded is that of the model it started from. Checkpoints and score heads are fp32."""
    micro_batch_tokens: int = Field(8192, gt=0)
    """Tokens in one micro-batch, padding included. Changes memory and speed, not results."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    log_every: int = Field(10, gt=0)
    """Steps between rows of metrics.jsonl."""
    eval_rows: int = Field(512, gt=0)
    """Most rows of one validation."""
    eval_every: int | None = Field(None, gt=0)
    """Steps between validations. By default a tenth of the run."""
    checkpoint_every: int | None = Field(None, gt=0)
    """Steps between checkpoints. By default a quarter of the run."""
    check_memory: bool = True
    """Refuse a run whose estimate exceeds the free memory or the free disk space."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Also log the metrics to a tracker: TensorBoard (in the run folder), Trackio (local) or Weights & Biases."""
    keep_checkpoints: int = Field(2, gt=0)
    """How many of the latest checkpoints to keep."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps; found epochs={self.epochs} and steps={self.steps}")
        return self


class Run(Section):
    """The keys at the end of every training stage's recipe."""

    output: str
    """The run folder to write."""
    seed: int = Field(1, ge=0)
    """Seed of everything random."""
    resume: bool = False
    """Continue from the last checkpoint in output."""
    overwrite: bool = False
    """Replace an existing run in output."""
