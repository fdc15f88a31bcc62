//! Tests of `models`.
//!
//! Absent: real servers; those are in the target `registry`.
