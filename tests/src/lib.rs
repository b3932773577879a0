//! Fixtures and helpers of the integration tests.

pub mod bench;
