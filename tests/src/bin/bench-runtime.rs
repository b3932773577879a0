//! `make bench-runtime`: dhow-runtime beside its peers and the floor, on this machine, interleaved. See docs/benchmarks.md.

use dhow_tests::bench::bundle::{self, Container};
use dhow_tests::bench::report::{self, Section};
use dhow_tests::bench::subject::{self, Kind, Places, Subject};
use dhow_tests::bench::sys;
use dhow_tests::bench::worker::{self, Pilot, Surroundings, View, Worker};
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const USAGE: &str = "\
Usage: bench-runtime [OPTION]...
Times dhow-runtime, Debian's runc and crun and a bare C program in turn. Must be run as root.

  --runtime PATH    the runtime under test (default: the workspace's static release build)
  --rounds N        rounds that count (default: 40, or $DHOW_BENCH_ROUNDS)
  --warmup N        rounds before them that do not (default: 3)
  --settle-ms N     pause before each command (default: 5)
  --view v1|v2      only this view of the cgroups (default: each that the machine can show)
  --only PREFIX     only peers whose name begins so; may be repeated; `none` for no peer
  --debian13 DIR    a root made by scripts/debian13-root.sh (default: $DHOW_DEBIAN13 or its place there)
  --seccomp FILE    a profile, as linux.seccomp or as an engine's template
  --dir DIR         where bundles and state go (default: /dev/shm)
  --output FILE     also write the tables there
  --record FILE     also replace the measured part of this document: docs/benchmarks.md
  --check           fail if a goal is not met
";

struct Options {
    runtime: PathBuf,
    rounds: usize,
    warmup: usize,
    settle: Duration,
    views: Vec<View>,
    only: Vec<String>,
    debian13: PathBuf,
    seccomp: PathBuf,
    dir: PathBuf,
    output: Option<PathBuf>,
    record: Option<PathBuf>,
    check: bool,
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let env = |name: &str| std::env::var_os(name);
    let target = env("CARGO_TARGET_DIR").map_or_else(|| tests.join("../target"), PathBuf::from);
    let own_profile = tests.join("data/seccomp-docker.json");
    let mut options = Options {
        runtime: target.join(concat!("x86_64-unknown-linux-musl", "/release/dhow-runtime")),
        rounds: env("DHOW_BENCH_ROUNDS").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(40),
        warmup: 3,
        settle: Duration::from_millis(5),
        views: vec![View::V1, View::V2],
        only: Vec::new(),
        debian13: env("DHOW_DEBIAN13").map_or_else(|| "/var/cache/dhow-test/debian13".into(), PathBuf::from),
        seccomp: if own_profile.exists() { own_profile } else { "/usr/share/containers/seccomp.json".into() },
        dir: "/dev/shm".into(),
        output: None,
        record: None,
        check: false,
    };
    if cfg!(target_arch = "aarch64") {
        options.runtime = target.join("aarch64-unknown-linux-musl/release/dhow-runtime");
    }
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            return Ok(None);
        }
        if argument == "--check" {
            options.check = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{argument}: no value, or no such option"))?;
        match argument.as_str() {
            "--runtime" => options.runtime = fs::canonicalize(value)?,
            "--rounds" => options.rounds = value.parse()?,
            "--warmup" => options.warmup = value.parse()?,
            "--settle-ms" => options.settle = Duration::from_millis(value.parse()?),
            "--view" => options.views = vec![View::from_name(&value).ok_or("--view: v1 or v2")?],
            "--only" => options.only.push(value),
            "--debian13" => options.debian13 = value.into(),
            "--seccomp" => options.seccomp = value.into(),
            "--dir" => options.dir = value.into(),
            "--record" => options.record = Some(value.into()),
            "--output" => options.output = Some(value.into()),
            _ => return Err(format!("no such option: {argument}").into()),
        }
    }
    Ok(Some(options))
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "bench-runtime: {text}");
}

