"""How operations become methods and functions: typed by their own parameters, without a line written twice.

A `ParamSpec` carries an operation's signature through, so editors and type checkers see `create_batch(...) -> Batch`
and `acreate_batch(...) -> Coroutine[..., Batch]` although only `calls.create_batch` is written. That is less than
generated twins or `.pyi` files, which would need a generator and a check that they are fresh. For `help()` and
`inspect` the common options, one TypedDict in the source, are unfolded into the signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from batchway.sdk.call import Options

P = ParamSpec("P")
D = TypeVar("D")
R = TypeVar("R")
Self_ = TypeVar("Self_")


def method(operation: Callable[P, D], do: Callable[[Self_, D], R]) -> Callable[Concatenate[Self_, P], R]:
    """A method that has the operation's parameters and does its data."""

    def made(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return do(self, operation(*args, **kwargs))

    return _presented(made, operation, operation.__name__, of_a_class=True)


def function(
    operation: Callable[P, D], do: Callable[[Self_, D], R], choose: Callable[[D], Self_], name: str
) -> Callable[P, R]:
    """A function `name` that has the operation's parameters; `choose` finds the client that does its data."""

    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        data = operation(*args, **kwargs)
        return do(choose(data), data)

    return _presented(made, operation, name)


def _presented(made: Any, operation: Callable[..., Any], name: str, *, of_a_class: bool = False) -> Any:
    signature = inspect.signature(operation)
    parameters = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    if len(parameters) < len(signature.parameters):
        parameters += [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for option, annotation in Options.__annotations__.items()
        ]
    if of_a_class:
        parameters.insert(0, inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY))
        made.__qualname__ = name
    made.__name__ = name
    made.__doc__ = operation.__doc__
    # What is awaited or iterated differs from the operation's own answer, a Call: the return annotation would mislead.
    made.__signature__ = inspect.Signature(parameters)
    return made
