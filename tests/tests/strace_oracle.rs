//! What run, create and exec do, seen by strace: no path below the container's root is used after its descriptor is
//! open, no mount(2), one process besides the container's, no exec but the container's, and no more system calls than
//! the budget.

use dhow_tests::skip::{is_root, missing_program};
use dhow_tests::{Bundle, bundle, run, skip};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// System calls that `run` of a container with Docker's default configuration may make, in all of its processes up to
/// the container's execve, and after it those of the runtime.
const MOST_CALLS: usize = 450;

/// One call: process, name, arguments and result as strace wrote them.
struct Call {
    pid: u32,
    name: String,
    text: String,
}

/// Calls that take a path with or without a directory descriptor before it.
const WITH_PATH: [&str; 29] = [
    "open",
    "openat",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "chmod",
    "fchmodat",
    "chown",
    "fchownat",
    "chdir",
    "chroot",
    "creat",
];

fn trace(bundle: &Bundle, command: &Command) -> Vec<Call> {
    let log = bundle.scratch().join("strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-s", "4096", "-o"]).arg(&log);
    strace.arg(command.get_program()).args(command.get_args());
    run(&mut strace).ok();
    let text = fs::read_to_string(&log).expect("read strace's output");
    let mut calls: Vec<Call> = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let pid = pid.parse().expect("a pid begins each line");
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some(begun) = calls.iter_mut().rev().find(|c| c.pid == pid) {
                begun.text.push_str(resumed);
            }
            continue;
        }
        let Some((name, text)) = rest.split_once('(') else { continue };
        if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            calls.push(Call { pid, name: name.to_owned(), text: text.to_owned() });
        }
    }
    calls
}

/// The calls up to the container's own execve, its process's later ones left out.
fn of_the_runtime(calls: &[Call]) -> Vec<&Call> {
    let Some(own) = calls.iter().rposition(|c| c.name == "execve") else { return calls.iter().collect() };
    let container = calls[own].pid;
    calls.iter().enumerate().filter(|(at, c)| *at <= own || c.pid != container).map(|(_, c)| c).collect()
}

/// Paths in the arguments of a call: what stands in quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// Whether anything in this call resolves a path without RESOLVE_IN_ROOT or a single component.
fn check(bundle: &Bundle, calls: &[Call]) {
    let calls = of_the_runtime(calls);
    let child = calls.iter().rfind(|c| c.name == "execve").map(|c| c.pid).expect("the container's execve");
    let rootfs = bundle.rootfs().display().to_string();
    let mut wrong = Vec::new();
    // From the open of the root to pivot_root the root is a directory like any other.
    let mut opened = false;
    let mut named = 0;
    let mut entered = false;
    for call in &calls {
        let say = format!("{} {}({}", call.pid, call.name, call.text);
        if matches!(call.name.as_str(), "mount" | "umount2") {
            let detach_dot = call.name == "umount2" && call.text.starts_with("\".\"");
            if !detach_dot {
                wrong.push(say.clone());
            }
        }
        if call.pid != child {
            if opened && quoted(&call.text).iter().any(|p| p.starts_with(&rootfs)) {
                wrong.push(say);
            }
            continue;
        }
        if call.name == "pivot_root" {
            entered = true;
        }
        let names_root = quoted(&call.text).iter().any(|p| p.starts_with(&rootfs));
        if names_root {
            // The clone of the root's mounts, and what puts it over the directory; nothing after that.
            let covers = matches!(call.name.as_str(), "move_mount" | "open" | "openat");
            if named > 1 || (named == 1 && !covers) {
                wrong.push(say.clone());
            }
            named += 1;
            opened = true;
            continue;
        }
        if !opened || entered {
            continue;
        }
        if call.name == "openat2" {
            if !call.text.contains("RESOLVE_IN_ROOT") || !call.text.contains("RESOLVE_NO_MAGICLINKS") {
                wrong.push(say);
            }
        } else if WITH_PATH.contains(&call.name.as_str())
            || call.name == "move_mount"
            || call.name == "open_tree"
        {
            // The content of a link is no path of the runtime's.
            let content = usize::from(call.name == "symlinkat");
            // A mount's source is a host path: the child has not left the host's root yet.
            let source = call.name == "open_tree" && call.text.starts_with("AT_FDCWD");
            for path in quoted(&call.text).into_iter().skip(content).filter(|_| !source) {
                let of_host = path == "/dev/null" || path == "/proc" || path == "self/fd";
                let one = !path.contains('/') && path != "..";
                if !(one || of_host) {
                    wrong.push(say.clone());
                }
            }
            let follows = call.name == "openat" && !call.text.contains("O_NOFOLLOW");
            let harmless = quoted(&call.text).iter().all(|p| matches!(*p, "." | "/dev/null"));
            if follows && !harmless {
                wrong.push(format!("follows links: {} openat({}", call.pid, call.text));
            }
        }
    }
    assert!(wrong.is_empty(), "paths below the root:\n  {}", wrong.join("\n  "));
}

