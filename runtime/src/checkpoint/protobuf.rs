//! The protocol buffers wire format, as far as CRIU's messages and images need it: varints, length-delimited
//! fields, and skipping whatever else there is.
//!
//! See <https://protobuf.dev/programming-guides/encoding/>.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field goes beyond the end.
    #[error("a field is longer than the message")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    Varint,
    /// A group or an unknown wire type.
    #[error("wire type {0} is unknown")]
    WireType(u8),
    /// A field that has to be there is not, or has another type.
    #[error("field {0} is missing or of another type")]
    Field(u32),
    /// A text is not UTF-8.
    #[error("field {0} is not UTF-8")]
    Text(u32),
}

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// An unsigned number, or an enumeration's.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// An `int32`: negative ones take ten bytes.
    pub(crate) fn int32(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value) as u64);
    }

    /// A `bool`; false is written too, since CRIU tells it from a field that is not there.
    pub(crate) fn boolean(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    /// A `string` or `bytes`. Strings of paths may hold what is not UTF-8: CRIU takes them as they are.
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message in a message.
    pub(crate) fn message(&mut self, field: u32, value: &Writer) {
        self.bytes(field, &value.bytes);
    }

    /// What was written.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The value of a field that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number of any of the varint types.
    Number(u64),
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which no field that is looked at has.
    Fixed,
}

impl<'a> Value<'a> {
    pub(crate) fn number(self, field: u32) -> Result<u64, Malformed> {
        match self {
            Value::Number(n) => Ok(n),
            _ => Err(Malformed::Field(field)),
        }
    }

    /// An `int32`, of which the upper half is its sign.
    pub(crate) fn int32(self, field: u32) -> Result<i32, Malformed> {
        self.number(field).map(|n| n as i32)
    }

    pub(crate) fn bytes(self, field: u32) -> Result<&'a [u8], Malformed> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Field(field)),
        }
    }

    pub(crate) fn text(self, field: u32) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Malformed::Text(field))
    }
}

/// The fields of a message, in its order.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for index in 0..10 {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
            self.rest = rest;
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Malformed::Varint)?;
        let value = match (key & 7) as u8 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => return Err(Malformed::WireType(other)),
        };
        Ok((field, value))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.as_bytes().to_vec()
    }

    /// The examples of the format's own documentation.
    #[test]
    fn known_bytes() {
        assert_eq!(written(|w| w.number(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(|w| w.bytes(2, b"testing")), b"\x12\x07testing");
        let mut inner = Writer::default();
        inner.number(1, 150);
        assert_eq!(written(|w| w.message(3, &inner)), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(
            written(|w| w.int32(1, -2)),
            [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        );
        // A field above 15 takes a key of two bytes: manage_cgroups_mode, 34.
        assert_eq!(written(|w| w.number(34, 6)), [0x90, 0x02, 0x06]);
        assert_eq!(written(|w| w.boolean(3, false)), [0x18, 0x00]);
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = written(|w| {
            w.int32(1, -1);
            w.bytes(68, b"/x");
            w.number(2, u64::MAX);
        });
        let fields: Vec<_> = Reader::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.len(), 3);
        assert_eq!((fields[0].0, fields[0].1.int32(1)), (1, Ok(-1)));
        assert_eq!((fields[1].0, fields[1].1.text(68)), (68, Ok("/x")));
        assert_eq!(fields[2], (2, Value::Number(u64::MAX)));
    }

    #[test]
    fn other_types_are_skipped() {
        let bytes = [0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 1];
        let fields: Vec<_> = Reader::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields, [(1, Value::Fixed), (2, Value::Fixed), (3, Value::Number(1))]);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let first = |bytes: &[u8]| Reader::new(bytes).find_map(Result::err);
        assert_eq!(first(&[0x08]), Some(Malformed::Truncated));
        assert_eq!(first(&[0x12, 5, b'a']), Some(Malformed::Truncated));
        assert_eq!(first(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), {
            Some(Malformed::Truncated)
        });
        assert_eq!(first(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), {
            Some(Malformed::Varint)
        });
        assert_eq!(first(&[0x0b]), Some(Malformed::WireType(3)));
        assert_eq!(Value::Number(1).bytes(7), Err(Malformed::Field(7)));
        assert_eq!(Value::Bytes(&[0xff]).text(7), Err(Malformed::Text(7)));
    }
}
