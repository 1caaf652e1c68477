"""The C++ executor against the reference, one instruction at a time, with float64 as the judge."""
