"""A stack of rules: in order, each with a switch; with undo and redo.

    stack = RuleStack().push(no_eyes).push(blue_hair)
    stack = stack.toggle(0).with_strength(1, 0.5)
    generator.with_rules(stack)     # a view; the loaded generator stays what it is
    stack.undo().undo()             # as it was pushed

The edited weights are always composed afresh from the pristine ones, in stack order, at every layer that has rules.
So order, undo, redo and strength are exact, and with all rules off the generator is the pristine one to the bit.

Every change makes one step that `undo` takes back, with one exception: a strength is dragged, and a drag is one step.
Consecutive changes of one rule's strength, with no other change between them, are the same drag; one that returns to
where it began leaves no step. A change that changes nothing makes none. Rules are named by their place, from 0; -1 is
the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator
from rewrite_core.rules.merging import merged
from rewrite_core.rules.rule import Rule, composed

__all__ = ["Entry", "RuleStack"]


@dataclass(frozen=True)
class Entry:
    """A rule in a stack, and whether it is on."""

    rule: Rule
    on: bool = True


Entries = tuple[Entry, ...]


@dataclass(frozen=True)
class RuleStack:
    """Rules in order, each with a switch, and the stacks before and after it (undo, redo)."""

    entries: Entries = ()
    past: tuple[Entries, ...] = ()
    future: tuple[Entries, ...] = ()

    @property
    def active(self) -> tuple[Rule, ...]:
        """The rules that are on, in order."""
        return tuple(entry.rule for entry in self.entries if entry.on)

    def compose(self, generator: Generator) -> dict[str, Tensor]:
        """Layer → edited weight: the pristine weight plus every active rule's change, in stack order.

        Raises:
            ModelMismatch, LayerError: if a rule was not made for `generator`.
            RequestError: if a weight becomes too large for float32.
        """
        return composed(generator, self.active)

    # Changes.

    def push(self, rule: Rule) -> RuleStack:
        """With `rule` on top."""
        return self._then((*self.entries, Entry(rule)))

    def toggle(self, index: int) -> RuleStack:
        """With the switch of one rule turned."""
        return self._with(index, replace(self.entries[index], on=not self.entries[index].on))

    def with_strength(self, index: int, strength: float) -> RuleStack:
        """With one rule at another strength; part of the same step as the change before it, if that is the same drag.

        Raises:
            RequestError: if `strength` is out of range or no number.
        """
        entry = self.entries[index]
        if entry.rule.strength == strength:
            return self
        changed = self._with(index, replace(entry, rule=entry.rule.with_strength(strength)))
        if not self._dragged(index):
            return changed
        began = self.past[-1]
        if began[index].rule.strength == strength:
            return RuleStack(began, self.past[:-1])
        return RuleStack(changed.entries, self.past)

    def rename(self, index: int, name: str) -> RuleStack:
        """With one rule under another name."""
        entry = self.entries[index]
        return (
            self
            if entry.rule.name == name
            else self._with(index, replace(entry, rule=entry.rule.renamed(name)))
        )

    def move(self, index: int, to: int) -> RuleStack:
        """With one rule at place `to`; the others keep their order."""
        index, to = self._place(index), self._place(to)
        rest = [*self.entries[:index], *self.entries[index + 1 :]]
        return self._then((*rest[:to], self.entries[index], *rest[to:]))

    def duplicate(self, index: int) -> RuleStack:
        """With a copy of one rule right above it, switched off: what is drawn stays what it was."""
        above = self._place(index) + 1
        rule = self.entries[above - 1].rule
        copy = Entry(rule.renamed(f"{rule.name} copy"), on=False)
        return self._then((*self.entries[:above], copy, *self.entries[above:]))

    def merge(self, indices: Sequence[int], name: str) -> RuleStack:
        """With rules of one layer merged into one, called `name`, in the place of the lowest; what is drawn stays.

        Raises:
            RequestError: one of them is off, and would be lost or come on; or see `rewrite_core.rules.merging.merged`.
            ModelMismatch, LayerError: see there.
        """
        places = sorted({self._place(index) for index in indices})
        off = [self.entries[place].rule.name for place in places if not self.entries[place].on]
        if off:
            raise RequestError(
                found=f"rule '{off[0]}' to be merged, which is off",
                expected="rules that are on",
                remedy="Switch it on, or leave it out.",
            )
        one = Entry(merged([self.entries[place].rule for place in places], name))
        rest = [entry for place, entry in enumerate(self.entries) if place not in places]
        return self._then((*rest[: places[0]], one, *rest[places[0] :]))

    def remove(self, index: int) -> RuleStack:
        """Without one rule."""
        place = self._place(index)
        return self._then((*self.entries[:place], *self.entries[place + 1 :]))

    def clear(self) -> RuleStack:
        """Without any rule: the generator as it was loaded."""
        return self._then(())

    # Back and forth.

    def undo(self) -> RuleStack:
        """The stack before the last change; itself if there is none."""
        if not self.past:
            return self
        return RuleStack(self.past[-1], self.past[:-1], (self.entries, *self.future))

    def redo(self) -> RuleStack:
        """The stack that was undone last; itself if there is none."""
        if not self.future:
            return self
        return RuleStack(self.future[0], (*self.past, self.entries), self.future[1:])

    def _place(self, index: int) -> int:
        return range(len(self.entries))[index]

    def _with(self, index: int, entry: Entry) -> RuleStack:
        entries = list(self.entries)
        entries[index] = entry
        return self._then(tuple(entries))

    def _then(self, entries: Entries) -> RuleStack:
        return self if entries == self.entries else RuleStack(entries, (*self.past, self.entries))

    def _dragged(self, index: int) -> bool:
        """Whether the last change was one of this rule's strength, and nothing else."""
        if not self.past or len(self.past[-1]) != len(self.entries):
            return False
        place = self._place(index)
        pairs = list(zip(self.past[-1], self.entries, strict=True))
        before, now = pairs.pop(place)
        return all(one == other for one, other in pairs) and _but_for_strength(before, now)


def _but_for_strength(one: Entry, other: Entry) -> bool:
    """Whether two entries are the same rule, at two strengths."""
    return (
        one.on == other.on
        and one.rule.strength != other.rule.strength
        and one.rule.directions is other.rule.directions
        and one.rule.delta is other.rule.delta
        and one.rule.with_strength(other.rule.strength).provenance == other.rule.provenance
    )