fn main() -> ExitCode {
    let result = if let Some(surroundings) = Surroundings::from_arguments(std::env::args().skip(1)) {
        worker::serve(&surroundings).map(|()| true).map_err(Into::into)
    } else {
        match options() {
            Ok(Some(options)) => measure(&options),
            Ok(None) => std::io::stdout().write_all(USAGE.as_bytes()).map(|()| true).map_err(Into::into),
            Err(error) => Err(error),
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// The directory that everything of this benchmark is below, removed at its end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn measure(options: &Options) -> Result<bool, Box<dyn Error>> {
    for entry in fs::read_dir(&options.dir)?.flatten().filter(|entry| worker::is_left_over(&entry.path())) {
        fs::remove_dir_all(entry.path())?;
    }
    let name = format!("{}{}", worker::PREFIX, std::process::id());
    let scratch = Scratch(options.dir.join(&name));
    fs::create_dir_all(&scratch.0)?;
    let nofile = sys::hard_nofile()?.min(1 << 20);
    compile("payload", &scratch.0, &[])?;
    compile("floor", &scratch.0, &[format!("-DNOFILE={nofile}")])?;
    let rootfs = scratch.0.join("rootfs");
    bundle::make_rootfs(&rootfs, &scratch.0.join("payload"))?;
    let seccomp =
        bundle::seccomp(&options.seccomp).map_err(|e| format!("{}: {e}", options.seccomp.display()))?;

    let mut text = header(options);
    let mut sections = Vec::new();
    for &view in options.views.iter().filter(|&&view| worker::can_show(view)) {
        let section = measure_view(options, view, &scratch.0, &rootfs, &seccomp, nofile)?;
        text.push_str(&report::tables(&section, options.rounds));
        text.push('\n');
        sections.push(section);
    }
    let mut met = true;
    if sections.iter().any(|section| section.tested.is_some()) {
        let (goals, all_met) = report::goals(&sections, report::binary(&options.runtime)?);
        text.push_str(&goals);
        met = all_met;
    }
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(output) = &options.output {
        fs::write(output, &text)?;
    }
    if let Some(file) = &options.record {
        let document = fs::read_to_string(file)?;
        let document = report::record(&document, &text)
            .ok_or_else(|| format!("{}: no measured part", file.display()))?;
        fs::write(file, document)?;
    }
    Ok(met || !options.check)
}

/// Compiles a program of tests/floor into `dir`.
fn compile(name: &str, dir: &Path, flags: &[String]) -> Result<(), Box<dyn Error>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor").join(name).with_extension("c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-O2", "-static", "-o"]).arg(dir.join(name)).args(flags).arg(&source);
    if command.status()?.success() {
        Ok(())
    } else {
        Err(format!("{} does not compile", source.display()).into())
    }
}

fn header(options: &Options) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("", |l| l.trim_start_matches([' ', '\t', ':']));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Linux {}, {cpus} x {model}; {} rounds, {} ms before each command; load at the start {}.\n\n",
        read("/proc/sys/kernel/osrelease").trim(),
        options.rounds,
        options.settle.as_millis(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// The workers of a view, and the cgroup below which its containers are; removed with it.
struct Workers {
    workers: Vec<Worker>,
    pilot: Option<Pilot>,
    cgroup: String,
    /// v2: what the root's cgroup.subtree_control was; runtimes add to it.
    enabled: Option<String>,
}

const UNIFIED: &str = "/sys/fs/cgroup/unified";
const SUBTREE_CONTROL: [&str; 2] =
    ["/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/unified/cgroup.subtree_control"];

fn subtree_control() -> Option<(&'static str, String)> {
    SUBTREE_CONTROL.into_iter().find_map(|path| Some((path, fs::read_to_string(path).ok()?)))
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.pilot.take());
        let _ = self.workers[0].ask(&json!({ "op": "remove_cgroup", "name": self.cgroup }));
        if let (Some(before), Some((path, now))) = (&self.enabled, subtree_control()) {
            for added in now.split_whitespace().filter(|c| !before.split_whitespace().any(|b| b == *c)) {
                let _ = fs::write(path, format!("-{added}"));
            }
        }
    }
}

