"""The command `keras-mpseq`."""
