//! The crate name `regex`, served by regex-lite.
//!
//! oci-spec checks one field (`process.execCPUAffinity`) with a regular expression and so links the whole engine
//! with its Unicode tables: a fifth of a static runtime, for a pattern of digits. regex-lite comes from the same
//! authors, has the same interface and a fraction of the size. It has no features: a dependency that needs those
//! of the full crate fails to resolve, and then this package has to go.

pub use regex_lite::*;
