//! The system calls of the child, each a thin function that returns a [`Fault`] naming itself.
//!
//! Every wrapper takes its pointers from slices and C strings that outlive the call, which is the invariant
//! behind each `unsafe` block of this file.

use crate::step::{Namespace, Op};
use core::ffi::CStr;
use libc::{c_int, c_long, c_void};

/// A system call that failed, or a check that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What failed.
    pub op: Op,
    /// errno; 0 for a check of our own.
    pub errno: i32,
    /// A number that helps: a status, an index.
    pub argument: i64,
}

impl Fault {
    /// A fault of a system call.
    pub const fn new(op: Op, errno: i32) -> Fault {
        Fault { op, errno, argument: 0 }
    }
}

/// The result of a system call.
pub(crate) type Outcome<T = ()> = Result<T, Fault>;

/// Constants of mount_setattr(2) and fsmount(2).
#[allow(missing_docs)]
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const ATIME: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Kinds of mount propagation, as mount_setattr(2) takes them.
#[allow(missing_docs)]
pub mod propagation {
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
}

/// The `CLONE_NEW*` flag of a namespace.
pub const fn namespace_flag(kind: Namespace) -> u32 {
    match kind {
        Namespace::Pid => 0x2000_0000,
        Namespace::Network => 0x4000_0000,
        Namespace::Mount => 0x0002_0000,
        Namespace::Ipc => 0x0800_0000,
        Namespace::Uts => 0x0400_0000,
        Namespace::User => 0x1000_0000,
        Namespace::Cgroup => 0x0200_0000,
        Namespace::Time => 0x0000_0080,
    }
}

pub(crate) const AT_EMPTY_PATH: c_int = 0x1000;
pub(crate) const AT_RECURSIVE: c_int = 0x8000;
const OPEN_TREE_CLONE: c_int = 1;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;
pub(crate) const O_PATH: c_int = libc::O_PATH;

fn errno() -> i32 {
    // SAFETY: errno is the calling thread's own; the child has exactly one thread.
    unsafe { *libc::__errno_location() }
}

fn check(op: Op, result: c_long) -> Outcome<c_long> {
    if result < 0 { Err(Fault::new(op, errno())) } else { Ok(result) }
}

macro_rules! call {
    ($op:ident, $number:expr $(, $arg:expr)*) => {{
        // SAFETY: the arguments are numbers or point to memory that is borrowed for the whole call.
        let result = unsafe { libc::syscall($number $(, $arg)*) } as c_long;
        check(Op::$op, result)
    }};
}

/// The executor is done with a descriptor. The first hundred stay open until [`Step::CloseDescriptors`] closes
/// all of them with one call; a plan with hundreds of mounts does not get near a limit of open files.
///
/// [`Step::CloseDescriptors`]: crate::Step::CloseDescriptors
pub(crate) fn done(fd: i32) {
    if fd >= 100 {
        close(fd);
    }
}

pub(crate) fn close(fd: i32) {
    if fd >= 0 {
        // The descriptor is gone whatever close says; there is nothing to do about an error.
        // SAFETY: the executor owns the descriptor and forgets it with this call.
        unsafe { libc::syscall(libc::SYS_close, fd) };
    }
}

pub(crate) fn open(path: &CStr, flags: c_int) -> Outcome<i32> {
    Ok(call!(Open, libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0)? as i32)
}

pub(crate) fn openat(dir: i32, path: &CStr, flags: c_int, mode: u32) -> Outcome<i32> {
    Ok(call!(Open, libc::SYS_openat, dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode)? as i32)
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2 with the root as the container's `/`: the one way to follow a path below it.
pub(crate) fn open_in_root(root: i32, path: &CStr, flags: c_int) -> Outcome<i32> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    let path = if path.is_empty() { c"." } else { path };
    loop {
        // EAGAIN: a rename raced with `..`; the kernel could not prove the path inside, so ask again.
        match call!(
            Openat2,
            libc::SYS_openat2,
            root,
            path.as_ptr(),
            &how as *const OpenHow,
            size_of::<OpenHow>()
        ) {
            Ok(fd) => return Ok(fd as i32),
            Err(fault) if fault.errno == libc::EAGAIN => {}
            Err(fault) => return Err(fault),
        }
    }
}

