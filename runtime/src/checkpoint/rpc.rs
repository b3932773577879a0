//! A conversation with `criu swrk`: one process per checkpoint or restore, one SOCK_SEQPACKET message per request,
//! notification and answer.
//!
//! CRIU learns who talks to it from the socket's credentials and opens `/proc/<us>/fd/N` for the image directory, so
//! those numbers are of this process. Descriptors it inherits keep their numbers too: nothing is renumbered after
//! fork.

use super::error::Error;
use super::message::{self, Feature, Kind, Options, Response};
use super::protobuf::Writer;
use super::sys;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// The largest answer that is understood: those of CRIU have some dozens of bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// What CRIU tells in between.
pub(crate) struct Notification {
    /// `post-dump`, `setup-namespaces`, ...
    pub script: String,
    /// The root process, where the event has one.
    pub pid: i32,
    /// The terminal's master of `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// How CRIU is started.
pub(crate) struct Start<'a> {
    /// Descriptors it inherits, under their numbers.
    pub keep: Vec<BorrowedFd<'a>>,
    /// Whether it has the caller's standard streams: only to restore a job of the caller's shell.
    pub own_streams: bool,
}

/// A running CRIU. Dropping it ends it.
pub(crate) struct Criu {
    socket: Option<OwnedFd>,
    child: Child,
    output: OwnedFd,
}

impl Drop for Criu {
    fn drop(&mut self) {
        self.socket = None;
        // Both fail only if it has ended and been waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Criu {
    pub(crate) fn start(start: Start<'_>) -> Result<Criu, Error> {
        let run = |source| Error::Run { source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| run(e.into()))?;
        let output = rustix::fs::memfd_create("criu-output", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| run(e.into()))?;
        let mut command = Command::new("criu");
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        if !start.own_streams {
            let copy = || output.try_clone().map(|fd| Stdio::from(File::from(fd))).map_err(run);
            command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
        }
        let mut keep: Vec<_> = start.keep.iter().map(AsRawFd::as_raw_fd).collect();
        keep.push(theirs.as_raw_fd());
        sys::keep(&mut command, keep);
        let child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing,
            _ => Error::Run { source },
        })?;
        // Or the end of CRIU would not be the end of the conversation.
        drop(theirs);
        Ok(Criu { socket: Some(ours), child, output })
    }

    pub(crate) fn pid(&self) -> i32 {
        rustix::process::Pid::from_child(&self.child).as_raw_pid()
    }

    /// The end of what it printed before it had a log.
    fn printed(&self) -> String {
        crate::launch::tail(self.output.as_fd())
    }

    fn talk(&self, action: &'static str) -> impl Fn(Errno) -> Error + '_ {
        move |e| Error::Talk { action, output: self.printed(), source: e.into() }
    }

    fn send(&self, request: &Writer) -> Result<(), Error> {
        let Some(socket) = &self.socket else { return Ok(()) };
        loop {
            match send(socket, request.as_bytes(), SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // It is gone, which the next receive tells with what it printed.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(e) => return Err(self.talk("sending a request to criu")(e)),
            }
        }
    }

    /// The next message; nothing at the end.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>, Error> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let mut bytes = vec![0u8; ANSWER_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let got = match recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => return Ok(None),
                Err(e) => return Err(self.talk("hearing criu")(e)),
            };
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            if got.bytes == 0 {
                return Ok(None);
            }
            if got.flags.contains(ReturnFlags::TRUNC) {
                return Err(self.talk("hearing criu")(Errno::MSGSIZE));
            }
            let response =
                Response::decode(&bytes[..got.bytes]).map_err(|source| Error::Answer { source })?;
            return Ok(Some((response, fd)));
        }
    }

    fn ask(&self, kind: Kind, request: &Writer) -> Result<Response, Error> {
        self.send(request)?;
        let request = kind.name();
        let (response, _) =
            self.receive()?.ok_or_else(|| Error::Ended { request, output: self.printed() })?;
        // A CRIU that does not know the request answers with another kind.
        if response.kind != kind as u64 {
            return Err(Error::Unexpected { request, kind: response.kind });
        }
        Ok(response)
    }

    /// major * 10000 + minor * 100 + sublevel; 0 for one that is too old to say.
    pub(crate) fn version(&self) -> Result<u32, Error> {
        let response = self.ask(Kind::Version, &message::version_request())?;
        Ok(response.version.filter(|_| response.success).unwrap_or(0))
    }

    /// Fails where CRIU or the kernel lacks the feature.
    pub(crate) fn require(&self, feature: Feature) -> Result<(), Error> {
        let response = self.ask(Kind::FeatureCheck, &message::feature_request(feature))?;
        if response.success && response.features.contains(&(feature as u32)) {
            return Ok(());
        }
        Err(Error::MissingFeature { feature: feature.name() })
    }

    /// Sends the request that CRIU was started for and answers its notifications until it is done. With an error of
    /// `notified` CRIU is left without an answer and ends.
    pub(crate) fn work<E: From<Failure>>(
        &mut self,
        kind: Kind,
        options: &Options,
        mut notified: impl FnMut(Notification) -> Result<(), E>,
    ) -> Result<Response, E> {
        let request = kind.name();
        let failure = |error| E::from(Failure::Talk(error));
        self.send(&message::request(kind, options)).map_err(failure)?;
        loop {
            let received = self.receive().map_err(failure)?;
            let Some((response, fd)) = received else {
                return Err(Failure::Ended { printed: self.printed() }.into());
            };
            if !response.success {
                let Response { errno, message, .. } = response;
                return Err(Failure::Refused { errno, message, printed: self.printed() }.into());
            }
            if response.kind == Kind::Notify as u64 {
                if let Some((script, pid)) = response.notify {
                    notified(Notification { script, pid, fd })?;
                }
                self.send(&message::notify_success()).map_err(failure)?;
                continue;
            }
            if response.kind != kind as u64 {
                return Err(failure(Error::Unexpected { request, kind: response.kind }));
            }
            self.finish(kind).map_err(failure)?;
            return Ok(response);
        }
    }

    /// The end: CRIU sees the end of file, and may still have to clean up.
    fn finish(&mut self, kind: Kind) -> Result<(), Error> {
        self.socket = None;
        let status = self.child.wait().map_err(|source| Error::Run { source })?;
        // After a pre-dump it waits for more, and takes the end of file for an error.
        if status.success() || kind == Kind::PreDump {
            return Ok(());
        }
        let output = format!("{} {}", crate::hooks::status_text(wait_status(status)), self.printed());
        Err(Error::Ended { request: kind.name(), output })
    }
}

fn wait_status(status: std::process::ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::into_raw(status)
}

/// Why CRIU did not do what it was started for; the caller knows where the log is.
pub(crate) enum Failure {
    Talk(Error),
    Ended { printed: String },
    Refused { errno: i32, message: String, printed: String },
}
