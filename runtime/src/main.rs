//! The command line `dhow-runtime`.
fn main() {}
