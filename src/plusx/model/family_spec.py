"""What the specs of nets besides ResNet share: JSON that states the family, checked numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from plusx.errors import SpecError

MOST = 2**20
"""Of any number: far above every known network, and still quick to refuse."""

S = TypeVar("S", bound="FamilySpec")


@dataclass(frozen=True)
class FamilySpec:
    """Abstract. A spec whose JSON states its family; a ``ResNetSpec``'s states none."""

    family: ClassVar[str]
    feature_stages: ClassVar[int] = 1

    name: str

    def replace(self: S, **changes: Any) -> S:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The family and all fields, ready for JSON."""
        fields = dataclasses.asdict(self)
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}
        return {"family": self.family} | plain

    @classmethod
    def from_dict(cls: type[S], fields: dict[str, Any]) -> S:
        """The inverse of ``to_dict``; fields with a default may be left out.

        Raises:
            SpecError: a field is unknown, missing or impossible.
        """
        given = {key: value for key, value in fields.items() if key != "family"}
        known = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(given) - set(known)):
            raise SpecError(f"unknown field {', '.join(unknown)}; known: {', '.join(known)}")
        given = dict[str, Any](name="custom") | given
        none = dataclasses.MISSING
        needed = {n for n, field in known.items() if field.default is field.default_factory is none}
        if missing := sorted(needed - set(given)):
            raise SpecError(f"missing field {', '.join(missing)}")
        return cls(**given)

    def check_numbers(self, *names: str) -> None:
        """Raise SpecError unless the name is text and these fields are whole numbers from 1."""
        if not isinstance(self.name, str):
            raise SpecError(f"name={self.name!r} must be text")
        for name in names:
            check_whole(name, getattr(self, name))


def check_whole(field: str, value: Any) -> int:
    """``value``, if it is a whole number from 1 to ``MOST``; else SpecError."""
    if type(value) is not int or not 1 <= value <= MOST:
        raise SpecError(f"{field}={value!r} must be a whole number from 1 to {MOST}")
    return value


def check_wholes(field: str, values: Any) -> tuple[int, ...]:
    """A list of such numbers as a tuple."""
    if not isinstance(values, list | tuple) or not values:
        raise SpecError(f"{field}={values!r} must be a list of whole numbers, one per stage")
    return tuple(check_whole(field, value) for value in values)
