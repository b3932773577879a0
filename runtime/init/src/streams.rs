//! The standard streams: whose they are, and where they lead when they lead nowhere.

use crate::sys::{self, Outcome, done};

const NONE: i32 = -1;

/// No file of the host stays behind for a stream that leads nowhere. The container's null device is checked like the
/// host's; where there is none, or something else, the host's stays.
pub(crate) fn null_streams() -> Outcome {
    let mut own = NONE;
    for stream in 0..3 {
        if !sys::facts(stream, c"").is_ok_and(|facts| facts.is_null_device()) {
            continue;
        }
        if own == NONE {
            // Neither a FIFO nor a link in its place holds this up.
            let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NOCTTY;
            let Ok(opened) = sys::open(c"/dev/null", flags) else { return Ok(()) };
            if !sys::facts(opened, c"")?.is_null_device() {
                sys::close(opened);
                return Ok(());
            }
            own = opened;
        }
        sys::dup_onto(own, stream)?;
    }
    done(own);
    Ok(())
}

/// The streams come from the caller, who may be another user: a container that runs as `uid` must be able to
/// open /dev/stdout again. The null device stays the host's, and what cannot be changed (a read-only
/// filesystem, an owner outside the user namespace) stays as it is.
pub(crate) fn own_streams(uid: u32) -> Outcome {
    for stream in 0..3 {
        let Ok(facts) = sys::facts(stream, c"") else { continue };
        if facts.uid == uid || facts.is_null_device() {
            continue;
        }
        match sys::fchownat(stream, c"", uid, u32::MAX, sys::AT_EMPTY_PATH) {
            Err(fault) if matches!(fault.errno, libc::EPERM | libc::EINVAL | libc::EROFS | libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}
