"""The base of our callbacks: Keras's own, with the types that Keras does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:

    class Callback:
        """As type checkers see it."""

        model: Any
        params: Any

else:
    Callback = keras.callbacks.Callback
