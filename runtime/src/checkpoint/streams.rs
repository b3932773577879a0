//! The standard streams of a container: pipes to somebody outside, which a restore replaces by the caller's.

use rustix::fs::{AtFlags, CWD, readlinkat, statat};
use std::collections::BTreeMap;

/// What descriptors 0, 1 and 2 of init are, in the words of /proc. A pipe of which the container has both ends is its
/// own affair, and empty here: CRIU keeps it.
pub(crate) fn of_container(init: i32, pids: &[i32]) -> [String; 3] {
    let mut list = [0, 1, 2].map(|fd| link(init, &fd.to_string()).unwrap_or_default());
    if list.iter().any(|name| name.starts_with("pipe:")) {
        let ends = pipe_ends(pids);
        for name in &mut list {
            if ends.get(name) == Some(&(READ | WRITE)) {
                name.clear();
            }
        }
    }
    list
}

const READ: u32 = 0o400;
const WRITE: u32 = 0o200;

fn link(pid: i32, fd: &str) -> Option<String> {
    let target = readlinkat(CWD, format!("/proc/{pid}/fd/{fd}"), Vec::new()).ok()?;
    target.into_string().ok()
}

/// Which ends of pipes these processes have. The permissions of /proc's links are those of the descriptors.
/// Processes that end meanwhile have none.
fn pipe_ends(pids: &[i32]) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for &pid in pids {
        let Ok(list) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in list.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let Some(name) = link(pid, &fd).filter(|name| name.starts_with("pipe:")) else { continue };
            let path = format!("/proc/{pid}/fd/{fd}");
            if let Ok(stat) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
                *ends.entry(name).or_default() |= stat.st_mode & (READ | WRITE);
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn pipes_to_outside_are_told_from_inner_ones() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (pid, own) = (child.id() as i32, std::process::id() as i32);
        let outside = of_container(pid, &[pid]);
        let inside = of_container(pid, &[pid, own]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(outside[0], "/dev/null");
        assert!(outside[1].starts_with("pipe:["), "{outside:?}");
        assert_eq!(inside[1], "");
    }
}
