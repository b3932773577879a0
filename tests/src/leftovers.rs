//! What a test, or a command that was killed, has left on the machine.
//!
//! Other tests run at the same time, so the search goes by the test's tag ([`crate::scratch`]), which is in the path
//! of the bundle and of the runtime's root, in the cgroup's path, and in the container's environment: a process of
//! this test has the tag in its command line (before execve the container's init still has the runtime's), in its
//! environment, or in its cgroup.

use crate::command::wait_for;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The traces of `tag`: one line each, sorted, naming a process, a cgroup, a mount or a directory entry.
///
/// Zombies are not counted: they hold nothing, and are their parent's to reap.
pub fn find(tag: &str) -> Vec<String> {
    let mut found = processes(tag);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mountinfo.lines().filter(|l| mentions(l.as_bytes(), tag)) {
        found.push(format!("mount {line}"));
    }
    for root in cgroup_roots(&mountinfo) {
        cgroups(&root, tag, &mut found);
    }
    for dir in ["/run/dhow/runtime", "/run/runc", "/run/crun"] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(
            entries.map(|e| e.path()).filter(|p| contains(p, tag)).map(|p| format!("entry {}", p.display())),
        );
    }
    found.sort();
    found
}

/// The entries of a runtime's root directory, as lines for the same report.
pub fn entries(root: &Path) -> Vec<String> {
    let all = fs::read_dir(root).into_iter().flatten().flatten();
    all.map(|e| format!("entry {}", e.path().display())).collect()
}

/// Waits up to two seconds for the traces of `tag` and the entries of `root` to be gone, and returns what stays.
/// (The kernel takes the last processes of a killed pid namespace down in its own time.)
pub fn remaining(tag: &str, root: Option<&Path>) -> Vec<String> {
    let all = || {
        let mut all = find(tag);
        all.extend(root.map(entries).unwrap_or_default());
        all
    };
    match wait_for(Duration::from_secs(2), || all().is_empty().then_some(())) {
        Some(()) => Vec::new(),
        None => all(),
    }
}

/// Checks that nothing of `tag` remains, and nothing in `root`.
///
/// # Panics
/// If something does, with the list.
#[track_caller]
pub fn assert_none(tag: &str, root: Option<&Path>) {
    let all = remaining(tag, root);
    assert!(all.is_empty(), "left behind:\n  {}", all.join("\n  "));
}

/// Removes the cgroups of `tag` in every hierarchy, the deepest first. Their processes must be dead or dying.
pub fn remove_cgroups(tag: &str) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = cgroup_roots(&mountinfo);
    wait_for(Duration::from_secs(5), || {
        let mut found = Vec::new();
        roots.iter().for_each(|root| cgroups(root, tag, &mut found));
        let mut dirs: Vec<&str> = found.iter().filter_map(|l| l.strip_prefix("cgroup ")).collect();
        dirs.sort_by_key(|d| std::cmp::Reverse(d.len()));
        let left = dirs.iter().filter(|d| fs::remove_dir(d).is_err()).count();
        (left == 0).then_some(())
    });
}

fn processes(tag: &str) -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let dir = entry.path();
        // Unreadable means already gone.
        let has = |file: &str| fs::read(dir.join(file)).is_ok_and(|b| mentions(&b, tag));
        if !(has("cmdline") || has("cgroup") || has("environ")) {
            continue;
        }
        let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        if !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None) {
            found.push(format!("process {pid} {}", name.split_once('(').map_or("", |n| n.1)));
        }
    }
    found
}

/// Where cgroup hierarchies are mounted, both versions.
fn cgroup_roots(mountinfo: &str) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if matches!(after.split(' ').next(), Some("cgroup" | "cgroup2")) {
            roots.extend(before.split(' ').nth(4).map(PathBuf::from));
        }
    }
    roots
}

fn cgroups(dir: &Path, tag: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            let path = entry.path();
            cgroups(&path, tag, found);
            if contains(&path, tag) {
                found.push(format!("cgroup {}", path.display()));
            }
        }
    }
}

fn contains(path: &Path, tag: &str) -> bool {
    mentions(path.as_os_str().as_bytes(), tag)
}

/// Whole names only, so that `dhow-test-7-1` is not found in `dhow-test-7-12`.
fn mentions(text: &[u8], tag: &str) -> bool {
    let tag = tag.as_bytes();
    let mut windows = text.windows(tag.len()).enumerate();
    windows.any(|(at, w)| w == tag && !text.get(at + tag.len()).is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::fresh_tag;
    use std::process::Command;

    #[test]
    fn a_process_with_the_tag_is_found_until_it_ends() {
        let tag = fresh_tag();
        let mut child = Command::new("sleep").arg("30").env("DHOW_TEST", &tag).spawn().unwrap();
        let found = wait_for(Duration::from_secs(2), || (!find(&tag).is_empty()).then(|| find(&tag)));
        child.kill().unwrap();
        assert_eq!(found.unwrap(), [format!("process {} sleep", child.id())]);
        child.wait().unwrap();
        assert_none(&tag, None);
    }

    #[test]
    fn a_tag_is_not_found_in_a_longer_one() {
        assert!(contains(Path::new("/a/dhow-test-7-1/x"), "dhow-test-7-1"));
        assert!(contains(Path::new("/a/dhow-test-7-1"), "dhow-test-7-1"));
        assert!(!contains(Path::new("/a/dhow-test-7-12"), "dhow-test-7-1"));
    }
}
