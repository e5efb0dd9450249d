"""The keys that the stages share. A stage gives them its own defaults where it declares its recipe."""

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
    """Names of the modules to adapt; by default every matrix of the trunk that text goes through, but routers."""


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
    """Whether code that comes with the model may run. Read it first."""

    @model_validator(mode="after")
    def _quantized_weights_do_not_train(self) -> Self:
        if self.quantization != "none" and self.adapter == "none":
            raise ValueError(
                f"quantization: {self.quantization} freezes the base; set adapter: lora to train on top of it"
            )
        return self


class PromptedModel(Model):
    """A model that is asked through a chat template: its own, or another."""

    template: str | None = None
    """A file with a chat template (Jinja) to ask it with. By default the model's own."""
    template_options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Variables for the chat template, as {enable_thinking: false}."""


class ComparedModel(PromptedModel):
    """A model that answers beside others."""

    asked: Literal["chat", "plain"] = "chat"
    """chat asks through the chat template; plain makes the last turn the first line of a document, for a base model."""

    @model_validator(mode="after")
    def _a_document_has_no_template(self) -> Self:
        if self.asked == "plain" and (self.template or self.template_options):
            raise ValueError("template and template_options have no effect with asked: plain; leave them out")
        return self


class Source(Section):
    """One of several data sets, with its weight."""

    path: str
    """A file, a folder, or a hub name."""
    weight: float = Field(1.0, gt=0)
    """Passes over this source in one epoch: 2 repeats each row, 0.5 takes a random half of them."""
    split: str | None = None
    """The split of a hub data set; data.split if not given."""
    format: Format | None = None
    """Its format; data.format if not given."""


class Data(Section):
    """Rows to read: local files or a hub name, in any format of align/text/formats.py."""

    path: str | list[str | Source]
    """A file (.json .jsonl .csv .tsv .txt .parquet .arrow), a folder of them, a hub name, or a list with weights."""
    split: str = "train"
    """The split of a hub data set."""
    format: Format = "auto"
    """auto recognises the format by its columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Maps our column names to the file's: {prompt: question}."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """What becomes of system turns: merge puts their text before the next user's turn, for templates without them."""
    same_role: Literal["refuse", "join"] = "refuse"
    """Two turns of one speaker in a row: left to the template, which may refuse them, or joined to one."""
    first_assistant: Literal["keep", "drop"] = "keep"
    """What becomes of an assistant's turn that stands before the first user's: kept as context, never learned."""
    thoughts: Literal["keep", "inline", "drop"] = "keep"
    """Thoughts (reasoning_content): given to the template, written into the content as <think>…</think>, or dropped."""
    margins: Literal["column", "scores"] = "column"
    """Where margins come from: the column margin, or the difference of score_chosen and score_rejected."""
    template: str | None = None
    """A file with a chat template (Jinja) to write turns with; saved with the model. By default the model's own."""
    template_options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Variables for the chat template, as {enable_thinking: false}; saved with the model."""
    max_tokens: int = Field(512, gt=1)
    """Longest sequence, prompt and answer together."""
    too_long: Literal["truncate", "drop"] = "truncate"
    """What happens to a longer row: its end is cut off, or it is left out. Both are counted in the log."""
    on_error: Literal["stop", "skip"] = "stop"
    """Whether a broken row stops the run or is skipped, counted and listed."""
    limit: int | None = Field(None, gt=0)
    """Use at most this many rows."""
    validation: float | str = 0.05
    """Held out for validation: a fraction of the rows, or a path of its own; 0 for none."""

    def of_other_rows(self, path: str, limit: int | None = None) -> Data:
        """The same for rows that a recipe names elsewhere: their format is their own, and none is held out."""
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
            raise ValueError(f"validation: a fraction is at least 0 and less than 1, found {self.validation}")
        return self


class Optim(Section):
    """AdamW and its schedule."""

    name: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit keeps its moments in 8 bits (bitsandbytes)."""
    learning_rate: float = Field(1e-5, gt=0)
    """The peak learning rate."""
    batch_size: int = Field(32, gt=0)
    """Examples in one optimizer step, over all devices."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes from its peak to final_ratio of it."""
    final_ratio: float = Field(0.1, ge=0, le=1)
    """The last learning rate over the peak (InstructGPT: cosine to 10%)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate rises linearly from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of Adam's moments (InstructGPT and GPT-3: 0.9, 0.95)."""
    eps: float = Field(1e-8, gt=0)
    """Adam's epsilon."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, on matrices only."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""


class Train(Section):
    """How long and in what portions a loop runs."""

    epochs: float | None = Field(None, gt=0)
    """Passes over the data; give epochs or steps."""
    steps: int | None = Field(None, gt=0)
    """Optimizer steps; give epochs or steps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 where the device computes it natively, else fp32. Trained weights are kept in fp32 always."""
    save_dtype: Literal["as_loaded", "fp32", "bf16"] = "as_loaded"
    """What model/ is written in; as_loaded is that of the model it came from. Checkpoints and score heads are fp32."""
    micro_batch_tokens: int = Field(8192, gt=0)
    """Tokens, padding included, that go through the model at once. Changes memory and speed, not results."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    log_every: int = Field(10, gt=0)
    """Steps between rows of metrics.jsonl."""
    eval_rows: int = Field(512, gt=0)
    """At most this many rows are used in a validation."""
    eval_every: int | None = Field(None, gt=0)
    """Steps between validations; by default ten times in a run."""
    checkpoint_every: int | None = Field(None, gt=0)
    """Steps between checkpoints; by default a quarter of the run."""
    check_memory: bool = True
    """Refuse a run that is estimated to need more memory, or to write more, than there is room for."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Also log the metrics to a tracker: TensorBoard (in the run folder), Trackio (local) or Weights & Biases."""
    keep_checkpoints: int = Field(2, gt=0)
    """How many of the latest checkpoints stay."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps, found epochs={self.epochs} and steps={self.steps}")
        return self


class Run(Section):
    """The keys that every stage's recipe ends with."""

    output: str
    """The run folder to write."""
    seed: int = Field(1, ge=0)
    """Everything random follows from it."""
    resume: bool = False
    """Go on from the last checkpoint in output."""
    overwrite: bool = False
    """Replace a run that stands in output."""
