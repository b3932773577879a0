//! `make conformance`: the validation suites of opencontainers/runtime-tools and of youki, where the environment names a
//! checkout of them, against dhow-runtime and against Debian's runc. See "Conformance suites" in docs/spec-conformance.md.
//!
//! What runc fails says something about the machine or the suite, so the verdict is the difference: a check that runc
//! passes and dhow-runtime does not is a failure. Each case of a suite runs in a sandbox of its own; a case that looks worse
//! is tried again, since some signal a program that has hardly begun.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command: that is what it is for

use dhow_tests::command::{Output, run, run_with};
use dhow_tests::sandbox::{CgroupLayout, CgroupView, cgroup_layout};
use dhow_tests::skip::find_program;
use dhow_tests::{Sandbox, runtime};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const USAGE: &str = "\
Usage: conformance [--markdown] [NAME]...
Runs the suites' cases, or those whose name contains a NAME. Must be run as root.

  DHOW_RUNTIME_TOOLS  a checkout of opencontainers/runtime-tools (built there with Go 1.21 or newer)
  DHOW_CONTEST        a checkout of youki-dev/youki (its tests/contest is built there with cargo)
  DHOW_RUNTIME        the runtime under test
  DHOW_PEER           the runtime to compare with (default: runc)
";

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a case that is worse than the peer's is run.
const ATTEMPTS: usize = 3;
/// The cgroups that the suites make, in the root of each hierarchy.
const CGROUPS: [&str; 3] = ["cgrouptest", "testdir", "runtime-test"];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A check's name, and for each time that it was made whether it passed. What was skipped is not there.
type Checks = BTreeMap<String, Vec<bool>>;

/// One of the two suites, built.
enum Suite {
    /// The checkout of runtime-tools.
    RuntimeTools(PathBuf),
    /// The directory of youki's `contest`, `runtimetest` and the bundle.
    Contest { contest: PathBuf, runtimetest: PathBuf, bundle: PathBuf },
}

impl Suite {
    fn name(&self) -> &'static str {
        match self {
            Suite::RuntimeTools(_) => "runtime-tools",
            Suite::Contest { .. } => "contest",
        }
    }

    fn cases(&self) -> Result<Vec<String>> {
        match self {
            Suite::RuntimeTools(dir) => {
                let mut names = Vec::new();
                for entry in fs::read_dir(dir.join("validation"))?.flatten() {
                    let is_case = entry.path().is_dir() && entry.file_name() != "util";
                    names.extend(entry.file_name().into_string().ok().filter(|_| is_case));
                }
                names.sort();
                Ok(names)
            }
            Suite::Contest { contest, bundle, .. } => {
                let parent = bundle.parent().ok_or("the bundle is in no directory")?;
                let list = checked(Command::new(contest).arg("list").current_dir(parent))?;
                Ok(list.stdout.split_whitespace().map(str::to_owned).collect())
            }
        }
    }

    /// Runs one case with a runtime, in a sandbox.
    fn run(&self, case: &str, runtime: &Path) -> Result<Checks> {
        let view = match cgroup_layout() {
            CgroupLayout::Unified => CgroupView::V2,
            CgroupLayout::Hybrid | CgroupLayout::Legacy => CgroupView::V1,
        };
        let sandbox = Sandbox::new(view)?;
        let temporary = sandbox.scratch().dir("tmp");
        let in_directory = |dir: &Path, program: &Path| {
            let mut command = sandbox.command("sh");
            command.args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]).arg(dir).arg(program);
            command.env("TMPDIR", &temporary);
            command
        };
        let output = match self {
            Suite::RuntimeTools(dir) => {
                let program = dir.join(format!("validation/{case}/{case}.t"));
                run_with(in_directory(dir, &program).env("RUNTIME", runtime), b"", PATIENCE)
            }
            Suite::Contest { contest, runtimetest, bundle } => {
                let dir = sandbox.scratch().dir("contest");
                fs::copy(bundle, dir.join("bundle.tar.gz"))?;
                let mut command = in_directory(&dir, contest);
                command.arg("run").arg("--runtime").arg(runtime).arg("--runtimetest").arg(runtimetest);
                // The suite knows youki's own ways and, by this name, those of runc, which are ours.
                run_with(command.args(["--tests", case]).env("RUNTIME_KIND", "runc"), b"", PATIENCE)
            }
        };
        drop(sandbox);
        remove_cgroups();
        let mut checks = match self {
            Suite::RuntimeTools(_) => tap(&output.stdout),
            Suite::Contest { .. } => lines(&output.stdout),
        };
        let ended = if output.timed_out { "ended in time" } else { "ended with 0" };
        checks.insert(ended.to_owned(), vec![output.success()]);
        Ok(checks)
    }
}

