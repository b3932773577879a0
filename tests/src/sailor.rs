//! An ordinary user with ranges of subordinate ids, who exists only in a sandbox.
//!
//! `sailor` has ranges in /etc/subuid and /etc/subgid and owns the directories `home` and `xdg` of the sandbox:
//! changed copies of the four account files are bound over the machine's in the sandbox's mount namespace. The real
//! newuidmap and newgidmap (Debian: uidmap) find the ranges there.

use crate::sandbox::Sandbox;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// The user's uid and gid.
pub const SAILOR_ID: u32 = 54321;
/// The first of the user's 65536 subordinate uids and gids.
pub const SAILOR_SUBIDS: u32 = 600_000;

/// Makes the user in the sandbox, and gives him his directories.
///
/// # Errors
/// Why that cannot be done here: a reason to skip.
///
/// # Panics
/// If files of the sandbox's own directory cannot be written.
pub fn enlist(sandbox: &Sandbox) -> Result<(), String> {
    let lines = [
        ("passwd", format!("sailor:x:{SAILOR_ID}:{SAILOR_ID}::{}:/bin/sh", sandbox.join("home").display())),
        ("group", format!("sailor:x:{SAILOR_ID}:")),
        ("subuid", format!("sailor:{SAILOR_SUBIDS}:65536")),
        ("subgid", format!("sailor:{SAILOR_SUBIDS}:65536")),
    ];
    let mut script = String::from("set -e\n");
    for (file, line) in lines {
        let copy = sandbox.join(file);
        let text = fs::read_to_string(format!("/etc/{file}")).unwrap_or_default();
        fs::write(&copy, format!("{text}{line}\n")).expect("write a copy of an account file");
        script += &format!("test -e /etc/{file}; mount --bind {} /etc/{file}\n", copy.display());
    }
    for dir in ["home", "xdg"] {
        sandbox.scratch().dir(dir);
        script += &format!("chown {SAILOR_ID}:{SAILOR_ID} {}\n", sandbox.join(dir).display());
    }
    let out = sandbox.shell(&script);
    if out.success() { Ok(()) } else { Err(format!("no ordinary user can be made: {out}")) }
}

/// A program inside the sandbox, run by the user without any capability or supplementary group.
pub fn command(sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
    let mut command = sandbox.command("setpriv");
    command.arg(format!("--reuid={SAILOR_ID}")).arg(format!("--regid={SAILOR_ID}"));
    command.args(["--clear-groups", "--"]).arg(program.as_ref());
    command.env("HOME", sandbox.join("home")).env("XDG_RUNTIME_DIR", sandbox.join("xdg"));
    command
}
