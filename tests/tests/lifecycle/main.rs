//! A container's whole life through the command line: every verb in its right and its wrong place, hooks, terminals,
//! descriptors, errors. As root; each test has its own container and leaves nothing.

mod descriptors;
mod edges;
mod errors;
mod exec;
mod hooks;
mod mounts;
mod terminal;
mod verbs;

/// Ends the test where there is no root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !dhow_tests::skip::is_root() {
            dhow_tests::skip!("not root");
        }
    };
}
