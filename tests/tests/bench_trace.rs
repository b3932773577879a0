//! The benchmark's tracer, in a process of its own: it waits for any child.

use dhow_tests::bench::trace::run;
use std::process::Command;

#[test]
fn counts_processes_and_execs() {
    let tally = run(Command::new("/bin/sh").args(["-c", "/bin/true; /bin/true & wait; exit 3"])).unwrap();
    assert_eq!(tally.status, 3);
    assert_eq!(tally.processes, 3);
    assert_eq!(tally.execs, 2);
    assert_eq!(tally.threads, 0);
    assert!(tally.calls > tally.payload_calls && tally.payload_calls > 0, "{tally:?}");
    assert!(tally.peak_kib > 100, "{tally:?}");
}
