//! A D-Bus client of exactly what the systemd driver needs: connect, authenticate, call a method, wait for a signal.
//!
//! See the [D-Bus specification](https://dbus.freedesktop.org/doc/dbus-specification.html). Authentication is EXTERNAL
//! without a name: the peer takes the user from the socket, so that it is right in every user namespace.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A failure in talking to the bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody listens where the bus should be.
    #[error("cannot connect to D-Bus at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The environment does not say where the user's bus is.
    #[error("no D-Bus of this user: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR leads to one")]
    NoUserBus,
    /// The bus does not accept this user.
    #[error("D-Bus refused to authenticate: {reply:?}")]
    Refused {
        /// What it said.
        reply: String,
    },
    /// The connection broke.
    #[error("the D-Bus connection broke")]
    Broken {
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer over D-Bus within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// What came was not D-Bus.
    #[error("a malformed D-Bus message came")]
    Malformed,
    /// The other side answered with an error.
    #[error("{name}: {message}")]
    Remote {
        /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// The explanation that came with it.
        message: String,
    },
}

impl From<io::Error> for BusError {
    fn from(source: io::Error) -> BusError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                BusError::Timeout { seconds: PATIENCE.as_secs() }
            }
            _ => BusError::Broken { source },
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
/// The specification allows 128 MiB; what systemd answers to us has some hundred bytes.
const MAX_MESSAGE: usize = 4 << 20;

/// A value that can be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    /// Elements of the type that the signature names.
    Array(&'static str, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::Byte(_) => "y".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::F64(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// Appends the value; `out` begins at a multiple of 8 of the message.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Byte(n) => out.push(*n),
            Value::Bool(b) => put(out, &u32::from(*b).to_le_bytes()),
            Value::I16(n) => put(out, &n.to_le_bytes()),
            Value::U16(n) => put(out, &n.to_le_bytes()),
            Value::I32(n) => put(out, &n.to_le_bytes()),
            Value::U32(n) => put(out, &n.to_le_bytes()),
            Value::I64(n) => put(out, &n.to_le_bytes()),
            Value::U64(n) => put(out, &n.to_le_bytes()),
            Value::F64(n) => put(out, &n.to_le_bytes()),
            Value::Text(text) => put_text(out, text),
            Value::Array(element, items) => {
                put(out, &[0; 4]);
                let length_at = out.len() - 4;
                // The padding before the first element does not count, and is there even without one.
                pad(out, alignment(element));
                let start = out.len();
                items.iter().for_each(|item| item.write(out));
                let length = (out.len() - start) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Value::Variant(value) => {
                put_signature(out, &value.signature());
                value.write(out);
            }
        }
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// Appends a number at its natural alignment.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    pad(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, &(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn put_signature(out: &mut Vec<u8>, signature: &str) {
    out.push(signature.len() as u8);
    out.extend_from_slice(signature.as_bytes());
    out.push(0);
}

