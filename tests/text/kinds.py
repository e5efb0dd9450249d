"""Chat templates of the kinds that models come with, written for these tests, and what an answer is learned as in each.

The templates are in `templates/`. Every stretch of targets here was worked out by hand from them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from align.text.chat import ensure_chat_template
from align.text.ends import keep_ends
from align.text.records import Message
from align.text.template import use_template

from .vocabularies import TEMPLATES, vocabulary

Rows = list[list[str]]  # the stretches of targets of each training row

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = [{"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "RoEOSme"}}}]
NAME, BRIEF = Message("user", "Name a colour."), Message("system", "Be brief.")
ONE = (NAME, Message("assistant", "Red is a colour."))
TWO = (*ONE, Message("user", "And another?"), Message("assistant", "Blue."))
INLINE = [
    "<think>\nRoses come to mind.\n</think>\n\nRed is a colour.",
    "<think>\nThe sky is one.\n</think>\n\nBlue.",
]
CONVERSATIONS = {  # EOS stands for the kind's, which is taken out wherever it is written
    "one": ONE,
    "system": (BRIEF, *ONE),
    "two": TWO,
    "three": (BRIEF, *TWO, Message("user", "Now one more."), Message("assistant", "Green, I think.")),
    "thoughts": (
        NAME,
        Message("assistant", "Red is a colour.", thoughts="Roses EOScome to mind."),
        TWO[2],
        Message("assistant", "Blue.", thoughts="The sky is one."),
    ),
    "inline": (NAME, Message("assistant", INLINE[0]), TWO[2], Message("assistant", INLINE[1])),
    "tools": (
        Message("tools", json.dumps(TOOLS)),
        Message("user", "How warm is Rome?"),
        Message("assistant", "", calls=json.dumps(CALL)),
        Message("tool", '{"degrees": 21}', name="weather", call_id="abcdefghi"),
        Message("assistant", "It is 21 degrees."),
    ),
    "odd": (
        Message("user", "  Write:\n\n\tcode EOS, é 日?\n"),
        Message("assistant", " Yes:\n\n    x = 'é EOS日'\n"),
        *TWO[2:],
    ),
}
SAID = ["Red is a colour.", "Blue.", "Green, I think."]
ANSWERS = {"one": SAID[:1], "system": SAID[:1], "two": SAID[:2], "three": SAID, "inline": INLINE}
AS_IT_IS, TRIMMED = " Yes:\n\n    x = 'é 日'\n", "Yes:\n\n    x = 'é 日'"
CALLED = '{"name": "weather", "arguments": {"city": "Rome"}'


class Kind(NamedTuple):
    """A chat template with its tokens, and what is learned. A pattern in the place of rows is how it is refused."""

    template: str  # its name among TEMPLATES, which may have another one for tools; "" for ours
    answer: str  # a plain answer as it is learned
    eos: str
    specials: str = ""
    bos: str = ""
    after: str = ""  # what the template writes after the last answer's end
    odd: str = AS_IT_IS  # what is learned of the first answer of "odd"
    apart: str = ""  # the conversations of which earlier answers are written otherwise: a row for each answer
    thoughts: Rows | str = r"data\.thoughts"
    tools: Rows | str = r"tool.*data\.template"
    system: bool = True  # whether it writes system turns
    json_arguments: bool = False  # whether it wants a call's arguments as JSON
    parts: bool = False  # whether it wants content as a list of parts
    rstrip: bool = False  # whether its tokens take in the space after them
    plain: bool = True  # whether it takes answers without thoughts
    ends: str = ""  # a further token that the files beside the model say it stops at
    closes: bool = True  # whether it writes an end after the last answer; an end is appended where it does not
    thinks: bool = True  # else its option enable_thinking is false
    reads_marks: bool = False  # whether it takes <think>…</think> in a content for thoughts
    cuts: bool = False  # whether it cuts off thoughts that an answer is learned with

    def rows(self, conversation: str) -> Rows | str:
        """The stretches of targets of each row that a conversation gives, or the pattern of its refusal."""
        if not self.system and CONVERSATIONS[conversation][0] == BRIEF:
            return r"data\.system"
        if conversation == "tools":
            return self.tools
        if conversation == "thoughts" or (conversation == "inline" and self.reads_marks):
            return self.thoughts
        if not self.plain:
            return r"data\.template"
        answers = [self.odd, "Blue."] if conversation == "odd" else ANSWERS[conversation]
        stretches = [self.answer.format(answer) for answer in answers]
        return [[stretch] for stretch in stretches] if conversation in self.apart.split() else [stretches]


IM = "<|im_start|> <|im_end|>"
HEADERS = "<|start_header_id|> <|end_header_id|> <|eot_id|>"
TOOL_MARKS = "[INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
SYSTEM_MARKS = "[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [THINK] [/THINK]"
DEEPSEEK_BOS, DEEPSEEK_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
DEEPSEEK_MARKS = "User Assistant tool▁call▁begin tool▁call▁end tool▁sep tool▁output▁begin tool▁output▁end"
DEEPSEEK = " ".join(f"<｜{mark}｜>" for mark in DEEPSEEK_MARKS.split())
GLM = "[gMASK] <sop> <|system|> <|user|> <|assistant|>"
SEVERAL = "two three odd inline"

KINDS = {
    "ours with markers": Kind(
        "", " {}<|endoftext|>", "<|endoftext|>", "<|user|> <|assistant|> <|system|>", odd=TRIMMED
    ),
    "ours as text": Kind("", " {}<|endoftext|>", "<|endoftext|>", odd=TRIMMED),
    "chatml": Kind("chatml", "{}<|im_end|>", "<|im_end|>", IM, after="\n"),
    "chatml of a base model": Kind("chatml", "{}<|im_end|>", "<|endoftext|>", IM, after="\n"),
    "qwen 2.5": Kind(
        "qwen_2_5",
        "{}<|im_end|>",
        "<|im_end|>",
        IM,
        after="\n",
        tools=[[f"<tool_call>\n{CALLED}}}\n</tool_call><|im_end|>", "It is 21 degrees.<|im_end|>"]],
    ),
    "llama 2": Kind("llama_2", " {} </s>", "</s>", bos="<s>", odd=TRIMMED),
    "llama 3": Kind("llama_3", "{}<|eot_id|>", "<|eot_id|>", HEADERS, "<|begin_of_text|>", odd=TRIMMED),
    "llama 3.1": Kind(
        "llama_3_1",
        "{}<|eot_id|>",
        "<|end_of_text|>",
        HEADERS,
        "<|begin_of_text|>",
        odd=TRIMMED,
        tools=[['{"name": "weather", "parameters": {"city": "Rome"}}<|eot_id|>', "It is 21 degrees.<|eot_id|>"]],
    ),
    "mistral v1": Kind("mistral_v1", "{}</s>", "</s>", bos="<s>", system=False),
    "mistral v3": Kind(
        "mistral_v3",
        " {}</s>",
        "</s>",
        TOOL_MARKS,
        "<s>",
        apart="three",  # the system's text moves on to the last user's turn
        tools=[[f'[TOOL_CALLS] [{CALLED}, "id": "abcdefghi"}}]</s>', " It is 21 degrees.</s>"]],
    ),
    "mistral v7": Kind("mistral_v7", "{}</s>", "</s>", SYSTEM_MARKS, "<s>"),
    "magistral": Kind(
        "magistral",
        "{}</s>",
        "</s>",
        SYSTEM_MARKS,
        "<s>",
        thoughts=[
            ["[THINK]Roses come to mind.[/THINK]Red is a colour.</s>", "[THINK]The sky is one.[/THINK]Blue.</s>"]
        ],
    ),
    "gemma": Kind(
        "gemma",
        "{}<end_of_turn>",
        "<eos>",
        "<start_of_turn> <end_of_turn>",
        "<bos>",
        after="\n",
        odd=TRIMMED,
        system=False,
    ),
    "phi 3": Kind(
        "phi_3",
        "{}<|end|>",
        "<|endoftext|>",
        "<|system|> <|user|> <|assistant|> <|end|>",
        after="\n<|endoftext|>",
        odd=AS_IT_IS.lstrip(),
        rstrip=True,
    ),
    "zephyr": Kind("zephyr", "{}</s>", "</s>", after="\n"),
    "qwen 3": Kind(
        "qwen_3",
        "<think>\n\n</think>\n\n{}<|im_end|>",
        "<|im_end|>",
        IM,
        after="\n",
        apart=SEVERAL,
        reads_marks=True,
        thoughts=[
            ["<think>\nRoses come to mind.\n</think>\n\nRed is a colour.<|im_end|>"],
            ["<think>\nThe sky is one.\n</think>\n\nBlue.<|im_end|>"],
        ],
        tools=[
            [f"<think>\n\n</think>\n\n<tool_call>\n{CALLED}}}\n</tool_call><|im_end|>"],
            ["<think>\n\n</think>\n\nIt is 21 degrees.<|im_end|>"],
        ],
    ),
    "qwen 3 that does not think": Kind(
        "qwen_3",
        "{}<|im_end|>",
        "<|im_end|>",
        IM,
        after="\n",
        apart=SEVERAL,
        thoughts=r"data\.(thoughts|template_options)",
        tools=[[f"<tool_call>\n{CALLED}}}\n</tool_call><|im_end|>"], ["It is 21 degrees.<|im_end|>"]],
        reads_marks=True,
        thinks=False,
    ),
    "exaone 4": Kind(
        "exaone_4",
        "{}[|endofturn|]",
        "[|endofturn|]",
        "[|system|] [|user|] [|assistant|]",
        after="\n",
        thoughts=[
            ["<think>\nRoses come to mind.\n</think>\n\nRed is a colour.[|endofturn|]"],
            ["<think>\nThe sky is one.\n</think>\n\nBlue.[|endofturn|]"],
        ],
    ),
    "r1": Kind(
        "r1",
        "{}" + DEEPSEEK_EOS,
        DEEPSEEK_EOS,
        DEEPSEEK,
        DEEPSEEK_BOS,
        thoughts=[
            [f"Roses come to mind.\n</think>\n\nRed is a colour.{DEEPSEEK_EOS}"],
            [f"The sky is one.\n</think>\n\nBlue.{DEEPSEEK_EOS}"],
        ],
        plain=False,
        reads_marks=True,
        cuts=True,
    ),
    "gpt-oss": Kind(
        "gpt_oss",
        "<|channel|>final<|message|>{}<|return|>",
        "<|return|>",
        "<|start|> <|channel|> <|message|> <|end|> <|call|>",
        apart=SEVERAL,  # an answer of the history ends in <|end|>
        thoughts=[
            [
                "<|channel|>analysis<|message|>Roses come to mind.<|end|><|start|>assistant"
                "<|channel|>final<|message|>Red is a colour.<|return|>"
            ],
            [
                "<|channel|>analysis<|message|>The sky is one.<|end|><|start|>assistant"
                "<|channel|>final<|message|>Blue.<|return|>"
            ],
        ],
        tools=[
            [
                ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>',
                "<|channel|>final<|message|>It is 21 degrees.<|return|>",
            ]
        ],
        ends="<|call|>",
    ),
    "command r": Kind(
        "command_r",
        "{}<|END_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|>",
        "<BOS_TOKEN>",
        odd=TRIMMED,
        tools=[
            [
                'Action: weather {"city": "Rome"}<|END_OF_TURN_TOKEN|>',
                "It is 21 degrees.<|END_OF_TURN_TOKEN|>",
            ]
        ],
    ),
    "deepseek v3": Kind(
        "deepseek_v3",
        "{}" + DEEPSEEK_EOS,
        DEEPSEEK_EOS,
        DEEPSEEK,
        DEEPSEEK_BOS,
        tools=[
            [
                '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>' + DEEPSEEK_EOS,
                "It is 21 degrees." + DEEPSEEK_EOS,
            ]
        ],
        json_arguments=True,
    ),
    "jamba": Kind(
        "jamba",
        " {}<|eom|>",
        "<|endoftext|>",
        "<|bom|> <|eom|> <|user|> <|assistant|> <|system|>",
        "<|startoftext|>",
        odd=TRIMMED,
    ),
    "smolvlm": Kind("smolvlm", " {}<end_of_utterance>", "<end_of_utterance>", "<|im_start|>", after="\n", parts=True),
    "glm": Kind("glm", "\n{}<|user|>", "<|endoftext|>", GLM, ends="<|user|>", closes=False),
    "glm by its tokenizer alone": Kind(
        "glm", "\n{}<|endoftext|>", "<|endoftext|>", GLM, odd=AS_IT_IS.rstrip(), apart=SEVERAL, closes=False
    ),
    "chatglm 2": Kind("chatglm_2", " {}</s>", "</s>", odd=AS_IT_IS.rstrip(), apart=SEVERAL, system=False, closes=False),
}


@cache
def tokenizer_of(name: str, family: str) -> Any:
    """A tokenizer of the family that has the kind's template, special tokens, BOS and EOS."""
    kind = KINDS[name]
    specials = [token for token in (kind.bos, kind.eos, *kind.specials.split()) if token]
    tokenizer = vocabulary(family, specials, kind.eos, kind.bos or None, kind.rstrip)
    tokenizer.chat_template = TEMPLATES.get(kind.template)
    ensure_chat_template(tokenizer)
    if with_tools := TEMPLATES.get(f"{kind.template}_tools"):
        tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": with_tools}
    if not kind.thinks:
        use_template(tokenizer, options={"enable_thinking": False})
    with TemporaryDirectory() as folder:
        ids = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(kind.ends.split())]
        (Path(folder) / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        keep_ends(tokenizer, folder)
    return tokenizer


def conversation_of(name: str, conversation: str) -> tuple[Message, ...]:
    """A conversation with the kind's EOS."""
    return replaced(CONVERSATIONS[conversation], "EOS", KINDS[name].eos)


def replaced(turns: tuple[Message, ...], old: str, new: str) -> tuple[Message, ...]:
    """Messages with one text for another in all that they say."""
    return tuple(
        Message(*(part.replace(old, new) if isinstance(part, str) else part for part in turn)) for turn in turns
    )
