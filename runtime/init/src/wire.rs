//! The protocol between parent and child: one message a packet over a SOCK_SEQPACKET pair.
//!
//! | child                               | parent                                            |
//! |-------------------------------------|---------------------------------------------------|
//! | `Pid` (only with two processes)     | opens a pidfd for the second one, which sends it, |
//! |                                     | by the pid that the kernel adds to the message    |
//! | `MapIds`, waits                     | writes uid_map and gid_map, sends [`GO`]          |
//! | waits, if the plan says so          | has put the child into its cgroup: [`ATTACHED`]   |
//! | `HostHooks`, waits                  | runs prestart and createRuntime, sends [`GO`]     |
//! | `Console` with the pty's master     | keeps it                                          |
//! | `SeccompFd` with the listener, waits| hands it to the agent, sends [`GO`]               |
//! | `Ready`, waits                      | records the container's state, sends [`GO`]       |
//! | `Failed`                            | turns it into an error                            |
//! | end of file: execve succeeded       | the container runs                                |
//!
//! End of file in the other direction means that the parent died: the child exits.

use crate::step::Op;
use crate::sys::Fault;

/// The parent's answer to a message that waits.
pub const GO: u8 = b'g';

/// What the parent says unasked when it has put the child into its cgroup.
pub const ATTACHED: u8 = b'c';

/// Size of an encoded message.
pub const MESSAGE_BYTES: usize = 24;

/// What the child says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The second process is there; the socket's credentials have its pid in the parent's pid namespace.
    Pid,
    /// Waiting for uid_map and gid_map.
    MapIds,
    /// Waiting for the hooks of the runtime namespace.
    HostHooks,
    /// Carries the master of the pseudo-terminal.
    Console,
    /// Carries the seccomp listener.
    SeccompFd,
    /// Set up; waiting for the record.
    Ready,
    /// A step failed.
    Failed,
}

/// One message of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Everything but a failure.
    Say(Kind),
    /// Step number `step` failed.
    Failed {
        /// Index into the steps.
        step: u32,
        /// What failed.
        fault: Fault,
    },
}

impl Message {
    /// The message as bytes.
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let (kind, step, op, errno, argument) = match *self {
            Message::Say(kind) => (kind as u32, 0, 0, 0, 0),
            Message::Failed { step, fault } => {
                (Kind::Failed as u32, step, fault.op as u32, fault.errno, fault.argument)
            }
        };
        let mut out = [0; MESSAGE_BYTES];
        out[0..4].copy_from_slice(&kind.to_ne_bytes());
        out[4..8].copy_from_slice(&step.to_ne_bytes());
        out[8..12].copy_from_slice(&op.to_ne_bytes());
        out[12..16].copy_from_slice(&errno.to_ne_bytes());
        out[16..24].copy_from_slice(&argument.to_ne_bytes());
        out
    }

    /// The message in these bytes, or nothing if they are not one.
    pub fn decode(bytes: &[u8]) -> Option<Message> {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let kind = match u32::from_ne_bytes(word(0)?) {
            0 => Kind::Pid,
            1 => Kind::MapIds,
            2 => Kind::HostHooks,
            3 => Kind::Console,
            4 => Kind::SeccompFd,
            5 => Kind::Ready,
            6 => {
                let op = Op::from_wire(u32::from_ne_bytes(word(8)?));
                let errno = i32::from_ne_bytes(word(12)?);
                let argument = i64::from_ne_bytes(bytes.get(16..24)?.try_into().ok()?);
                let step = u32::from_ne_bytes(word(4)?);
                return Some(Message::Failed { step, fault: Fault { op, errno, argument } });
            }
            _ => return None,
        };
        Some(Message::Say(kind))
    }
}
