//! seccomp: an OCI profile compiled to a classic BPF program.
//!
//! [`compile`] turns [`linux.seccomp`] into what `seccomp(2)` takes. It makes no system call; loading
//! the [`Program`] is the container's init. The parts: `table` knows names and numbers, `rules` reads the
//! profile, `emit` writes the program, with `bpf` as its assembler.
//!
//! [`linux.seccomp`]: https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#seccomp
//!
//! # What a profile means
//!
//! - The native architecture is filtered whether it is listed or not. A call of an architecture that is
//!   not listed kills the thread: so does x32 under an x86_64 kernel. Architectures that the
//!   native kernel never runs have no effect and are a warning.
//! - An entry with the default action (and its errno) has no effect.
//! - An entry without arguments decides over its system calls, wherever it stands: entries with
//!   arguments for the same call are dropped, and of several without arguments the first counts.
//! - Otherwise the entries with arguments are tried in the order of the profile, the first whose
//!   conditions all hold decides, and if none does the default action. Two with the same conditions and
//!   different actions are a mistake. libseccomp (which runc and crun use) differs only where
//!   conditions overlap without being the same: there its order depends on its internal sorting.
//! - An entry that lists one argument index twice is taken as one entry for each of its arguments.
//! - An argument that the kernel takes as a 32-bit type is compared on its lower 32 bits, since the kernel
//!   ignores the rest: `socket(2^32 + AF_ALG)` is `AF_ALG`. On 32-bit architectures that is every
//!   argument. Comparisons are unsigned. A value whose upper half only repeats its sign is the negative
//!   number; any other value beyond 32 bits compares as greater than every argument and is a warning.
//!   The 16 bits of a file mode are compared as 32, too: a rule on one of its bits wants MASKED_EQ.
//! - Where the default action is none of ALLOW, LOG and TRACE, numbers above the highest that the profile names (by
//!   architecture, whether the entry has an effect or not) fail with ENOSYS: a C library then falls back
//!   from a call that is newer than the profile. Numbers that are no system call at all do as well.
//! - On 32-bit x86 an entry for a socket or System V IPC call also holds for its form under
//!   `socketcall` and `ipc`. Its arguments cannot be seen there: an entry with arguments counts in full
//!   if it is stricter than the default action, and not at all if it is looser.
//! - Names that no architecture has are skipped with a warning, as runc does.
//! - An absent `flags` means `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, an empty one means none.
//!   `SECCOMP_FILTER_FLAG_TSYNC` is accepted and has no effect: init has one thread.
//! - `SCMP_ACT_NOTIFY` is refused as the default, and for `write` and `sendmsg`, by which init hands
//!   the notification descriptor over (runc refuses `write` for the same reason).

mod arch;
mod bpf;
mod emit;
mod multiplex;
mod rules;
mod table;

#[cfg(test)]
mod evaluate;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use bpf::Instruction;

use crate::error::Mistake;
use oci_spec::runtime::LinuxSeccomp;

/// The most instructions that the kernel takes: `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// What `seccomp(SECCOMP_SET_MODE_FILTER)` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The filter, at most 4,096 instructions.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`, without `NEW_LISTENER`.
    pub flags: u32,
    /// Whether an action is `SCMP_ACT_NOTIFY`: the filter must be loaded with `NEW_LISTENER`.
    pub notify: bool,
}

/// A program and what is odd about its profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// To be loaded.
    pub program: Program,
    /// Parts of the profile that have no effect, with their JSON pointers.
    pub warnings: Vec<Mistake>,
}

/// Compiles `profile`, the `linux.seccomp` object of a config.json, for a kernel of `native`.
///
/// # Errors
///
/// All mistakes of the profile, each with its JSON pointer below `/linux/seccomp`; the module's
/// documentation says what is one.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Compiled, Vec<Mistake>> {
    let mut findings = rules::Findings::default();
    let resolved = rules::resolve(profile, native, &mut findings);
    if !findings.mistakes.is_empty() {
        return Err(findings.mistakes);
    }
    let instructions = emit::program(&resolved.rules);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(vec![Mistake::new(
            "/linux/seccomp/syscalls",
            format!(
                "the filter has {} instructions, the kernel takes {MAX_INSTRUCTIONS}: use fewer comparisons of arguments",
                instructions.len()
            ),
        )]);
    }
    let program = Program { instructions, flags: resolved.flags, notify: resolved.notify };
    Ok(Compiled { program, warnings: findings.warnings })
}

/// The actions known, for the features document.
pub const fn known_actions() -> &'static [&'static str] {
    &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ]
}

/// The comparison operators known, for the features document.
pub const fn known_operators() -> &'static [&'static str] {
    &[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
}

/// The architectures whose system calls are known, for the features document.
pub const fn known_archs() -> &'static [&'static str] {
    &[
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ]
}

/// The filter flags known, for the features document.
pub const fn known_flags() -> &'static [&'static str] {
    &[
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]
}
