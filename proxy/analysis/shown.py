"""Findings that a notebook shows by themselves: the report of `understudy compare`, in a frame.

The frame is sandboxed: the report's style stays inside it, the notebook's outside, and what a hostile
answer in it may contain can reach neither.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from html import escape
from pathlib import Path
from typing import Any

from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.reports.page import Page
from proxy.errors import ReportError


class Shown(ABC):
    """What was found, as a document, and how it is shown.

    Attributes:
        document: the JSON object that the command prints with `--json`, as dicts and lists.
    """

    #: CSS height of the frame in a notebook; what is longer scrolls inside.
    frame_height = "44rem"

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    @property
    @abstractmethod
    def sentence(self) -> str:
        """What was found, with its numbers."""

    def page(self) -> Page:
        """Return the report before anything decides how it looks."""
        return page_of(self.document)

    def html(self) -> str:
        """Return the report as a whole HTML document, which needs nothing else."""
        return html_of(self.page())

    def markdown(self) -> str:
        """Return the report as GitHub-flavoured Markdown, without plots."""
        return markdown_of(self.page())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a file: Markdown where its name ends with `.md`, else HTML.

        Raises:
            ReportError: it cannot be written.
        """
        target = Path(path)
        write_report(target, self.markdown() if target.suffix == ".md" else self.html())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sentence}>"

    def _repr_html_(self) -> str:
        """Return the report in a frame of its own."""
        return (
            f'<iframe sandbox title="{escape(self.sentence)}" srcdoc="{escape(self.html())}" '
            f'style="width:100%;height:{self.frame_height};border:0"></iframe>'
        )

    def _repr_markdown_(self) -> str:
        """Return the report for what shows no HTML."""
        return self.markdown()


def write_report(path: Path, text: str) -> None:
    """Write a report to a file.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as exc:
        raise ReportError(f"cannot write {path}: {exc.strerror or exc}") from exc
