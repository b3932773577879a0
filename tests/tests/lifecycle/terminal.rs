//! Terminals: through a console socket, and the caller's own in the foreground.

use crate::needs_root;
use dhow_tests::Container;
use dhow_tests::command::wait_for;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The text and the descriptor of the first message of the next connection.
pub fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    listener.set_nonblocking(true).unwrap();
    let stream = wait_for(Duration::from_secs(10), || listener.accept().ok()).expect("a connection").0;
    stream.set_nonblocking(false).unwrap();
    let mut bytes = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    bytes.truncate(got.bytes);
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (bytes, fd.expect("a descriptor"))
}

/// Reads a terminal's master in a thread: it may say nothing for ever.
struct Screen {
    chunks: mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl Screen {
    fn new(master: &File) -> Screen {
        let (send, chunks) = mpsc::channel();
        let mut master = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO once nobody has the other end open.
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Screen { chunks, text: String::new() }
    }

    /// Reads until `what` is on the screen.
    #[track_caller]
    fn until(&mut self, what: &str) -> &str {
        while !self.text.contains(what) {
            match self.chunks.recv_timeout(Duration::from_secs(10)) {
                Ok(chunk) => self.text.push_str(&String::from_utf8_lossy(&chunk)),
                Err(e) => panic!("no {what:?} ({e}) in {:?}", self.text),
            }
        }
        &self.text
    }
}

#[test]
fn a_console_socket_gets_the_master() {
    needs_root!();
    let mut c = Container::new();
    c.bundle
        .terminal(true)
        .shell("stty size; tty; ls -l /dev/console; echo c >/dev/console; read x; echo got $x");
    c.set("/process/consoleSize", json!({ "height": 33, "width": 97 })).bundle.write();
    let path = c.host_path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (bundle, path) = (c.bundle.path().to_str().unwrap(), path.to_str().unwrap());
    c.runtime.call(["create", "-b", bundle, "--console-socket", path, &c.id]).ok();
    let (_, master) = receive(&listener);
    let mut master = File::from(master);
    let mut screen = Screen::new(&master);
    c.runtime.start(&c.id).ok();
    screen.until("33 97");
    screen.until("/dev/pts/0");
    // A device: the terminal bound over it.
    screen.until("crw");
    screen.until("\nc\r\n");
    master.write_all(b"hello\n").unwrap();
    screen.until("got hello");
    c.runtime.wait_status(&c.id, "stopped");
}

#[test]
fn exec_gets_a_terminal_of_the_container() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let path = c.host_path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    let script = "tty; read x; echo got $x; ps -o tty,args | grep -c pts";
    c.runtime.call(["exec", "-d", "-t", "--console-socket", path, &c.id, "sh", "-c", script]).ok();
    let mut master = File::from(receive(&listener).1);
    let mut screen = Screen::new(&master);
    screen.until("/dev/pts/0");
    master.write_all(b"hello\n").unwrap();
    screen.until("got hello");
}

/// A terminal of the test's own, and a command whose controlling terminal it is.
fn own_terminal(c: &Container, args: &[&str]) -> (File, std::process::Child) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = rustix::termios::Winsize { ws_row: 31, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = || -> Stdio {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap().into()
    };
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(c.runtime.binary()).arg("--root").arg(c.runtime.root());
    let child = command.args(args).stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    (File::from(master), child)
}

#[track_caller]
fn ends_with(child: &mut std::process::Child, code: i32) {
    let status = wait_for(Duration::from_secs(10), || child.try_wait().unwrap());
    assert_eq!(status.and_then(|s| s.code()), Some(code));
}

#[test]
fn the_callers_terminal_is_relayed_in_the_foreground() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.terminal(true).shell(
        "tty; stty size; trap 'stty size' WINCH; trap 'echo intr' INT; read x; echo got $x; read y; echo end; exit 5",
    );
    c.bundle.write();
    let bundle = c.bundle.path().to_str().unwrap().to_owned();
    let (mut master, mut child) = own_terminal(&c, &["run", "-b", &bundle, &c.id]);
    let mut screen = Screen::new(&master);
    screen.until("/dev/pts/0");
    screen.until("31 101");
    master.write_all(b"hello\r").unwrap();
    screen.until("got hello");
    master.write_all(b"\r").unwrap();
    screen.until("end");
    ends_with(&mut child, 5);
}

#[test]
fn resizes_and_interrupts_reach_the_container() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.terminal(true).shell(
        "trap 'echo interrupted; exit 6' INT; echo ready; while ! stty size | grep -q '40 120'; do sleep 0.05; done; \
         echo resized; mkfifo /tmp/f; read x <>/tmp/f",
    );
    c.bundle.write();
    let bundle = c.bundle.path().to_str().unwrap().to_owned();
    let (mut master, mut child) = own_terminal(&c, &["run", "-b", &bundle, &c.id]);
    let mut screen = Screen::new(&master);
    screen.until("ready");
    let size = rustix::termios::Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    screen.until("resized");
    // Control-C goes through as a byte; the container's own terminal makes a signal of it.
    master.write_all(b"\x03").unwrap();
    screen.until("interrupted");
    ends_with(&mut child, 6);
}

#[test]
fn exec_relays_the_callers_terminal() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let (mut master, mut child) =
        own_terminal(&c, &["exec", "-t", &c.id, "sh", "-c", "tty; stty size; read x; echo got $x; exit 8"]);
    let mut screen = Screen::new(&master);
    screen.until("/dev/pts/0");
    screen.until("31 101");
    master.write_all(b"hello\r").unwrap();
    screen.until("got hello");
    ends_with(&mut child, 8);
}

#[test]
fn a_terminal_needs_somebody_to_have_it() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.terminal(true).write();
    let output = c.runtime.create(&c.id, &c.bundle).code(1);
    assert!(output.stderr.contains("console socket"), "{output}");
    c.bundle.terminal(false).write();
    let bundle = c.bundle.path().to_str().unwrap();
    let output =
        c.runtime.call(["create", "-b", bundle, "--console-socket", "/no/such/socket", &c.id]).code(1);
    assert!(output.stderr.contains("console socket"), "{output}");
    assert!(c.runtime.ids_on_disk().is_empty());
}
