//! The process that starts and times commands, in a mount namespace of its own: with the machine's root or another, and
//! with the cgroups shown as v1 or as v2. Entering a root so costs nothing that is measured.
//!
//! It is this program again, and answers requests line by line, both in JSON; [`Worker`] is the other end. It is the
//! subreaper of what it starts, so that a container's init, orphaned when `create` ends, is its own to wait for.

use crate::bench::{sys, trace};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How a worker's mount namespace shows the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// One hierarchy per controller; a v2 tree beside them is hidden.
    V1,
    /// One tree at /sys/fs/cgroup.
    V2,
}

impl View {
    /// The view's name on the command line and in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            View::V1 => "v1",
            View::V2 => "v2",
        }
    }

    /// The view of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<View> {
        [View::V1, View::V2].into_iter().find(|view| view.name() == name)
    }
}

const CGROUPS: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Whether this machine can show its cgroups so.
#[must_use]
pub fn can_show(view: View) -> bool {
    let pure_v2 = Path::new(CGROUPS).join("cgroup.controllers").exists();
    match view {
        View::V1 => !pure_v2,
        View::V2 => pure_v2 || Path::new(UNIFIED).join("cgroup.controllers").exists(),
    }
}

fn show(view: View) -> io::Result<()> {
    if !Path::new(UNIFIED).join("cgroup.controllers").exists() {
        return Ok(());
    }
    match view {
        View::V1 => sys::unmount(Path::new(UNIFIED)),
        View::V2 => {
            let tree = sys::clone_tree(Path::new(UNIFIED))?;
            sys::unmount(Path::new(CGROUPS))?;
            sys::attach_tree(&tree, Path::new(CGROUPS))
        }
    }
}

fn enter(root: &Path) -> io::Result<()> {
    let tree = sys::clone_tree(root)?;
    sys::attach_tree(&tree, root)?;
    for dir in ["proc", "sys", "dev"] {
        sys::mount(Some(&Path::new("/").join(dir)), &root.join(dir), None, libc::MS_BIND | libc::MS_REC)?;
    }
    sys::mount(Some(Path::new("tmpfs")), &root.join("run"), Some("tmpfs"), 0)?;
    sys::pivot_root(root)
}

/// What a worker's commands find.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// How the cgroups are shown.
    pub view: View,
    /// The root, if it is not the machine's.
    pub root: Option<PathBuf>,
    /// Setting the limit of locked memory succeeds without doing anything. crun 1.8.1 raises it before it loads a device
    /// program, as old kernels demanded, and cannot do without; where CAP_SYS_RESOURCE is missing it would not run.
    pub forgive_memlock: bool,
}

impl Surroundings {
    const FORGIVE: &str = "--forgive-memlock";

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["--worker".into(), self.view.name().into()];
        arguments.extend(self.forgive_memlock.then(|| Self::FORGIVE.into()));
        arguments.extend(self.root.clone().map(PathBuf::into_os_string));
        arguments
    }

    /// The surroundings that this process is to make, if it was started as a worker.
    pub fn from_arguments(arguments: impl Iterator<Item = String>) -> Option<Surroundings> {
        let mut arguments = arguments.peekable();
        arguments.next_if(|a| a == "--worker")?;
        let view = View::from_name(&arguments.next()?)?;
        let forgive_memlock = arguments.next_if(|a| a == Self::FORGIVE).is_some();
        Some(Surroundings { view, forgive_memlock, root: arguments.next().map(PathBuf::from) })
    }
}

/// Serves requests from standard input until its end.
///
/// # Errors
/// The surroundings cannot be made, or the other end is gone.
pub fn serve(surroundings: &Surroundings) -> io::Result<()> {
    sys::private_mounts()?;
    show(surroundings.view)?;
    if let Some(root) = &surroundings.root {
        enter(root)?;
    }
    if surroundings.forgive_memlock {
        sys::forgive_memlock()?;
    }
    sys::become_subreaper()?;
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = answer(&request).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(request: &Value) -> io::Result<Value> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    while sys::reap_one().is_some() {}
    match text("op") {
        "time" => {
            let (mut command, stderr) = command(request)?;
            if let (Some(file), Some(pid)) =
                (request["warm"]["file"].as_str(), request["warm"]["pid"].as_i64())
            {
                fs::write(file, pid.to_string())?;
            }
            let begin = Instant::now();
            let status = command.spawn()?.wait()?;
            let ns = begin.elapsed().as_nanos() as u64;
            let code = status.code().unwrap_or(-1);
            let said = if code == 0 { String::new() } else { fs::read_to_string(stderr)? };
            Ok(json!({ "ns": ns, "status": code, "stderr": said }))
        }
        "trace" => {
            let (mut command, stderr) = command(request)?;
            let tally = trace::run(&mut command)?;
            Ok(json!({
                "status": tally.status, "calls": tally.calls, "payload_calls": tally.payload_calls,
                "processes": tally.processes, "threads": tally.threads, "execs": tally.execs,
                "peak_kib": tally.peak_kib, "stderr": fs::read_to_string(stderr)?,
            }))
        }
        "output" => {
            let (mut command, _) = command(request)?;
            let output = command.stdout(Stdio::piped()).output()?;
            Ok(json!({ "stdout": String::from_utf8_lossy(&output.stdout) }))
        }
        "gone" => {
            let pid = request["pid"].as_i64().unwrap_or_default() as i32;
            let deadline = Instant::now() + Duration::from_secs(10);
            while sys::exists(pid) && Instant::now() < deadline {
                while sys::reap_one().is_some() {}
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(json!({ "gone": !sys::exists(pid) }))
        }
        "filter" => {
            let filter = sys::seccomp_filter(request["pid"].as_i64().unwrap_or_default() as i32)?;
            fs::write(text("file"), &filter)?;
            Ok(json!({ "instructions": filter.len() / 8 }))
        }
        "make_cgroup" => make_cgroup(text("name")),
        "sweep_cgroups" => {
            for hierarchy in hierarchies()? {
                for entry in fs::read_dir(hierarchy)?.flatten() {
                    if is_left_over(&entry.path()) {
                        kill_cgroup(&entry.path());
                        remove_cgroup(&entry.path());
                    }
                }
            }
            Ok(json!({}))
        }
        "remove_cgroup" => {
            for hierarchy in hierarchies()? {
                remove_cgroup(&hierarchy.join(text("name")));
            }
            Ok(json!({}))
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no such request: {other}"))),
    }
}

fn command(request: &Value) -> io::Result<(Command, PathBuf)> {
    let argv: Vec<&str> =
        request["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (program, arguments) =
        argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
    // A file and no pipe: a container that stays keeps its standard error.
    let stderr = PathBuf::from(request["stderr"].as_str().unwrap_or("/dev/null"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr)?);
    Ok((command, stderr))
}

/// Where the hierarchies of this view are mounted.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        return Ok(vec![PathBuf::from(CGROUPS)]);
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|f| f.get(2) == Some(&"cgroup")).map(|f| PathBuf::from(f[1])).collect())
}

