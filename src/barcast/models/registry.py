"""Models by name: every class in this folder with a `name` and a `family`; nothing else needs to know it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from barcast.config import nearest
from barcast.errors import ModelError
from barcast.models.base import BaseModel, ModelConfig

_SHARED = {"base", "registry"}

M = TypeVar("M", bound=type[BaseModel])


@dataclass(frozen=True)
class ModelMetadata:
    """What is known of a model without creating it."""

    name: str
    family: str
    description: str
    requires_gpu: bool
    model_class: type[BaseModel]

    @classmethod
    def of(cls, key: str, model_class: type[BaseModel]) -> ModelMetadata:
        """Read it from a class and its `family:name`; the first line of the docstring is the description."""
        family, _, name = key.partition(":")
        description = (inspect.getdoc(model_class) or "").partition("\n")[0].removesuffix(".")
        return cls(name, family, description, model_class.requires_gpu, model_class)

    @property
    def key(self) -> str:
        return f"{self.family}:{self.name}"

    @property
    def module(self) -> str:
        return self.model_class.__module__


class ModelRegistry:
    """Keys are `family:name`; a short name resolves when only one family has it.

    Listing imports the files of this folder, which import no ML library until they are asked to fit.
    """

    _discovered: ClassVar[bool] = False

    @classmethod
    def register(cls, name: str, family: str, description: str, requires_gpu: bool = False) -> Callable[[M], M]:
        """Class decorator for a model outside this folder. It sets the class attributes `name` and `family`.

        Raises:
            ModelError: the key is taken by another class, or the class is no BaseModel.
        """

        def add(model_class: M) -> M:
            if not (isinstance(model_class, type) and issubclass(model_class, BaseModel)):
                raise ModelError(f"{family}:{name}: expected a subclass of BaseModel, got {model_class!r}")
            model_class.name, model_class.family, model_class.requires_gpu = name, family, requires_gpu
            model_class.__doc__ = f"{description}\n\n{inspect.getdoc(model_class) or ''}"
            model_class.enroll()
            return model_class

        return add

    @classmethod
    def list_models(cls, family: str | None = None) -> list[str]:
        """The names of all models, or of a family's, sorted.

        Raises:
            ModelError: there is no such family (names the known ones).
        """
        cls._discover()
        pairs = [key.split(":") for key in BaseModel.registered]
        families = {own for own, _ in pairs}
        if family is not None and family not in families:
            raise ModelError(f"unknown family '{family}'; known families: {', '.join(sorted(families))}")
        return sorted(name for own, name in pairs if family in (None, own))

    @classmethod
    def get_metadata(cls, name: str) -> ModelMetadata:
        """Look a model up by `family:name` or by its short name.

        Raises:
            ModelError: unknown (names the nearest known) or in several families (names them).
        """
        cls._discover()
        found = [key for key in BaseModel.registered if name in (key, key.partition(":")[2])]
        if len(found) == 1:
            return ModelMetadata.of(found[0], BaseModel.registered[found[0]])
        if found:
            raise ModelError(f"model '{name}' is ambiguous; use one of {', '.join(sorted(found))}")
        close = nearest(name, cls.list_models())
        hint = f"did you mean '{close}'?" if close else f"known models: {', '.join(cls.list_models())}"
        raise ModelError(f"unknown model '{name}'; {hint}")

    @classmethod
    def create(
        cls, name: str, config: ModelConfig | Mapping[str, Any], horizon: int, feature_columns: list[str]
    ) -> BaseModel:
        """A new, unfitted model.

        Raises:
            ModelError: the model is unknown, or the config is another model's.
        """
        return cls.get_metadata(name).model_class(config, horizon, feature_columns)

    @classmethod
    def _discover(cls) -> None:
        if cls._discovered:
            return
        import barcast.models as package

        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_") and module.name not in _SHARED:
                importlib.import_module(f"{package.__name__}.{module.name}")
        cls._discovered = True
