"""The first-party pages, one module each with `build(lab)`."""
