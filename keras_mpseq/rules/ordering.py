"""SEQ405 to SEQ409: orders and inputs that differ from run to run or from process to process."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class UnreproducibleOrder(Rule):
    """The order of an epoch cannot be repeated.

    ## What it does
    Finds `np.random.shuffle`, `random.shuffle`, `permutation` and `sample` from a global or unseeded generator in `__init__`, `on_epoch_end` and what they call.

    ## Why it matters
    Batches are right, and all workers get the same order, because it is made in the training process.
    But a run cannot be repeated, and training that was interrupted cannot go on where it was.

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
            return self.x[self.order[index]]

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
    A script that seeds the global generator at its start, and in which nothing else draws from it.
    """

    code = "SEQ405"
    name = "unreproducible-order"
    severity = "info"
    core = True
    runtime = False
    why = "a run cannot be repeated, nor be continued where it was interrupted"
    fix = "make the order from the seed and the number of the epoch, or pass `shuffle=True` to the pipeline"


class AmbientInput(Rule):
    """A batch depends on the time, the process, the environment or an address.

    ## What it does
    Finds `time.time`, `datetime.now`, `uuid4`, `os.getpid`, `os.urandom`, `os.environ`, `hash()` of a string and `id()` where their value flows into what `__getitem__` returns.
    Times that are only logged are not reported.

    ## Why it matters
    Each worker has another value, and each run as well: the batch of an index is another one whenever it is built.

    ## Example
    ```python
    import os

    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index], np.array([os.getpid()])
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
    A batch that is meant to hold the time at which it was built.
    """

    code = "SEQ406"
    name = "ambient-input"
    severity = "warning"
    why = "each worker and each run has another value, so that the batch of an index is never the same"
    fix = "read it once in `__init__` and store it, or derive it from the index"


class UnorderedSource(Rule):
    """The order of the samples is that of a directory listing or a set.

    ## What it does
    Finds `os.listdir`, `glob.glob`, `Path.iterdir`, `Path.glob` and loops over sets, without `sorted`, in the constructor and where batches are built.

    ## Why it matters
    A directory is listed in another order on another machine, and the elements of a set of strings come in another order in each process.
    Labels and samples then do not match between machines, workers or runs, and nothing says so.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.texts = ["the cat sat down", "where is the dog", "a bird sings now", "it will rain today"]

        def __len__(self):
            return len(self.texts)

        def __getitem__(self, index):
            return np.array([len(word) for word in set(self.texts[index].split())])
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.texts = ["the cat sat down", "where is the dog", "a bird sings now", "it will rain today"]

        def __len__(self):
            return len(self.texts)

        def __getitem__(self, index):
            return np.array([len(word) for word in sorted(set(self.texts[index].split()))])
    ```

    ## Known false alarms
    A listing of which only the number of entries is used, or that is sorted in another place.
    A set of ints has the same order everywhere.
    """

    code = "SEQ407"
    name = "unordered-source"
    severity = "warning"
    core = True
    why = "the order differs between machines, and for a set of strings between processes"
    fix = "sort it: `sorted(...)`"


class IndexIgnored(Rule):
    """`__getitem__` does not read its index.

    ## What it does
    Finds `__getitem__` methods in which the index is never read.
    `check` compares batches of different indices under the same seed.

    ## Why it matters
    Then the batch comes from somewhere else: from chance, an iterator, or a position on `self`.
    An epoch does not see each sample once, and in workers samples come several times.

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
            rows = np.random.randint(0, len(self.x), size=2)
            return self.x[rows]
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
            rows = np.random.default_rng((0, index)).integers(0, len(self.x), size=2)
            return self.x[rows]
    ```

    ## Known false alarms
    A sequence for tests, whose batches are all the same on purpose; one that does nothing but return members or literals is not reported.
    """

    code = "SEQ408"
    name = "index-ignored"
    severity = "warning"
    core = True
    why = "the batch does not follow from the index, so that samples repeat and others are left out"
    fix = "take the samples of this index, or key a generator by it"


class OrderDependentBatch(Rule):
    """A batch depends on which batches were built before it.

    ## What it does
    `check` builds the same batches in two orders, in separate processes with the same seeds, and compares them bit for bit.

    ## Why it matters
    Workers build batches in an order that nobody can foresee.
    So the same code gives other batches with each number of workers, and in each run.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.position = 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            self.position = (self.position * 31 + index) % 7
            return self.x[self.position]
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
            return self.x[index * 31 % 7]
    ```

    ## Known false alarms
    None are known: what was seen is named.
    Floating-point sums that a library adds up in another order differ in the last bits.
    """

    code = "SEQ409"
    name = "order-dependent-batch"
    severity = "error"
    static = False
    why = "workers build batches in any order, and this batch is another one then"
    fix = "make the batch follow from the index, the seed and the epoch alone"
