//! What is particular to one run in the guest: the commands, their environment and the directories
//! they need, as files for the initramfs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cpio::Archive;
use crate::error::Error;
use crate::options::Options;

/// Places where the guest mounts something of its own over the host's directory.
const HIDDEN: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp"];

/// One program to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The program, an absolute path or a name to be found in PATH.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its working directory; the caller's when none.
    pub directory: Option<PathBuf>,
    /// Variables for it alone.
    pub env: Vec<(OsString, OsString)>,
}

impl Command {
    /// The command of a command line.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no word.
    pub fn from_words(words: &[OsString]) -> Result<Self, Error> {
        let (program, arguments) =
            words.split_first().ok_or_else(|| Error::Usage("nothing to run".into()))?;
        Ok(Self { program: program.clone(), arguments: arguments.to_vec(), directory: None, env: Vec::new() })
    }
}

/// A run, ready to be written into an initramfs.
pub struct Session {
    /// What ends both output streams, followed by a blank and the exit status.
    pub marker: String,
    settings: String,
    script: Vec<u8>,
    shares: Vec<PathBuf>,
}

impl Session {
    /// Collects what the commands need of this process's environment.
    ///
    /// # Errors
    /// [`Error::File`] when the working directory cannot be told.
    pub fn new(options: &Options, commands: Vec<Command>) -> Result<Self, Error> {
        let here = std::env::current_dir().map_err(Error::file("find", Path::new(".")))?;
        let mut env: Vec<(OsString, OsString)> =
            std::env::vars_os().filter(|(name, _)| is_passed_on(name)).collect();
        for setting in &options.env {
            let mut parts = setting.as_bytes().splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default().to_vec();
            let Some(value) = parts.next().filter(|_| is_name(&name)) else {
                return Err(Error::Usage(format!("--env needs NAME=VALUE, not {setting:?}")));
            };
            env.push((OsString::from_vec(name), OsStr::from_bytes(value).to_owned()));
        }
        let mut wanted = options.shares.clone();
        wanted.push(here.clone());
        for command in &commands {
            wanted.extend(command.directory.clone());
            wanted
                .extend(std::iter::once(&command.program).chain(&command.arguments).filter_map(directory_of));
        }
        for (name, value) in &env {
            if name.as_bytes().starts_with(b"DHOW_") || name == "CARGO_TARGET_DIR" {
                wanted.extend(directory_of(value));
            }
        }
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let marker = format!("dhow-vm-end-{}-{nanoseconds:x}", std::process::id());
        Ok(Self {
            settings: format!(
                "CGROUP={}\nKERNEL={}\nMARKER={marker}\n",
                options.cgroup.name(),
                options.kernel.name()
            ),
            marker,
            script: script(&here, &env, &commands),
            shares: shares(wanted),
        })
    }

    /// The archive to append to the initramfs.
    pub fn files(&self) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.directory("dhow");
        archive.file("dhow/settings", 0o644, self.settings.as_bytes());
        archive.file("dhow/command", 0o644, &self.script);
        let mut shares = Vec::new();
        for share in &self.shares {
            shares.extend_from_slice(share.as_os_str().as_bytes());
            shares.push(b'\n');
        }
        archive.file("dhow/shares", 0o644, &shares);
        archive.finish()
    }
}

/// The directory that a word names, or that holds the file it names, if it is an absolute path.
fn directory_of(word: &OsString) -> Option<PathBuf> {
    let path = Path::new(word);
    let known = path.is_absolute() && path.exists();
    if path.is_dir() { Some(path) } else { path.parent() }.filter(|_| known).map(Path::to_owned)
}

fn is_passed_on(name: &OsStr) -> bool {
    is_name(name.as_bytes())
        && (name == "PATH"
            || [&b"DHOW_"[..], b"RUST_", b"CARGO_"].iter().any(|prefix| name.as_bytes().starts_with(prefix)))
}

