//! A server that answers as it is told, for tests.
//!
//! Absent: MLflow.
