"""Constructor arguments in, the same arguments out."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from typing import Any

    from .types import Config


class ArgumentsConfig:
    """Derives `get_config` and `from_config` from the signature of `__init__`.

    Every argument is read back from the attribute of its own name; Keras objects among them, alone
    or in a list, are serialized and revived.
    """

    def get_config(self) -> Config:
        """Returns the constructor's arguments."""
        config = self._base_config()
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                config[name] = keras.saving.serialize_keras_object(self._argument(name))
        return config

    def _base_config(self):
        return super().get_config()

    def _argument(self, name):
        value = getattr(self, name)
        return list(value) if isinstance(value, (list, tuple)) else value

    @classmethod
    def from_config(cls, config: Config) -> Any:
        """Builds the object from what `get_config` returned."""
        return cls(**{name: _revive(value) for name, value in config.items()})


def _revive(value):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    if isinstance(value, list):
        return [_revive(item) for item in value]
    return value
