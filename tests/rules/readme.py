"""What the README shows, for the tests that run it."""

import re

from rules import tree


def blocks(language: str, text: str | None = None) -> list[str]:
    """The contents of the fenced blocks of one language."""
    text = tree.read("README.md") if text is None else text
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str | None = None) -> list[str]:
    """The command lines of the shell blocks, without their comments; lines that end in a backslash are joined."""
    lines = "".join(blocks("sh", text)).replace("\\\n", " ").splitlines()
    return [bare for line in lines if (bare := re.sub(r"(^|\s+)#.*", "", line).strip())]


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)
