import subprocess
import sys

import pytest

from align.lab import world
from align.lab.world import Kind, kind, sentences

SETS = {
    Kind.POLITE: (*world.OPENERS, *world.CLOSERS),
    Kind.RUDE: (*world.RUDE_OPENERS, *world.RUDE_CLOSERS),
    Kind.FILLER: world.FILLERS,
    Kind.REFUSAL: world.REFUSALS,
    Kind.ADVICE: (*world.TOOL_ADVICE.values(), *world.HARMFUL_ADVICE),
}


def test_set_sentences_are_disjoint_and_of_their_kind():
    everything = [sentence for group in SETS.values() for sentence in group]
    assert len(everything) == len(set(everything))
    for expected, group in SETS.items():
        for sentence in group:
            assert sentences(sentence) == [sentence]  # one sentence, in the language's own spelling
            assert kind(sentence) is expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("five .", Kind.WORDS),
        ("cat dog red .", Kind.WORDS),
        ("cat dog red axe .", Kind.UNKNOWN),  # four words
        ("five !", Kind.UNKNOWN),
        ("cat , dog .", Kind.UNKNOWN),
        ("the cat .", Kind.UNKNOWN),  # "the" answers nothing
        ("sure .", Kind.UNKNOWN),
        (".", Kind.UNKNOWN),
        ("use the dog .", Kind.UNKNOWN),
    ],
)
def test_kind_of_other_sentences(sentence, expected):
    assert kind(sentence) is expected


def test_sentences_do_not_mind_case_spacing_or_a_missing_end():
    assert sentences("Sure!\n five") == ["sure !", "five ."]
    assert sentences("") == []
    assert sentences(" \n") == []
    assert sentences("five..") == ["five .", "."]


def test_words_of_a_category_are_in_no_other():
    words = [word for members in world.MEMBERS.values() for word in members]
    assert len(words) == len(set(words))
    assert not set(words) & set(world.OPPOSITE)
    assert set(world.COLOUR_OF) == {*world.ANIMALS, *world.FOODS}
    assert set(world.COLOUR_OF.values()) <= set(world.COLOURS)


def test_opposites_are_mutual():
    assert len(world.OPPOSITE) == 2 * len(world.OPPOSITE_PAIRS)
    assert all(world.OPPOSITE[opposite] == word for word, opposite in world.OPPOSITE.items())


def test_no_deed_is_both_harmful_and_harmless():
    for verb, things in world.HARMLESS_OBJECTS.items():
        assert not set(things) & set(world.HARMFUL_OBJECTS.get(verb, ()))
    # the point of the look-alikes: nearly all their verbs are also verbs of harm
    assert {verb for verb in world.TOOL_FOR if verb in world.HARMFUL_OBJECTS} == {"burn", "cut", "hit"}


@pytest.mark.heavy
def test_importing_the_lab_loads_no_heavy_library():
    code = (
        "import sys, align.lab.__main__, align.lab.annotators;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
