"""Third-party reward models: any `AutoModelForSequenceClassification` with one score.

The score comes from the model's own class, tokenizer and chat template:

    inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    score = model(**inputs).logits[:, 0]

Encoders without a template read a pair of texts, `tokenizer(question, answer)`, as their model cards say. The side on
which rows may be padded is found by trying.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from align import sections
from align.errors import UserError
from align.models.load import load_config, load_whole, max_positions
from align.models.purpose import many_scores
from align.text.records import Message
from align.text.spans import check_written, special_token_remover
from align.text.template import Messages, Template
from align.text.tokenizer import plain_tokenizer
from align.text.values import n_shared

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Side = Literal["right", "left"]


class Reader:
    """Encodes prompts and answers with the tokenizer of a third-party reward model."""

    def __init__(self, path: str, trust_remote_code: bool = False) -> None:
        self.tokenizer: Any = plain_tokenizer(path, trust_remote_code)
        self.path, self.reads_pairs = path, self.tokenizer.chat_template is None
        self._clean = special_token_remover(self.tokenizer)
        if self.reads_pairs and self.tokenizer.sep_token_id is None:
            raise UserError(
                f"{path}: this reward model's tokenizer has neither a chat template nor a separator token; put the "
                "template that it was trained with into chat_template.jinja there"
            )
        given = self.tokenizer("a", "b") if self.reads_pairs else {}
        self.has_types = "token_type_ids" in given  # the ids of the text that a token belongs to
        if self.has_types and list(given["token_type_ids"]) != self.types(given["input_ids"]):
            raise UserError(f"{path}: this tokenizer's token_type_ids differ from BERT's; use another model")

    def encode(self, prompts: Sequence[Sequence[Message]], texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The tokens of each prompt with its answer, as (tokens before the answer, the rest)."""
        if not texts:
            return []
        if self.reads_pairs:
            questions = ["\n\n".join(self._clean(turn.text) for turn in prompt) for prompt in prompts]
            rows = self.tokenizer(questions, [self._clean(text) for text in texts], verbose=False)["input_ids"]
            ends = [row.index(self.tokenizer.sep_token_id) + 1 for row in rows]
        else:
            turns = [tuple(map(self._cleaned, prompt)) for prompt in prompts]
            answers = [Message("assistant", self._clean(text)) for text in texts]
            rows = self._written([(*before, last) for before, last in zip(turns, answers, strict=True)], False)
            ends = [n_shared(*pair) for pair in zip(self._written(turns, True), rows, strict=True)]
        return [(row[:end], row[end:]) for row, end in zip(rows, ends, strict=True)]

    def types(self, row: list[int]) -> list[int]:
        """token_type_ids: 0 for tokens of the question, 1 for tokens of the answer, after the first separator."""
        end = row.index(self.tokenizer.sep_token_id) + 1 if self.tokenizer.sep_token_id in row else len(row)
        return [0] * end + [1] * (len(row) - end)

    def _cleaned(self, turn: Message) -> Message:
        """A message without special tokens, also in JSON that escapes them."""
        content = _respelt(turn.content) if turn.role == "tools" else turn.content
        texts = (content, turn.thoughts, _respelt(turn.calls), turn.name)
        content, thoughts, calls, name = map(self._clean, texts)
        return turn._replace(content=content, thoughts=thoughts, calls=calls, name=name)

    def _written(self, conversations: list[Messages], add_generation_prompt: bool) -> list[list[int]]:
        template = Template.of(self.tokenizer)
        try:
            texts = [template.write(turns, add_generation_prompt) for turns in conversations]
            for turns, text in zip(conversations, texts, strict=True):
                check_written(template, turns, text)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        return [list(row) for row in self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


class Classifier(nn.Module):
    """A loaded third-party reward model, in fp32, with the interface of a `ScalarModel` with one head."""

    heads = 1

    def __init__(self, model: Any, reader: Reader) -> None:
        super().__init__()
        self.trunk, self.reader = model, reader
        config = model.config.get_text_config()
        pads = (config.pad_token_id, reader.tokenizer.pad_token_id, 0)  # some have -1, or a token without a row
        self.pad_id = next(pad for pad in pads if pad is not None and 0 <= pad < config.vocab_size)

    @property
    def n_positions(self) -> int | None:
        """The longest row that it reads. Some encoders reserve positions; only their tokenizer knows the limit."""
        limits = [max_positions(self.trunk.config)]
        limits += [self.reader.tokenizer.model_max_length] if self.reader.reads_pairs else []
        return min((limit for limit in limits if limit is not None and limit > 0), default=None)  # XLNet has -1

    def forward(self, ids: Tensor, is_read: Tensor) -> Tensor:
        """Scores of rows. ids, is_read: (batch, time); is_read marks each row's last token. Returns (batch,) fp32."""
        ends = is_read.int().argmax(1).tolist()
        rows = [row[: end + 1] for row, end in zip(ids.tolist(), ends, strict=True)]
        if self.padding is None:
            return torch.cat([self._scores([row], "right") for row in rows])
        return self._scores(rows, self.padding)

    @cached_property
    def padding(self) -> Side | None:
        """The side on which padding does not change scores; None if rows must be scored one by one.

        A class may read the last token that is not its pad token, which may be EOS, or the last position.
        """
        n_tokens = self.trunk.config.get_text_config().vocab_size
        drawn = torch.randint(n_tokens, (3, 9), generator=torch.Generator().manual_seed(1)).tolist()
        rows = [drawn[0], [*drawn[1][:3], self.pad_id, drawn[1][4]], [*drawn[2][:5], self.pad_id]]
        alone = torch.cat([self._scores([row], "right") for row in rows])
        for side in ("right", "left"):
            try:
                together = self._scores(rows, side)
            except ValueError:  # a class without a pad token reads one row at a time
                return None
            if (together - alone).abs().max() <= 1e-3 * (alone.max() - alone.min()):
                return side
        return None

    @torch.no_grad()
    def _scores(self, rows: list[list[int]], side: Side) -> Tensor:
        width = max(map(len, rows))

        def padded(columns: list[list[int]], filler: int) -> Tensor:
            gaps = [[filler] * (width - len(column)) for column in columns]
            whole = [c + gap if side == "right" else gap + c for c, gap in zip(columns, gaps, strict=True)]
            return torch.tensor(whole, device=self.trunk.device)

        inputs = {"input_ids": padded(rows, self.pad_id), "attention_mask": padded([[1] * len(row) for row in rows], 0)}
        if self.reader.has_types:
            inputs["token_type_ids"] = padded([self.reader.types(row) for row in rows], 0)
        output = self.trunk(**inputs)
        scores = output.logits if getattr(output, "score", None) is None else output.score  # ArmoRM: the gated score
        if scores.numel() != len(rows):
            raise many_scores(self.reader.path, scores.numel() // len(rows))
        return scores.reshape(len(rows)).float()


def load_classifier(model: sections.Model, reader: Reader) -> Classifier:
    """Loads a third-party reward model with its own class."""
    from transformers import AutoModelForSequenceClassification

    return Classifier(load_whole(AutoModelForSequenceClassification, model.path, model, 0), reader).eval()


def has_linear_score(config: PretrainedConfig) -> bool:
    """Whether its class has a single linear head, which a value head can start from."""
    from transformers import AutoModelForSequenceClassification

    if getattr(config, "auto_map", None):  # it has its own code
        return False
    try:
        with torch.device("meta"):
            score = getattr(AutoModelForSequenceClassification.from_config(config), "score", None)
    except (ValueError, AttributeError):
        return False
    return isinstance(score, nn.Linear) and score.out_features == 1


def score_weight(model: sections.Model) -> Tensor:
    """The weight of that linear head, (1, width). Raises `UserError` if there is none."""
    from transformers import AutoModelForSequenceClassification

    if not has_linear_score(load_config(model)):
        raise UserError(
            f"{model.path}: its score does not come from one linear head, so no other model can start from it"
        )
    whole: Any = load_whole(AutoModelForSequenceClassification, model.path, model, 0)
    return whole.score.weight.detach().clone()


def _respelt(written: str) -> str:
    """JSON without escapes that could hide a special token; "" is unchanged."""
    return json.dumps(json.loads(written), ensure_ascii=False) if written else ""