fn measure_view(
    options: &Options,
    view: View,
    scratch: &Path,
    rootfs: &Path,
    seccomp: &Value,
    nofile: u64,
) -> Result<Section, Box<dyn Error>> {
    let dir = scratch.join(view.name());
    fs::create_dir_all(&dir)?;
    let stderr = dir.join("stderr");
    let plain = Surroundings { view, root: None, forgive_memlock: false };
    let enabled = subtree_control().map(|(_, text)| text);
    let mut here = Workers {
        workers: vec![Worker::start(&plain, &stderr)?],
        pilot: None,
        cgroup: format!("{}{}", worker::PREFIX, std::process::id()),
        enabled,
    };
    // The path of each runtime, as its worker sees it.
    let mut candidates = vec![(options.runtime.clone(), 0)];
    candidates.extend(["crun", "runc"].into_iter().filter_map(find).map(|path| (path, 0)));
    if options.debian13.join("usr").is_dir() {
        let debian13 = Surroundings { root: Some(options.debian13.clone()), ..plain.clone() };
        here.workers.push(Worker::start(&debian13, &stderr)?);
        candidates.extend([("/usr/bin/crun".into(), 1), ("/usr/sbin/runc".into(), 1)]);
    } else {
        say(&format!("{} is not there: Debian 13's runtimes are left out", options.debian13.display()));
    }
    here.workers[0].ask(&json!({ "op": "sweep_cgroups" }))?;
    let made = here.workers[0].ask(&json!({ "op": "make_cgroup", "name": here.cgroup }))?;
    let controllers: Vec<String> = made["controllers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| Some(c.as_str()?.to_owned()))
        .collect();

    let hierarchy =
        Path::new(made["hierarchy"].as_str().unwrap_or_default()).join(&here.cgroup).join("pilot");
    let own_hierarchy = if view == View::V2 && Path::new(UNIFIED).exists() {
        Path::new(UNIFIED).join(&here.cgroup).join("pilot")
    } else {
        hierarchy.clone()
    };
    let pilot = Pilot::start(&rootfs.join("pilot"), &hierarchy, &own_hierarchy)?;
    for worker in &mut here.workers {
        worker.warm = pilot.request.clone();
    }
    here.pilot = Some(pilot);

    let mut subjects = Vec::new();
    let mut tested = None;
    for (index, (path, mut worker)) in candidates.into_iter().enumerate() {
        let name = match subject::name(&mut here.workers[worker], &path) {
            Ok(Some(name)) => name,
            Ok(None) | Err(_) => {
                say(&format!("{}: no runtime there: left out", path.display()));
                continue;
            }
        };
        let is_tested = index == 0;
        if !is_tested && !options.only.is_empty() && !options.only.iter().any(|only| name.starts_with(only)) {
            continue;
        }
        if !is_tested
            && worker == 0
            && view == View::V2
            && name.starts_with("crun")
            && !sys::memlock_is_free()?
        {
            say(&format!("{name}: let believe that it has raised its limit of locked memory"));
            let forgiving = Surroundings { forgive_memlock: true, ..plain.clone() };
            worker = here.workers.len();
            here.workers.push(Worker::start(&forgiving, &stderr)?);
            here.workers[worker].warm = here.workers[0].warm.clone();
        }
        // A peer given as the runtime under test would otherwise stand in the table twice under one name.
        let name = if is_tested && !name.starts_with("dhow") { format!("{name} (tested)") } else { name };
        let places = Places { dir: dir.join(index.to_string()), cgroup: format!("/{}/{index}", here.cgroup) };
        for (program, bundle, memory_bytes) in
            [("true", "true", 512 << 20), ("pause", "pause", 512 << 20), ("true", "small", 512 << 10)]
        {
            let container = Container {
                program,
                rootfs,
                cgroup: &places.cgroup,
                controllers: &controllers,
                seccomp,
                nofile,
                memory_bytes,
            };
            bundle::make(&places.bundle(bundle), &container)?;
        }
        if is_tested {
            tested = Some(subjects.len());
        }
        subjects.push(Subject::new(name, Kind::Runtime(path), worker, places));
    }
    let (filter, floor) = floor(&mut subjects, tested, &mut here, view, &dir, &controllers)?;
    subjects.insert(0, floor);
    let tested = tested.map(|index| index + 1);

    let count = subjects.len();
    for round in 0..options.warmup + options.rounds {
        if round == options.warmup {
            for subject in &mut subjects {
                subject.times_ns.clear();
            }
        }
        // Each round begins with another subject, so that nobody always follows the same neighbour's mess.
        for turn in 0..count {
            let subject = &mut subjects[(round + turn) % count];
            subject.round(&mut here.workers[subject.worker], options.settle)?;
        }
    }
    for subject in &mut subjects {
        subject.count(&mut here.workers[subject.worker])?;
        if controllers.iter().any(|c| c == "memory") {
            subject.try_512_kib(&mut here.workers[subject.worker])?;
        }
    }
    Ok(Section { view, subjects, tested, filter })
}

/// The floor, with the filter that the runtime under test installs, or else the first that the others do.
fn floor(
    subjects: &mut [Subject],
    tested: Option<usize>,
    here: &mut Workers,
    view: View,
    dir: &Path,
    controllers: &[String],
) -> Result<(String, Subject), Box<dyn Error>> {
    let file = dir.join("filter");
    fs::write(&file, b"")?;
    let mut filter = "Its containers have no seccomp filter: nobody's could be read.".to_owned();
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    order.sort_by_key(|&index| Some(index) != tested);
    for index in order {
        let subject = &mut subjects[index];
        // Read by the plain worker: a process that has a filter of its own may not read others'.
        let request = |pid| json!({ "op": "filter", "pid": pid, "file": file });
        let started = subject.start_waiting(&mut here.workers[subject.worker]);
        let answer = started.and_then(|pid| here.workers[0].ask(&request(pid)));
        subject.clear(&mut here.workers[subject.worker])?;
        match answer {
            Ok(answer) => {
                filter = format!(
                    "Its containers have the seccomp filter of {}, {} instructions.",
                    subject.name, answer["instructions"]
                );
                break;
            }
            Err(error) => say(&format!("no seccomp filter from {}: {error}", subject.name)),
        }
    }
    let scratch = dir.parent().unwrap_or(dir);
    let path = |name: &str| scratch.join(name).display().to_string();
    let run = [
        path("floor"),
        view.name().to_owned(),
        format!("{}/floor", here.cgroup),
        controllers.join(":"),
        path("rootfs"),
        file.display().to_string(),
        bundle::HOSTNAME.to_owned(),
        "/true".to_owned(),
    ];
    let kind = Kind::Floor { run: run.to_vec(), idle: vec![path("rootfs/true")] };
    let places = Places { dir: dir.join("floor"), cgroup: format!("/{}/floor", here.cgroup) };
    Ok((filter, Subject::new("floor".to_owned(), kind, 0, places)))
}

/// A program on PATH or in the directories of the administrator's programs.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|file| file.is_file())
}
