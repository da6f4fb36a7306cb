"""SEQ601 to SEQ603: memory that each process takes for itself, and files opened too often."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class HeavyState(Rule):
    """Pickling the sequence copies a large file or array.

    ## What it does
    Finds `np.memmap`, `np.load(..., mmap_mode=...)` and large literals on `self`.
    `check` measures the pickle by attribute and reports those of 64 MiB and more.

    ## Why it matters
    A memmap pickles as the whole array that it maps, not as its path: each worker that is not forked gets a copy of the file in memory.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.npy", **kwargs):
            super().__init__(**kwargs)
            self.x = np.load(path, mmap_mode="r")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return np.array(self.x[index])
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np

    from keras_mpseq import per_worker


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.npy", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        @per_worker
        def x(self):
            return np.load(self.path, mmap_mode="r")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return np.array(self.x[index])
    ```

    ## Known false alarms
    Workers of `keras_mpseq` get a memmap by its path and large arrays through shared memory, so that nothing is copied for them; those of Keras do not.
    """

    code = "SEQ601"
    name = "heavy-state"
    severity = "warning"
    core = True
    why = "every worker that is not forked gets a copy of it through a pipe"
    fix = "store the path and open it in each process with `keras_mpseq.per_worker`"


class RefcountCopyOnWrite(Rule):
    """The sequence holds more than a million Python objects.

    ## What it does
    `check` counts the objects that the sequence reaches.

    ## Why it matters
    Reading an object changes its reference count, and so the page of memory that it lies on.
    A forked worker shares memory only until it reads it: after one epoch each has a copy of its own.
    To be pickled, each object is visited, which takes seconds.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.names = [f"{k:07}.png" for k in range(1_200_000)]

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            return np.array([int(self.names[index][:7])])
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.names = np.array([f"{k:07}.png" for k in range(1_200_000)])

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            return np.array([int(self.names[index][:7])])
    ```

    ## Known false alarms
    With workers that are not forked, memory is not shared in the first place; the time to pickle remains.
    """

    code = "SEQ602"
    name = "refcount-copy-on-write"
    severity = "info"
    stable = False
    static = False
    why = "forked workers copy the memory of every object that they read"
    fix = "keep many small values in one NumPy array"


class PerSampleOpen(Rule):
    """A file is opened once for each sample.

    ## What it does
    Finds HDF5 files, archives and connections that a helper opens, where `__getitem__` calls the helper in a loop.
    `check` counts how often a batch opens the same file.

    ## Why it matters
    Opening such a file reads its index, which takes milliseconds; a batch of 64 samples does it 64 times.

    ## Example
    ```python
    import h5py
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.h5", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        def row(self, number):
            with h5py.File(self.path, "r") as file:
                return file["x"][number]

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.stack([self.row(4 * index + k) for k in range(4)])
    ```

    ## Use instead
    ```python
    import h5py
    import keras


    class Batches(keras.utils.PyDataset):
        def __init__(self, path="rows.h5", **kwargs):
            super().__init__(**kwargs)
            self.path = path

        def __len__(self):
            return 2

        def __getitem__(self, index):
            with h5py.File(self.path, "r") as file:
                return file["x"][4 * index : 4 * index + 4]
    ```

    ## Known false alarms
    One small file for each sample, such as an image, is as it should be, and is not reported.
    """

    code = "SEQ603"
    name = "per-sample-open"
    severity = "warning"
    core = True
    why = "a batch opens the same file as often as it has samples"
    fix = "open it once for each batch, or once for each process with `keras_mpseq.per_worker`"
