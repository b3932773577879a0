//! Compiled filters in the kernel: it takes them, and calls come out as the profile says.
//!
//! Needs no root: the child that loads a filter sets no_new_privs.
#![cfg(target_arch = "x86_64")]

use dhow_runtime::seccomp::{Arch, Program, compile};
use serde_json::{Value, json};

/// Forking, loading and calling.
mod sys {
    use dhow_runtime::seccomp::Program;

    /// Number, arguments, and the errno expected; 0 for success.
    pub type Probe = (i64, [u64; 3], i32);

    const LOAD_FAILED: i32 = 255;

    #[repr(C)]
    struct Filter {
        len: libc::c_ushort,
        instructions: *const dhow_runtime::seccomp::Instruction,
    }

    /// Makes the calls under `program` in a child: `Ok`, or the index of the first that surprises.
    pub fn probe(program: &Program, probes: &[Probe]) -> Result<(), usize> {
        assert!(probes.len() < LOAD_FAILED as usize - 1);
        let filter = Filter {
            len: program.instructions.len() as libc::c_ushort,
            instructions: program.instructions.as_ptr(),
        };
        // SAFETY: the child makes system calls only, on memory that was ready before.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: `filter` points to its instructions, which live; _exit never returns.
            unsafe {
                let nnp = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let loaded = libc::syscall(libc::SYS_seccomp, 1, program.flags, &raw const filter);
                if nnp != 0 || loaded != 0 {
                    libc::_exit(LOAD_FAILED);
                }
                let mut failed = 0;
                for (index, (number, args, expected)) in probes.iter().enumerate() {
                    let result = libc::syscall(*number, args[0], args[1], args[2]);
                    let errno = if result < 0 { *libc::__errno_location() } else { 0 };
                    if errno != *expected && failed == 0 {
                        failed = index as i32 + 1;
                    }
                }
                libc::_exit(failed);
            }
        }
        let mut status = 0;
        // SAFETY: our own child, and a place for its status.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(waited, pid, "waitpid");
        assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
        match libc::WEXITSTATUS(status) {
            LOAD_FAILED => panic!("the kernel refuses the filter"),
            0 => Ok(()),
            failed => Err(failed as usize - 1),
        }
    }
}

fn program(profile: Value) -> Program {
    let profile = serde_json::from_value(profile).expect("a profile");
    compile(&profile, Arch::X86_64).expect("compiles").program
}

fn expect(program: &Program, probes: &[sys::Probe]) {
    if let Err(index) = sys::probe(program, probes) {
        panic!("{:x?} had another outcome", probes[index]);
    }
}

#[test]
fn docker_default_profile_in_the_kernel() {
    let profile = serde_json::from_str(include_str!("../data/seccomp-docker.json")).expect("JSON");
    let program = program(profile);
    let (stream, alg, vsock) = (libc::SOCK_STREAM as u64, libc::AF_ALG as u64, libc::AF_VSOCK as u64);
    let high = 1 << 32;
    expect(
        &program,
        &[
            (libc::SYS_getppid, [0; 3], 0),
            (libc::SYS_mount, [0; 3], libc::EPERM),
            (libc::SYS_socket, [1, stream, 0], 0),
            (libc::SYS_socket, [1 | high, stream | high, high], 0),
            (libc::SYS_socket, [alg, 5, 0], libc::EPERM),
            (libc::SYS_socket, [alg | high, 5, 0], libc::EPERM),
            (libc::SYS_socket, [vsock, stream, 0], libc::EPERM),
            (libc::SYS_socket, [vsock | high, stream, 0], libc::EPERM),
            (libc::SYS_personality, [0xffff_ffff, 0, 0], 0),
            (libc::SYS_personality, [u64::MAX, 0, 0], 0),
            (libc::SYS_personality, [0x0004_0000, 0, 0], libc::EPERM),
            (libc::SYS_clone, [0x1000_0000, 0, 0], libc::EPERM),
            (libc::SYS_clone3, [0; 3], libc::ENOSYS),
            // open_tree_attr, listns, and numbers without a call.
            (467, [0; 3], libc::ENOSYS),
            (470, [0; 3], libc::ENOSYS),
            (400, [0; 3], libc::ENOSYS),
            (5000, [0; 3], libc::ENOSYS),
        ],
    );
}

/// Far jumps, and as many instructions as the kernel takes at most.
#[test]
fn a_long_filter_in_the_kernel() {
    let syscalls: Vec<_> = (0..780_u64)
        .map(|value| {
            json!({ "names": ["mprotect"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 + value % 60,
                "args": [{ "index": 1, "value": 4096 * value, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    let program = program(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls }));
    assert!(program.instructions.len() > 2500, "{}", program.instructions.len());
    expect(
        &program,
        &[
            (libc::SYS_mprotect, [0, 0, 0], 1),
            (libc::SYS_mprotect, [0, 4096 * 59, 0], 60),
            (libc::SYS_mprotect, [0, 4096 * 779, 0], 60),
            (libc::SYS_mprotect, [1, 4096 * 780, 0], libc::EINVAL),
            (libc::SYS_mprotect, [1, 1 << 32, 0], libc::EINVAL),
            (libc::SYS_getppid, [0; 3], 0),
        ],
    );
}
