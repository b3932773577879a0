//! What is measured: the runtimes, and the floor beside them, each with its state directory, bundles and cgroup, and the
//! command lines by which it does each verb.

use crate::bench::trace::Tally;
use crate::bench::worker::Worker;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What a runtime is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Run,
    /// `run` when no process has been moved between cgroups for a while.
    QuietRun,
    Create,
    Start,
    State,
    Exec,
    Kill,
    Delete,
    Version,
}

impl Verb {
    /// All of them, as the tables list them.
    pub const ALL: [Verb; 9] = [
        Verb::Run,
        Verb::QuietRun,
        Verb::Create,
        Verb::Start,
        Verb::State,
        Verb::Exec,
        Verb::Kill,
        Verb::Delete,
        Verb::Version,
    ];

    /// Those whose processes are all gone when the command is, so that their work can be counted to its end.
    pub const COUNTED: [Verb; 5] = [Verb::Run, Verb::State, Verb::Exec, Verb::Delete, Verb::Version];

    /// What the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::QuietRun => "run after a quiet time",
            other => other.word(),
        }
    }

    /// The verb as it is written on a command line.
    fn word(self) -> &'static str {
        match self {
            Verb::Run | Verb::QuietRun => "run",
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::State => "state",
            Verb::Exec => "exec",
            Verb::Kill => "kill",
            Verb::Delete => "delete",
            Verb::Version => "--version",
        }
    }
}

/// Where a subject keeps what it needs.
#[derive(Debug, Clone)]
pub struct Places {
    /// A directory of its own, on tmpfs.
    pub dir: PathBuf,
    /// linux.cgroupsPath of its containers.
    pub cgroup: String,
}

impl Places {
    /// The bundle whose container runs `program`.
    #[must_use]
    pub fn bundle(&self, program: &str) -> PathBuf {
        self.dir.join(format!("bundle-{program}"))
    }
}

/// How a subject is started.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An OCI runtime, by its path as the worker sees it.
    Runtime(PathBuf),
    /// The floor: the command line that makes and runs one container, and the static true that stands for `--version`.
    Floor {
        /// Does what `run` does.
        run: Vec<String>,
        /// Does what `--version` does: starts and ends.
        idle: Vec<String>,
    },
}

/// A runtime or the floor, with what has been measured of it.
#[derive(Debug)]
pub struct Subject {
    /// Name and version.
    pub name: String,
    /// How it is started.
    pub kind: Kind,
    /// Which of the workers starts it.
    pub worker: usize,
    /// Where its things are.
    pub places: Places,
    /// Nanoseconds of each command, by verb.
    pub times_ns: BTreeMap<Verb, Vec<u64>>,
    /// The work counted, by verb.
    pub tallies: BTreeMap<Verb, Tally>,
    /// The first failure of each verb.
    pub failures: BTreeMap<Verb, String>,
    /// Whether a container with a memory limit of 512 KiB ran; `None` where there is no memory controller.
    pub runs_in_512_kib: Option<bool>,
}

const ID: &str = "bench";

/// Long enough for RCU to forget the last move of a process between cgroups.
const QUIET: Duration = Duration::from_millis(60);

impl Subject {
    /// A subject of which nothing has been measured.
    #[must_use]
    pub fn new(name: String, kind: Kind, worker: usize, places: Places) -> Subject {
        Subject {
            name,
            kind,
            worker,
            places,
            times_ns: BTreeMap::new(),
            tallies: BTreeMap::new(),
            failures: BTreeMap::new(),
            runs_in_512_kib: None,
        }
    }

    /// The command line of a verb; `None` where this subject does not do it. `program` is what the container runs.
    fn argv(&self, verb: Verb, program: &str) -> Option<Vec<String>> {
        let path = match &self.kind {
            Kind::Runtime(path) => path.display().to_string(),
            Kind::Floor { run, idle } => {
                return match verb {
                    Verb::Run | Verb::QuietRun => Some(run.clone()),
                    Verb::Version => Some(idle.clone()),
                    _ => None,
                };
            }
        };
        if verb == Verb::Version {
            return Some(vec![path, "--version".to_owned()]);
        }
        let state = self.places.dir.join("state").display().to_string();
        let bundle = self.places.bundle(program).display().to_string();
        let pid_file = self.pid_file().display().to_string();
        let rest: Vec<&str> = match verb {
            Verb::Run | Verb::QuietRun => vec!["--bundle", &bundle, ID],
            Verb::Create => vec!["--bundle", &bundle, "--pid-file", &pid_file, ID],
            Verb::Exec => vec![ID, "/true"],
            Verb::Kill => vec![ID, "KILL"],
            _ => vec![ID],
        };
        let head = [&path, "--root", &state, verb.word()];
        Some(head.into_iter().chain(rest).map(str::to_owned).collect())
    }

    fn pid_file(&self) -> PathBuf {
        self.places.dir.join("pid")
    }

