//! Tests of `details`.
//!
//! Absent: real servers; those are in the target `registry`.
