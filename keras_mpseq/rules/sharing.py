"""SEQ206 to SEQ210: state that is used up, handed out, read elsewhere, or kept once for each process."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class ConsumedIterator(Rule):
    """Building a batch takes the next item of an iterator or a queue.

    ## What it does
    Finds `next(self.source)`, `self.queue.get()`, `self.items.pop()` and loops over an iterator that is stored on `self`.

    ## Why it matters
    Every worker has its own copy of the position.
    With four workers each item comes four times and the rest never, and the batch of an index depends on how many were built before.
    Generators do not pickle either.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.rows = iter(list(self.x))

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return next(self.rows)
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
    ```

    ## Known false alarms
    An iterator that is made anew in each call is not reported.
    A method `get` or `pop` of a class of your own may not take anything away.
    """

    code = "SEQ206"
    name = "consumed-iterator"
    severity = "error"
    core = True
    why = "each process has its own position in it, so that items come several times and others never"
    fix = "keep what the iterator is made from, and take the items of this index"


class ReturnedBuffer(Rule):
    """Batches share one buffer of the sequence.

    ## What it does
    Finds an array on `self` that `__getitem__` fills and returns, or returns a part of.
    `check` looks whether a batch changes when the next one is built.

    ## Why it matters
    Keras keeps several batches in a queue.
    With threads, or in one process, building the next batch overwrites those that wait.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.buffer = np.zeros((2, 4), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            self.buffer[:] = self.x[index]
            return self.buffer
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
            buffer = np.zeros((2, 4), dtype="float32")
            buffer[:] = self.x[index]
            return buffer
    ```

    ## Known false alarms
    A buffer that is returned as a copy is not reported; a copy made by a function that cannot be followed is.
    In a `keras_mpseq.SafeSequence`, `self.empty(shape, dtype)` is a buffer that belongs to one batch.
    """

    code = "SEQ207"
    name = "returned-buffer"
    severity = "error"
    core = True
    why = "building the next batch overwrites this one while it waits to be used"
    fix = "allocate the array in each call, or return a copy"


class LostSideChannel(Rule):
    """What `__getitem__` stores is read where no worker is.

    ## What it does
    Finds attributes that are written while a batch is built, and that `on_epoch_end`, another method or a property reads for the training process.

    ## Why it matters
    The worker writes to its copy, and the training process reads its own, which never changes.
    Most often these are labels, file names or statistics, collected for a metric that then is wrong, without an error.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.seen = []

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            self.seen.append(index)
            return self.x[index]

        def report(self):
            return self.seen
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
            return self.x[index], np.array([index])
    ```

    ## Known false alarms
    A value that is put back before the call ends is reported as `warning`: threads see each other's.
    """

    code = "SEQ208"
    name = "lost-side-channel"
    severity = "error"
    core = True
    why = "the training process reads its own copy, which no worker writes to"
    fix = "return the value with the batch, or compute it from the index where it is needed"


class InplaceOnSourceView(Rule):
    """Building a batch changes the source data in place.

    ## What it does
    Finds `batch = self.x[a:b]` followed by `batch /= 255`, `out=batch`, `batch[...] = ...` or `batch.sort()`: a slice of an array is a view of it.
    `check` makes the arrays of the sequence read-only and names the line that writes.

    ## Why it matters
    The second epoch begins with data that the first one has changed.
    A worker that starts anew, or has built fewer batches, has other data than the rest.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            batch = self.x[2 * index : 2 * index + 2]
            batch /= 255
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
            return 4

        def __getitem__(self, index):
            return self.x[2 * index : 2 * index + 2] / 255
    ```

    ## Known false alarms
    Sources other than NumPy arrays, such as h5py datasets and lists, give a copy when they are sliced.
    """

    code = "SEQ209"
    name = "inplace-on-source-view"
    severity = "error"
    why = "the slice is a view, so that the next epoch begins with data that this one changed"
    fix = "compute a new array, or take a copy before changing it"


class PerProcessCache(Rule):
    """A cache is filled once for each process.

    ## What it does
    Finds containers that are filled if a key is missing, attributes that are made if they are None, and functions under `functools.cache` or `lru_cache`, where `__getitem__` gets to them.

    ## Why it matters
    Batches are right.
    Memory is that of the cache times the number of workers, each worker fills its own, and Keras's workers begin with an empty one in each epoch.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.cache = {}

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            if index not in self.cache:
                self.cache[index] = np.sqrt(self.x[index])
            return self.cache[index]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            x = np.arange(32, dtype="float32").reshape(8, 4)
            self.roots = np.sqrt(x)

        def __len__(self):
            return len(self.roots)

        def __getitem__(self, index):
            return self.roots[index]
    ```

    ## Known false alarms
    A cache of a few small values costs nothing; suppress the rule there, with the reason.
    A resource that is opened on first use is better a `keras_mpseq.per_worker`.
    """

    code = "SEQ210"
    name = "per-process-cache"
    severity = "info"
    core = True
    why = "every process fills a cache of its own, and memory grows with the number of workers"
    fix = "compute it before training, keep it on disk, or accept it if it is small"
