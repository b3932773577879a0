//! Classic BPF, written from its end to its beginning.
//!
//! Every jump of classic BPF goes forward, so the code that a jump leads to is emitted before the
//! jump itself and its place is known. A [`Label`] counts instructions from the end. Conditional
//! jumps reach 255 instructions; [`Assembler::branch`] bridges what is farther, with a second copy of
//! the target if that is a return and with an unconditional jump (32 bits) otherwise.

/// One instruction: the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    /// The eight bytes that the kernel reads, as one number in this machine's byte order.
    pub const fn to_bits(self) -> u64 {
        let (code, k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        u64::from_ne_bytes([code[0], code[1], self.jt, self.jf, k[0], k[1], k[2], k[3]])
    }
}

/// `A = data[k]`, 32 bits.
const LOAD: u16 = 0x20;
/// `A &= k`.
const AND: u16 = 0x54;
/// Skips `k` instructions.
const JUMP: u16 = 0x05;
/// Returns `k`.
const RETURN: u16 = 0x06;

/// A comparison of the accumulator with a constant, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// `A == k`.
    Equal = 0x15,
    /// `A > k`.
    Greater = 0x25,
    /// `A >= k`.
    GreaterOrEqual = 0x35,
    /// `A & k != 0`.
    AnyBit = 0x45,
}

/// A place in the code: how many instructions follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A place together with the word of `seccomp_data` that the accumulator must hold there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// The place.
    pub label: Label,
    /// Offset in bytes of the word, `None` if the accumulator does not matter.
    pub word: Option<u32>,
}

impl From<Label> for Point {
    fn from(label: Label) -> Point {
        Point { label, word: None }
    }
}

/// The program so far, last instruction first.
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The newest return of each value.
    returns: Vec<(u32, Label)>,
    /// Loads emitted for a [`Point`].
    loads: Vec<(Point, Label)>,
}

impl Assembler {
    pub fn new() -> Assembler {
        Assembler { reversed: Vec::with_capacity(512), returns: Vec::new(), loads: Vec::new() }
    }

    /// The program in the order in which it runs.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    fn emit(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Instructions that a jump emitted after `later` more instructions would skip.
    fn distance(&self, target: Label, later: usize) -> usize {
        self.reversed.len() + later - target.0 - 1
    }

    /// Code that returns `value`.
    pub fn ret(&mut self, value: u32) -> Label {
        if let Some(&(_, label)) = self.returns.iter().find(|&&(returned, _)| returned == value) {
            return label;
        }
        self.new_return(value)
    }

    fn new_return(&mut self, value: u32) -> Label {
        let label = self.emit(RETURN, 0, 0, value);
        match self.returns.iter_mut().find(|(returned, _)| *returned == value) {
            Some(newest) => newest.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Makes `target` the instruction that the next one emitted falls through to.
    fn adjoin(&mut self, target: Label) {
        let distance = self.distance(target, 0);
        if distance > 0 {
            self.emit(JUMP, 0, 0, distance as u32);
        }
    }

    /// A label for `target` that a conditional jump reaches even after `later` more instructions.
    fn near(&mut self, target: Label, later: usize) -> Label {
        if self.distance(target, later) <= 255 {
            return target;
        }
        let instruction = self.reversed[target.0];
        if instruction.code == RETURN {
            let newest = self.ret(instruction.k);
            if self.distance(newest, later) <= 255 { newest } else { self.new_return(instruction.k) }
        } else {
            let distance = self.distance(target, 0);
            self.emit(JUMP, 0, 0, distance as u32)
        }
    }

    /// Code that compares the accumulator with `k` and goes on at `yes` or `no`.
    pub fn branch(&mut self, compare: Compare, k: u32, yes: Label, no: Label) -> Label {
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let (jt, jf) = (self.distance(yes, 0) as u8, self.distance(no, 0) as u8);
        self.emit(compare as u16, jt, jf, k)
    }

    /// Code that masks the accumulator and goes on at `then`.
    pub fn and(&mut self, mask: u32, then: Label) -> Label {
        self.adjoin(then);
        self.emit(AND, 0, 0, mask)
    }

    /// Code that goes on at `point`, coming with `held` in the accumulator.
    pub fn enter(&mut self, point: Point, held: Option<u32>) -> Label {
        let Some(word) = point.word.filter(|_| point.word != held) else {
            return point.label;
        };
        if let Some(&(_, label)) = self.loads.iter().rev().find(|(loaded, _)| *loaded == point) {
            return label;
        }
        self.adjoin(point.label);
        let label = self.emit(LOAD, 0, 0, word);
        self.loads.push((point, label));
        label
    }

    /// Makes `point` the beginning of the program.
    pub fn start(&mut self, point: Point) {
        let label = self.enter(point, None);
        self.adjoin(label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_struct_in_memory() {
        let bytes = Instruction { code: 0x15, jt: 1, jf: 2, k: 0xc000_003e }.to_bits().to_ne_bytes();
        assert_eq!(
            (&bytes[..2], &bytes[4..]),
            (&0x15_u16.to_ne_bytes()[..], &0xc000_003e_u32.to_ne_bytes()[..])
        );
        assert_eq!((bytes[2], bytes[3]), (1, 2));
    }
}
