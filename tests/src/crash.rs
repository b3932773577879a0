//! Faults at the k-th call of a system call, by strace: SIGKILL ([`Fault::Kill`]) or an errno ([`Fault::Errno`]).
//!
//! A traced run enumerates the calls that a verb makes; each call is a [`Point`], for the command's own process or for
//! all of its processes. A point is tried with a fault in one verb of a container's life, then `delete --force` has to
//! leave nothing, and the next `run` has to work.

use crate::bundle::Bundle;
use crate::command::{Output, kill_process, run, run_with};
use crate::leftovers;
use crate::runtime::Runtime;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `run` of a container that ends by itself.
    Run,
    /// `create`.
    Create,
    /// `start` of a created container.
    Start,
    /// `exec` in a running container.
    Exec,
    /// `kill` of a running container.
    Kill,
    /// `delete` of a stopped container.
    Delete,
}

/// All of them.
pub const VERBS: [Verb; 6] = [Verb::Run, Verb::Create, Verb::Start, Verb::Exec, Verb::Kill, Verb::Delete];

/// One call of one verb.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The verb.
    pub verb: Verb,
    /// Whether children are followed too; the first process that gets to the call is hit, and those after it.
    pub children: bool,
    /// Name of the system call.
    pub call: String,
    /// Its number, from 1.
    pub number: u32,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// The call fails with this errno's name.
    Errno(&'static str),
}

const DEADLINE: Duration = Duration::from_secs(60);
const ID: &str = "crash";

/// A bundle and the runtime's root in it: one for each worker.
#[derive(Debug)]
pub struct Subject {
    bundle: Bundle,
    runtime: Runtime,
}

impl Default for Subject {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject {
    /// Makes the bundle.
    pub fn new() -> Subject {
        let mut bundle = Bundle::busybox();
        bundle.set("/linux/resources/memory/limit", (256 << 20).into());
        bundle.write();
        let runtime = bundle.runtime();
        Subject { bundle, runtime }
    }

    fn program(&mut self, args: &[&str]) {
        self.bundle.set("/process/args", args.into()).write();
    }