// Message types and header fields.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// A message, taken apart as far as the client cares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) serial: u32,
    pub(super) reply_to: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) destination: String,
    pub(super) sender: String,
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Sets the body and its signature.
    pub(super) fn with(mut self, values: &[Value]) -> Message {
        for value in values {
            self.signature.push_str(&value.signature());
            value.write(&mut self.body);
        }
        self
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![b'l', self.kind, 0, 1];
        put(&mut out, &(self.body.len() as u32).to_le_bytes());
        put(&mut out, &self.serial.to_le_bytes());
        put(&mut out, &[0; 4]);
        let start = out.len();
        for (code, kind, text) in [
            (PATH, "o", &self.path),
            (INTERFACE, "s", &self.interface),
            (MEMBER, "s", &self.member),
            (ERROR_NAME, "s", &self.error),
            (DESTINATION, "s", &self.destination),
            (SENDER, "s", &self.sender),
            (SIGNATURE, "g", &self.signature),
        ] {
            if !text.is_empty() {
                pad(&mut out, 8);
                out.push(code);
                put_signature(&mut out, kind);
                match kind {
                    "g" => put_signature(&mut out, text),
                    _ => put_text(&mut out, text),
                }
            }
        }
        if self.reply_to != 0 {
            pad(&mut out, 8);
            out.push(REPLY_SERIAL);
            put_signature(&mut out, "u");
            put(&mut out, &self.reply_to.to_le_bytes());
        }
        let length = (out.len() - start) as u32;
        out[start - 4..start].copy_from_slice(&length.to_le_bytes());
        pad(&mut out, 8);
        out.extend_from_slice(&self.body);
        out
    }

    /// Reads one message from a stream.
    pub(super) fn read(stream: &mut impl Read) -> Result<Message, BusError> {
        let mut head = [0_u8; 16];
        stream.read_exact(&mut head)?;
        if head[0] != b'l' || head[3] != 1 {
            // Big-endian peers exist in the specification only: the daemon is on this machine.
            return Err(BusError::Malformed);
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body_length, fields_length) = (word(4) as usize, word(12) as usize);
        if body_length > MAX_MESSAGE || fields_length > MAX_MESSAGE {
            return Err(BusError::Malformed);
        }
        let mut fields = vec![0; fields_length.next_multiple_of(8)];
        stream.read_exact(&mut fields)?;
        let mut body = vec![0; body_length];
        stream.read_exact(&mut body)?;
        let mut message = Message { kind: head[1], serial: word(8), body, ..Message::default() };
        let mut reader = Reader { bytes: &fields[..fields_length], at: 0 };
        while reader.at < fields_length {
            reader.align(8)?;
            let code = reader.take(1)?[0];
            match (code, reader.signature()?) {
                (PATH, "o") => message.path = reader.text()?.to_owned(),
                (INTERFACE, "s") => message.interface = reader.text()?.to_owned(),
                (MEMBER, "s") => message.member = reader.text()?.to_owned(),
                (ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
                (DESTINATION, "s") => message.destination = reader.text()?.to_owned(),
                (SENDER, "s") => message.sender = reader.text()?.to_owned(),
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?.to_owned(),
                // Unknown fields are to be ignored; these are the types they can have here.
                (_, "s" | "o") => {
                    reader.text()?;
                }
                (_, "u") => {
                    reader.u32()?;
                }
                (_, "g") => {
                    reader.signature()?;
                }
                _ => return Err(BusError::Malformed),
            }
        }
        Ok(message)
    }

    /// The body, to be read value by value.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Reads values from a body.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Result<(), BusError> {
        self.at = self.at.next_multiple_of(to);
        if self.at <= self.bytes.len() { Ok(()) } else { Err(BusError::Malformed) }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.checked_add(n).ok_or(BusError::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(BusError::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BusError> {
        self.align(4)?;
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A string or an object path.
    pub(super) fn text(&mut self) -> Result<&'a str, BusError> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    pub(super) fn signature(&mut self) -> Result<&'a str, BusError> {
        let length = usize::from(self.take(1)?[0]);
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str, BusError> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] {
            return Err(BusError::Malformed);
        }
        std::str::from_utf8(bytes).map_err(|_| BusError::Malformed)
    }

    /// A variant with a string in it.
    pub(super) fn variant_text(&mut self) -> Result<&'a str, BusError> {
        match self.signature()? {
            "s" => self.text(),
            _ => Err(BusError::Malformed),
        }
    }
}

/// An authenticated connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while a reply was waited for.
    signals: VecDeque<Message>,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Connection, BusError> {
        let connect = |source| BusError::Connect { path: path.to_path_buf(), source };
        Connection::over(UnixStream::connect(path).map_err(connect)?)
    }

    /// Authenticates over a connected socket.
    pub(super) fn over(mut stream: UnixStream) -> Result<Connection, BusError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for wanted in ["DATA", "OK "] {
            let reply = read_line(&mut stream)?;
            if !reply.starts_with(wanted) {
                return Err(BusError::Refused { reply });
            }
        }
        Ok(Connection { stream, serial: 0, signals: VecDeque::new() })
    }

    /// Calls a method and waits for its answer.
    pub(super) fn call(&mut self, call: Message) -> Result<Message, BusError> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&Message { kind: CALL, serial, ..call }.encode())?;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                RETURN if message.reply_to == serial => return Ok(message),
                ERROR if message.reply_to == serial => {
                    let text = match message.signature.starts_with('s') {
                        true => message.reader().text().unwrap_or_default().to_owned(),
                        false => String::new(),
                    };
                    return Err(BusError::Remote { name: message.error, message: text });
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` makes something of.
    pub(super) fn wait<T>(
        &mut self,
        wanted: impl Fn(&Message) -> Result<Option<T>, BusError>,
    ) -> Result<T, BusError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline)?,
            };
            if message.kind == SIGNAL {
                if let Some(found) = wanted(&message)? {
                    return Ok(found);
                }
            }
        }
    }

    /// The socket, for a test's peer that answers instead of asking.
    #[cfg(test)]
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream.set_read_timeout(None).unwrap();
        self.stream
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, BusError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BusError::Timeout { seconds: PATIENCE.as_secs() });
        }
        self.stream.set_read_timeout(Some(left))?;
        Message::read(&mut self.stream)
    }
}

/// Reads a line of the authentication, byte by byte, since what follows it is another protocol.
pub(super) fn read_line(stream: &mut UnixStream) -> Result<String, BusError> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > 1024 {
            return Err(BusError::Malformed);
        }
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(|_| BusError::Malformed)
}

/// The path of the first `unix:path=` address in a D-Bus address list.
pub(super) fn unix_path(address: &str) -> Option<PathBuf> {
    address.split(';').find_map(|one| {
        let path = one.strip_prefix("unix:")?.split(',').find_map(|kv| kv.strip_prefix("path="))?;
        let mut bytes = Vec::new();
        let mut rest = path.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let hex = [rest.next()?, rest.next()?];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                }
                other => bytes.push(other),
            }
        }
        Some(PathBuf::from(String::from_utf8(bytes).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_as_the_specification_says() {
        let mut out = Vec::new();
        Value::Byte(7).write(&mut out);
        Value::U32(1).write(&mut out);
        Value::Array("(ss)", vec![Value::Struct(vec![Value::text("a"), Value::text("bc")])]).write(&mut out);
        let want: [u8; 31] = [
            7, 0, 0, 0, 1, 0, 0, 0, // byte, padding, u32
            15, 0, 0, 0, 0, 0, 0, 0, // array length, padding to the struct
            1, 0, 0, 0, b'a', 0, 0, 0, // "a"
            2, 0, 0, 0, b'b', b'c', 0, // "bc"
        ];
        assert_eq!(out, want);
        let mut empty = Vec::new();
        Value::Array("t", Vec::new()).write(&mut empty);
        assert_eq!(empty, [0; 8]);
    }

    #[test]
    fn messages_survive_the_wire() {
        let message = Message {
            kind: CALL,
            serial: 9,
            reply_to: 3,
            path: "/org/x".into(),
            interface: "org.x".into(),
            member: "M".into(),
            destination: "org.d".into(),
            ..Message::default()
        }
        .with(&[Value::text("hello"), Value::Variant(Box::new(Value::U64(5)))]);
        let bytes = message.encode();
        assert_eq!(Message::read(&mut &bytes[..]).unwrap(), message);
        for end in 0..bytes.len() {
            assert!(Message::read(&mut &bytes[..end]).is_err());
        }
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        let bytes = Message { kind: SIGNAL, path: "/p".into(), ..Message::default() }
            .with(&[Value::text("x")])
            .encode();
        for at in 0..bytes.len() {
            for value in [0_u8, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(message) = Message::read(&mut &changed[..]) {
                    let _ = message.reader().text();
                    let _ = message.reader().variant_text();
                }
            }
        }
    }

    #[test]
    fn addresses_name_their_path() {
        assert_eq!(unix_path("unix:path=/run/a%20b,guid=1"), Some("/run/a b".into()));
        assert_eq!(unix_path("tcp:host=x;unix:path=/y"), Some("/y".into()));
        assert_eq!(unix_path("unix:abstract=/z"), None);
    }
}
