//! Fixtures and helpers of the integration tests.
//!
//! - [`scratch`]: a directory of a test's own on tmpfs, with the tag that all its other traces carry;
//! - [`bundle`]: a busybox bundle and its `config.json`;
//! - [`runtime`]: the runtime binary under test, run as a caller runs it;
//! - [`command`]: running a program to its end with a deadline, and what came of it;
//! - [`sandbox`]: namespaces of a test's own, in which daemons and their containers cannot outlive it;
//! - [`sailor`]: an ordinary user with subordinate ids, in a sandbox;
//! - [`leftovers`]: what a test or a crash has left on the machine;
//! - [`crash`]: kills and errors at system calls;
//! - [`skip`]: skipping loudly and countably;
//! - [`callers`]: the real programs that dhow-runtime is a drop-in for;
//! - [`bench`]: the parts of the benchmark.

pub mod bench;
pub mod bundle;
pub mod callers;
pub mod command;
pub mod crash;
pub mod leftovers;
pub mod runtime;
pub mod sailor;
pub mod sandbox;
pub mod scratch;
pub mod skip;

pub use bundle::Bundle;
pub use command::{Output, run};
pub use runtime::Runtime;
pub use sandbox::{CgroupView, Sandbox};
pub use scratch::Scratch;
