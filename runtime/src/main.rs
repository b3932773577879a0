//! The command line `dhow-runtime`: a drop-in for runc's.
//!
//! The entry point is C's `main` (cli/sys.rs), without the start-up of Rust's: a verb lives for milliseconds, and
//! the dozen system calls for a signal stack and its guard page would be a good part of `state`.
#![cfg_attr(not(test), no_main)]

mod cli;

#[cfg(test)]
fn main() {
    std::process::exit(cli::main(std::env::args_os().collect()).into());
}
