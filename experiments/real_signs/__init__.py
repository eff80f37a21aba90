"""Two stages on the real signers of FSL-105, each held out in turn; imports its neighbours in `experiments`."""
