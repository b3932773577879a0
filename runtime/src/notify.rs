//! The proxy of sd_notify(3) for a container that a supervisor waits for.
//!
//! The supervisor's socket (`NOTIFY_SOCKET`) is not given to the container: it could say anything there. It gets
//! one of its own, `notify/notify.sock` below its state directory, which is bound to `/run/notify`. Of what comes there
//! only `READY=1` goes on, with the pid that the supervisor is to watch from then on.
//!
//! `create` makes the directory, `start` and `run` the socket; `delete` removes both with the state directory. See
//! [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).

use crate::error::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, mkdirat, openat};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The directory's name below the container's state directory.
pub(crate) const DIRECTORY: &str = "notify";
/// The socket in it.
pub(crate) const SOCKET: &str = "notify/notify.sock";
/// Where the container finds the directory.
pub(crate) const MOUNT_POINT: &str = "/run/notify";
/// `NOTIFY_SOCKET` of the container.
pub(crate) const ADDRESS: &str = "/run/notify/notify.sock";

/// How long the supervisor may take to read what was said before this process ends.
const BARRIER_SECONDS: i64 = 30;

/// The sockets on both sides.
#[derive(Debug)]
pub struct Notify {
    container: UnixDatagram,
    supervisor: UnixDatagram,
}

/// Makes the directory that is bound into the container.
pub(crate) fn make_directory(state: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let failed = |source: rustix::io::Errno| Error::File {
        action: "making",
        path: path.join(DIRECTORY),
        source: source.into(),
    };
    mkdirat(state, DIRECTORY, Mode::from_raw_mode(0o755)).map_err(failed)?;
    // Whatever the umask is: the container's user goes through it.
    chmodat(state, DIRECTORY, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(failed)
}

impl Notify {
    /// Connects to the supervisor's socket and makes the container's, if its directory is there: `create` was told to
    /// notify.
    pub(crate) fn open(
        state: BorrowedFd<'_>,
        path: &Path,
        supervisor: &Path,
    ) -> Result<Option<Notify>, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(state, DIRECTORY, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => {
                let path = path.join(DIRECTORY);
                return Err(Error::File { action: "opening", path, source: e.into() });
            }
        };
        let at = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { action, path: path.clone(), source }
        };
        let far = connect(supervisor).map_err(at("connecting to NOTIFY_SOCKET", supervisor))?;
        // The way through the descriptor is short enough for a socket's address whatever the state directory is.
        let short = format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd());
        let failed = at("making", &path.join(SOCKET));
        let near = UnixDatagram::bind(&short).map_err(&failed)?;
        near.set_nonblocking(true).map_err(&failed)?;
        chmodat(CWD, &short, Mode::from_raw_mode(0o777), AtFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(Some(Notify { container: near, supervisor: far }))
    }

    /// Reads all that the container has said, without waiting. When it is ready, tells the supervisor so, and that
    /// `main_pid` is the process to watch. True if that was said.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn forward(&self, main_pid: i32) -> io::Result<bool> {
        let mut told = false;
        let mut buffer = [0u8; 4096];
        loop {
            let length = match self.container.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(told),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if is_ready(&buffer[..length]) {
                self.supervisor.send(format!("MAINPID={main_pid}\nREADY=1\n").as_bytes())?;
                told = true;
            }
        }
    }

    /// Waits until the container is ready, or its process has ended, and until the supervisor has read that: it finds
    /// out by the sender's pid whose message it is, so the sender must live as long.
    ///
    /// # Errors
    /// Those of the sockets.
    pub fn wait(&self, main_pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.container, PollFlags::IN), PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let ended = !fds[1].revents().is_empty();
            if self.forward(main_pid)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The supervisor closes the descriptor that comes with `BARRIER=1` when it has read everything before.
    fn barrier(&self) -> io::Result<()> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        crate::sys::send_with_fd(&self.supervisor, b"BARRIER=1", write.as_fd())?;
        drop(write);
        let limit = Timespec { tv_sec: BARRIER_SECONDS, tv_nsec: 0 };
        // One that does not know barriers lets the time pass: nothing to be done about.
        poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit))?;
        Ok(())
    }
}

impl AsFd for Notify {
    /// Readable when the container has said something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

/// A path, or a name in the abstract namespace with `@` in the place of its NUL.
fn connect(address: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

/// Whether one of the lines is `READY=1`.
fn is_ready(message: &[u8]) -> bool {
    message.split(|&b| b == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// A state directory of the test's own, with the directory for the socket.
    fn state(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("dhow-test-notify-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (path, fd)
    }

    #[test]
    fn only_readiness_goes_on() {
        let (path, fd) = state("ready");
        let host = path.join("host");
        let supervisor = UnixDatagram::bind(&host).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        assert!(Notify::open(fd.as_fd(), &path, &host).unwrap().is_none(), "create was not told to notify");
        make_directory(fd.as_fd(), &path).unwrap();
        let notify = Notify::open(fd.as_fd(), &path, &host).unwrap().unwrap();
        let container = UnixDatagram::unbound().unwrap();
        container.connect(path.join(SOCKET)).unwrap();
        for said in ["MAINPID=1", "STATUS=READY=1", "STOPPING=1\nNOTREADY=1"] {
            container.send(said.as_bytes()).unwrap();
        }
        assert!(!notify.forward(7).unwrap());
        let mut buffer = [0; 100];
        assert_eq!(supervisor.recv(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        container.send(b"STATUS=up\nREADY=1\nMAINPID=1").unwrap();
        assert!(notify.forward(7).unwrap());
        let length = supervisor.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"MAINPID=7\nREADY=1\n");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn abstract_names_and_missing_sockets() {
        let (path, fd) = state("abstract");
        make_directory(fd.as_fd(), &path).unwrap();
        let missing = Notify::open(fd.as_fd(), &path, &path.join("nobody")).unwrap_err();
        assert!(missing.to_string().contains("NOTIFY_SOCKET"), "{missing}");
        let name = format!("dhow-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _supervisor = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify::open(fd.as_fd(), &path, Path::new(&format!("@{name}"))).unwrap();
        assert!(notify.is_some());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
