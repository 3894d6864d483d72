"""What all specs share: strict fields, and errors that a user can act on.

A type says itself what is allowed (``PositiveInt`` is 'a positive integer'), so that every error
reads ``FILE: layers[3].hidden: found "wide", expected a positive integer``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from prunet_mm.errors import SpecError

T = TypeVar('T')


def problem(at: str | tuple, text: str) -> PydanticCustomError:
    """An error that a validator raises: ``text`` about the field ``at`` below its model."""
    return PydanticCustomError('problem', '{text}', {'text': text, 'at': at})


def shown(value: Any) -> str:
    """``value`` as it stands in an error: strings in double quotes, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f'{text[:56]} ...'


def _expecting(what: str) -> WrapValidator:
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


def _distinct(values: tuple) -> tuple:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise problem((index,), f'found {shown(value)} twice, expected distinct values')
    return values


def _json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError
    return json.loads(json.dumps(value, allow_nan=False))


def _as_value_error(value: Any) -> dict[str, Any]:
    try:
        return _json_object(value)
    except (TypeError, RecursionError) as error:
        raise ValueError from error


PositiveInt = Annotated[int, Field(gt=0), _expecting('a positive integer')]
NonNegativeInt = Annotated[int, Field(ge=0), _expecting('an integer, 0 or more')]
HiddenWidth = Annotated[int, Field(ge=0), _expecting('a positive integer (0 for a conv)')]
OddInt = Annotated[
    int, Field(gt=0), AfterValidator(_odd), _expecting('an odd positive integer, such as 3')
]
Stride = Annotated[Literal[1, 2], _expecting('1 or 2')]
Probability = Annotated[float, Field(ge=0, lt=1), _expecting('a number from 0 to below 1')]
Flag = Annotated[bool, _expecting('True or False')]
Name = Annotated[str, Field(min_length=1), _expecting('a name in quotes')]
Op = Annotated[Literal['conv', 'fused_irb', 'irb'], _expecting('"conv", "fused_irb" or "irb"')]
Act = Annotated[Literal['relu', 'swish'], _expecting('"relu" or "swish"')]
JsonObject = Annotated[
    dict, AfterValidator(_as_value_error), _expecting('a dict of finite JSON values')
]
# A list in a file or a config becomes a tuple: specs are hashable.
Many = Annotated[tuple[T, ...], Field(min_length=1, strict=False)]
Choices = Annotated[Many[T], AfterValidator(_distinct)]


class Spec(BaseModel):
    """An immutable description; unknown fields and values of a near type (``'3'``) are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra='forbid')

    @model_validator(mode='before')
    @classmethod
    def _known_fields(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = (
                    f'did you mean {close[0]}?'
                    if close
                    else 'known are ' + ', '.join(cls.model_fields)
                )
                raise problem((key,), f'unknown field, {hint}')
        # A plain dict: subclasses such as mmengine's ConfigDict convert what they hold on access.
        return dict(data.items())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = 'config'):
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
            raise SpecError(sentence(error, source)) from None


def sentence(error: ValidationError, source: str) -> str:
    """The first problem of a pydantic error in one sentence, and how many more there are."""
    details = error.errors(include_url=False)
    first = details[0]
    context = first.get('ctx', {})
    path = _path((*first['loc'], *_as_tuple(context.get('at', ()))))
    text = {
        'problem': lambda: context['text'],
        'missing': lambda: 'this field is missing',
        'too_short': lambda: 'found an empty list, expected at least one entry',
        'tuple_type': lambda: f'found {shown(first["input"])}, expected a list',
        'model_type': lambda: f'found {shown(first["input"])}, expected a dict',
    }.get(first['type'], lambda: f'found {shown(first["input"])}, {first["msg"].lower()}')()
    more = len(details) - 1
    tail = f' (and {more} more problem{"s" if more > 1 else ""})' if more else ''
    return f'{source}: {path}: {text}{tail}' if path else f'{source}: {text}{tail}'


def _as_tuple(at: str | tuple) -> tuple:
    return at if isinstance(at, tuple) else (at,)


def _path(location: tuple) -> str:
    """('layers', 3, 'hidden') -> 'layers[3].hidden'."""
    text = ''
    for part in location:
        text += f'[{part}]' if isinstance(part, int) else f'.{part}'
    return text.removeprefix('.')
