"""Models by name. A file in this folder registers its class; nothing else has to know of it."""

from __future__ import annotations

import importlib
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

    @property
    def key(self) -> str:
        return f"{self.family}:{self.name}"

    @property
    def module(self) -> str:
        return self.model_class.__module__


class ModelRegistry:
    """Keys are `family:name`; a short name resolves when only one family has it.

    Listing imports the files of this folder, which import no ML library before they are asked to fit.
    """

    _models: ClassVar[dict[str, ModelMetadata]] = {}
    _discovered: ClassVar[bool] = False

    @classmethod
    def register(cls, name: str, family: str, description: str, requires_gpu: bool = False) -> Callable[[M], M]:
        """Class decorator.

        Raises:
            ModelError: the key is taken by another class, or the class is no BaseModel.
        """

        def add(model_class: M) -> M:
            if not (isinstance(model_class, type) and issubclass(model_class, BaseModel)):
                raise ModelError(f"{family}:{name}: expected a subclass of BaseModel, got {model_class!r}")
            metadata = ModelMetadata(name, family, description, requires_gpu, model_class)
            present = cls._models.get(metadata.key)
            if present and _identity(present.model_class) != _identity(model_class):  # a module may be loaded again
                raise ModelError(f"{metadata.key}: already registered by {present.module}; choose another name")
            cls._models[metadata.key] = metadata
            return model_class

        return add

    @classmethod
    def list_models(cls, family: str | None = None) -> list[str]:
        """The names of all models, or of a family's, sorted.

        Raises:
            ModelError: there is no such family (names the known ones).
        """
        cls._discover()
        families = {m.family for m in cls._models.values()}
        if family is not None and family not in families:
            raise ModelError(f"unknown family '{family}'; known families: {', '.join(sorted(families))}")
        return sorted(m.name for m in cls._models.values() if family in (None, m.family))

    @classmethod
    def get_metadata(cls, name: str) -> ModelMetadata:
        """Look a model up by `family:name` or by its short name.

        Raises:
            ModelError: unknown (names the nearest known) or in several families (names them).
        """
        cls._discover()
        if name in cls._models:
            return cls._models[name]
        found = [m for m in cls._models.values() if m.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(f"model '{name}' is ambiguous; say one of {', '.join(sorted(m.key for m in found))}")
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
        metadata = cls.get_metadata(name)
        model = metadata.model_class(config, horizon, feature_columns)
        if model.config.model_name != metadata.name:
            raise ModelError(f"{metadata.name}: its config is that of '{model.config.model_name}'; give it its own")
        return model

    @classmethod
    def _discover(cls) -> None:
        if cls._discovered:
            return
        import barcast.models as package

        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_") and module.name not in _SHARED:
                importlib.import_module(f"{package.__name__}.{module.name}")
        cls._discovered = True


def _identity(model_class: type) -> tuple[str, str]:
    return model_class.__module__, model_class.__qualname__