/// Makes the parent of the containers' cgroups, and tells which controllers they can have: on v1 every hierarchy.
fn make_cgroup(name: &str) -> io::Result<Value> {
    let mut controllers = Vec::new();
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(name);
        fs::create_dir_all(&dir)?;
        let available = hierarchy.join("cgroup.controllers");
        if available.exists() {
            let available = fs::read_to_string(available)?;
            controllers.extend(["memory", "pids", "cpu"].map(str::to_owned));
            controllers.retain(|wanted| available.split_whitespace().any(|have| have == wanted));
            for controller in &controllers {
                fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"))?;
                fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
            continue;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(dir.join(file), value)?;
            }
        }
        controllers.push(hierarchy.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    let any = hierarchies()?.into_iter().min().unwrap_or_default();
    Ok(json!({ "controllers": controllers, "hierarchy": any }))
}

/// What the benchmark's own directories are called, before its process id.
pub const PREFIX: &str = "dhow-test-bench-";

/// Whether this is a directory of a benchmark that was killed.
#[must_use]
pub fn is_left_over(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok()).is_some_and(|pid| !sys::exists(pid))
}

/// Kills what is in a cgroup and below it, and waits for the end of it.
fn kill_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        let processes = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if processes.is_empty() {
            break;
        }
        processes.lines().filter_map(|pid| pid.parse().ok()).for_each(sys::kill);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes a cgroup that has no process, with those below it.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// The asking end of a worker process; its end is the worker's.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    stderr: PathBuf,
    /// A write that a timed command is preceded by, unless it is to start after a quiet time: see [`Pilot`].
    pub warm: Value,
}

/// A process that waits in a cgroup of its own below the benchmark's, to be moved there again and again.
///
/// The first move of a process between cgroups after a quiet time waits for an RCU grace period (4 to 17 ms), later ones
/// do not. Left alone, who pays for it would be chance: so one process is moved just before each timed command.
#[derive(Debug)]
pub struct Pilot {
    process: Child,
    /// The request's `warm`.
    pub request: Value,
}

impl Pilot {
    /// Starts `program`, which must wait for the end of its standard input, in the cgroup whose directory the workers see as `dir`; this process sees it as
    /// `here`.
    ///
    /// # Errors
    /// The process cannot be started or moved.
    pub fn start(program: &Path, dir: &Path, here: &Path) -> io::Result<Pilot> {
        fs::create_dir_all(here)?;
        let process = Command::new(program).stdin(Stdio::piped()).spawn()?;
        let pid = process.id();
        let pilot = Pilot { process, request: json!({ "file": dir.join("cgroup.procs"), "pid": pid }) };
        fs::write(here.join("cgroup.procs"), pid.to_string())?;
        Ok(pilot)
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    /// Starts this program again as a worker. What its commands write to standard error goes to the file `stderr`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(surroundings: &Surroundings, stderr: &Path) -> io::Result<Worker> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child =
            command.args(surroundings.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let requests = Some(child.stdin.take().ok_or_else(gone)?);
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        Ok(Worker { child, requests, answers, stderr: stderr.to_owned(), warm: Value::Null })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The worker is gone, or could not do what was asked.
    pub fn ask(&mut self, request: &Value) -> io::Result<Value> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(requests, "{request}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the worker is gone"));
        }
        let answer: Value = serde_json::from_str(&line)?;
        match answer["error"].as_str() {
            Some(error) => Err(io::Error::other(format!("{request}: {error}"))),
            None => Ok(answer),
        }
    }

    /// As [`Worker::ask`], for a request that is a command line; `quiet` leaves out what precedes a timed command.
    ///
    /// # Errors
    /// The worker is gone, or the command could not be started.
    pub fn ask_command(&mut self, op: &str, argv: &[String], quiet: bool) -> io::Result<Value> {
        let stderr = self.stderr.clone();
        let warm = if quiet { Value::Null } else { self.warm.clone() };
        self.ask(&json!({ "op": op, "argv": argv, "stderr": stderr, "warm": warm }))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}
