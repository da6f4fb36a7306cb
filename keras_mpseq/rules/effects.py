"""SEQ306 to SEQ309: what building a batch does besides returning it, and what was done before workers start."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class NestedParallelism(Rule):
    """Building a batch starts processes or threads.

    ## What it does
    Finds pools of `multiprocessing`, executors, `threading.Thread` and `joblib.Parallel` in `__getitem__` and in all that it calls.

    ## Why it matters
    Four workers with four threads each are sixteen on four cores, and are slower than four.
    Workers of Keras are daemons, which may not start processes: a pool raises there.

    ## Example
    ```python
    from concurrent.futures import ThreadPoolExecutor

    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            with ThreadPoolExecutor(4) as threads:
                return np.stack(list(threads.map(np.sqrt, self.x[index])))
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
    Threads that only wait, for a network for instance, do not compete for cores.
    """

    code = "SEQ306"
    name = "nested-parallelism"
    severity = "warning"
    core = True
    why = "workers that are parallel themselves compete for the same cores, and daemons may not start processes"
    fix = "build one batch without helpers, and let the number of workers be the parallelism"


class SharedWriteTarget(Rule):
    """Building a batch writes to a file that all batches share.

    ## What it does
    Finds `np.save`, `to_csv`, `imwrite`, `open(..., "w")` and their like, with a path that does not contain the index, in `__getitem__` and in all that it calls.

    ## Why it matters
    Workers write at the same time: lines are cut in two, and the last one to write wins.
    If a worker dies, its batch is built and written twice.

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
            np.save("last.npy", self.x[index])
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
    A path that is unique for another reason, such as a name that is drawn for each call.
    A write that an option switches off, if the option is not a constant.
    """

    code = "SEQ307"
    name = "shared-write-target"
    severity = "warning"
    core = True
    why = "several workers write to the same file at the same time"
    fix = "write in a callback, or to a file that is named after the index"


class ConsoleSideEffect(Rule):
    """Building a batch prints.

    ## What it does
    Finds `print`, progress bars, and handlers of `logging` in `__getitem__` and in all that it calls.

    ## Why it matters
    Lines of several workers and the progress bar of `fit` run into each other.
    What is printed by workers of a notebook server goes to its terminal, not to the notebook.

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
            print("batch", index)
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
    A warning that is printed once because something is wrong with the data.
    """

    code = "SEQ308"
    name = "console-side-effect"
    severity = "info"
    core = True
    why = "lines of several workers run into each other and into the progress bar"
    fix = "report from a callback, or log to the handlers of the training process"


class ThreadsBeforeFork(Rule):
    """Workers are forked from a process that has threads.

    ## What it does
    `check` reports a process that would fork, by its start method, and in which other threads run, those of TensorFlow or JAX for instance.

    ## Why it matters
    Only the thread that forks lives on in the child.
    A lock that another one holds at that moment is held for ever, and the worker hangs: rarely, and not where somebody looks.

    ## Example
    ```python
    import multiprocessing

    import keras
    import numpy as np
    import tensorflow as tf

    tf.zeros(1)
    multiprocessing.set_start_method("fork", force=True)


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index]
    ```

    ## Use instead
    ```python
    import multiprocessing

    import keras
    import numpy as np

    multiprocessing.set_start_method("forkserver", force=True)


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
    Threads that never hold a lock that a worker takes.
    Workers of `keras_mpseq` are not forked from the training process.
    """

    code = "SEQ309"
    name = "threads-before-fork"
    severity = "warning"
    stable = False
    static = False
    why = "a lock that another thread holds at the moment of the fork is held in the worker for ever"
    fix = "use the start method `forkserver` or `spawn`, or the workers of `keras_mpseq`"
