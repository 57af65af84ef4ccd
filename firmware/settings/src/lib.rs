//! Configuration and board profiles, parsed once into validated types.
