"""SEQ501 to SEQ505: what Keras expects of a sequence, and finds out late or never."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class BadReturn(Rule):
    """`__getitem__` returns what is not a batch.

    ## What it does
    Finds `__getitem__` methods without a `return` on some way to the end, those that return None or yield, and tuples of more than three parts.
    `check` also reports leaves that no array can be made from.

    ## Why it matters
    Keras takes None for the end of the epoch or leaves the batch out; a fourth part of a tuple is refused only when training begins.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.y = np.zeros((8, 4), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            self.x[index], self.y[index]
            return None
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.y = np.zeros((8, 4), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index], self.y[index]
    ```

    ## Known false alarms
    A sequence that is read by a loop of your own, which expects something else than `fit` does.
    """

    code = "SEQ501"
    name = "bad-return"
    severity = "error"
    core = True
    why = "Keras leaves such a batch out, or refuses it when training has begun"
    fix = "return `x`, `(x, y)` or `(x, y, sample_weight)`, made of arrays"


class UnstableSignature(Rule):
    """Batches differ in structure, dtype or rank, or their parts in the number of samples.

    ## What it does
    `check` compares the batches of several indices, and the parts of each batch.

    ## Why it matters
    `tf.data`, and the shared memory that batches travel through, are laid out for the first batch.
    Another dtype makes TensorFlow compile the model again, or raises in the middle of an epoch.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index].astype("float32" if index else "float64")
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index].astype("float32")
    ```

    ## Known false alarms
    None are known.
    Dimensions may differ from batch to batch; their number may not.
    """

    code = "SEQ502"
    name = "unstable-signature"
    severity = "error"
    static = False
    why = "the first batch decides how all travel, and another one fails in the middle of an epoch"
    fix = "give each part the same dtype and number of dimensions in every batch"


class BadLength(Rule):
    """`len()` of the sequence is not the number of its batches.

    ## What it does
    Finds `__len__` methods that return 0, None or a float, as `/` does.
    `check` also asks for the last batch, for one beyond it, and for the length twice.

    ## Why it matters
    Keras asks for batches 0 to `len() - 1`.
    With a length that is too small samples are left out in every epoch; with one that is too large the last batch is empty or raises, when the epoch is nearly over.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x) / 2

        def __getitem__(self, index):
            return self.x[2 * index : 2 * index + 2]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x) // 2

        def __getitem__(self, index):
            return self.x[2 * index : 2 * index + 2]
    ```

    ## Known false alarms
    A sequence that is empty until data is added to it.
    """

    code = "SEQ503"
    name = "bad-length"
    severity = "error"
    core = True
    why = "Keras asks for the batches 0 to `len() - 1`, and `len()` takes an int that is not negative"
    fix = "return the number of batches: `-(-samples // batch_size)` with the last partial one, `samples // batch_size` without"


class OverlappingOrMissing(Rule):
    """Batches overlap, or leave samples out.

    ## What it does
    Finds slices `[index : index + batch_size]`, which begin a batch one sample after the last one, not one batch.
    `check` compares the rows of neighbouring batches: half or more at the end of one, again at the beginning of the next.
    Rows that no batch has are not looked for: a part of the data may be left out on purpose, for validation.

    ## Why it matters
    An epoch of four batches of two samples then has five different samples instead of eight, and nothing fails.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, batch_size=2, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.batch_size = batch_size

        def __len__(self):
            return len(self.x) // self.batch_size

        def __getitem__(self, index):
            return self.x[index : index + self.batch_size]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, batch_size=2, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.batch_size = batch_size

        def __len__(self):
            return len(self.x) // self.batch_size

        def __getitem__(self, index):
            start = index * self.batch_size
            return self.x[start : start + self.batch_size]
    ```

    ## Known false alarms
    Windows over a time series overlap on purpose: suppress the rule with that reason.
    """

    code = "SEQ504"
    name = "overlapping-or-missing"
    severity = "error"
    core = True
    why = "neighbouring batches share samples, and the last samples never come"
    fix = "multiply the index by the batch size: `start = index * batch_size`"


class MissingSuperInit(Rule):
    """The constructor does not call that of its base class.

    ## What it does
    Finds sequence classes whose `__init__` does not call `super().__init__`.

    ## Why it matters
    `PyDataset` sets `workers`, `use_multiprocessing` and `max_queue_size` there.
    Without it these options are lost, and Keras warns or fails when training begins.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, scale=1):
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = scale

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] * self.scale
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, scale=1, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = scale

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] * self.scale
    ```

    ## Known false alarms
    A base class that calls it in another method.
    """

    code = "SEQ505"
    name = "missing-super-init"
    severity = "warning"
    why = "`workers`, `use_multiprocessing` and `max_queue_size` are set there, and are lost"
    fix = "take `**kwargs` and begin with `super().__init__(**kwargs)`"
