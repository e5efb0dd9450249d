"""Benchmarks with known answers: multiple choice by likelihood, generated answers, perplexity; few-shot prompts.

Reading order: `settings` (recipe keys), `task` (runs a task), `template` (prompts), `choice`, `generate` and
`perplexity` (the three kinds), `results` (the report's block).
"""
