"""SEQ506 to SEQ510: calls and methods that once worked, were misspelled, or have no effect."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class LegacyFitArguments(Rule):
    """`fit` is called in the way of Keras 2.

    ## What it does
    Finds `workers=`, `use_multiprocessing=` and `max_queue_size=` in calls of `fit`, `evaluate` and `predict`; and calls of `fit_generator`, `evaluate_generator` and `predict_generator`.

    ## Why it matters
    In Keras 3 these methods have no such arguments: the call raises `TypeError`.
    Those with `_generator` in their names are gone: `fit`, `evaluate` and `predict` take sequences and generators.

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
            return self.x[index]


    def train(model):
        model.fit(Batches(), workers=4, use_multiprocessing=True)
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
            return self.x[index]


    def train(model):
        model.fit(Batches(workers=4, use_multiprocessing=True))
    ```

    ## Known false alarms
    A `fit` that is not that of Keras: `keras_mpseq.fit` and `tf_keras` take these arguments, and are not reported.
    Nor are calls in files that import `tf_keras`, or import what does, and of methods that a class of the project has under that name, with that argument.
    """

    code = "SEQ506"
    name = "legacy-fit-arguments"
    severity = "error"
    runtime = False
    why = "`fit`, `evaluate` and `predict` of Keras 3 take no workers, `fit_generator` and its like are gone: it raises"
    fix = "call `fit`, `evaluate` or `predict`, and pass workers to the constructor of the sequence"


class UninitialisedRows(Rule):
    """A batch may hold memory that was never written.

    ## What it does
    Finds `np.empty` whose rows are filled under a condition without an `else`, or in a loop that may end early, and that is returned.
    `check` fills free memory with different bytes in two processes and compares batches.

    ## Why it matters
    A row that is left out holds whatever was in that memory: the sample of another batch, or numbers like 1e308, which make the loss NaN now and then.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.rows = [None if k % 3 == 0 else np.full(4, k) for k in range(8)]

        def __len__(self):
            return 4

        def __getitem__(self, index):
            batch = np.empty((2, 4), dtype="float32")
            for k in range(2):
                row = self.rows[2 * index + k]
                if row is not None:
                    batch[k] = row
            return batch
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.rows = [None if k % 3 == 0 else np.full(4, k) for k in range(8)]

        def __len__(self):
            return 4

        def __getitem__(self, index):
            batch = np.zeros((2, 4), dtype="float32")
            for k in range(2):
                row = self.rows[2 * index + k]
                if row is not None:
                    batch[k] = row
            return batch
    ```

    ## Known false alarms
    A condition that is always true, and rows that are cut off before the batch is returned.
    """

    code = "SEQ507"
    name = "uninitialised-rows"
    severity = "error"
    core = True
    why = "rows that are left out hold what was in that memory before"
    fix = "use `np.zeros`, fill the other rows in an `else`, or raise"


class SwallowedError(Rule):
    """An error while a batch is built is caught and hidden.

    ## What it does
    Finds `except:` and `except Exception:` in `__getitem__` and in all that it calls, whose body neither raises nor returns nor goes on with another sample.

    ## Why it matters
    The batch that comes out is None, half filled, or that of the call before.
    Keras drops None without a word: an epoch is shorter than it should be, and the model never sees some of the data.

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
            try:
                batch = np.sqrt(self.x[index + 1])
            except Exception:
                batch = None
            return batch
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
            return np.sqrt(self.x[index])
    ```

    ## Known false alarms
    A handler that puts a valid sample in the place of the broken one by a call that cannot be followed.
    To leave out bad batches on purpose, pass `on_error="skip"` to `keras_mpseq.to_dataset`.
    """

    code = "SEQ508"
    name = "swallowed-error"
    severity = "error"
    core = True
    why = "the batch is dropped or wrong, and nothing says so"
    fix = "catch the one exception you expect, and raise the others"


class MisspelledHook(Rule):
    """A method has nearly the name of a hook.

    ## What it does
    Finds methods such as `onEpochEnd`, `on_epoch_finish` and `__getItem__` in a sequence class, whose name differs a little from one that Keras calls.

    ## Why it matters
    Nobody calls it: the data is never shuffled, and nothing fails.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = 1

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] * self.scale

        def onEpochEnd(self):
            self.scale += 1
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = 1

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] * self.scale

        def on_epoch_end(self):
            self.scale += 1
    ```

    ## Known false alarms
    A method of that name that your own code calls.
    """

    code = "SEQ509"
    name = "misspelled-hook"
    severity = "warning"
    core = True
    runtime = False
    why = "Keras does not call it"
    fix = "give it the name of the hook"


class DeadEpochState(Rule):
    """What `on_epoch_end` changes, no batch reads.

    ## What it does
    Finds attributes that are shuffled or assigned in `on_epoch_end` and that neither `__getitem__` nor anything it calls reads, and shuffles of a temporary, such as `np.random.shuffle(list(self.ids))`.

    ## Why it matters
    The epoch is meant to be shuffled, and all epochs come in the same order.
    It was found in the training code of several published models.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.order = np.arange(len(self.x))

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index]

        def on_epoch_end(self):
            np.random.shuffle(self.order)
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.epoch = 0
            self.order = np.arange(len(self.x))

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[self.order[index]]

        def on_epoch_end(self):
            self.epoch += 1
            self.order = np.random.default_rng((0, self.epoch)).permutation(len(self.x))
    ```

    ## Known false alarms
    An attribute that other code reads, such as a callback or a log.
    """

    code = "SEQ510"
    name = "dead-epoch-state"
    severity = "warning"
    core = True
    runtime = False
    why = "all epochs are the same, although they are meant to differ"
    fix = "read it in `__getitem__`, or delete it"
