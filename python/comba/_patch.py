"""Attributes of other packages replaced by ours, with a report and a way back."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Replacement:
    owner: Any  # a module or a class
    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        where = f"{self.owner.__name__}." if isinstance(self.owner, type) else ""
        return where + self.name


class Patch:
    """What was replaced, and the way back: `undo()`, or the end of a with statement. Its text is the report."""

    def __init__(self, package: str, note: str = ""):
        self.package = package
        self.note = note
        self.replacements: list[Replacement] = []

    def replace(self, owner: Any, name: str, make: Callable) -> None:
        """`owner.name` becomes `make(what it was)`."""
        before = vars(owner)[name]
        after = make(before)
        setattr(owner, name, after)
        self.replacements.append(Replacement(owner, name, before, after))

    @property
    def is_active(self) -> bool:
        return bool(self.replacements)

    def undo(self) -> None:
        """Puts everything back as it was; what others have replaced since stays, with a warning. Twice does nothing."""
        while self.replacements:
            this = self.replacements.pop()
            if vars(this.owner).get(this.name) is this.after:
                setattr(this.owner, this.name, this.before)
            else:
                warnings.warn(f"[comba] {this} of {self.package} was replaced again since: it stays as it is", stacklevel=2)

    def __enter__(self) -> "Patch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __str__(self) -> str:
        if not self.is_active:
            return f"comba: nothing of {self.package} is replaced"
        by_module: dict[str, list[str]] = {}
        for this in self.replacements:
            module = this.owner.__module__ if isinstance(this.owner, type) else this.owner.__name__
            by_module.setdefault(module, []).append(str(this))
        lines = [f"comba: in {self.package} these are replaced (undo() puts them back):"]
        lines += [f"  {module}: {', '.join(names)}" for module, names in by_module.items()]
        return "\n".join(lines + ([f"  {self.note}"] if self.note else []))

    __repr__ = __str__
