"""SEQ201 to SEQ205: `__getitem__` changes what outlives the call, and each process changes a copy of its own."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class GlobalRebinding(Rule):
    """Building a batch rebinds a global.

    ## What it does
    Finds `global name` and an assignment to it, or `del`, in `__getitem__` and in all that it calls.

    ## Why it matters
    Every worker has globals of its own.
    What one of them sets, neither the training process nor the other workers see, and what a batch reads depends on which batches its worker built before.

    ## Example
    ```python
    import keras
    import numpy as np

    last = 0


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            global last
            last = index
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
            last = index
            return self.x[last]
    ```

    ## Known false alarms
    None are known.
    A global that holds a connection of this process is better a `keras_mpseq.per_worker`.
    """

    code = "SEQ201"
    name = "global-rebinding"
    severity = "error"
    core = True
    why = "each process has its own copy of the global, and sets only that one"
    fix = "use a local variable, or return the value with the batch"


class GlobalContainerMutation(Rule):
    """Building a batch changes a global container.

    ## What it does
    Finds `LIST.append(...)`, `DICT[key] = ...`, `ARRAY += ...` and the like on names of a module, in `__getitem__` and in all that it calls, also where the container is passed as an argument.

    ## Why it matters
    Every worker changes a copy of its own.
    In the training process the container stays as it was.

    ## Example
    ```python
    import keras
    import numpy as np

    SEEN = []


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            SEEN.append(index)
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
            return self.x[index], np.array([index])
    ```

    ## Known false alarms
    A cache whose values follow from their keys is [SEQ210](seq210.md), not this rule; a cache that is filled in an unusual way may be taken for a change.
    """

    code = "SEQ202"
    name = "global-container-mutation"
    severity = "error"
    why = "each process has its own copy of the container, and changes only that one"
    fix = "return the value with the batch, or collect it in a callback"


class ClassAttributeMutation(Rule):
    """Building a batch changes an attribute of the class.

    ## What it does
    Finds assignments to `Batches.name`, `type(self).name` and `cls.name`, and changes of a container that only the class body defines, in `__getitem__` and in all that it calls.

    ## Why it matters
    Attributes of a class are not part of the pickle of its objects: not even the value at the start reaches a worker that is not forked.
    What a worker sets stays in that worker.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        built = 0

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            Batches.built += 1
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
    None are known.
    To count batches, use a callback of Keras, which runs in the training process.
    """

    code = "SEQ203"
    name = "class-attribute-mutation"
    severity = "error"
    why = "each process has its own class, and the pickle of the sequence leaves it out"
    fix = "count in a callback, or return the value with the batch"


class ClosureMutation(Rule):
    """Building a batch changes a variable of an enclosing function.

    ## What it does
    Finds `nonlocal` with an assignment, and changes of containers of an enclosing function, in `__getitem__` and in all that it calls.

    ## Why it matters
    If the function outlives the call, its variables do as well: each process has its own, and a batch depends on those that were built before it.
    Functions with such variables do not pickle either.

    ## Example
    ```python
    import keras
    import numpy as np


    def counter():
        count = 0

        def advance():
            nonlocal count
            count += 1
            return count

        return advance


    advance = counter()


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            return self.x[index] * advance()
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
            return self.x[index] * (index + 1)
    ```

    ## Known false alarms
    A helper defined inside `__getitem__` that only changes variables of this call does no harm, and is not reported if it does not leave the call.
    """

    code = "SEQ204"
    name = "closure-mutation"
    severity = "error"
    why = "the variable outlives the call, and each process has its own"
    fix = "compute the value from the index"


class StatefulGetitem(Rule):
    """Building a batch writes to the sequence.

    ## What it does
    Finds assignments to attributes and elements of `self`, `del`, and calls that change them in place (`append`, `shuffle`, `sort`, `out=`), in `__getitem__` and in all that it calls, also through another name for the same object.
    `check` builds the same batches in two orders, in separate processes, and compares them.

    ## Why it matters
    Each worker writes to a copy of its own.
    What the next batch reads depends on which batches the same worker built before it, so that other batches come out with each number of workers.

    ## Example
    ```python
    import keras
    import numpy as np


    class Batches(keras.utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.x = np.arange(32, dtype="float32").reshape(8, 4)
            self.count = 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, index):
            self.count += 1
            return self.x[index] * self.count
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
            return self.x[index] * (index + 1)
    ```

    ## Known false alarms
    An attribute that every call sets before it reads it is scratch: other batches do not depend on it, although threads would.
    If no code of the workers reads it, the severity is `warning`.
    """

    code = "SEQ205"
    name = "stateful-getitem"
    severity = "error"
    core = True
    why = "each process writes to its own copy, and the next batch depends on who built the last one"
    fix = "make the batch follow from the index, the seed and the epoch alone"
