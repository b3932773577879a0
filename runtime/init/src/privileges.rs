//! What the process may do: groups, the bounding and ambient capabilities, and its session keyring.

use crate::sys::{self, Outcome};
use core::ffi::CStr;

/// How many groups are set without the stack for all that there can be.
pub(crate) const FEW_GROUPS: usize = 64;

/// A function of its own: its frame is a quarter of a mebibyte, which nobody else shall pay for.
#[inline(never)]
#[cold]
pub(crate) fn set_many_groups(groups: &[u64]) -> Outcome {
    /// `NGROUPS_MAX`.
    const MOST: usize = 65536;
    sys::setgroups(groups, &mut [0u32; MOST])
}

/// A session keyring of its own, searchable by its user. A kernel or an outer seccomp profile without
/// keyctl is no reason to fail.
pub(crate) fn session_keyring(name: &CStr) -> Outcome {
    /// Possessor: everything; user: view, read, search, link.
    const PERMISSIONS: u32 = 0x3f1b_0000;
    let key = match sys::join_session_keyring(name) {
        Ok(key) => key,
        Err(fault) if matches!(fault.errno, libc::ENOSYS | libc::EPERM | libc::EDQUOT) => return Ok(()),
        Err(fault) => return Err(fault),
    };
    match sys::set_key_permissions(key, PERMISSIONS) {
        Err(fault) if fault.errno == libc::EACCES => Ok(()),
        other => other,
    }
}

/// Drops what is not kept; the kernel says EINVAL behind its last capability.
pub(crate) fn bounding_set(keep: u64) -> Outcome {
    for capability in 0..64u64 {
        if keep & 1 << capability != 0 {
            continue;
        }
        match sys::prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Err(fault) if fault.errno == libc::EINVAL => break,
            other => other?,
        }
    }
    Ok(())
}

pub(crate) fn ambient_set(ambient: u64) -> Outcome {
    const AMBIENT: i32 = libc::PR_CAP_AMBIENT;
    sys::prctl(AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for capability in 0..64u64 {
        if ambient & 1 << capability != 0 {
            sys::prctl(AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability)?;
        }
    }
    Ok(())
}
