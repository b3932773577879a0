//! The container's terminal: a pseudo-terminal of its own devpts, checked before it is trusted.

use crate::rootfs::{self, DEVPTS_MAGIC, Missing};
use crate::step::Op;
use crate::sys::{self, Fault, Outcome, done};

const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTPEER: u64 = 0x5441;
const TIOCSWINSZ: u64 = 0x5414;
const TIOCSCTTY: u64 = 0x540E;

/// A master and its peer.
pub(crate) struct Pty {
    pub master: i32,
    pub peer: i32,
}

/// Opens a pseudo-terminal of the devpts mounted in the container. The multiplexer must be the device 5:2 on
/// a devpts: an image that puts something else at its place is refused. The peer comes from the kernel
/// (TIOCGPTPEER), not from a path.
pub(crate) fn open(root: i32, size: Option<(u16, u16)>, uid: u32) -> Outcome<Pty> {
    let master = sys::open_in_root(root, c"dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY)?;
    let facts = sys::facts(master, c"")?;
    if sys::filesystem(master)? != DEVPTS_MAGIC || facts.device != (5, 2) {
        return Err(Fault::new(Op::NotDevpts, 0));
    }
    let unlock = 0i32;
    sys::ioctl(master, TIOCSPTLCK, &unlock as *const i32 as usize)?;
    let peer = sys::ioctl(master, TIOCGPTPEER, (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize)?;
    if let Some((rows, columns)) = size {
        let window = [rows, columns, 0, 0];
        sys::ioctl(master, TIOCSWINSZ, window.as_ptr() as usize)?;
    }
    if uid != 0 {
        sys::fchownat(peer, c"", uid, u32::MAX, sys::AT_EMPTY_PATH)?;
    }
    Ok(Pty { master, peer })
}

/// Binds the peer over /dev/console, so that a program that opens it gets the terminal.
pub(crate) fn bind_console(root: i32, peer: i32) -> Outcome {
    let target = rootfs::open_or_make(root, c"dev/console", Missing::File)?;
    let tree = sys::open_tree(peer, c"", false)?;
    let result = sys::move_mount(tree, target, c"");
    done(tree);
    done(target);
    result
}

/// Makes the peer the controlling terminal and the standard streams.
pub(crate) fn adopt(peer: i32) -> Outcome {
    sys::ioctl(peer, TIOCSCTTY, 0)?;
    for stream in 0..3 {
        sys::dup_onto(peer, stream)?;
    }
    if peer > 2 {
        done(peer);
    }
    Ok(())
}
