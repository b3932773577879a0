//! SECURITY.md class I: what the kernel shows a container: system calls under Docker's profile, files below /proc and
//! /sys that can be written.

use dhow_tests::skip::{is_root, missing_program};
use dhow_tests::{Bundle, run, skip};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// A bundle with the probe as `/probe`, or why there is none.
fn bundle() -> Result<Bundle, String> {
    if !is_root() {
        return Err("not root".into());
    }
    if let Some(program) = missing_program(&["gcc"]) {
        return Err(format!("{program} is not installed"));
    }
    let bundle = Bundle::busybox();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("probes/probe.c");
    let mut compile = Command::new("gcc");
    compile.args(["-static", "-O1", "-o"]).arg(bundle.rootfs().join("probe")).arg(source);
    let out = run(&mut compile);
    if out.success() { Ok(bundle) } else { Err(format!("the probe cannot be compiled: {out}")) }
}

fn profile() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/seccomp-docker.json");
    serde_json::from_slice(&fs::read(path).expect("read the profile")).expect("the profile is JSON")
}

/// Number and name of every system call, from the kernel's headers.
fn numbers() -> Option<BTreeMap<i64, String>> {
    let header = PathBuf::from(format!("/usr/include/{}-linux-gnu/asm/unistd_64.h", std::env::consts::ARCH));
    let text = fs::read_to_string(header).ok()?;
    let entries = text.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((number.trim().parse().ok()?, name.to_owned()))
    });
    let mut all: BTreeMap<i64, String> = entries.collect();
    // The headers may be older than the kernel. From 424 on the numbers are the same on every architecture.
    all.extend(NEWER.iter().enumerate().map(|(at, name)| (451 + at as i64, (*name).to_owned())));
    Some(all)
}

/// System calls from 451 on, without a gap.
const NEWER: [&str; 19] = [
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "mseal",
    "setxattrat",
    "getxattrat",
    "listxattrat",
    "removexattrat",
    "open_tree_attr",
    "file_getattr",
    "file_setattr",
];

/// uretprobe and uprobe of x86: no filter ever sees them, and they do nothing but for the kernel's own trampolines.
const BEYOND_FILTERS: [i64; 2] = [335, 336];

#[test]
fn every_system_call_that_the_profile_does_not_allow_is_denied() {
    let mut bundle = match bundle() {
        Ok(bundle) => bundle,
        Err(why) => skip!("{why}"),
    };
    let Some(numbers) = numbers() else { skip!("no table of system calls in /usr/include") };
    let profile = profile();
    // With or without conditions: those are for the other test.
    let named = |action: &str| -> BTreeSet<String> {
        let rules = profile["syscalls"].as_array().expect("rules").iter().filter(|r| r["action"] == action);
        rules
            .flat_map(|r| r["names"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let allowed = named("SCMP_ACT_ALLOW");
    let with_errno = named("SCMP_ACT_ERRNO");
    bundle.set("/linux/seccomp", profile.clone()).args(["/probe", "calls"]).write();
    // Alone a child that stops or kills its group must not take the test along.
    let out = bundle.runtime().run("calls", &bundle).ok();
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut denied = 0;
    for line in out.stdout.lines() {
        let mut words = line.split(' ').rev();
        let (Some(errno), Some(number)) = (words.next(), words.next()) else { continue };
        let errno: i32 = errno.parse().expect("an errno");
        let number: i64 = number.parse().expect("a number");
        let x32 = words.next() == Some("x32");
        seen += 1;
        let refused = errno == EPERM || errno == ENOSYS;
        let name = numbers.get(&number).map(String::as_str).unwrap_or("nothing");
        if x32 {
            // This kernel may not know the x32 table; a call that succeeds must be allowed by name.
            if !refused && !allowed.contains(name) {
                wrong.push(format!("x32 {number} ({name}): errno {errno}"));
            }
            continue;
        }
        let beyond = cfg!(target_arch = "x86_64") && BEYOND_FILTERS.contains(&number);
        if !allowed.contains(name) && !beyond {
            denied += 1;
            // A number that nobody has heard of, or that is newer than the profile, does not exist, whatever the
            // profile's default is.
            let unknown = name == "nothing" || number >= 451;
            let exact = if with_errno.contains(name) || unknown { refused } else { errno == EPERM };
            if !exact {
                wrong.push(format!("{number} ({name}): errno {errno}"));
            }
        } else if errno == ENOSYS && matches!(name, "read" | "write" | "openat" | "execve") {
            wrong.push(format!("{number} ({name}) is allowed, and does not exist"));
        }
    }
    assert!(seen >= 1024 && denied > 500, "{seen} results, {denied} denied");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn high_bits_of_an_argument_do_not_get_past_the_filter() {
    let mut bundle = match bundle() {
        Ok(bundle) => bundle,
        Err(why) => skip!("{why}"),
    };
    bundle.set("/linux/seccomp", profile()).args(["/probe", "bits"]).write();
    let out = bundle.runtime().run("bits", &bundle).ok();
    for line in out.stdout.lines() {
        let (what, errno) = line.split_once(' ').expect("two words");
        let expected = if matches!(what, "unix" | "plain") { "0" } else { "1" };
        assert_eq!(errno, expected, "{what}: {}", out.stdout);
    }
    assert_eq!(out.stdout.lines().count(), 18);
}

/// What root of a container with Docker's defaults may open for writing below /proc and /sys, besides the files of
/// processes: all of the container's own namespaces, or refused by the kernel at the write.
const WRITABLE: [&str; 1] = [
    // Triggers on the pressure of the machine, for CAP_SYS_RESOURCE; they last as long as the descriptor.
    "/proc/pressure/",
];

#[test]
fn no_file_of_the_kernel_opens_for_writing_but_the_known_ones() {
    let mut bundle = match bundle() {
        Ok(bundle) => bundle,
        Err(why) => skip!("{why}"),
    };
    bundle.args(["/probe", "writable", "/proc", "/sys"]).write();
    let out = bundle.runtime().run("writable", &bundle).ok();
    let unknown: Vec<&str> =
        out.stdout.lines().filter(|p| !WRITABLE.iter().any(|known| p.starts_with(known))).collect();
    assert!(unknown.is_empty(), "can be opened for writing:\n{}", unknown.join("\n"));
    // The check sees files at all: without the read-only paths there are many.
    bundle.set("/linux/readonlyPaths", serde_json::json!([]));
    bundle.write();
    let open = bundle.runtime().run("writable", &bundle).ok();
    assert!(open.stdout.contains("/proc/sys/"), "{open}");
    assert!(!out.stdout.contains("release_agent") && !open.stdout.contains("release_agent"));
}
