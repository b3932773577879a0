//! A directory of a test's own.
//!
//! Scratch directories are on tmpfs (`/dev/shm`) where there is one: the tests create thousands of files, and must
//! not measure the disk. The name of the directory, `dhow-test-<pid>-<n>`, is the test's *tag*: container ids, cgroup
//! paths and environments made from it can be told from everybody else's, and [`crate::leftovers`] looks for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is removed, with all that is in it, when this value is dropped.
///
/// `DHOW_KEEP=1` in the environment keeps it, to look into after a failure.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    tag: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A new name that no other test of this or of another running process uses.
pub fn fresh_tag() -> String {
    format!("dhow-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Scratch {
    /// Makes a new directory with mode 0755.
    ///
    /// # Panics
    /// If the directory cannot be made: no test can go on then.
    pub fn new() -> Scratch {
        let tag = fresh_tag();
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let path = parent.join(&tag);
        // A process that was killed under the same pid may have left one.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of a new directory");
        Scratch { path, tag }
    }

    /// The directory's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's last component, unique on the machine.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A path below the directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory below this one, with its parents, and returns its path.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        path
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("DHOW_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_with_its_value() {
        let one = Scratch::new();
        let two = Scratch::new();
        assert_ne!(one.path(), two.path());
        fs::write(one.dir("a/b").join("file"), "x").unwrap();
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists());
        assert!(two.path().is_dir());
    }
}