/// The checks of the Test Anything Protocol. An error that stands outside a check counts as one.
fn tap(text: &str) -> Checks {
    let mut checks = Checks::new();
    let mut in_check = false;
    for line in text.lines() {
        let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                let error = line.trim().strip_prefix("\"error\": ").filter(|e| *e != "\"\"" && *e != "\"\",");
                if let (Some(error), false) = (error, in_check) {
                    let text = error.split("\\n").next().unwrap_or(error);
                    checks.entry(text.trim_matches(['"', ',']).to_owned()).or_default().push(false);
                }
                continue;
            }
        };
        in_check = true;
        if rest.contains("# SKIP") {
            continue;
        }
        let name = rest.split_once(" - ").map_or(rest, |(_, name)| name);
        checks.entry(name.to_owned()).or_default().push(passed);
    }
    checks
}

/// The lines of contest: `2 / 7 : name : ok`.
fn lines(text: &str) -> Checks {
    let mut checks = Checks::new();
    for line in text.lines() {
        let mut parts = line.rsplitn(2, " : ");
        let (Some(result), Some(before)) = (parts.next(), parts.next()) else { continue };
        let Some((_, name)) = before.split_once(" : ") else { continue };
        match result.trim() {
            "ok" => checks.entry(name.to_owned()).or_default().push(true),
            "not ok" => checks.entry(name.to_owned()).or_default().push(false),
            _ => {}
        }
    }
    checks
}

fn passes(checks: &[bool]) -> usize {
    checks.iter().filter(|passed| **passed).count()
}

/// The checks that the peer passes more often.
fn worse<'a>(peer: &'a Checks, ours: &Checks) -> Vec<&'a str> {
    let fewer = |name: &&String| {
        let ours = ours.get(*name).map_or(0, |c| passes(c));
        passes(&peer[*name]) > ours
    };
    peer.keys().filter(fewer).map(String::as_str).collect()
}

fn failed(checks: &Checks) -> Vec<&str> {
    checks.iter().filter(|(_, c)| c.contains(&false)).map(|(name, _)| name.as_str()).collect()
}

fn score(checks: &Checks) -> String {
    let all: usize = checks.values().map(Vec::len).sum();
    let passed: usize = checks.values().map(|c| passes(c)).sum();
    format!("{passed}/{all}")
}

/// Empty cgroups that a case has left.
fn remove_cgroups() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines().filter(|l| l.contains(" - cgroup")) {
        let Some(root) = line.split(' ').nth(4) else { continue };
        for name in CGROUPS {
            remove_tree(&Path::new(root).join(name));
        }
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // One that is not there or not empty stays as it is.
    fs::remove_dir(dir).unwrap_or(());
}

fn checked(command: &mut Command) -> Result<Output> {
    let output = run_with(command, b"", Duration::from_secs(3600));
    if output.success() { Ok(output) } else { Err(output.to_string().into()) }
}

/// Builds what is not built yet.
fn runtime_tools(dir: PathBuf) -> Result<Suite> {
    let suite = Suite::RuntimeTools(dir.clone());
    let built = |name: &String| dir.join(format!("validation/{name}/{name}.t")).is_file();
    if !dir.join("runtimetest").is_file() || !suite.cases()?.iter().all(built) {
        eprintln!("building runtime-tools in {}", dir.display());
        let go = |args: &[&str]| checked(Command::new("go").args(args).current_dir(&dir));
        let inside = ["build", "-tags", "netgo osusergo", "-ldflags", "-extldflags -static"];
        go(&[&inside[..], &["-o", "runtimetest", "./cmd/runtimetest"]].concat())?;
        for case in suite.cases()? {
            let output = format!("validation/{case}/{case}.t");
            go(&["build", "-o", &output, &format!("./validation/{case}")])?;
        }
    }
    Ok(suite)
}

/// Builds what is not built yet: `contest`, and `runtimetest` without shared libraries, which runs inside containers.
fn contest(dir: &Path) -> Result<Suite> {
    let target = dir.join("target/dhow-conformance");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = |name: &str| target.join(&triple).join("debug").join(name);
    for (binary, flags) in [("contest", ""), ("runtimetest", "-Ctarget-feature=+crt-static")] {
        if built(binary).is_file() {
            continue;
        }
        eprintln!("building youki's {binary} in {}", dir.display());
        let mut cargo = Command::new("cargo");
        // Both packages, so that their dependencies have the features of both.
        cargo.args(["build", "--package", "contest", "--package", "runtimetest", "--bin", binary]);
        cargo.arg("--target").arg(&triple).arg("--target-dir").arg(&target).current_dir(dir);
        checked(
            cargo.env("RUSTFLAGS", flags).env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR"),
        )?;
    }
    let bundles = dir.join("tests/contest/contest");
    let own = bundles.join(format!("bundle-{}.tar.gz", std::env::consts::ARCH));
    let bundle = target.join("bundle.tar.gz");
    fs::copy(if own.is_file() { own } else { bundles.join("bundle.tar.gz") }, &bundle)?;
    Ok(Suite::Contest { contest: built("contest"), runtimetest: built("runtimetest"), bundle })
}

