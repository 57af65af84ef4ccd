//! Training of the head, clipping, noise, accounting, the privacy ledger; plain slices.
