//! Runs a command of this machine in a QEMU guest whose cgroups are whole: pure v2 with every
//! controller, or v1, each controller a hierarchy of its own. The guest sees this machine's files
//! read-only below an overlay in its memory, so it runs what was built here as it is.
//!
//! `vm --help` tells the options. Packages come from the machine's own Debian mirror, through apt,
//! and are unpacked into a cache; only QEMU and kmod are installed.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program: that is where its results go

mod cargo;
mod cpio;
mod error;
mod kernel;
mod options;
mod packages;
mod qemu;
mod session;

use std::process::ExitCode;
use std::time::Instant;

use error::Error;
use options::{Options, Request};

fn main() -> ExitCode {
    match options::parse(std::env::args_os().skip(1)).and_then(|request| match request {
        Request::Help => {
            print!("{}", options::USAGE);
            Ok(0)
        }
        Request::Prepare(options) => prepare(&options).map(|()| 0),
        Request::Run(options) => run(&options),
    }) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprint!("vm: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::from(error.exit_status())
        }
    }
}

/// Fills the cache and installs QEMU, where either is missing.
fn prepare(options: &Options) -> Result<(), Error> {
    packages::provide_programs()?;
    packages::provide_tools(&options.cache)?;
    kernel::provide(&options.cache, options.kernel)
}

/// Runs the command or the test programs in one guest; returns the exit status to end with.
fn run(options: &Options) -> Result<u8, Error> {
    prepare(options)?;
    let commands = match &options.tests {
        Some(selection) => cargo::test_commands(selection, &options.command)?,
        None => vec![session::Command::from_words(&options.command)?],
    };
    let session = session::Session::new(options, commands)?;
    let initrd = kernel::initrd(&options.cache, options.kernel, &session.files())?;
    let begun = Instant::now();
    let status = qemu::run(options, &initrd, &session.marker)?;
    if !options.quiet {
        eprintln!(
            "vm: cgroup {}, {} kernel: exit status {status} after {:.1} s",
            options.cgroup.name(),
            options.kernel.name(),
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(status)
}
