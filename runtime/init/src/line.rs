//! Text without an allocator: for a descriptor's name, and for the last words of a process that nobody listens to.

/// What stands before the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(&[])
}

/// A line of text without an allocator; what does not fit is cut.
pub(crate) struct Line {
    buffer: [u8; 512],
    len: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Line { buffer: [0; 512], len: 0 }
    }

    pub(crate) fn text(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(slot) = self.buffer.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }

    pub(crate) fn number(&mut self, n: u32) {
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.text(&digits[at..]);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}
