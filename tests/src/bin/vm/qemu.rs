//! Runs QEMU, passes the guest's output on and waits for the command's exit status.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::kernel;
use crate::options::Options;

/// How much of the console is kept for an error message.
const CONSOLE_KEPT_BYTES: usize = 4096;

/// What the kernel is told in every case.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr";

/// How long a guest may take to its command; four to ten seconds are usual, thirty on a busy host.
/// About one boot in forty never gets there: emulated, the second processor's timer is lost.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How often a guest is booted before that is an error.
const BOOTS: u32 = 3;

/// What the threads that read from the guest tell.
enum Event {
    /// The guest is about to run the command.
    Begun,
    /// One of the two output streams ended with the command's exit status.
    Ended(u8),
    /// A part of the kernel's console.
    Console(Vec<u8>),
}

/// Boots the guest, streams its output and returns the command's exit status.
///
/// # Errors
/// [`Error::Timeout`] and [`Error::Lost`]; QEMU is gone in every case.
pub fn run(options: &Options, initrd: &[u8], marker: &str) -> Result<u8, Error> {
    let deadline = Instant::now() + options.timeout;
    let mut boots = 1;
    loop {
        match boot_and_run(options, initrd, marker, deadline)? {
            Outcome::Status(status) => return Ok(status),
            Outcome::NotBooted(console) if boots == BOOTS => return Err(Error::Lost { console }),
            Outcome::NotBooted(_) => eprintln!("vm: the guest hangs before its command; booting another"),
        }
        boots += 1;
    }
}

/// How one boot ended.
enum Outcome {
    /// The command's exit status.
    Status(u8),
    /// The command had not begun when [`BOOT_LIMIT`] was over; the console's last lines.
    NotBooted(String),
}

fn boot_and_run(options: &Options, initrd: &[u8], marker: &str, deadline: Instant) -> Result<Outcome, Error> {
    let directory = Scratch::new()?;
    let initrd_file = directory.0.join("initrd");
    fs::write(&initrd_file, initrd).map_err(Error::file("write", &initrd_file))?;
    let (sender, events) = mpsc::channel();
    for stream in [Stream::Output, Stream::Errors] {
        let listener = listen(&directory.0.join(stream.name()))?;
        let (sender, marker) = (sender.clone(), marker.to_owned());
        // A stream without an end shows as QEMU's end.
        thread::spawn(move || pass_on(stream, &listener, &marker, &sender));
    }
    let listener = listen(&directory.0.join("console"))?;
    thread::spawn(move || follow_console(&listener, &sender));

    let mut qemu = Guest(
        qemu_command(options, &directory.0)
            .spawn()
            .map_err(|source| Error::Start { program: "qemu-system-x86_64".into(), source })?,
    );
    let mut boot_deadline = Some(Instant::now() + BOOT_LIMIT);
    let mut directory = Some(directory);
    let mut console = Console { kept: VecDeque::new(), shown: options.console };
    let mut ended: Vec<u8> = Vec::new();
    let mut gone_since = None;
    while ended.len() < 2 {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Begun) => {
                boot_deadline = None;
                // Everything in it is open or read: a signal that ends this program leaves nothing.
                directory = None;
            }
            Ok(Event::Ended(status)) => ended.push(status),
            Ok(Event::Console(bytes)) => console.add(&bytes),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let gone = qemu.0.try_wait().map_err(Error::file("wait for", Path::new("QEMU")))?;
                // What QEMU wrote last may still be under way from a thread.
                if gone.is_some()
                    && gone_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(300)
                {
                    return Err(Error::Lost { console: console.text() });
                }
            }
        }
        let now = Instant::now();
        if now > deadline {
            return Err(Error::Timeout { seconds: options.timeout.as_secs(), console: console.text() });
        }
        if boot_deadline.is_some_and(|limit| now > limit) {
            return Ok(Outcome::NotBooted(console.text()));
        }
    }
    drop(directory);
    Ok(Outcome::Status(ended[0]))
}

fn qemu_command(options: &Options, directory: &Path) -> Command {
    // QEMU must not outlive this program, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi"]);
    command.args([
        "-cpu",
        &std::env::var("VMCPU").unwrap_or("max".into()),
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.arg("-m").arg(options.memory_mib.to_string()).arg("-smp").arg(options.cpus.to_string());
    command.arg("-kernel").arg(kernel::image(&options.cache, options.kernel));
    command.arg("-initrd").arg(directory.join("initrd"));
    command.arg("-append").arg(format!("{PARAMETERS} {}", options.append));
    for (tag, path) in [("host", Path::new("/")), ("cache", &options.cache)] {
        command.arg("-virtfs").arg(format!(
            "local,path={},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
            escaped(path)
        ));
    }
    for name in ["console", "output", "errors"] {
        command.arg("-chardev").arg(format!("socket,id={name},path={}", escaped(&directory.join(name))));
    }
    command.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    for (number, name) in [(1, "output"), (2, "errors")] {
        command.arg("-device").arg(format!("virtserialport,chardev={name},nr={number}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A path within an option of QEMU, where a comma would begin the next setting.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn listen(path: &Path) -> Result<UnixListener, Error> {
    UnixListener::bind(path).map_err(Error::file("listen at", path))
}

/// The command's standard output or error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Output,
    Errors,
}

impl Stream {
    /// Its name among QEMU's character devices and the sockets.
    fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Errors => "errors",
        }
    }

    fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Output => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Self::Errors => io::stderr().write_all(bytes),
        }
    }
}

