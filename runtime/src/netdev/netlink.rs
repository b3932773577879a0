//! As much of rtnetlink(7) as moving an interface takes: one socket, requests, their answers.
//!
//! A message is a header of 16 bytes, a structure of the family and attributes, each aligned to four bytes;
//! numbers are in the order of the machine. A socket belongs to the namespace that it was made in.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_GETADDR: u16 = 22;

pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;

/// Larger than any datagram that the kernel makes for these requests (32 KiB for a dump).
const BUFFER_BYTES: usize = 64 << 10;
/// How often a dump that changes while it is read is begun again.
const DUMP_TRIES: usize = 8;

/// A request being put together.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of type `kind` whose family structure is `fixed`, a multiple of four bytes.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        Request { bytes }
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        let length = u16::try_from(4 + value.len()).expect("attributes are names, addresses and numbers");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a string attribute, with the NUL that the kernel wants.
    pub(super) fn string(self, kind: u16, value: &str) -> Request {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a request is small");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message of an answer.
pub(super) struct Message {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Message {
    /// A byte of the family structure.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.payload.get(at).copied().unwrap_or(0)
    }

    /// A number in the family structure.
    pub(super) fn u32(&self, at: usize) -> u32 {
        self.payload.get(at..at + 4).map_or(0, number)
    }

    /// The attributes after a family structure of `fixed` bytes: kind without flag bits, and value.
    pub(super) fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
        let mut rest = self.payload.get(fixed..).unwrap_or_default();
        std::iter::from_fn(move || {
            let head = rest.get(..4)?;
            let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }
}

pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_ne_bytes).unwrap_or(0)
}

/// A socket to the routing tables of one network namespace.
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket in the namespace of the calling thread.
    pub(super) fn new() -> Result<Socket, Errno> {
        // The protocol NETLINK_ROUTE is 0.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// A socket in another namespace. A thread enters it and ends there; nothing else of the process moves.
    pub(super) fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Socket, Errno> {
        std::thread::scope(|scope| {
            let enter = || {
                move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
                Socket::new()
            };
            let thread = std::thread::Builder::new().spawn_scoped(scope, enter);
            let thread = thread.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
            thread.join().unwrap_or(Err(Errno::IO))
        })
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    pub(super) fn change(&mut self, request: Request) -> Result<(), Errno> {
        self.exchange(request, NLM_F_ACK).map(|_| ())
    }

    /// Sends a request that is answered by one message.
    pub(super) fn get(&mut self, request: Request) -> Result<Message, Errno> {
        self.exchange(request, NLM_F_ACK)?.into_iter().next().ok_or(Errno::PROTO)
    }

    /// Sends a request that is answered by any number of messages.
    pub(super) fn dump(&mut self, request: impl Fn() -> Request) -> Result<Vec<Message>, Errno> {
        for _ in 0..DUMP_TRIES {
            let messages = self.exchange(request(), NLM_F_DUMP)?;
            if messages.iter().all(|m| m.flags & NLM_F_DUMP_INTR == 0) {
                return Ok(messages);
            }
        }
        Err(Errno::INTR)
    }

    /// One request and all messages of its answer, up to the acknowledgement or the end of the dump.
    fn exchange(&mut self, request: Request, flags: u16) -> Result<Vec<Message>, Errno> {
        self.sequence += 1;
        let bytes = request.finish(flags, self.sequence);
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut messages = Vec::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (_, length) = match recv(&self.fd, buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let datagram = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            for message in split(datagram) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(messages),
                    NLMSG_ERROR => {
                        return match message.u32(0) as i32 {
                            0 => Ok(messages),
                            code => Err(Errno::from_raw_os_error(code.wrapping_neg())),
                        };
                    }
                    _ => messages.push(message),
                }
            }
        }
    }
}

/// The messages of a datagram.
fn split(datagram: &[u8]) -> impl Iterator<Item = Result<Message, Errno>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest.get(..4).map(|length| number(length) as usize).and_then(|length| rest.get(..length));
        let Some(whole) = whole.filter(|whole| whole.len() >= HEADER_BYTES) else {
            rest = &[];
            return Some(Err(Errno::PROTO));
        };
        rest = rest.get(whole.len().next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([whole[4], whole[5]]),
            flags: u16::from_ne_bytes([whole[6], whole[7]]),
            sequence: number(&whole[8..12]),
            payload: whole[HEADER_BYTES..].to_vec(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_lengths_and_padding() {
        let bytes = Request::new(RTM_NEWLINK, 0x400, &[1; 16]).string(3, "abcd").finish(NLM_F_ACK, 9);
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!(number(&bytes[..4]), 44);
        let message = split(&bytes).next().unwrap().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (RTM_NEWLINK, 0x405, 9));
        assert_eq!(message.attributes(16).collect::<Vec<_>>(), [(3, b"abcd\0".as_slice())]);
    }

    #[test]
    fn broken_datagrams_end() {
        for bytes in [&[1u8, 0][..], &[0; 16], &[15, 0, 0, 0], &[200, 0, 0, 0, 1]] {
            assert!(split(bytes).next().unwrap().is_err());
            assert!(split(bytes).nth(1).is_none());
        }
        let message = Message { kind: 0, flags: 0, sequence: 0, payload: vec![3, 0, 1, 0, 9] };
        assert_eq!(message.attributes(0).count(), 0);
    }
}