pub(crate) fn mkdirat(dir: i32, name: &CStr, mode: u32) -> Outcome {
    call!(Mkdir, libc::SYS_mkdirat, dir, name.as_ptr(), mode).map(drop)
}

pub(crate) fn mknodat(dir: i32, name: &CStr, mode: u32, device: u64) -> Outcome {
    // The kernel takes new_encode_dev(): 32 bits, minor split around a 12-bit major.
    let major = libc::major(device as libc::dev_t) as u64;
    let minor = libc::minor(device as libc::dev_t) as u64;
    let encoded = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    call!(Mknod, libc::SYS_mknodat, dir, name.as_ptr(), mode, encoded as u32).map(drop)
}

pub(crate) fn symlinkat(content: &CStr, dir: i32, name: &CStr) -> Outcome {
    call!(Symlink, libc::SYS_symlinkat, content.as_ptr(), dir, name.as_ptr()).map(drop)
}

pub(crate) fn readlinkat(dir: i32, name: &CStr, buffer: &mut [u8]) -> Outcome<usize> {
    Ok(call!(Readlink, libc::SYS_readlinkat, dir, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())? as usize)
}

pub(crate) fn fchownat(dir: i32, name: &CStr, uid: u32, gid: u32, flags: c_int) -> Outcome {
    call!(Chown, libc::SYS_fchownat, dir, name.as_ptr(), uid, gid, flags).map(drop)
}

pub(crate) fn fchmod(fd: i32, mode: u32) -> Outcome {
    call!(Chown, libc::SYS_fchmod, fd, mode).map(drop)
}

/// What the executor asks about a file.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub device: (u32, u32),
    pub on_device: (u32, u32),
    pub inode: u64,
    pub mount_root: bool,
    pub mtime: (i64, u32),
}

impl Facts {
    pub(crate) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    pub(crate) fn is_null_device(&self) -> bool {
        self.kind() == libc::S_IFCHR && self.device == (1, 3)
    }
}

/// statx of `name` in `dir`, or of `dir` itself when `name` is empty; links are never followed.
pub(crate) fn facts(dir: i32, name: &CStr) -> Outcome<Facts> {
    facts_with(dir, name, AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW)
}

pub(crate) fn facts_with(dir: i32, name: &CStr, flags: c_int) -> Outcome<Facts> {
    // SAFETY: all-zero bytes are a valid statx.
    let mut buffer: libc::statx = unsafe { core::mem::zeroed() };
    call!(
        Statx,
        libc::SYS_statx,
        dir,
        name.as_ptr(),
        flags,
        libc::STATX_BASIC_STATS,
        &mut buffer as *mut libc::statx
    )?;
    Ok(Facts {
        mode: u32::from(buffer.stx_mode),
        uid: buffer.stx_uid,
        gid: buffer.stx_gid,
        device: (buffer.stx_rdev_major, buffer.stx_rdev_minor),
        on_device: (buffer.stx_dev_major, buffer.stx_dev_minor),
        inode: buffer.stx_ino,
        mount_root: buffer.stx_attributes & 0x2000 != 0,
        mtime: (buffer.stx_mtime.tv_sec, buffer.stx_mtime.tv_nsec),
    })
}

/// The magic number of the filesystem a descriptor is on.
pub(crate) fn filesystem(fd: i32) -> Outcome<u64> {
    // SAFETY: all-zero bytes are a valid statfs.
    let mut buffer: libc::statfs = unsafe { core::mem::zeroed() };
    call!(Statx, libc::SYS_fstatfs, fd, &mut buffer as *mut libc::statfs)?;
    Ok(buffer.f_type as u64)
}

