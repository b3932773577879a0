//! bpf(2), which no safe wrapper covers: loading a cgroup device program and attaching it to a cgroup2 directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::c_int;

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_DETACH: c_int = 9;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_PROG_QUERY: c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `struct bpf_insn` of `linux/bpf.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    /// Destination in the low four bits, source in the high four.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// By this name our own programs are told from those of systemd and others.
const NAME: [u8; 16] = *b"dhow_devices\0\0\0\0";

/// The same for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The same for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The same for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
    padding: u32,
}

/// The same for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: [u8; 16],
}

fn bpf<T>(command: c_int, attr: &mut T) -> io::Result<c_int> {
    // SAFETY: `attr` is a live, exclusively borrowed `repr(C)` prefix of `union bpf_attr` without uninitialised padding,
    // its size is passed with it, and the pointers inside were set by the callers below to buffers that outlive the call.
    let n = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as c_int) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: only called with what a bpf command that makes a descriptor has just returned, which nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a device program. The kernel sets close-on-exec.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: NAME,
        ..Load::default()
    };
    bpf(BPF_PROG_LOAD, &mut attr).map(owned)
}

/// Attaches `program` beside what is attached, or in place of `old`.
pub(super) fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | if old.is_some() { BPF_F_REPLACE } else { 0 },
        replace_bpf_fd: old.map_or(0, number),
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches one program.
pub(super) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// The device programs of ours that are attached to this very cgroup.
pub(super) fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    // The kernel allows 64 programs of one type for a cgroup.
    let mut ids = [0_u32; 64];
    let mut attr = Query {
        target_fd: number(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = (attr.prog_cnt as usize).min(ids.len());
    let mut programs = Vec::with_capacity(count);
    for &id in &ids[..count] {
        match bpf(BPF_PROG_GET_FD_BY_ID, &mut ById { id, ..ById::default() }) {
            Ok(fd) => {
                let program = owned(fd);
                if name(program.as_fd())? == NAME {
                    programs.push(program);
                }
            }
            // It was detached in between.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}

fn name(program: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    let mut info = ProgramInfo::default();
    let mut attr = InfoByFd {
        fd: number(program),
        info_len: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.name)
}

/// A descriptor's borrowed form, for lists of them.
pub(super) fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    fd.as_fd()
}
