//! checkpoint and restore through CRIU.

use crate::error::Error;
use crate::runtime::{CheckpointOptions, CreateOptions, RestoreOptions, Running, Runtime};

impl Runtime {
    /// Replaced by the checkpoint branch.
    pub fn checkpoint(&self, _id: &str, _options: &CheckpointOptions) -> Result<(), Error> {
        Err(Error::MissingCall { call: "criu" })
    }
    /// Replaced by the checkpoint branch.
    pub fn restore(&self, _id: &str, _o: &RestoreOptions, _c: &CreateOptions) -> Result<Running, Error> {
        Err(Error::MissingCall { call: "criu" })
    }
}