    fn pid(&self) -> io::Result<i32> {
        let text = fs::read_to_string(self.pid_file())?;
        text.trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("pid file: {text:?}")))
    }

    /// Does one verb and gives the worker's answer; a failure is kept, and `None` returned.
    fn ask(&mut self, worker: &mut Worker, op: &str, verb: Verb, program: &str) -> io::Result<Option<Value>> {
        let Some(argv) = self.argv(verb, program) else { return Ok(None) };
        let answer = worker.ask_command(op, &argv, verb == Verb::QuietRun)?;
        if answer["status"] == 0 {
            return Ok(Some(answer));
        }
        let said = answer["stderr"].as_str().unwrap_or_default().trim();
        self.failures.entry(verb).or_insert_with(|| format!("status {}: {said}", answer["status"]));
        Ok(None)
    }

    fn time(&mut self, worker: &mut Worker, verb: Verb, program: &str, settle: Duration) -> io::Result<bool> {
        std::thread::sleep(settle);
        let Some(answer) = self.ask(worker, "time", verb, program)? else { return Ok(false) };
        self.times_ns.entry(verb).or_default().push(answer["ns"].as_u64().unwrap_or_default());
        Ok(true)
    }

    /// Times one run, one container's life verb by verb, and `--version`. Before each command there is a pause of
    /// `settle`, in which the kernel ends what the last one left to it (network namespaces are freed late).
    ///
    /// # Errors
    /// The worker fails; a failure of the subject is kept in it.
    pub fn round(&mut self, worker: &mut Worker, settle: Duration) -> io::Result<()> {
        self.time(worker, Verb::Version, "true", settle)?;
        for (verb, pause) in [(Verb::Run, settle), (Verb::QuietRun, settle.max(QUIET))] {
            if !self.time(worker, verb, "true", pause)? {
                self.clear(worker)?;
            }
        }
        if matches!(self.kind, Kind::Floor { .. }) {
            return Ok(());
        }
        for verb in [Verb::Create, Verb::Start, Verb::State, Verb::Exec, Verb::Kill] {
            if !self.time(worker, verb, "pause", settle)? {
                return self.clear(worker);
            }
        }
        let pid = self.pid()?;
        worker.ask(&json!({ "op": "gone", "pid": pid }))?;
        if !self.time(worker, Verb::Delete, "pause", settle)? {
            self.clear(worker)?;
        }
        Ok(())
    }

    /// Counts the work of the verbs that end with all their processes.
    ///
    /// # Errors
    /// The worker fails; a failure of the subject is kept in it.
    pub fn count(&mut self, worker: &mut Worker) -> io::Result<()> {
        let floor = matches!(self.kind, Kind::Floor { .. });
        if !floor {
            for verb in [Verb::Create, Verb::Start] {
                if self.ask(worker, "time", verb, "pause")?.is_none() {
                    return self.clear(worker);
                }
            }
        }
        for verb in [Verb::State, Verb::Exec, Verb::Version] {
            self.tally(worker, verb)?;
        }
        if !floor {
            self.ask(worker, "time", Verb::Kill, "pause")?;
            let pid = self.pid()?;
            worker.ask(&json!({ "op": "gone", "pid": pid }))?;
            self.tally(worker, Verb::Delete)?;
            self.clear(worker)?;
        }
        self.tally(worker, Verb::Run)?;
        self.clear(worker)
    }

    fn tally(&mut self, worker: &mut Worker, verb: Verb) -> io::Result<()> {
        let Some(answer) = self.ask(worker, "trace", verb, "true")? else { return Ok(()) };
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        let tally = Tally {
            status: 0,
            calls: number("calls"),
            payload_calls: number("payload_calls"),
            processes: number("processes"),
            threads: number("threads"),
            execs: number("execs"),
            peak_kib: number("peak_kib"),
        };
        self.tallies.insert(verb, tally);
        Ok(())
    }

    /// Tries a container with a memory limit of 512 KiB, whose bundle is there under the name `small`.
    ///
    /// # Errors
    /// The worker fails.
    pub fn try_512_kib(&mut self, worker: &mut Worker) -> io::Result<()> {
        // The floor has no second bundle.
        let runtime = matches!(self.kind, Kind::Runtime(_));
        let Some(argv) = self.argv(Verb::Run, "small").filter(|_| runtime) else { return Ok(()) };
        let answer = worker.ask_command("time", &argv, false)?;
        self.runs_in_512_kib = Some(answer["status"] == 0);
        self.clear(worker)
    }

    /// Starts the container that waits, and gives the id of its init; to be ended by [`Subject::clear`].
    ///
    /// # Errors
    /// The container does not come up, or the worker fails.
    pub fn start_waiting(&mut self, worker: &mut Worker) -> io::Result<i32> {
        for verb in [Verb::Create, Verb::Start] {
            if self.ask(worker, "time", verb, "pause")?.is_none() {
                return Err(io::Error::other(self.failures[&verb].clone()));
            }
        }
        self.pid()
    }

    /// Leaves no container behind, whatever happened.
    ///
    /// # Errors
    /// The worker fails.
    pub fn clear(&mut self, worker: &mut Worker) -> io::Result<()> {
        if let Some(mut argv) =
            self.argv(Verb::Delete, "pause").filter(|_| matches!(self.kind, Kind::Runtime(_)))
        {
            argv.insert(argv.len() - 1, "--force".to_owned());
            worker.ask_command("time", &argv, false)?;
        }
        Ok(())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Name and version of a runtime, from its `--version`; `None` if that says nothing.
///
/// # Errors
/// The worker fails, or the program cannot be started.
pub fn name(worker: &mut Worker, path: &std::path::Path) -> io::Result<Option<String>> {
    let argv = [path.display().to_string(), "--version".to_owned()];
    let answer = worker.ask_command("output", &argv, false)?;
    let line = answer["stdout"].as_str().unwrap_or_default().lines().next().unwrap_or_default();
    Ok(short_name(line))
}

fn short_name(line: &str) -> Option<String> {
    let program = line.split_whitespace().next()?;
    let version = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    Some(format!("{program} {}", &version[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_program_and_version() {
        assert_eq!(short_name("runc version 1.1.5+ds1").as_deref(), Some("runc 1.1.5"));
        assert_eq!(short_name("crun version 1.21").as_deref(), Some("crun 1.21"));
        assert_eq!(short_name(""), None);
    }
}
