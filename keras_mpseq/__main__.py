"""`python -m keras_mpseq` is `keras-mpseq`."""

from __future__ import annotations

import sys

from keras_mpseq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
