//! Frame to tensor to network to parsing.
