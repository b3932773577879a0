//! The home directory of a user, read from the container's /etc/passwd after the root has been entered.

use crate::step::Op;
use crate::sys::{self, Fault, Outcome, close};

/// How much of the file is read; SECURITY class G.
const MAX_BYTES: usize = 1 << 20;

const PREFIX: &[u8] = b"HOME=";

/// Writes `HOME=<directory>` and a NUL into `out`: the directory of the first entry with this uid, or `/` where
/// there is no file, no entry, or a directory that does not fit or is not absolute.
pub(crate) fn home(uid: u32, out: &mut [u8]) -> Outcome {
    set(out, b"/");
    // Never a FIFO or a device: O_NONBLOCK, and only a regular file is read.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = match sys::openat(libc::AT_FDCWD, c"/etc/passwd", flags, 0) {
        Ok(fd) => fd,
        Err(fault) if fault.errno == libc::EMFILE || fault.errno == libc::ENFILE => return Err(fault),
        Err(_) => return Ok(()),
    };
    let result = match sys::facts(fd, c"") {
        Ok(facts) if facts.kind() == libc::S_IFREG => scan(fd, uid, out),
        Ok(_) => Ok(()),
        Err(fault) => Err(fault),
    };
    close(fd);
    result
}

fn set(out: &mut [u8], directory: &[u8]) {
    let end = PREFIX.len() + directory.len();
    if end < out.len() {
        out[..PREFIX.len()].copy_from_slice(PREFIX);
        out[PREFIX.len()..end].copy_from_slice(directory);
        out[end] = 0;
    }
}

fn scan(fd: i32, uid: u32, out: &mut [u8]) -> Outcome {
    let mut buffer = [0u8; 4096];
    let mut filled = 0;
    let mut total = 0;
    let mut skipping = false;
    while total < MAX_BYTES {
        let more = sys::read(fd, &mut buffer[filled..])?;
        total += more;
        filled += more;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|&b| b == b'\n') {
            let line = &buffer[start..start + length];
            if !skipping {
                if let Some(directory) = entry(line, uid) {
                    set(out, directory);
                    return Ok(());
                }
            }
            skipping = false;
            start += length + 1;
        }
        if more == 0 {
            if let Some(directory) = entry(&buffer[start..filled], uid).filter(|_| !skipping) {
                set(out, directory);
            }
            return Ok(());
        }
        if start == 0 && filled == buffer.len() {
            // No entry is that long.
            skipping = true;
            filled = 0;
            continue;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
    Err(Fault::new(Op::Read, libc::EFBIG))
}

/// The sixth field of `name:password:uid:gid:gecos:directory:shell` if the third is `uid`.
fn entry(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|&b| b == b':');
    let number = fields.nth(2)?;
    let directory = fields.nth(2)?;
    (decimal(number)? == uid && directory.first() == Some(&b'/') && !directory.contains(&0))
        .then_some(directory)
}

fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |n, &digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        n.checked_mul(10)?.checked_add(u32::from(digit))
    })
}
