//! Tests of `client`.
//!
//! Absent: real servers; those are in the target `registry`.
