"""SEQ604 to SEQ606: batches that are right, and take longer than they need to."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class WideDtype(Rule):
    """A batch has float64 or int64 where half would do.

    ## What it does
    `check` reports float64 and int64 leaves of batches.

    ## Why it matters
    Layers of Keras compute in float32.
    A float64 batch takes twice the memory and time to travel, and is converted at the end.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="uint8").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] / 255.0
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="uint8").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return (self.x[index] / 255).astype("float32")
    ```

    ## Known false alarms
    A model that computes in float64, and ids that need 64 bits.
    """

    code = "SEQ604"
    name = "wide-dtype"
    severity = "info"
    stable = False
    static = False
    why = "the batch takes twice the memory and time, and Keras converts it to float32"
    fix = "return float32, or uint8 and scale in the model"


class TransportBound(Rule):
    """Sending a batch takes longer than building it.

    ## What it does
    `check` measures both, in one process and between two.

    ## Why it matters
    Workers then make training slower: the training process waits for copies instead of for the work.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.zeros((4, 1_000_000), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.random.default_rng(0).normal(size=(4, 200, 200)).astype("float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return np.linalg.svd(self.x[index], compute_uv=False)
    ```

    ## Known false alarms
    A sequence that reads from a disk or a network whose files were in the cache when they were measured.
    """

    code = "SEQ605"
    name = "transport-bound"
    severity = "info"
    stable = False
    static = False
    why = "copying batches between processes costs more than the workers save"
    fix = "use `workers=0`, return smaller dtypes, or do more of the work in the sequence"


class ThreadOversubscription(Rule):
    """Workers times their threads are more than there are cores.

    ## What it does
    `check` multiplies the number of workers by the threads that NumPy's and OpenCV's libraries start in each.

    ## Why it matters
    Each worker starts as many threads as there are cores.
    They take turns, and building a batch takes longer than with one thread.
    `keras_mpseq` gives its workers one thread each; Keras does not.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, workers=64, use_multiprocessing=True, **kwargs):
            super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, **kwargs)
            self.x = np.ones((4, 300, 300), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] @ self.x[index]
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, workers=1, use_multiprocessing=True, **kwargs):
            super().__init__(workers=workers, use_multiprocessing=use_multiprocessing, **kwargs)
            self.x = np.ones((4, 300, 300), dtype="float32")

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] @ self.x[index]
    ```

    ## Known false alarms
    Workers that wait for a disk or a network most of the time.
    """

    code = "SEQ606"
    name = "thread-oversubscription"
    severity = "info"
    stable = False
    static = False
    why = "threads of all workers compete for the same cores"
    fix = "take fewer workers, or one thread each: `OMP_NUM_THREADS=1`, `cv2.setNumThreads(1)`, `worker_threads=1`"