/// Whether a shell takes this as a variable's name.
fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|&first| first == b'_' || first.is_ascii_alphabetic())
        && name.iter().all(|&byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// Directories among `wanted` that exist and that the guest would hide, none inside another.
fn shares(wanted: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = wanted
        .into_iter()
        .filter(|path| HIDDEN.iter().any(|hidden| path.starts_with(hidden) && path != Path::new(hidden)))
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_dir() && !path.as_os_str().as_bytes().contains(&b'\n'))
        .collect();
    found.sort();
    found.dedup_by(|later, earlier| later.starts_with(&*earlier));
    found
}

/// A script for a POSIX shell: several commands run all, and the first failure's status counts.
fn script(directory: &Path, env: &[(OsString, OsString)], commands: &[Command]) -> Vec<u8> {
    let mut script = b"HOME=/root\nexport HOME\n".to_vec();
    for (name, value) in env {
        export(&mut script, name, value);
    }
    script.extend_from_slice(b"worst=0\n");
    for command in commands {
        script.extend_from_slice(b"(\ncd ");
        quote(&mut script, command.directory.as_deref().unwrap_or(directory).as_os_str());
        script.extend_from_slice(b" || exit 125\n");
        for (name, value) in &command.env {
            export(&mut script, name, value);
        }
        script.extend_from_slice(b"exec");
        for word in std::iter::once(&command.program).chain(&command.arguments) {
            script.push(b' ');
            quote(&mut script, word);
        }
        script.extend_from_slice(b"\n)\nstatus=$?\n[ $worst != 0 ] || worst=$status\n");
    }
    script.extend_from_slice(b"exit $worst\n");
    script
}

fn export(script: &mut Vec<u8>, name: &OsStr, value: &OsStr) {
    script.extend_from_slice(b"export ");
    script.extend_from_slice(name.as_bytes());
    script.push(b'=');
    quote(script, value);
    script.push(b'\n');
}

/// Appends a word in single quotes, in which only the single quote itself is special.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            _ => script.push(byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(script: &[u8]) -> (String, Option<i32>) {
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(OsStr::from_bytes(script))
            .output()
            .expect("/bin/sh runs");
        (String::from_utf8(output.stdout).expect("UTF-8"), output.status.code())
    }

    fn command(words: &[&str]) -> Command {
        Command::from_words(&words.iter().map(OsString::from).collect::<Vec<_>>()).expect("a command")
    }

    #[test]
    fn words_and_variables_reach_the_command_unchanged() {
        let odd = "a'b \"$HOME\" \\ `x`\n*";
        let env = [("DHOW_ODD".into(), odd.into())];
        let commands =
            [command(&["printf", "%s|", odd, "", "x"]), command(&["sh", "-c", "echo \"$DHOW_ODD\"; pwd"])];
        let (text, status) = output(&script(Path::new("/usr"), &env, &commands));
        assert_eq!(text, format!("{odd}||x|{odd}\n/usr\n"));
        assert_eq!(status, Some(0));
    }

    #[test]
    fn the_first_failure_counts_and_the_rest_runs() {
        let commands =
            [command(&["sh", "-c", "exit 3"]), command(&["sh", "-c", "exit 4"]), command(&["echo", "done"])];
        assert_eq!(output(&script(Path::new("/"), &[], &commands)), ("done\n".to_owned(), Some(3)));
    }

    #[test]
    fn only_what_the_guest_hides_is_shared_and_once() {
        let inner = std::env::temp_dir().join(format!("dhow-test-vm-{}", std::process::id()));
        let deeper = inner.join("deps");
        std::fs::create_dir_all(&deeper).expect("a directory");
        let hidden = inner.starts_with("/tmp") || inner.starts_with("/dev/shm");
        let found = shares(vec![deeper.clone(), "/usr".into(), inner.clone(), "/tmp".into(), deeper]);
        std::fs::remove_dir_all(&inner).expect("a directory to remove");
        assert_eq!(found, if hidden { vec![inner] } else { Vec::new() });
    }
}
