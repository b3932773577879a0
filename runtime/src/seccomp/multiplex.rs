//! The calls that 32-bit x86 also has behind `socketcall(2)` and `ipc(2)`.
//!
//! An entry for `connect` must hold for `socketcall(SYS_CONNECT, ...)` too: a rule for the multiplexer
//! with its first argument stands in for it.

use super::arch::Arch;
use super::rules::{Condition, Relation};
use super::table::{Name, Slot};

const SOCKETCALL: Slot = Slot(102);
const IPC: Slot = Slot(117);

/// `ipc(2)` takes a version in the upper bits of its first argument.
const IPC_CALL: u64 = 0xffff;

/// Name, multiplexer, first argument.
pub(super) const CALLS: [(&str, Slot, u8); 32] = [
    ("socket", SOCKETCALL, 1),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("listen", SOCKETCALL, 4),
    ("accept", SOCKETCALL, 5),
    ("getsockname", SOCKETCALL, 6),
    ("getpeername", SOCKETCALL, 7),
    ("socketpair", SOCKETCALL, 8),
    ("send", SOCKETCALL, 9),
    ("recv", SOCKETCALL, 10),
    ("sendto", SOCKETCALL, 11),
    ("recvfrom", SOCKETCALL, 12),
    ("shutdown", SOCKETCALL, 13),
    ("setsockopt", SOCKETCALL, 14),
    ("getsockopt", SOCKETCALL, 15),
    ("sendmsg", SOCKETCALL, 16),
    ("recvmsg", SOCKETCALL, 17),
    ("accept4", SOCKETCALL, 18),
    ("recvmmsg", SOCKETCALL, 19),
    ("sendmmsg", SOCKETCALL, 20),
    ("semop", IPC, 1),
    ("semget", IPC, 2),
    ("semctl", IPC, 3),
    ("semtimedop", IPC, 4),
    ("msgsnd", IPC, 11),
    ("msgrcv", IPC, 12),
    ("msgget", IPC, 13),
    ("msgctl", IPC, 14),
    ("shmat", IPC, 21),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shmctl", IPC, 24),
];

/// The multiplexer that also reaches `name`, and the condition on it.
pub(super) fn of(name: Name, arch: Arch) -> Option<(Slot, Condition)> {
    if arch != Arch::X86 {
        return None;
    }
    let (slot, value) = name.multiplexed()?;
    let mask = if slot == IPC { IPC_CALL } else { u64::from(u32::MAX) };
    let condition = Condition {
        argument: 0,
        wide: false,
        relation: Relation::Masked(mask),
        negated: false,
        value: u64::from(value),
    };
    Some((slot, condition))
}
