//! How long a profile takes to compile: `seccomp-compile PROFILE.json`, Docker's default without.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use dhow_runtime::seccomp::{Arch, compile};
use oci_spec::runtime::LinuxSeccomp;

const ROUNDS: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read_to_string(path)?,
        None => include_str!("../../tests/data/seccomp-docker.json").to_owned(),
    };
    let profile: LinuxSeccomp = serde_json::from_str(&text)?;
    let native = Arch::native();
    let mut times_ns = Vec::with_capacity(ROUNDS);
    let mut instructions = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        match compile(&profile, native) {
            Ok(compiled) => instructions = compiled.program.instructions.len(),
            Err(mistakes) => {
                for mistake in mistakes {
                    println!("{mistake}");
                }
                return Err("the profile has mistakes".into());
            }
        }
        times_ns.push(start.elapsed().as_nanos());
    }
    let first_ns = times_ns[0];
    times_ns.sort_unstable();
    println!(
        "{instructions} instructions; first {} us, median {} us, best {} us",
        first_ns / 1000,
        times_ns[ROUNDS / 2] / 1000,
        times_ns[0] / 1000
    );
    Ok(())
}
