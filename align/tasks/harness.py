"""Standard benchmarks: run a model in EleutherAI's evaluation harness, `lm-eval`, as model type `align`.

    pip install '.[lm-eval]'
    align lm-eval run --model align --model_args path=runs/ppo/model --apply_chat_template \\
        --tasks arc_easy,gsm8k --output_path runs/benchmarks

Everything after `lm-eval` is the harness's own command line (`--help`). Its tasks come from the hub or, with
`--include_path`, from a folder. `path` is a recipe's `model.path`: a run's model/, a Hugging Face folder or name, or an
adapter, which is merged into its base. `template` is a file with another chat template. For a base model leave out
--apply_chat_template.

The harness adds BOS before a text only if the tokenizer does; the tasks of an evaluation always add it.
"""

from __future__ import annotations

from typing import Any, NoReturn

from align import sections
from align.errors import UserError, exit_on_user_error
from align.text.ends import ends_of


def _missing() -> NoReturn:
    raise UserError("lm-eval is not installed; it is an extra of its own: pip install '.[lm-eval]'")


try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError:
    if __name__ == "__main__":
        exit_on_user_error(_missing)
    _missing()


@register_model("align")
class AlignLM(HFLM):
    """A model loaded like a recipe's `model` section, in fp32, on the available device."""

    def __init__(
        self,
        path: str,
        trust_remote_code: bool = False,
        device: Any = None,
        template: str | None = None,
        **others: Any,
    ) -> None:
        """`others` are HFLM's arguments, such as batch_size and enable_thinking. `device` is ignored: accelerate
        chooses it."""
        from align.models.language import with_ends
        from align.models.load import load_causal_lm, max_positions
        from align.text.tokenizer import load_tokenizer, rows_needed
        from align.train.machine import accelerator

        model = sections.Model(path=path, trust_remote_code=trust_remote_code)
        tokenizer = load_tokenizer(path, trust_remote_code, template)
        loaded = load_causal_lm(model, n_tokens=rows_needed(tokenizer)).to(accelerator("fp32").device)
        others.setdefault("max_length", max_positions(loaded.config))
        super().__init__(pretrained=with_ends(loaded, tokenizer), tokenizer=tokenizer, backend="causal", **others)
        self._before_answer, self._lead = _answer_marks(tokenizer)

    @property
    def eot_token_id(self) -> int:
        """The token at which the harness cuts an answer; generation stops at every end token."""
        return ends_of(self.tokenizer).turn

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Add the template's leading space: the harness writes a choice directly after the generation prompt."""
        if context.endswith(self._before_answer) and not continuation.startswith(self._lead):
            continuation = self._lead + continuation
        found: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return found


def _answer_marks(tokenizer: Any) -> tuple[str, str]:
    """The chat template's text before an answer, and its first characters within the answer, such as a space."""
    user, answered = {"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}
    alone = tokenizer.apply_chat_template([user], tokenize=False)
    asked = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, answered], tokenize=False)
    goes_on = whole.startswith(asked) and asked.startswith(alone)
    return (asked[len(alone) :], whole[len(asked) :].partition("x")[0]) if goes_on else ("", "")


if __name__ == "__main__":
    exit_on_user_error(cli_evaluate)