    fn args(&self, verb: Verb) -> Vec<String> {
        let path = self.bundle.path().display().to_string();
        let words: Vec<&str> = match verb {
            Verb::Run => vec!["run", "--bundle", &path, ID],
            Verb::Create => vec!["create", "--bundle", &path, ID],
            Verb::Start => vec!["start", ID],
            Verb::Exec => vec!["exec", ID, "/bin/true"],
            Verb::Kill => vec!["kill", ID, "KILL"],
            Verb::Delete => vec!["delete", ID],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// Brings the container to where `verb` begins.
    fn prepare(&mut self, verb: Verb) -> Result<(), String> {
        self.program(if verb == Verb::Run { &["/bin/true"] } else { &["/bin/sleep", "100"] });
        let steps: &[&[&str]] = match verb {
            Verb::Run | Verb::Create => &[],
            Verb::Start => &[&["create"]],
            Verb::Exec | Verb::Kill => &[&["create"], &["start", ID]],
            Verb::Delete => &[&["create"], &["start", ID], &["kill", ID, "KILL"]],
        };
        for step in steps {
            let out = if step[0] == "create" {
                self.runtime.create(ID, &self.bundle)
            } else {
                self.runtime.call(*step)
            };
            if !out.success() {
                return Err(format!("cannot prepare: {out}"));
            }
        }
        if verb == Verb::Delete {
            self.runtime.wait_status(ID, "stopped");
        }
        Ok(())
    }

    fn strace(&self, verb: Verb, options: &[String]) -> Output {
        let inner = self.runtime.command(self.args(verb));
        let mut command = Command::new("strace");
        command.args(options).arg(inner.get_program()).args(inner.get_args());
        run_with(&mut command, b"", DEADLINE)
    }

    /// The calls that a verb makes, as points: first those of the command's own process, then those of all.
    ///
    /// # Errors
    /// The verb fails without any fault, or strace does.
    pub fn enumerate(&mut self, verb: Verb) -> Result<Vec<Point>, String> {
        let log = self.bundle.scratch().join("strace.log");
        let mut points = Vec::new();
        for children in [false, true] {
            self.prepare(verb)?;
            let mut options = vec!["-qq".to_owned(), "-o".to_owned(), log.display().to_string()];
            follow(verb, children, &mut options);
            let out = self.strace(verb, &options);
            if !out.success() {
                return Err(format!("{verb:?} fails without a fault: {out}"));
            }
            self.clean()?;
            // A tracer in the background ends with the container, and only then has written everything.
            std::thread::sleep(Duration::from_millis(200));
            let text = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
            for (call, most) in counts(&text, children) {
                // The command's own execve is strace's doing.
                let first = if call == "execve" { 2 } else { 1 };
                points.extend((first..=most).map(|number| Point {
                    verb,
                    children,
                    call: call.clone(),
                    number,
                }));
            }
        }
        Ok(points)
    }

    /// `delete --force`, after which nothing may be left.
    fn clean(&self) -> Result<(), String> {
        let out = self.runtime.delete_force(ID);
        if !out.success() {
            return Err(format!("delete --force fails: {out}"));
        }
        self.nothing_left("after delete --force")
    }

    fn nothing_left(&self, when: &str) -> Result<(), String> {
        let left = leftovers::remaining(self.bundle.tag(), Some(self.runtime.root()));
        if left.is_empty() { Ok(()) } else { Err(format!("left {when}:\n  {}", left.join("\n  "))) }
    }

    /// Tries one point; says whether the fault came to anything (an error may be overcome, a call may not come again).
    ///
    /// # Errors
    /// What is wrong afterwards.
    pub fn try_point(&mut self, point: &Point, fault: Fault) -> Result<bool, String> {
        let result = self.attempt(point, fault);
        if result.is_err() {
            // The next point begins clean, whatever this one found.
            self.runtime.delete_force(ID);
            for line in leftovers::find(self.bundle.tag()) {
                let pid = line.strip_prefix("process ").and_then(|l| l.split(' ').next()?.parse().ok());
                pid.into_iter().for_each(|pid| kill_process(pid, libc::SIGKILL));
            }
            leftovers::remove_cgroups(self.bundle.tag());
            let _ = fs::remove_dir_all(self.runtime.root().join(ID));
        }
        let what = match fault {
            Fault::Kill => "SIGKILL",
            Fault::Errno(name) => name,
        };
        let who = if point.children { "any process" } else { "the command" };
        result.map_err(|e| {
            format!("{:?}, {what} at {} number {} of {who}: {e}", point.verb, point.call, point.number)
        })
    }

    fn attempt(&mut self, point: &Point, fault: Fault) -> Result<bool, String> {
        self.prepare(point.verb)?;
        let what = match fault {
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Errno(name) => format!("error={name}"),
        };
        let mut options = vec![
            "-qqq".to_owned(),
            "-o/dev/null".to_owned(),
            format!("-etrace={}", point.call),
            format!("-einject={}:{what}:when={}", point.call, point.number),
        ];
        follow(point.verb, point.children, &mut options);
        let out = self.strace(point.verb, &options);
        if out.timed_out {
            return Err(format!("hangs: {out}"));
        }
        if let Fault::Errno(_) = fault {
            if out.stderr.contains("panicked") {
                return Err(format!("panics: {out}"));
            }
            // A create or run that says that it failed has cleaned up after itself.
            let made = matches!(point.verb, Verb::Run | Verb::Create);
            if made && !out.success() && out.code < 125 {
                self.nothing_left(&format!("by the error itself ({})", out.stderr.trim()))?;
            }
        }
        if point.verb == Verb::Exec {
            let status = self.runtime.status(ID);
            if status.as_deref() != Some("running") {
                return Err(format!("the container is {status:?} after an exec that was interrupted: {out}"));
            }
        }
        self.clean()?;
        self.program(&["/bin/true"]);
        let next = run(&mut self.runtime.command(self.args(Verb::Run)));
        if !next.success() {
            return Err(format!("the next run fails: {next}"));
        }
        Ok(!out.success())
    }
}

/// strace's options for following children. Those of a create stay, and strace with them: so it runs beside.
fn follow(verb: Verb, children: bool, options: &mut Vec<String>) {
    if children {
        options.push("-f".to_owned());
        if verb == Verb::Create {
            options.push("-D".to_owned());
        }
    }
}

/// How often each call occurs in strace's output, at most, in one process.
fn counts(text: &str, children: bool) -> BTreeMap<String, u32> {
    let mut each: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in text.lines() {
        let (pid, rest) = if children { line.split_once(' ').unwrap_or(("", line)) } else { ("", line) };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            *each.entry((pid, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in each {
        let entry = most.entry(name.to_owned()).or_default();
        *entry = count.max(*entry);
    }
    most
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many faults came to something: the command was killed, or failed.
    pub hits: usize,
    /// What was wrong, one entry for each point.
    pub wrong: Vec<String>,
}

/// Tries points with some workers, each with a bundle of its own.
pub fn sweep(points: &[(Point, Fault)], workers: usize) -> Report {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let work = || {
        let mut subject = Subject::new();
        let mut report = Report::default();
        while let Some((point, fault)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            match subject.try_point(point, *fault) {
                Ok(hit) => report.hits += usize::from(hit),
                Err(what) => report.wrong.push(what),
            }
        }
        report
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|w| w.join().expect("a worker does not panic")).fold(
            Report::default(),
            |mut sum, report| {
                sum.hits += report.hits;
                sum.wrong.extend(report.wrong);
                sum
            },
        )
    })
}

/// About `wanted` of `points`, spread evenly.
pub fn sample<T: Clone>(points: &[T], wanted: usize) -> Vec<T> {
    if points.len() <= wanted {
        return points.to_vec();
    }
    (0..wanted).map(|n| points[n * points.len() / wanted].clone()).collect()
}

/// The errno values worth trying for a system call: those that it gives in life.
pub fn errors_of(call: &str) -> &'static [&'static str] {
    match call {
        "openat" | "openat2" => &["EMFILE", "EINTR", "ENOSPC"],
        "open_tree" | "fsopen" | "fsmount" | "socketpair" | "pidfd_open" | "socket" => &["EMFILE", "ENOMEM"],
        "move_mount" | "mount_setattr" | "fsconfig" | "symlinkat" | "setns" => &["ENOMEM", "ENOSPC"],
        "mkdirat" | "mkdir" | "mknodat" | "mknod" | "renameat" | "renameat2" => &["ENOSPC", "ENOMEM"],
        "write" => &["ENOSPC", "EINTR", "EAGAIN"],
        "clone3" => &["EAGAIN", "ENOMEM"],
        "read" | "recvmsg" | "sendmsg" | "sendto" | "waitid" | "poll" | "ppoll" | "flock" => &["EINTR"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_process() {
        let log = "7 read(3, ..) = 0\n7 read(3, ..) = 0\n8 read(3, ..) = 0\n7 <... read resumed>) = 1\n\
                   7 +++ exited with 0 +++\n8 write(1, \"a(b\", 3) = 3\n";
        let found = counts(log, true);
        assert_eq!(found, BTreeMap::from([("read".into(), 2), ("write".into(), 1)]));
    }

    #[test]
    fn samples_are_spread() {
        let all: Vec<u32> = (0..1000).collect();
        assert_eq!(sample(&all, 4), [0, 250, 500, 750]);
        assert_eq!(sample(&all[..3], 4), [0, 1, 2]);
    }
}
