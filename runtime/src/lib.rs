//! dhow-runtime: an OCI runtime as a library.
//!
//! [`Runtime`] has a method for every verb. It may be used from any thread of a threaded program: nothing of the
//! process that calls it is changed, and nothing is printed.
//!
//! How a container comes to be: [`config`] reads the bundle, [`compile`] turns it into a [`plan::Plan`],
//! `launch` opens what the plan names, clones the child (`dhow-init`) and talks with it, `state` remembers it.
//! [`cgroup`] and [`seccomp`] are the two large parts that a plan needs; ARCHITECTURE.md has the invariants.

pub mod cgroup;
pub mod checkpoint;
pub mod clock;
pub mod compile;
pub mod config;
pub mod error;
pub mod features;
mod hooks;
pub mod idmap;
mod launch;
pub mod mount_options;
pub mod netdev;
mod notify;
pub mod plan;
pub mod rdt;
pub mod runtime;
pub mod seal;
pub mod seccomp;
mod state;
mod sys;
pub mod template;

pub use error::{Error, Mistake, StepError};
pub use notify::Notify;
pub use runtime::{
    CgroupsMode, CheckpointOptions, Container, CreateOptions, ExecOptions, Rdt, RestoreOptions, Running,
    Runtime, Status,
};
