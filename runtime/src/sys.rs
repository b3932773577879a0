//! The parent's own unsafe calls: those that no library offers in the form that is needed.

use dhow_init::{Clone3, Fault, Program};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Clones the process of a program; see [`dhow_init::clone_process`].
pub(crate) fn clone_process(how: &Clone3, program: &Program<'_>) -> Result<(i32, OwnedFd), Fault> {
    // SAFETY: the launcher builds the program from one plan, whose indices point into its own tables, and every
    // vector ends with a NULL.
    let (pid, pidfd) = unsafe { dhow_init::clone_process(how, program) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// A detached clone of the mount (and those below) at a host path.
pub(crate) fn detached_clone(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(rustix::fs::CWD, path, flags)?)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Gives a detached tree the id mapping of a user namespace.
pub(crate) fn set_idmap(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = MountAttr {
        set: dhow_init::attr::IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    mount_setattr(tree, &attributes, recursive)
}

/// Makes a detached tree's root mount read-only.
pub(crate) fn set_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttr { set: dhow_init::attr::RDONLY, clear: 0, propagation: 0, userns_fd: 0 };
    mount_setattr(tree, &attributes, false)
}

/// Executes an open file in the place of this process. Returns only on failure.
pub(crate) fn execute_file(
    file: BorrowedFd<'_>,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    let vector = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (vector(arguments), vector(environment));
    // SAFETY: the path is an empty C string; both vectors end with a null, and their strings live for the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn mount_setattr(tree: BorrowedFd<'_>, attributes: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { 0x8000 } else { 0 };
    // SAFETY: the path is an empty C string and the structure lives for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The `CLONE_NEW*` flag of a namespace file; nothing if it is not one.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> Option<u32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    u32::try_from(result).ok()
}

/// Makes a FIFO.
pub(crate) fn make_fifo(directory: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that lives for the call.
    let result = unsafe { libc::mkfifoat(directory.as_raw_fd(), name.as_ptr(), mode as libc::mode_t) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connects to a Unix socket that listens at a path of any length: a path longer than `sun_path` is reached
/// through its directory's descriptor.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if path.as_os_str().as_bytes().len() < 108 {
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        return Ok(socket);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    use rustix::fs::{Mode, OFlags, open};
    let directory = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    connect(&socket, &SocketAddrUnix::new(&short)?)?;
    Ok(socket)
}

/// Device and inode of the running binary; zeroes, which match nothing, without /proc.
pub(crate) fn own_binary() -> (u64, u64) {
    rustix::fs::stat("/proc/self/exe").map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

/// Sends bytes with one descriptor.
pub(crate) fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sends any signal the kernel knows, real-time ones and 0 (nothing, only the check) included.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: numbers and a null pointer, which the kernel takes as "as kill(2) would".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The permitted capabilities of the calling thread; bit n is capability n.
pub(crate) fn permitted_capabilities() -> u64 {
    let mut header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: version 3 writes two groups of three words.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    if result < 0 { 0 } else { u64::from(data[1]) | u64::from(data[4]) << 32 }
}
