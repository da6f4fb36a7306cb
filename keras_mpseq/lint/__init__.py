"""The static engine: reads source, never imports or runs it, and finds what is unsafe in several processes."""

from __future__ import annotations

from keras_mpseq.lint.engine import Linted, Unresolved, lint_paths, lint_source

__all__ = ["Linted", "Unresolved", "lint_paths", "lint_source"]