pub(crate) fn read(fd: i32, buffer: &mut [u8]) -> Outcome<usize> {
    loop {
        match call!(Read, libc::SYS_read, fd, buffer.as_mut_ptr(), buffer.len()) {
            Err(fault) if fault.errno == libc::EINTR => {}
            other => return other.map(|n| n as usize),
        }
    }
}

pub(crate) fn write(fd: i32, bytes: &[u8]) -> Outcome<usize> {
    loop {
        match call!(Write, libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) {
            Err(fault) if fault.errno == libc::EINTR => {}
            other => return other.map(|n| n as usize),
        }
    }
}

pub(crate) fn setns(fd: i32, flags: u32) -> Outcome {
    call!(Setns, libc::SYS_setns, fd, flags).map(drop)
}

pub(crate) fn unshare(flags: u32) -> Outcome {
    call!(Unshare, libc::SYS_unshare, flags).map(drop)
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// clone3 without a stack of its own, so as fork: 0 in the child.
///
/// # Safety
/// The child of a threaded process may only make system calls until execve or _exit.
pub(crate) unsafe fn clone3(args: &CloneArgs) -> Outcome<i32> {
    Ok(call!(Clone3, libc::SYS_clone3, args as *const CloneArgs, size_of::<CloneArgs>())? as i32)
}

pub(crate) fn open_tree(dir: i32, path: &CStr, recursive: bool) -> Outcome<i32> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC
        | if recursive { AT_RECURSIVE } else { 0 }
        | if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    Ok(call!(OpenTree, libc::SYS_open_tree, dir, path.as_ptr(), flags)? as i32)
}

