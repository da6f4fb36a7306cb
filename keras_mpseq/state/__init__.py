"""What a sequence holds and may reach, and digests of it: for the workers, which watch, and for `check`."""
