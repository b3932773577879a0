//! The library in a threaded program: containers are created while other threads allocate all the time. A child that
//! allocated, or took a lock, between clone and execve would hang sooner or later.
//!
//! `DHOW_CREATES` says how many; the default suits CI.

use dhow_runtime::{CreateOptions, Runtime};
use dhow_tests::skip::is_root;
use dhow_tests::{Bundle, leftovers, skip};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Reaping, and one heap for all threads.
mod sys {
    /// A lock that is held somewhere nearly always: glibc otherwise gives each thread a heap of its own.
    pub fn share_one_heap() {
        #[cfg(target_env = "gnu")]
        // SAFETY: mallopt takes two numbers, and no thread but this one allocates yet.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }

    /// Waits for a child of this process.
    pub fn reap(pid: i32) {
        let mut status = 0;
        // SAFETY: a place for the status of a process, which is a child of ours or an error.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
    }
}

const ALLOCATING: usize = 6;
const CREATING: usize = 2;
/// A create that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn allocate(stop: &AtomicBool) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut size = 1usize;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..512 {
            // Too large for a thread's own cache, too small for a mapping of its own.
            size = size * 31 % 60_000 + 2000;
            kept.push(Vec::with_capacity(size));
        }
        kept.retain(|v| v.len() % 3 != 0);
        kept.truncate(64);
        // Two processors are shared with what is measured.
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn options(bundle: &Bundle) -> CreateOptions {
    CreateOptions { bundle: bundle.path().to_path_buf(), ..CreateOptions::default() }
}

#[test]
fn creates_from_a_threaded_program_do_not_hang() {
    if !is_root() {
        skip!("not root");
    }
    let wanted: u32 = std::env::var("DHOW_CREATES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    sys::share_one_heap();
    let stop = AtomicBool::new(false);
    let next = AtomicU32::new(0);
    let (beat, beats) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..ALLOCATING {
            scope.spawn(|| allocate(&stop));
        }
        for _ in 0..CREATING {
            let (beat, next) = (beat.clone(), &next);
            scope.spawn(move || {
                let mut bundle = Bundle::busybox();
                // Without namespaces that are expensive to make: what is tested is the child.
                bundle.without_namespace("network").without_namespace("ipc");
                bundle.config_mut()["mounts"]
                    .as_array_mut()
                    .expect("mounts")
                    .retain(|m| m["destination"] == "/proc");
                bundle.write();
                let runtime = Runtime { root: bundle.scratch().join("state"), ..Runtime::default() };
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        break;
                    }
                    let id = format!("threads-{number}");
                    let done = runtime.create(&id, &options(&bundle)).and_then(|running| {
                        let deleted = runtime.delete(&id, true);
                        sys::reap(running.pid);
                        deleted.map(drop)
                    });
                    let failed = done.is_err();
                    beat.send(done.map_err(|e| format!("{id}: {e}: {:?}", std::error::Error::source(&e))))
                        .ok();
                    if failed {
                        break;
                    }
                }
                leftovers::assert_none(bundle.tag(), Some(&runtime.root));
            });
        }
        drop(beat);
        let mut done = 0;
        let failure = loop {
            match beats.recv_timeout(PATIENCE) {
                Ok(Ok(_)) => done += 1,
                Ok(Err(what)) => break Some(what),
                Err(mpsc::RecvTimeoutError::Disconnected) => break None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // The threads that hang cannot be joined.
                    let say = format!("a create hangs after {done}\n");
                    std::io::Write::write_all(&mut std::io::stderr(), say.as_bytes()).ok();
                    let tags = (0..CREATING).map(|n| format!("dhow-test-{}-{n}", std::process::id()));
                    for line in tags.flat_map(|tag| leftovers::find(&tag)) {
                        let pid =
                            line.strip_prefix("process ").and_then(|l| l.split(' ').next()?.parse().ok());
                        pid.into_iter().for_each(|pid| dhow_tests::command::kill_process(pid, libc::SIGKILL));
                    }
                    std::process::exit(101);
                }
            }
        };
        stop.store(true, Ordering::Relaxed);
        if let Some(what) = failure {
            panic!("after {done}: {what}");
        }
        assert_eq!(done, wanted);
    });
}