/// Attaches a detached tree at the directory or file behind `target`, or at `name` below it. A path of the host may end
/// with a symbolic link, a name in the container may not.
pub(crate) fn move_mount(tree: i32, target: i32, name: &CStr) -> Outcome {
    const FROM_EMPTY: c_int = 0x04;
    const TO_SYMLINKS: c_int = 0x10;
    const TO_EMPTY: c_int = 0x40;
    let flags = FROM_EMPTY
        | if name.is_empty() { TO_EMPTY } else { 0 }
        | if target == libc::AT_FDCWD { TO_SYMLINKS } else { 0 };
    call!(MoveMount, libc::SYS_move_mount, tree, c"".as_ptr(), target, name.as_ptr(), flags).map(drop)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

pub(crate) fn mount_setattr(
    dir: i32,
    path: &CStr,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Outcome {
    // An access-time mode is a field, not a bit: setting one means clearing the whole field.
    let clear = clear | if set & attr::ATIME != 0 || clear & attr::ATIME != 0 { attr::ATIME } else { 0 };
    let attributes = MountAttr { set, clear, propagation, userns_fd: 0 };
    let flags = if recursive { AT_RECURSIVE } else { 0 } | if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    call!(
        MountSetattr,
        libc::SYS_mount_setattr,
        dir,
        path.as_ptr(),
        flags,
        &attributes as *const MountAttr,
        size_of::<MountAttr>()
    )
    .map(drop)
}

pub(crate) fn fsopen(fstype: &CStr) -> Outcome<i32> {
    Ok(call!(Fsopen, libc::SYS_fsopen, fstype.as_ptr(), 1)? as i32)
}

pub(crate) fn fspick(fd: i32) -> Outcome<i32> {
    const CLOEXEC: c_int = 1;
    const EMPTY_PATH: c_int = 8;
    Ok(call!(Fspick, libc::SYS_fspick, fd, c"".as_ptr(), CLOEXEC | EMPTY_PATH)? as i32)
}

pub(crate) fn fsconfig_parameter(context: i32, key: &CStr, value: Option<&CStr>) -> Outcome {
    let null = core::ptr::null::<libc::c_char>();
    match value {
        None => call!(FsconfigParameter, libc::SYS_fsconfig, context, 0, key.as_ptr(), null, 0),
        Some(value) => {
            call!(FsconfigParameter, libc::SYS_fsconfig, context, 1, key.as_ptr(), value.as_ptr(), 0)
        }
    }
    .map(drop)
}

pub(crate) fn fsconfig_create(context: i32) -> Outcome {
    let null = core::ptr::null::<libc::c_char>();
    call!(FsconfigCreate, libc::SYS_fsconfig, context, 6, null, null, 0).map(drop)
}

pub(crate) fn fsconfig_reconfigure(context: i32) -> Outcome {
    let null = core::ptr::null::<libc::c_char>();
    call!(FsconfigCreate, libc::SYS_fsconfig, context, 7, null, null, 0).map(drop)
}

pub(crate) fn fsmount(context: i32, attributes: u64) -> Outcome<i32> {
    Ok(call!(Fsmount, libc::SYS_fsmount, context, 1, attributes)? as i32)
}

pub(crate) fn pivot_root_here() -> Outcome {
    call!(PivotRoot, libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()).map(drop)
}

pub(crate) fn detach(path: &CStr) -> Outcome {
    call!(Umount, libc::SYS_umount2, path.as_ptr(), libc::MNT_DETACH).map(drop)
}

pub(crate) fn fchdir(fd: i32) -> Outcome {
    call!(Chdir, libc::SYS_fchdir, fd).map(drop)
}

pub(crate) fn chdir(path: &CStr) -> Outcome {
    call!(Chdir, libc::SYS_chdir, path.as_ptr()).map(drop)
}

pub(crate) fn chroot_here() -> Outcome {
    call!(Chroot, libc::SYS_chroot, c".".as_ptr()).map(drop)
}

/// Whether the working directory can be named from the root; one that cannot is outside of it.
pub(crate) fn cwd_is_inside() -> Outcome<bool> {
    let mut buffer = [0u8; 4096];
    call!(Getcwd, libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len())?;
    Ok(buffer[0] == b'/')
}

pub(crate) fn umask(mask: u32) {
    // SAFETY: umask cannot fail and touches no memory.
    unsafe { libc::syscall(libc::SYS_umask, mask) };
}

pub(crate) fn sethostname(name: &[u8]) -> Outcome {
    call!(Sethostname, libc::SYS_sethostname, name.as_ptr(), name.len()).map(drop)
}

pub(crate) fn setdomainname(name: &[u8]) -> Outcome {
    call!(Setdomainname, libc::SYS_setdomainname, name.as_ptr(), name.len()).map(drop)
}

pub(crate) fn setsid() -> Outcome {
    call!(Setsid, libc::SYS_setsid).map(drop)
}

pub(crate) fn setresuid(uid: u32) -> Outcome {
    call!(Setresuid, libc::SYS_setresuid, uid, uid, uid).map(drop)
}

pub(crate) fn setresgid(gid: u32) -> Outcome {
    call!(Setresgid, libc::SYS_setresgid, gid, gid, gid).map(drop)
}

pub(crate) fn setgroups(groups: &[u64], scratch: &mut [u32]) -> Outcome {
    let Some(scratch) = scratch.get_mut(..groups.len()) else {
        return Err(Fault::new(Op::Setgroups, libc::EINVAL));
    };
    for (to, from) in scratch.iter_mut().zip(groups) {
        *to = *from as u32;
    }
    call!(Setgroups, libc::SYS_setgroups, scratch.len(), scratch.as_ptr()).map(drop)
}

pub(crate) fn join_session_keyring(name: &CStr) -> Outcome<i32> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    Ok(call!(Keyctl, libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0)? as i32)
}

pub(crate) fn set_key_permissions(key: i32, permissions: u32) -> Outcome {
    const SETPERM: c_int = 5;
    call!(Keyctl, libc::SYS_keyctl, SETPERM, key, permissions, 0, 0).map(drop)
}

pub(crate) fn loopback_up() -> Outcome {
    let socket =
        call!(Socket, libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)? as i32;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    let result = call!(Ioctl, libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &request as *const libc::ifreq);
    done(socket);
    result.map(drop)
}

pub(crate) fn ioctl(fd: i32, request: u64, argument: usize) -> Outcome<i32> {
    Ok(call!(Ioctl, libc::SYS_ioctl, fd, request, argument)? as i32)
}

pub(crate) fn dup_onto(fd: i32, target: i32) -> Outcome {
    if fd == target {
        // dup3 refuses equal numbers; all that is missing is clearing close-on-exec.
        return call!(Dup, libc::SYS_fcntl, fd, libc::F_SETFD, 0).map(drop);
    }
    call!(Dup, libc::SYS_dup3, fd, target, 0).map(drop)
}

pub(crate) fn prlimit(resource: u32, soft: u64, hard: u64) -> Outcome {
    let limit = [soft, hard];
    let null = core::ptr::null::<u64>();
    call!(Prlimit, libc::SYS_prlimit64, 0, resource, limit.as_ptr(), null).map(drop)
}

pub(crate) fn personality(persona: u64) -> Outcome {
    call!(Personality, libc::SYS_personality, persona).map(drop)
}

#[repr(C)]
pub(crate) struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

pub(crate) fn sched_setattr(attributes: &SchedAttr) -> Outcome {
    call!(SchedSetattr, libc::SYS_sched_setattr, 0, attributes as *const SchedAttr, 0).map(drop)
}

pub(crate) fn sched_setaffinity(mask: &[u64]) -> Outcome {
    call!(SchedSetaffinity, libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()).map(drop)
}

pub(crate) fn ioprio_set(value: u32) -> Outcome {
    const WHO_PROCESS: c_int = 1;
    call!(IoprioSet, libc::SYS_ioprio_set, WHO_PROCESS, 0, value).map(drop)
}

pub(crate) fn set_mempolicy(mode: u32, nodes: &[u64]) -> Outcome {
    // The kernel takes the number of bits plus one, and no nodes only as a null pointer.
    let (list, bits) =
        if nodes.is_empty() { (core::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    call!(SetMempolicy, libc::SYS_set_mempolicy, mode, list, bits).map(drop)
}

pub(crate) fn prctl(option: c_int, a: u64, b: u64) -> Outcome {
    call!(Prctl, libc::SYS_prctl, option, a, b, 0u64, 0u64).map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Outcome {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    call!(Capset, libc::SYS_capset, &header as *const CapHeader, data.as_ptr()).map(drop)
}

/// The permitted set of this process.
pub(crate) fn permitted() -> Outcome<u64> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    call!(Capget, libc::SYS_capget, &header as *const CapHeader, data.as_mut_ptr())?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

#[repr(C)]
struct FilterProgram {
    len: u16,
    filter: *const u64,
}

pub(crate) fn seccomp(flags: u32, filter: &[u64]) -> Outcome<i32> {
    const SET_MODE_FILTER: c_int = 1;
    let program = FilterProgram { len: filter.len() as u16, filter: filter.as_ptr() };
    Ok(call!(Seccomp, libc::SYS_seccomp, SET_MODE_FILTER, flags, &program as *const FilterProgram)? as i32)
}

/// Closes what lies in a range, or marks it close-on-exec.
pub(crate) fn close_range(first: u32, last: u32, on_exec: bool) -> Outcome {
    const CLOEXEC: u32 = 4;
    call!(CloseRange, libc::SYS_close_range, first, last, if on_exec { CLOEXEC } else { 0 }).map(drop)
}

/// Whether the effective user may execute `path`.
pub(crate) fn access_execute(path: &CStr) -> Outcome {
    call!(Access, libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS).map(drop)
}

/// execve; returns only if it failed.
pub(crate) fn execve(
    path: &CStr,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) -> Fault {
    match call!(Execve, libc::SYS_execve, path.as_ptr(), argv, envp) {
        Ok(_) => Fault::new(Op::Execve, 0),
        Err(fault) => fault,
    }
}

pub(crate) fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

pub(crate) fn default_signal(signal: u32) {
    // The kernel's struct sigaction: handler, flags, restorer, mask; zeroes are SIG_DFL.
    let action = [0u64; 4];
    let null = core::ptr::null::<u64>();
    // SAFETY: the kernel reads 32 bytes from `action`; a signal number it does not know is an error that
    // changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), null, 8usize) };
}

pub(crate) fn unblock_signals() {
    let mask = [0u64; 1];
    let null = core::ptr::null::<u64>();
    // SAFETY: the kernel reads 8 bytes from `mask`.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask.as_ptr(), null, 8usize) };
}

/// Sends bytes, and a descriptor if there is one, in one message.
pub(crate) fn send(socket: i32, bytes: &[u8], fd: Option<i32>) -> Outcome {
    #[repr(C, align(8))]
    struct Control {
        header: [u64; 2],
        fd: i32,
        padding: i32,
    }
    let mut iov = libc::iovec { iov_base: bytes.as_ptr() as *mut c_void, iov_len: bytes.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    let mut control = Control { header: [0; 2], fd: fd.unwrap_or(-1), padding: 0 };
    if fd.is_some() {
        // cmsghdr on 64-bit: length (header plus one int), then level and type.
        control.header[0] = 16 + 4;
        control.header[1] = libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32;
        message.msg_control = &mut control as *mut Control as *mut c_void;
        message.msg_controllen = size_of::<Control>() as _;
    }
    loop {
        match call!(Sendmsg, libc::SYS_sendmsg, socket, &message as *const libc::msghdr, libc::MSG_NOSIGNAL) {
            Err(fault) if fault.errno == libc::EINTR => {}
            other => return other.map(drop),
        }
    }
}

/// Waits for a child and returns its status as wait(2) encodes it.
pub(crate) fn wait(pid: i32) -> Outcome<i32> {
    let mut status = 0i32;
    let null = core::ptr::null::<u64>();
    loop {
        match call!(Wait, libc::SYS_wait4, pid, &mut status as *mut i32, 0, null) {
            Err(fault) if fault.errno == libc::EINTR => {}
            other => return other.map(|_| status),
        }
    }
}

/// Waits until a descriptor is readable; false when the time is over. 0 milliseconds is no limit.
pub(crate) fn poll_readable(fd: i32, timeout_ms: u32) -> Outcome<bool> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let limit = libc::timespec {
        tv_sec: i64::from(timeout_ms / 1000) as _,
        tv_nsec: (i64::from(timeout_ms % 1000) * 1_000_000) as _,
    };
    let limit = if timeout_ms == 0 { core::ptr::null() } else { &limit as *const libc::timespec };
    let null = core::ptr::null::<u64>();
    loop {
        match call!(Wait, libc::SYS_ppoll, &mut entry as *mut libc::pollfd, 1, limit, null, 0) {
            Err(fault) if fault.errno == libc::EINTR => {}
            other => return other.map(|n| n > 0),
        }
    }
}

pub(crate) fn kill_pidfd(pidfd: i32, signal: c_int) -> Outcome {
    let null = core::ptr::null::<u64>();
    call!(Wait, libc::SYS_pidfd_send_signal, pidfd, signal, null, 0).map(drop)
}

pub(crate) fn rewind(fd: i32) -> Outcome {
    call!(Read, libc::SYS_lseek, fd, 0, libc::SEEK_SET).map(drop)
}

pub(crate) fn getdents(fd: i32, buffer: &mut [u8]) -> Outcome<usize> {
    Ok(call!(Read, libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len())? as usize)
}

pub(crate) fn set_mtime(fd: i32, mtime: (i64, u32)) -> Outcome {
    let times = [mtime.0, i64::from(mtime.1), mtime.0, i64::from(mtime.1)];
    let null = core::ptr::null::<libc::c_char>();
    call!(Write, libc::SYS_utimensat, fd, null, times.as_ptr(), 0).map(drop)
}