/// Copies one of the guest's streams until its marker, and tells of what it finds.
fn pass_on(stream: Stream, listener: &UnixListener, marker: &str, events: &Sender<Event>) -> io::Result<()> {
    let mut port = BufReader::with_capacity(1 << 16, listener.accept()?.0);
    if stream == Stream::Output {
        let mut line = Vec::new();
        port.read_until(b'\n', &mut line)?;
        if !line.is_empty() {
            // Nobody listens once this boot is over.
            let _ = events.send(Event::Begun);
        }
    }
    let mut splitter = Splitter { marker: marker.as_bytes().to_vec(), held: Vec::new() };
    loop {
        let piece = port.fill_buf()?;
        let count = piece.len();
        if count == 0 {
            return stream.write(&splitter.held);
        }
        let (output, status) = splitter.push(piece);
        port.consume(count);
        // Where nobody reads any more the command must still come to its end.
        let _ = stream.write(&output);
        if let Some(status) = status {
            let _ = events.send(Event::Ended(status));
            return Ok(());
        }
    }
}

fn follow_console(listener: &UnixListener, sender: &Sender<Event>) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if sender.send(Event::Console(buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// Finds the marker in a stream that arrives in pieces.
struct Splitter {
    marker: Vec<u8>,
    /// What may be the beginning of the marker, or the marker without its whole line.
    held: Vec<u8>,
}

impl Splitter {
    /// Takes a piece; returns what can be passed on, and the status once marker and line are whole.
    fn push(&mut self, piece: &[u8]) -> (Vec<u8>, Option<u8>) {
        self.held.extend_from_slice(piece);
        let length = self.marker.len();
        if let Some(at) = self.held.windows(length).position(|window| window == self.marker) {
            let line = &self.held[at + length..];
            let status = line
                .iter()
                .position(|&byte| byte == b'\n')
                .and_then(|end| std::str::from_utf8(&line[..end]).ok()?.trim().parse().ok());
            let rest = self.held.split_off(at);
            return (std::mem::replace(&mut self.held, rest), status);
        }
        let kept = (1..length.min(self.held.len() + 1))
            .rev()
            .find(|&kept| self.held.ends_with(&self.marker[..kept]))
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), None)
    }
}

/// The end of what the kernel and init wrote.
struct Console {
    kept: VecDeque<u8>,
    shown: bool,
}

impl Console {
    fn add(&mut self, bytes: &[u8]) {
        if self.shown {
            eprint!("{}", String::from_utf8_lossy(bytes));
        }
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(CONSOLE_KEPT_BYTES);
        self.kept.drain(..excess);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.iter().copied().collect::<Vec<_>>()).replace('\r', "")
    }
}

/// QEMU, killed when this goes out of scope: nothing of the guest is kept.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory of this run's own, removed when it goes out of scope.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("dhow-test-vm-{}", std::process::id()));
        fs::create_dir(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left costs space only, and has this process's number in its name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the stream in pieces of this size; returns the output and the status.
    fn split(stream: &[u8], piece: usize) -> (Vec<u8>, Option<u8>) {
        let mut splitter = Splitter { marker: b"end-of-it".to_vec(), held: Vec::new() };
        let mut output = Vec::new();
        let mut status = None;
        for piece in stream.chunks(piece) {
            let (part, found) = splitter.push(piece);
            output.extend(part);
            status = status.or(found);
        }
        (output, status)
    }

    #[test]
    fn the_marker_is_found_however_the_stream_is_cut() {
        for piece in 1..40 {
            assert_eq!(
                split(b"one\nend-of-\nend-oend-of-it 137\n", piece),
                (b"one\nend-of-\nend-o".to_vec(), Some(137)),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn nothing_is_held_back_that_cannot_be_the_marker() {
        let mut splitter = Splitter { marker: b"end-of-it".to_vec(), held: Vec::new() };
        assert_eq!(splitter.push(b"prompt> "), (b"prompt> ".to_vec(), None));
        assert_eq!(splitter.push(b"the e"), (b"the ".to_vec(), None));
        assert_eq!(splitter.push(b"lse\n"), (b"else\n".to_vec(), None));
    }
}
