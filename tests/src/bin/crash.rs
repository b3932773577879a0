//! `crash`: every system call of every verb, interrupted. The whole sweep of which `tests/tests/crash.rs` takes a sample.
//!
//! `crash [--errors] [--workers N] [--verb VERB]...`; exit status 1 if anything was wrong.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program, its output is its purpose

use dhow_tests::crash::{Fault, Point, Subject, VERBS, Verb, errors_of, sweep};
use std::process::ExitCode;

const USAGE: &str = "usage: crash [--errors] [--workers N] [--verb run|create|start|exec|kill|delete]...";

struct Options {
    errors: bool,
    workers: usize,
    verbs: Vec<Verb>,
}

fn options() -> Option<Options> {
    let mut options = Options { errors: false, workers: 2, verbs: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--errors" => options.errors = true,
            "--workers" => options.workers = args.next()?.parse().ok()?,
            "--verb" => {
                let name = args.next()?;
                options.verbs.push(*VERBS.iter().find(|v| format!("{v:?}").to_lowercase() == name)?);
            }
            _ => return None,
        }
    }
    if options.verbs.is_empty() {
        options.verbs = VERBS.to_vec();
    }
    Some(options)
}

fn faults(point: &Point, errors: bool) -> Vec<Fault> {
    if errors { errors_of(&point.call).iter().map(|e| Fault::Errno(e)).collect() } else { vec![Fault::Kill] }
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut wrong = 0;
    for verb in options.verbs {
        let points = match Subject::new().enumerate(verb) {
            Ok(points) => points,
            Err(error) => {
                eprintln!("{verb:?}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let all: Vec<(Point, Fault)> = points
            .iter()
            .flat_map(|p| faults(p, options.errors).into_iter().map(|f| (p.clone(), f)))
            .collect();
        let found = sweep(&all, options.workers);
        println!(
            "{verb:?}: {} points, {} came to something, {} wrong",
            all.len(),
            found.hits,
            found.wrong.len()
        );
        for what in &found.wrong {
            println!("  {what}");
        }
        wrong += found.wrong.len();
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
