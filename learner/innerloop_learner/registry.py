"""Registries, which give names to methods, backbones, norms, update rules, objectives and other exchangeable parts.

    >>> shapes: Registry[type] = Registry("shape", "innerloop.shapes")
    >>> @shapes.register("circle")
    ... class Circle: ...
    >>> list(shapes), shapes["circle"].__name__
    (['circle'], 'Circle')
    >>> shapes["square"]
    Traceback (most recent call last):
        ...
    innerloop_learner.registry.UnknownNameError: unknown shape 'square'; there are: circle

Third parties add theirs through entry points. A distribution that registers a method declares::

    [project.entry-points."innerloop.methods"]
    my_method = "my_package.my_method:MyMethod"
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """Nothing is registered under a name."""


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: word for one entry in messages, in the singular; kept as an attribute.
        group: entry-point group that third parties register under; kept as an attribute.
        home: module whose import registers Innerloop's own entries; None if they are imported with the registry.
    """

    def __init__(self, kind: str, group: str, home: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._home = home
        self._entries: dict[str, T] = {}
        self._points: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters what it decorates under `name`.

        Raises:
            ValueError: the name is taken.
        """

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: nothing has this name; the message lists what there is.
        """
        self._import_home()
        if name not in self._entries:
            if name not in self._installed():
                raise UnknownNameError(f"unknown {self.kind} {name!r}; there are: {', '.join(self)}")
            entry = self._installed()[name].load()
            self._entries.setdefault(name, entry)  # the module may have entered it by the decorator too
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Names in alphabetical order."""
        self._import_home()
        return iter(sorted(self._entries.keys() | self._installed().keys()))

    def _import_home(self) -> None:
        if self._home is not None:
            import_module(self._home)

    def _installed(self) -> dict[str, EntryPoint]:
        """Entry points of other distributions. Each is imported when it is looked up: a broken one harms no other."""
        if self._points is None:
            self._points = {point.name: point for point in entry_points(group=self.group)}
        return self._points
