"""What `mkdocs build` does with our pages before it makes HTML of them.

Notebooks become pages with the outputs that are saved in them, the changelog becomes one, and comments go, in which
pages keep code that they take for granted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Page

_COMMENT = re.compile(r"^<!--.*?-->$\n?", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_NOTEBOOK_LINK = re.compile(r"(\]\([\w./-]+)\.ipynb\)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name notebooks in the navigation as what they become."""
    config.nav = _renamed(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put pages in the place of notebooks, and add the changelog."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            text = page_of(json.loads(Path(str(file.abs_src_path)).read_text(encoding="utf-8")))
            files.remove(file)
            files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=text))
    changelog = Path(config.config_file_path).with_name("CHANGELOG.md").read_text(encoding="utf-8")
    changelog = changelog.replace("](docs/", "](")
    # A list in a list: what GitHub reads by two spaces is read by four here.
    changelog = re.sub(r"^  \* ", "    * ", changelog, flags=re.MULTILINE)
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out comments, and let links to notebooks lead to their pages."""
    del page, config, files
    parts = _FENCE.split(markdown)
    parts[::2] = [_NOTEBOOK_LINK.sub(r"\1.md)", _COMMENT.sub("", part)) for part in parts[::2]]
    return "".join(parts)


def page_of(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: its texts, its code, and below each cell what it printed or showed."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts.append(f"```python\n{source}\n```")
            parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    """Return an output as HTML where it has such a form, or else as text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">\n{"".join(data["text/html"])}\n</div>'
    text = "".join(output["text"] if output["output_type"] == "stream" else data["text/plain"])
    return f"```text\n{_ANSI.sub('', text).rstrip()}\n```"


def _renamed(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_renamed(one) for one in entry]
    if isinstance(entry, dict):
        return {name: _renamed(one) for name, one in entry.items()}
    return entry.removesuffix(".ipynb") + ".md" if str(entry).endswith(".ipynb") else entry
