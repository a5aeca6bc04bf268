"""Linear time-invariant state spaces, h' = A h + B u and y = C h, as kernels to train and recurrences to decode."""
