//! Stores that answer badly.
