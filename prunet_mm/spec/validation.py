"""What all specs share: strict fields, and errors that a user can act on.

A type says itself what is allowed (``PositiveInt`` is 'a positive integer'), so that every error
reads ``FILE: layers[3].hidden: found "wide", expected a positive integer``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from prunet_mm.errors import SpecError

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar('T')


def problem(at: tuple, text: str) -> PydanticCustomError:
    """What a validator raises: ``text`` about the field ``at``, a path below its model."""
    return PydanticCustomError('problem', '{text}', {'text': text, 'at': at})


def shown(value: Any) -> str:
    """``value`` as it stands in an error: strings in double quotes, cut to a readable length."""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f'{text[:56]} ...'


def expecting(what: str) -> WrapValidator:
    """Annotates a type with ``what`` it allows: every failure says that, and what was found."""

    def check(value, handler):
        try:
            return handler(value)
        except ValidationError:
            raise problem((), f'found {shown(value)}, expected {what}') from None

    return WrapValidator(check)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError
    return value


def _as_tuple(value: Any) -> Any:
    # Not a set, whose order differs from process to process.
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple) -> tuple:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise problem((index,), f'found {shown(value)} twice, expected distinct values')
    return values


def _json_copy(value: dict) -> dict:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, RecursionError) as error:
        raise ValueError from error


# Costs are computed with floats, too, which a product of larger numbers would not fit into.
MOST = 2**31 - 1

PositiveInt = Annotated[
    int, Field(gt=0, le=MOST), expecting('a positive integer (of at most 31 bits)')
]
NonNegativeInt = Annotated[
    int, Field(ge=0, le=MOST), expecting('an integer, 0 or more (of at most 31 bits)')
]
HiddenWidth = Annotated[
    int, Field(ge=0, le=MOST), expecting('a positive integer (0 where the op has none)')
]
OddInt = Annotated[
    int, Field(gt=0, le=MOST), AfterValidator(_odd), expecting('an odd positive integer, such as 3')
]
# A range, since Literal[1, 2] lets True and 1.0 pass.
Stride = Annotated[int, Field(ge=1, le=2), expecting('1 or 2')]
Probability = Annotated[float, Field(ge=0, lt=1), expecting('a number from 0 to below 1')]
Epsilon = Annotated[float, Field(gt=0, lt=1), expecting('a number above 0 and below 1')]
Flag = Annotated[bool, expecting('True or False')]
Name = Annotated[str, Field(min_length=1), expecting('a name in quotes')]
Op = Annotated[
    Literal['conv', 'ds', 'fused_irb', 'irb', 'shortcut'],
    expecting('"conv", "ds", "fused_irb", "irb" or "shortcut"'),
]
Expansion = Annotated[
    float, Field(gt=0, allow_inf_nan=False), expecting('a positive number, such as 3 or 4.5')
]
Act = Annotated[
    Literal['relu', 'relu6', 'swish', 'hard_swish'],
    expecting('"relu", "relu6", "swish" or "hard_swish"'),
]
Gate = Annotated[Literal['sigmoid', 'hard_sigmoid'], expecting('"sigmoid" or "hard_sigmoid"')]
Padding = Annotated[
    Annotated[int, Field(ge=0, le=MOST)] | Literal['same'],
    expecting('an integer, 0 or more (of at most 31 bits), or "same"'),
]
Same = Annotated[Literal['same'], expecting('"same" or None')]
JsonObject = Annotated[
    dict, AfterValidator(_json_copy), expecting('a dict of JSON values, all numbers finite')
]
# A list in a file or a config becomes a tuple: specs are hashable.
Many = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
Some = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]  # or none
Choices = Annotated[Many[T], AfterValidator(_distinct)]


class Spec(BaseModel):
    """An immutable description; unknown fields and values of a near type (``'3'``) are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra='forbid')

    @model_validator(mode='before')
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        known = ', '.join(cls.model_fields)
        for key in data if isinstance(data, Mapping) else ():
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f'perhaps {close[0]} is meant' if close else f'known are {known}'
                raise problem((key,), f'unknown field, {hint}')
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = 'config') -> Self:
        """Builds and checks the description that ``data`` holds.

        Args:
            data: Nested dicts and lists, for instance from JSON or a config.
            source: What an error names as the place where ``data`` is from.

        Raises:
            SpecError: Something in ``data`` is not allowed; names the field and what is expected.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError(_sentence(error, source)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers that :meth:`from_dict` reads; without defaults."""
        return self.model_dump(mode='json', exclude_defaults=True)


def check_stride(at: tuple, stride: int, size: int) -> None:
    """Raises unless a feature map of ``size`` x ``size`` pixels has ``stride`` pixels."""
    if stride > size:
        text = f'found {stride} on a feature map of {size} x {size} px, expected 1'
        raise problem((*at, 'stride'), text)


def check_shortcut(kernel: int) -> None:
    """Raises unless ``kernel`` is what a shortcut has."""
    if kernel != 1:
        raise problem(('kernel',), f'found {kernel}, expected 1, since op is "shortcut"')


def _sentence(error: ValidationError, source: str) -> str:
    """The first problem of a pydantic error, and how many more there are."""
    first, *others = error.errors(include_url=False)
    # What is wrong inside of a list makes the list wrong, too.
    others = [other for other in others if other['loc'] != first['loc'][: len(other['loc'])]]
    path = _path((*first['loc'], *first.get('ctx', {}).get('at', ())))
    more = f' (and {len(others)} more problem{"s"[: len(others) - 1]})' if others else ''
    return ': '.join(filter(None, (source, path, _text(first)))) + more


def _text(detail: dict[str, Any]) -> str:
    kind, found = detail['type'], f'found {shown(detail["input"])}, expected'
    if kind == 'problem':
        return detail['ctx']['text']
    if kind == 'missing':
        return 'this field is missing'
    if kind == 'too_short':
        return 'found an empty list, expected at least one entry'
    return f'{found} {"a list" if kind == "tuple_type" else "a dict"}'


def _path(location: tuple) -> str:
    """('layers', 3, 'hidden') -> 'layers[3].hidden'."""
    parts = (f'[{part}]' if isinstance(part, int) else f'.{_key(part)}' for part in location)
    return ''.join(parts).removeprefix('.')


def _key(part: object) -> str:
    """A key as it is, unless a line would break in it."""
    return str(part) if str(part).isprintable() else json.dumps(str(part))