fn processes(calls: &[Call]) -> usize {
    calls.iter().map(|c| c.pid).collect::<BTreeSet<_>>().len()
}

fn execs(calls: &[Call]) -> usize {
    calls
        .iter()
        .filter(|c| c.name == "execve" || c.name == "execveat")
        .filter(|c| !c.text.contains("= -1"))
        .count()
}

fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("not root".into());
    }
    missing_program(&["strace"]).map(|p| format!("{p} is not installed"))
}

#[test]
fn run_uses_descriptors_two_processes_and_few_calls() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    // Everything that resolves a path in the root.
    bundle.set("/process/cwd", "/made/by/cwd".into());
    bundle.mount(serde_json::json!({ "destination": "/a/b/c", "type": "bind", "source": "/etc", "options": ["rbind", "ro"] }));
    bundle.mount(
        serde_json::json!({ "destination": "/tc", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
    );
    bundle.set(
        "/linux/devices",
        serde_json::json!([{ "path": "/x/y/null", "type": "c", "major": 1, "minor": 3 }]),
    );
    bundle.write();
    let runtime = bundle.runtime();
    let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
    let calls = trace(&bundle, &runtime.command(["run", "--bundle", &path, "traced"]));
    check(&bundle, &calls);
    assert_eq!((processes(&calls), execs(&calls)), (2, 2), "processes and execs");

    let mut plain = Bundle::busybox();
    if let Some(profile) = bundle::default_seccomp() {
        plain.set("/linux/seccomp", profile);
    }
    plain.write();
    let runtime = plain.runtime();
    let path = plain.path().to_str().expect("a path in UTF-8").to_owned();
    let calls = trace(&plain, &runtime.command(["run", "--bundle", &path, "counted"]));
    let own = of_the_runtime(&calls).len();
    let say = format!("run with Docker's defaults: {own} system calls, {} with the payload's\n", calls.len());
    std::io::Write::write_all(&mut std::io::stderr(), say.as_bytes()).expect("write to stderr");
    // A dynamically linked build does more at its start, and a debug build checks more.
    let linked = run(Command::new("ldd").arg(runtime.binary())).stdout.contains("=>");
    let most = if linked || !runtime.is_dhow() { MOST_CALLS + 250 } else { MOST_CALLS };
    assert!(own <= most, "{own} system calls, {most} at most");
}

#[test]
fn create_uses_descriptors() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    bundle.args(["/bin/true"]).write();
    let runtime = bundle.runtime();
    let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
    // strace -f stays until the container has ended, so somebody has to start it.
    let starter = std::thread::spawn({
        let runtime = bundle.runtime();
        move || {
            runtime.wait_status("traced", "created");
            runtime.start("traced")
        }
    });
    let calls = trace(&bundle, &runtime.command(["create", "--bundle", &path, "traced"]));
    starter.join().expect("the starter does not panic").ok();
    check(&bundle, &calls);
    assert_eq!((processes(&calls), execs(&calls)), (2, 2), "processes and execs");
    runtime.delete_force("traced").ok();
}

#[test]
fn exec_resolves_nothing_on_the_host() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    bundle.args(["/bin/sleep", "100"]).write();
    let runtime = bundle.runtime();
    runtime.run_detached("traced", &bundle).ok();
    let calls = trace(&bundle, &runtime.command(["exec", "traced", "/bin/true"]));
    let rootfs = bundle.rootfs().display().to_string();
    let own = of_the_runtime(&calls);
    let touching: Vec<_> =
        own.iter().filter(|c| quoted(&c.text).iter().any(|p| p.starts_with(&rootfs))).collect();
    assert!(touching.is_empty(), "{}({}", touching[0].name, touching[0].text);
    assert!(!own.iter().any(|c| c.name == "mount"));
    // The command, the one that joins, and the container's process. The second exec is the command's own, sealed.
    assert_eq!((processes(&calls), execs(&calls)), (3, 3), "processes and execs");
    runtime.delete_force("traced").ok();
}
