"""SEQ401 to SEQ404: random numbers that repeat from worker to worker, or cannot be repeated."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class NumpyGlobalRng(Rule):
    """Building a batch draws from the global generator of NumPy.

    ## What it does
    Finds `np.random.randint`, `np.random.shuffle`, `np.random.choice` and all other draws from the global state, in `__getitem__` and in all that it calls, also where such a function is stored on `self`.
    In a `SafeSequence` it is a note: our workers seed the state for each batch.

    ## Why it matters
    Forked workers begin with the same state and draw the same numbers: in one measurement, eight batches had two different sets of numbers.
    Which numbers a batch gets depends on who builds it, so that no run can be repeated.
    Workers of `keras_mpseq` seed this state anew before each batch; those of Keras do not.

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
            return self.x[index] + np.random.normal(size=4)
    ```

    ## Use instead
    ```python
    import numpy as np

    from keras_mpseq import SafeSequence


    class Batches(SafeSequence):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] + self.rng(index).normal(size=4)
    ```

    Without `SafeSequence`: `np.random.default_rng((seed, epoch, index))`, a new one in each call.
    A generator that is made once, in `__init__`, repeats itself as well: [SEQ403](seq403.md).

    ## Known false alarms
    None are known.
    """

    code = "SEQ401"
    name = "numpy-global-rng"
    severity = "error"
    core = True
    why = "forked workers draw the same numbers, and the numbers of a batch depend on who builds it"
    fix = "draw from `self.rng(index)` of `SafeSequence`, or from `np.random.default_rng((seed, epoch, index))`"


class ProcessGlobalRng(Rule):
    """Building a batch draws from a global generator other than NumPy's.

    ## What it does
    Finds draws from the module `random`, from the global state of torch and TensorFlow, and pipelines of imgaug and albumentations that draw from one of them, in `__getitem__` and in all that it calls.
    A member of unknown class that is called as `self.augment(image=x)`, or whose method `augment_images` is called, is taken for such a pipeline, and reported as `likely`.
    In a `SafeSequence` the module `random` is a note: our workers seed it for each batch.

    ## Why it matters
    Python seeds `random` anew in a forked worker, so that numbers are not repeated there.
    But nobody can repeat them either: with the same seed, each run has other batches, and a batch that is built again after a failure is another one.
    Workers of `keras_mpseq` seed `random` anew before each batch; those of Keras do not.

    ## Example
    ```python
    import random

    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            step = random.choice([1, -1])
            return self.x[index][::step].copy()
    ```

    ## Use instead
    ```python
    import numpy as np

    from keras_mpseq import SafeSequence


    class Batches(SafeSequence):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            step = self.rng(index).choice([1, -1])
            return self.x[index][::step].copy()
    ```

    Without `SafeSequence`: `random.Random(f"{seed}/{epoch}/{index}")`, a new one in each call.

    ## Known false alarms
    A pipeline that is given a generator of this batch in a way that cannot be followed.
    """

    code = "SEQ402"
    name = "process-global-rng"
    severity = "warning"
    core = True
    why = "nobody can repeat the numbers that a worker draws"
    fix = "draw from `self.rng(index)` of `SafeSequence`, or from a generator made from seed, epoch and index"


class ReplicatedInstanceRng(Rule):
    """Building a batch draws from a generator that is stored on the sequence.

    ## What it does
    Finds draws from `self.generator`, where that is a `np.random.Generator`, `RandomState`, `random.Random` or `torch.Generator`, in `__getitem__` and in all that it calls.
    Draws in `__init__` and `on_epoch_end` are not reported.

    ## Why it matters
    Each worker has a copy in the same state: all of them draw the same numbers, under every start method.
    It is what is often advised in place of the global state, and it is worse, because spawned workers repeat each other as well.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.generator = np.random.default_rng(1337)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] + self.generator.normal(size=4)
    ```

    ## Use instead
    ```python
    import numpy as np

    from keras_mpseq import SafeSequence


    class Batches(SafeSequence):
        def __init__(self, **kwargs):
            super().__init__(seed=1337, **kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] + self.rng(index).normal(size=4)
    ```

    Without `SafeSequence`: `np.random.default_rng((seed, epoch, index))`, a new one in each call.

    ## Known false alarms
    None are known.
    """

    code = "SEQ403"
    name = "replicated-instance-rng"
    severity = "error"
    core = True
    why = "every worker has a copy in the same state, and draws the same numbers"
    fix = "draw from `self.rng(index)` of `SafeSequence`, or from `np.random.default_rng((seed, epoch, index))`"


class GlobalReseed(Rule):
    """The sequence seeds a global generator.

    ## What it does
    Finds `np.random.seed`, `random.seed`, `tf.random.set_seed`, `torch.manual_seed` and `keras.utils.set_random_seed` in a sequence.
    In `__getitem__` and in all that it calls it is an error, elsewhere in the class a warning.

    ## Why it matters
    In one process, and with threads, seeding disturbs whoever else draws: the initial weights, dropout, another sequence.
    In workers a constant seed makes all batches draw the same numbers.

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
            np.random.seed(index)
            return self.x[index] + np.random.normal(size=4)
    ```

    ## Use instead
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.seed = 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            generator = np.random.default_rng((self.seed, index))
            return self.x[index] + generator.normal(size=4)
    ```

    ## Known false alarms
    A library that draws from the global state and takes no generator: put the state back after the call, and suppress the rule with that reason.
    """

    code = "SEQ404"
    name = "global-reseed"
    severity = "error"
    core = True
    why = "everybody in the process who draws afterwards gets other numbers"
    fix = "draw from a generator of this batch: `self.rng(index)`, or `np.random.default_rng((seed, epoch, index))`"
