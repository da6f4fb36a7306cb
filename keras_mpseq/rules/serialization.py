"""SEQ1xx: the sequence has to reach other processes as a pickle."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class UnpicklableMember(Rule):
    """A member of the sequence does not pickle.

    ## What it does
    Finds lambdas, functions and classes defined in functions, generators and iterators that are stored on `self`, also inside lists and dicts.
    `check` pickles the sequence and names every member that refuses.

    ## Why it matters
    A worker gets the sequence as a pickle, unless it is forked.
    One such member is enough for `PicklingError` at the start of training.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = lambda x: x / 255

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.scale(self.x[index])
    ```

    ## Use instead
    ```python
    import functools

    import keras
    import numpy as np


    def scale(x, most):
        return x / most


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.scale = functools.partial(scale, most=255)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.scale(self.x[index])
    ```

    ## Known false alarms
    A lambda or a function of a function in a sequence that only `keras_mpseq` runs: it pickles them by value; workers of Keras have them only if forked.
    In a `SafeSequence`, which nobody else runs, only what that pickle refuses as well is reported.
    """

    code = "SEQ101"
    name = "unpicklable-member"
    severity = "error"
    core = True
    why = "workers get the sequence as a pickle, and this does not pickle"
    fix = "store a function of the module or a `functools.partial` of one, and make iterators where they are used"


class LockOrThreadMember(Rule):
    """A lock, queue, thread or executor is stored on the sequence.

    ## What it does
    Finds members made by `threading`, `queue`, `concurrent.futures` and `multiprocessing`.

    ## Why it matters
    They do not pickle.
    In a forked worker a lock is a copy: it protects nothing from other processes, and if a thread held it at the time of the fork, the worker waits for ever.
    Threads and executors do not live on after a fork.

    ## Example
    ```python
    import threading

    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.lock = threading.Lock()

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            with self.lock:
                return self.x[index]
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
    A class whose `__reduce__` leaves the lock out is not followed; `__getstate__` is.
    """

    code = "SEQ102"
    name = "lock-or-thread-member"
    severity = "error"
    core = True
    why = "it does not pickle, and in another process it is another lock, queue or thread"
    fix = "build batches without shared state, which needs no lock; or drop it in `__getstate__` and make it anew"


class UnimportableClass(Rule):
    """The class of the sequence cannot be imported in another process.

    ## What it does
    Finds sequence classes that are defined in a function.
    `check` also reports classes whose module and qualified name do not lead to them.

    ## Why it matters
    Pickle stores the name of a class, not its code.
    A worker that is not forked cannot find a class that exists only while a function runs.

    ## Example
    ```python
    import keras
    import numpy as np


    def make():
        class Batches(keras.utils.PyDataset):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.x = np.arange(32, dtype="float32").reshape(8, 4)

            def __len__(self):
                return len(self.x)

            def __getitem__(self, index):
                return self.x[index]

        return Batches()
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


    def make():
        return Batches()
    ```

    ## Known false alarms
    A class of a function, script or notebook that only `keras_mpseq` runs: it pickles them by value; workers of Keras have them only if forked.
    A `SafeSequence`, which nobody else runs, is not reported.
    """

    code = "SEQ103"
    name = "unimportable-class"
    severity = "error"
    core = True
    why = "pickle stores where a class is found, and workers find nothing there"
    fix = "define the class at the top level of a module"


class LossyPickle(Rule):
    """`__getstate__` drops what `__getitem__` needs.

    ## What it does
    Finds names that `__getstate__` leaves out, that no `__setstate__` restores, and that `__getitem__` reads without making them first.
    `check` sends the sequence through a pickle and compares batches.

    ## Why it matters
    The sequence works here and raises `AttributeError`, or gives other batches, in every worker.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.npy", **kwargs):
            super().__init__(**kwargs)
            self.path = path
            self.x = np.load(path)

        def __getstate__(self):
            state = dict(self.__dict__)
            state.pop("x")
            return state

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return self.x[index]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.npy", **kwargs):
            super().__init__(**kwargs)
            self.path = path
            self.x = np.load(path)

        def __getstate__(self):
            state = dict(self.__dict__)
            state.pop("x")
            return state

        def __setstate__(self, state):
            self.__dict__.update(state)
            self.x = np.load(self.path)

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return self.x[index]
    ```

    ## Known false alarms
    A name that a decorator or a metaclass provides is not seen.
    """

    code = "SEQ104"
    name = "lossy-pickle"
    severity = "error"
    stable = False
    why = "the sequence arrives in the worker without it"
    fix = "restore it in `__setstate__`, or make it on first use"


class UnguardedEntryPoint(Rule):
    """A script that defines the sequence trains without `if __name__ == "__main__"`.

    ## What it does
    Finds calls at the top level of a module, such as `model.fit(Batches())`, that start workers, in the file that defines the class.
    A `SafeSequence`, and what is called in `keras_mpseq`, is not reported: our workers do not import `__main__`.

    ## Why it matters
    A spawned worker imports the script to find the class in it.
    Without the guard it begins to train as well, and Python stops it with `RuntimeError`, or workers start workers.

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
            x = self.x[2 * index : 2 * index + 2]
            return x, x.sum(axis=1)


    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(Batches(), epochs=2)
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
            x = self.x[2 * index : 2 * index + 2]
            return x, x.sum(axis=1)


    if __name__ == "__main__":
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(loss="mse")
        model.fit(Batches(), epochs=2)
    ```

    ## Known false alarms
    Code that was exported from a notebook and runs in one process only.
    """

    code = "SEQ105"
    name = "unguarded-entry-point"
    severity = "error"
    core = True
    runtime = False
    why = "every spawned worker imports this file, and so runs this line"
    fix = 'put it under `if __name__ == "__main__":`'
