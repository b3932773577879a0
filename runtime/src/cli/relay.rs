//! The relay between the caller's terminal and the container's: raw mode, window size, bytes in both directions.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, OutputModes, Termios};

/// The caller's terminal and the container's.
pub struct Relay {
    master: OwnedFd,
    host: Option<HostTerminal>,
    input: Pump,
    output: Pump,
}

/// What the relay waits for.
pub struct Interest {
    /// On standard input.
    pub stdin: PollFlags,
    /// On the master.
    pub master: PollFlags,
    /// On standard output.
    pub stdout: PollFlags,
}

/// The caller's terminal, given back as it was found when this is dropped.
struct HostTerminal {
    fd: OwnedFd,
    found: Option<Termios>,
}

impl HostTerminal {
    /// The terminal of the caller: whichever of its streams is one, or its controlling terminal.
    fn find() -> Option<HostTerminal> {
        let streams: [BorrowedFd<'_>; 3] =
            [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()];
        for stream in streams {
            if rustix::termios::isatty(stream) {
                return Some(HostTerminal { fd: stream.try_clone_to_owned().ok()?, found: None });
            }
        }
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        Some(HostTerminal { fd: file.into(), found: None })
    }

    fn make_raw(&mut self) -> io::Result<()> {
        let found = rustix::termios::tcgetattr(&self.fd)?;
        let mut raw = found.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, &raw)?;
        self.found = Some(found);
        Ok(())
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        if let Some(found) = &self.found {
            // Nothing can be done about a terminal that is gone. `Now`, not `Drain`: its output may be stopped.
            let _ = rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, found);
        }
    }
}

impl Relay {
    /// Sets the caller's terminal, if there is one, to raw mode, and the container's to its size.
    ///
    /// # Errors
    /// When the caller's terminal cannot be set, or the master cannot be made non-blocking.
    pub fn new(master: OwnedFd) -> io::Result<Relay> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        let mut host = HostTerminal::find();
        if !rustix::termios::isatty(rustix::stdio::stdout()) {
            // Output to a file or a pipe is plain text: no carriage return before each new line.
            let mut modes = rustix::termios::tcgetattr(&master)?;
            modes.output_modes.remove(OutputModes::ONLCR);
            rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes)?;
        }
        if let Some(host) = &mut host {
            // Only if the keyboard is this terminal: of `echo x | run` the terminal of stderr is left as it is.
            if rustix::termios::isatty(rustix::stdio::stdin()) {
                host.make_raw()?;
            }
        }
        let relay = Relay { master, host, input: Pump::new(), output: Pump::new() };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        let Some(host) = &self.host else { return };
        // Either terminal may be gone by now, which the next read will tell.
        if let Ok(size) = rustix::termios::tcgetwinsize(&host.fd) {
            if size.ws_row != 0 || size.ws_col != 0 {
                let _ = rustix::termios::tcsetwinsize(&self.master, size);
            }
        }
    }

    /// The master, to wait for.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// What to wait for.
    pub fn interest(&self) -> Interest {
        let when = |yes: bool, flags: PollFlags| if yes { flags } else { PollFlags::empty() };
        Interest {
            stdin: when(self.input.wants_more(), PollFlags::IN),
            master: when(self.output.wants_more(), PollFlags::IN)
                | when(self.input.has_some(), PollFlags::OUT),
            stdout: when(self.output.has_some(), PollFlags::OUT),
        }
    }

    /// Moves what can be moved, after a wait for [`Relay::interest`].
    pub fn turn(&mut self, ready: &Interest) {
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let writable = PollFlags::OUT | PollFlags::HUP | PollFlags::ERR;
        if ready.stdin.intersects(readable) {
            self.input.fill(rustix::stdio::stdin());
        }
        if ready.master.intersects(readable) {
            self.output.fill(self.master.as_fd());
        }
        if ready.master.intersects(writable) {
            self.input.drain(self.master.as_fd());
        }
        if ready.stdout.intersects(writable) {
            self.output.drain(rustix::stdio::stdout());
        }
    }

    /// After the end of the process: writes what it has left in its terminal. Others may hold the terminal open, so this
    /// ends when there is nothing to read, not at the end of file.
    pub fn finish(mut self) {
        loop {
            while self.output.has_some() {
                self.output.drain(rustix::stdio::stdout());
            }
            self.output.fill(self.master.as_fd());
            if !self.output.has_some() {
                return;
            }
        }
    }
}

/// Bytes on their way in one direction.
struct Pump {
    bytes: Box<[u8; 4096]>,
    start: usize,
    end: usize,
    /// The source has ended, or the sink no longer takes anything.
    ended: bool,
}

impl Pump {
    fn new() -> Pump {
        Pump { bytes: Box::new([0; 4096]), start: 0, end: 0, ended: false }
    }

    fn has_some(&self) -> bool {
        self.start < self.end
    }

    /// Only when empty: a slow sink slows down its source.
    fn wants_more(&self) -> bool {
        !self.ended && !self.has_some()
    }

    fn fill(&mut self, source: BorrowedFd<'_>) {
        if !self.wants_more() {
            return;
        }
        match rustix::io::read(source, &mut self.bytes[..]) {
            Ok(0) => self.ended = true,
            Ok(count) => (self.start, self.end) = (0, count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: no process has the other end of the terminal open.
            Err(_) => self.ended = true,
        }
    }

    fn drain(&mut self, sink: BorrowedFd<'_>) {
        if !self.has_some() {
            return;
        }
        match rustix::io::write(sink, &self.bytes[self.start..self.end]) {
            Ok(count) => self.start += count,
            Err(Errno::INTR) => {}
            // Standard output may have been made non-blocking by whoever shares it.
            Err(Errno::AGAIN) => {
                let mut fds = [rustix::event::PollFd::from_borrowed_fd(sink, PollFlags::OUT)];
                let _ = rustix::event::poll(
                    &mut fds,
                    Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 }),
                );
            }
            Err(_) => (self.start, self.end, self.ended) = (0, 0, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pump_keeps_what_a_sink_does_not_take() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (out, sink) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        rustix::io::write(&write, b"hello").unwrap();
        let mut pump = Pump::new();
        pump.fill(read.as_fd());
        assert!(pump.has_some() && !pump.wants_more());
        pump.drain(sink.as_fd());
        let mut bytes = [0; 16];
        assert_eq!(rustix::io::read(&out, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"hello");
        assert!(pump.wants_more());

        // A full sink: nothing is lost.
        let filler = [0u8; 65536];
        while rustix::io::write(&sink, &filler).is_ok() {}
        rustix::io::write(&write, b"later").unwrap();
        pump.fill(read.as_fd());
        pump.drain(sink.as_fd());
        assert!(pump.has_some());

        // A sink that is gone: given up.
        drop(out);
        pump.drain(sink.as_fd());
        assert!(!pump.has_some() && !pump.wants_more());
    }

    #[test]
    fn the_end_of_a_source_is_the_end() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(write);
        let mut pump = Pump::new();
        pump.fill(read.as_fd());
        assert!(!pump.wants_more() && !pump.has_some());
    }
}