/// Compares every case of a suite; the number of checks that are worse.
fn compare(suite: &Suite, peer: &Path, names: &[String], markdown: bool) -> Result<usize> {
    let own = runtime::binary();
    let label = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (ours, theirs) = (label(&own), label(peer));
    if markdown {
        println!("\n| {} | {theirs} | {ours} | what {ours} fails |\n|---|---|---|---|", suite.name());
    }
    let mut count = 0;
    for case in suite.cases()? {
        if !names.is_empty() && !names.iter().any(|n| case.contains(n.as_str())) {
            continue;
        }
        let reference = suite.run(&case, peer)?;
        let mut result = suite.run(&case, &own)?;
        let mut attempt = 1;
        while !worse(&reference, &result).is_empty() && attempt < ATTEMPTS {
            result = suite.run(&case, &own)?;
            attempt += 1;
        }
        let bad = worse(&reference, &result);
        count += bad.len();
        let failed = failed(&result);
        if markdown {
            let failed = failed.join("; ").replace('|', "\\|");
            println!("| {case} | {} | {} | {failed} |", score(&reference), score(&result));
            continue;
        }
        let verdict = match (bad.is_empty(), failed.is_empty()) {
            (false, _) => "WORSE",
            (true, true) => "ok",
            (true, false) => "no worse",
        };
        let tries = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        let scores = format!("{theirs} {:>7}  {ours} {:>7}", score(&reference), score(&result));
        println!("{:13} {case:32} {scores}  {verdict}{tries}", suite.name());
        for check in failed {
            let mark = if bad.contains(&check) { "only ours fails" } else { "both fail" };
            println!("{:15}{mark}: {check}", "");
        }
        for check in bad.iter().filter(|c| !result.contains_key(**c)) {
            println!("{:15}never came to: {check}", "");
        }
    }
    Ok(count)
}

fn all() -> Result<usize> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.iter().any(|n| n == "--help") {
        print!("{USAGE}");
        return Ok(0);
    }
    let markdown = names.iter().any(|n| n == "--markdown");
    names.retain(|n| n != "--markdown");
    let directory = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(fs::canonicalize);
    let peer = match std::env::var_os("DHOW_PEER") {
        Some(path) => path.into(),
        None => {
            find_program("runc").ok_or("runc is not installed: it is what the suites are held against")?
        }
    };
    let mut suites = Vec::new();
    if let Some(dir) = directory("DHOW_RUNTIME_TOOLS") {
        suites.push(runtime_tools(dir?)?);
    }
    if let Some(dir) = directory("DHOW_CONTEST") {
        suites.push(contest(&dir?)?);
    }
    if suites.is_empty() {
        print!("{USAGE}");
        return Err("neither DHOW_RUNTIME_TOOLS nor DHOW_CONTEST is set: there is no suite to run".into());
    }
    let version = run(Command::new(&peer).arg("--version"));
    println!(
        "{}; kernel {}",
        version.stdout.lines().next().unwrap_or("?"),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
    );
    let mut count = 0;
    for suite in &suites {
        count += compare(suite, &peer, &names, markdown)?;
    }
    Ok(count)
}

fn main() -> ExitCode {
    match all() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(count) => {
            eprintln!("{count} checks that runc passes fail with dhow-runtime");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let text = "TAP version 13\nok 1 - a\nnot ok 2 - b\n  {\n    \"error\": \"x\"\n  }\nok 3 - b\nok 4 # SKIP c\n1..4\n";
        let checks = tap(text);
        assert_eq!((checks["a"].as_slice(), checks["b"].as_slice()), (&[true][..], &[false, true][..]));
        assert_eq!((checks.len(), score(&checks)), (2, "2/3".to_owned()));
        let outside = tap("TAP version 13\n  ---\n  {\n    \"error\": \"no\\nRefer to: y\"\n  }\n1..0\n");
        assert_eq!(failed(&outside), ["no"]);

        let text = "# Start group g\n1 / 3 : one : ok\n2 / 3 : two : with colon : not ok\n\twhy\n3 / 3 : three : skipped\n";
        let checks = lines(text);
        assert_eq!(failed(&checks), ["two : with colon"]);
        assert_eq!(checks.len(), 2);
    }

    #[test]
    fn worse_is_what_only_the_peer_passes() {
        let checks = |list: &[(&str, &[bool])]| -> Checks {
            list.iter().map(|(name, c)| ((*name).to_owned(), c.to_vec())).collect()
        };
        let peer = checks(&[("a", &[true]), ("b", &[false]), ("c", &[true, true]), ("d", &[true])]);
        let ours = checks(&[("a", &[true]), ("b", &[false]), ("c", &[true, false])]);
        assert_eq!(worse(&peer, &ours), ["c", "d"]);
        assert_eq!(worse(&ours, &peer), [] as [&str; 0]);
    }
}
