"""A tiny world with a known truth, in which every step of alignment can be measured.

Read in this order; each file leans only on those above it:

    world.py       the language: words, the facts about them, and the sentences of politeness, rambling and refusal
    families.py    the kinds of instruction: their phrasings, their arguments, their right answers
    tasks.py       one instruction: drawn from a split, or recovered from the text of its prompt
    judge.py       the gold judge: what an answer is truly worth
    people.py      how people of given habits write answers, good and bad
    annotators.py  how people rank answers: by the gold score, with noise
    exams.py       questions with known answers, and wrong ones beside them
    corpora.py     web text, demonstrations and prompts as plain files (`python -m align.lab --out DIR`)
    misconceptions.py    what people believe and is not so, and web text that repeats it
    overoptimization.py  an experiment: gold and proxy score against KL (a command above all rooms)
    inverse_scaling.py   another: where larger models are worse (likewise)
    recipes.py     writing the world and ranking answers as recipes, for `align.pipeline`

Everything is a pure function of its seed and, but for the recipes, needs the standard library alone and imports in
milliseconds.
"""
