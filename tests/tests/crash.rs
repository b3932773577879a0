//! Kills and errors at system calls: a sample of what `cargo run --bin crash` sweeps in full.

use dhow_tests::crash::{Fault, Point, Report, Subject, VERBS, Verb, errors_of, sample, sweep};
use dhow_tests::skip;
use dhow_tests::skip::{is_root, missing_program};

/// Why these tests cannot run here.
fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("not root".into());
    }
    missing_program(&["strace"]).map(|p| format!("{p} is not installed"))
}

fn points(verbs: &[Verb]) -> Vec<Vec<Point>> {
    let mut subject = Subject::new();
    verbs
        .iter()
        .map(|&verb| {
            let points = subject.enumerate(verb).unwrap_or_else(|e| panic!("{e}"));
            assert!(points.len() > 20, "{verb:?} makes {} calls only", points.len());
            points
        })
        .collect()
}

#[track_caller]
fn check(found: &Report, tried: usize) {
    assert!(found.wrong.is_empty(), "{} of {tried}:\n{}", found.wrong.len(), found.wrong.join("\n"));
}

#[test]
fn a_killed_verb_leaves_nothing_that_delete_does_not_remove() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut chosen = Vec::new();
    for (verb, points) in VERBS.iter().zip(points(&VERBS)) {
        let wanted = if matches!(verb, Verb::Run | Verb::Create) { 44 } else { 18 };
        chosen.extend(sample(&points, wanted).into_iter().map(|p| (p, Fault::Kill)));
    }
    assert!(chosen.len() >= 150, "{} points", chosen.len());
    let found = sweep(&chosen, 2);
    check(&found, chosen.len());
    // Counts of calls differ a little from run to run, so some points are never reached. Where all processes are
    // followed, the death of a child may be overcome.
    assert!(found.hits * 10 > chosen.len() * 7, "{} of {} points were hit", found.hits, chosen.len());
}

#[test]
fn an_error_at_a_call_is_an_error_or_overcome_and_leaves_nothing() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut all = Vec::new();
    for points in points(&[Verb::Run, Verb::Create, Verb::Exec]) {
        let with_errors: Vec<(Point, Fault)> = points
            .iter()
            .flat_map(|p| errors_of(&p.call).iter().map(|e| (p.clone(), Fault::Errno(e))))
            .collect();
        all.extend(sample(&with_errors, 25));
    }
    let found = sweep(&all, 2);
    check(&found, all.len());
    assert!(found.hits * 10 > all.len() * 3, "{} of {} errors came to something", found.hits, all.len());
}
