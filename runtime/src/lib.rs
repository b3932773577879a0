//! dhow-runtime: an OCI runtime as a library.
pub mod cgroup;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod features;
pub mod idmap;
pub mod mount_options;
pub mod rdt;
pub mod seccomp;
pub mod template;
