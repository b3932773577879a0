//! The calls that 32-bit x86 also has behind `socketcall(2)` and `ipc(2)`.
//!
//! An entry for `connect` must hold for `socketcall(SYS_CONNECT, ...)` too: a rule for the multiplexer
//! with its first argument stands in for it.

use super::arch::Arch;
use super::rules::{Condition, Relation};
use super::table::Slot;

const SOCKETCALL: Slot = Slot(102);
const IPC: Slot = Slot(117);

/// `ipc(2)` takes a version in the upper bits of its first argument.
const IPC_CALL: u64 = 0xffff;

/// The multiplexer that also reaches `name`, and the condition on it.
pub(super) fn of(name: &str, arch: Arch) -> Option<(Slot, Condition)> {
    if arch != Arch::X86 {
        return None;
    }
    let (slot, mask, value) = match name {
        "socket" => (SOCKETCALL, u64::from(u32::MAX), 1),
        "bind" => (SOCKETCALL, u64::from(u32::MAX), 2),
        "connect" => (SOCKETCALL, u64::from(u32::MAX), 3),
        "listen" => (SOCKETCALL, u64::from(u32::MAX), 4),
        "accept" => (SOCKETCALL, u64::from(u32::MAX), 5),
        "getsockname" => (SOCKETCALL, u64::from(u32::MAX), 6),
        "getpeername" => (SOCKETCALL, u64::from(u32::MAX), 7),
        "socketpair" => (SOCKETCALL, u64::from(u32::MAX), 8),
        "send" => (SOCKETCALL, u64::from(u32::MAX), 9),
        "recv" => (SOCKETCALL, u64::from(u32::MAX), 10),
        "sendto" => (SOCKETCALL, u64::from(u32::MAX), 11),
        "recvfrom" => (SOCKETCALL, u64::from(u32::MAX), 12),
        "shutdown" => (SOCKETCALL, u64::from(u32::MAX), 13),
        "setsockopt" => (SOCKETCALL, u64::from(u32::MAX), 14),
        "getsockopt" => (SOCKETCALL, u64::from(u32::MAX), 15),
        "sendmsg" => (SOCKETCALL, u64::from(u32::MAX), 16),
        "recvmsg" => (SOCKETCALL, u64::from(u32::MAX), 17),
        "accept4" => (SOCKETCALL, u64::from(u32::MAX), 18),
        "recvmmsg" => (SOCKETCALL, u64::from(u32::MAX), 19),
        "sendmmsg" => (SOCKETCALL, u64::from(u32::MAX), 20),
        "semop" => (IPC, IPC_CALL, 1),
        "semget" => (IPC, IPC_CALL, 2),
        "semctl" => (IPC, IPC_CALL, 3),
        "semtimedop" => (IPC, IPC_CALL, 4),
        "msgsnd" => (IPC, IPC_CALL, 11),
        "msgrcv" => (IPC, IPC_CALL, 12),
        "msgget" => (IPC, IPC_CALL, 13),
        "msgctl" => (IPC, IPC_CALL, 14),
        "shmat" => (IPC, IPC_CALL, 21),
        "shmdt" => (IPC, IPC_CALL, 22),
        "shmget" => (IPC, IPC_CALL, 23),
        "shmctl" => (IPC, IPC_CALL, 24),
        _ => return None,
    };
    let relation = Relation::Masked(mask);
    Some((slot, Condition { argument: 0, wide: false, relation, negated: false, value }))
}
