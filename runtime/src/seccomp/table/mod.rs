//! Names to numbers, without allocation: what [`rows`] says, laid out at compile time.
//!
//! The text of the names is one string and an index of 16-bit offsets, so that the table needs no
//! relocation when a static position-independent program starts, and no page of it becomes dirty.

mod rows;

use super::Arch;
use super::arch::{ARM_PRIVATE, X32_BIT};
use super::multiplex::CALLS;
use rows::ROWS;

/// No such call in this architecture.
const NO: u16 = u16::MAX;

/// Stands for arm's private range, far above the other numbers.
const PRIVATE: u16 = 608;

/// One more than the highest [`Slot`].
pub(super) const SLOTS: usize = 640;

/// A name of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name(u16);

/// A system call number of one architecture, made small: below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub u16);

const TEXT_BYTES: usize = {
    let (mut sum, mut i) = (0, 0);
    while i < ROWS.len() {
        sum += ROWS[i].0.len();
        i += 1;
    }
    sum
};

static TEXT: [u8; TEXT_BYTES] = {
    let mut text = [0; TEXT_BYTES];
    let (mut at, mut i) = (0, 0);
    while i < ROWS.len() {
        let name = ROWS[i].0.as_bytes();
        let mut j = 0;
        while j < name.len() {
            text[at] = name[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    text
};

/// Where each name begins in [`TEXT`], and at last where the last one ends.
static OFFSETS: [u16; ROWS.len() + 1] = {
    let mut offsets = [0; ROWS.len() + 1];
    let mut i = 0;
    while i < ROWS.len() {
        offsets[i + 1] = offsets[i] + ROWS[i].0.len() as u16;
        i += 1;
    }
    offsets
};

static NUMBERS: [[u16; Arch::ALL.len()]; ROWS.len()] = {
    let mut numbers = [[NO; Arch::ALL.len()]; ROWS.len()];
    let mut i = 0;
    while i < ROWS.len() {
        numbers[i] = ROWS[i].1;
        i += 1;
    }
    numbers
};

static NARROW: [u8; ROWS.len()] = {
    let mut masks = [0; ROWS.len()];
    let mut i = 0;
    while i < ROWS.len() {
        let indices = ROWS[i].2.as_bytes();
        let mut j = 0;
        while j < indices.len() {
            masks[i] |= 1 << (indices[j] - b'0');
            j += 1;
        }
        i += 1;
    }
    masks
};

/// One more than the index in [`CALLS`] of what 32-bit x86 has behind a multiplexer; 0 for the others.
static MULTIPLEXED: [u8; ROWS.len()] = {
    let mut multiplexed = [0; ROWS.len()];
    let mut i = 0;
    while i < CALLS.len() {
        let mut row = 0;
        while !equal(CALLS[i].0.as_bytes(), ROWS[row].0.as_bytes()) {
            row += 1;
        }
        multiplexed[row] = i as u8 + 1;
        i += 1;
    }
    multiplexed
};

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// A bit for each slot that is a system call.
static ASSIGNED: [[u64; SLOTS / 64]; Arch::ALL.len()] = {
    let mut bits = [[0; SLOTS / 64]; Arch::ALL.len()];
    let mut i = 0;
    while i < ROWS.len() {
        let mut arch = 0;
        while arch < Arch::ALL.len() {
            let number = ROWS[i].1[arch];
            if number != NO {
                bits[arch][number as usize / 64] |= 1 << (number % 64);
            }
            arch += 1;
        }
        i += 1;
    }
    bits
};

const BUCKETS: usize = 2048;

/// An open-addressed hash table of row indices.
static BUCKET: [u16; BUCKETS] = {
    let mut buckets = [NO; BUCKETS];
    let mut i = 0;
    while i < ROWS.len() {
        let mut at = bucket(ROWS[i].0.as_bytes());
        while buckets[at] != NO {
            at = (at + 1) % BUCKETS;
        }
        buckets[at] = i as u16;
        i += 1;
    }
    buckets
};

/// FNV-1a, folded.
const fn bucket(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % BUCKETS
}

/// The row of `name`, whatever architecture has it.
pub(super) fn find(name: &str) -> Option<Name> {
    let mut at = bucket(name.as_bytes());
    while BUCKET[at] != NO {
        let row = BUCKET[at] as usize;
        if &TEXT[OFFSETS[row] as usize..OFFSETS[row + 1] as usize] == name.as_bytes() {
            return Some(Name(row as u16));
        }
        at = (at + 1) % BUCKETS;
    }
    None
}

impl Name {
    /// Its slot in `arch`, where it has the call.
    pub(super) fn slot(self, arch: Arch) -> Option<Slot> {
        let number = NUMBERS[self.0 as usize][arch as usize];
        (number != NO).then_some(Slot(number))
    }

    /// The multiplexer of 32-bit x86 that also reaches the call, and the first argument that does.
    pub(super) fn multiplexed(self) -> Option<(Slot, u8)> {
        let index = MULTIPLEXED[self.0 as usize].checked_sub(1)?;
        let (_, slot, argument) = CALLS[usize::from(index)];
        Some((slot, argument))
    }

    /// The arguments that are compared on 32 bits in `arch`: bit `i` for argument `i`.
    pub(super) fn narrow(self, arch: Arch) -> u8 {
        if arch.narrow() {
            return 0b11_1111;
        }
        let mask = NARROW[self.0 as usize];
        // The compat entry points take what is `unsigned long` elsewhere as 32 bits.
        match (arch, self.slot(arch)) {
            (Arch::X32, Some(Slot(514 | 521))) => mask | 0b1111,
            _ => mask,
        }
    }
}

impl Slot {
    /// The first of arm's private calls: not above any other number as far as newness goes.
    pub(super) const PRIVATE: Slot = Slot(PRIVATE);

    /// Whether `arch` has a system call here.
    pub(super) fn assigned(self, arch: Arch) -> bool {
        ASSIGNED[arch as usize][self.0 as usize / 64] >> (self.0 % 64) & 1 != 0
    }

    /// The number as the kernel gives it to a filter.
    pub(super) fn number(self, arch: Arch) -> u32 {
        match arch {
            Arch::X32 => u32::from(self.0) | X32_BIT,
            Arch::Arm if self.0 >= PRIVATE => u32::from(self.0 - PRIVATE) + ARM_PRIVATE,
            _ => u32::from(self.0),
        }
    }
}

/// Every name, for tests.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(name: &str, arch: Arch) -> Option<u32> {
        find(name).and_then(|name| name.slot(arch)).map(|slot| slot.number(arch))
    }

    #[test]
    fn rows_are_sorted_and_found() {
        assert!(ROWS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (i, row) in ROWS.iter().enumerate() {
            assert_eq!(find(row.0), Some(Name(i as u16)), "{}", row.0);
        }
        for name in ["", "rea", "readx", "READ", "no_such_call"] {
            assert_eq!(find(name), None);
        }
    }

    #[test]
    fn each_number_has_one_name() {
        for arch in Arch::ALL {
            let mut slots: Vec<_> =
                ROWS.iter().map(|row| row.1[arch as usize]).filter(|&n| n != NO).collect();
            slots.sort_unstable();
            assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{arch:?}");
            assert!(slots.iter().all(|&slot| usize::from(slot) < SLOTS));
        }
    }

    #[test]
    fn numbers_of_old_and_new_calls() {
        assert_eq!(number("read", Arch::X86_64), Some(0));
        assert_eq!(number("read", Arch::X86), Some(3));
        assert_eq!(number("ioctl", Arch::X32), Some(0x4000_0202));
        assert_eq!(number("openat", Arch::Aarch64), Some(56));
        assert_eq!(number("open", Arch::Aarch64), None);
        assert_eq!(number("set_tls", Arch::Arm), Some(0xf0005));
        assert_eq!(number("uretprobe", Arch::X86_64), Some(335));
        assert_eq!(number("riscv_hwprobe", Arch::Riscv64), Some(258));
        for arch in Arch::ALL {
            let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
            for (name, expected) in [
                ("pidfd_send_signal", 424),
                ("statmount", 457),
                ("mseal", 462),
                ("open_tree_attr", 467),
                ("file_getattr", 468),
                ("file_setattr", 469),
                ("listns", 470),
            ] {
                assert_eq!(number(name, arch), Some(expected | bit), "{name} {arch:?}");
            }
        }
    }

    #[test]
    fn multiplexed_calls() {
        for (name, slot, argument) in CALLS {
            assert_eq!(find(name).and_then(Name::multiplexed), Some((slot, argument)), "{name}");
        }
        assert_eq!(MULTIPLEXED.iter().filter(|index| **index != 0).count(), CALLS.len());
        assert_eq!(find("socketcall").and_then(|name| name.slot(Arch::X86)), Some(Slot(102)));
        assert_eq!(find("ipc").and_then(|name| name.slot(Arch::X86)), Some(Slot(117)));
    }

    #[test]
    fn widths_of_arguments() {
        let narrow = |name, arch| find(name).map(|name| name.narrow(arch));
        assert_eq!(narrow("socket", Arch::X86_64), Some(0b111));
        assert_eq!(narrow("clone", Arch::Aarch64), Some(0b1));
        assert_eq!(narrow("personality", Arch::X86_64), Some(0b1));
        assert_eq!(narrow("ioctl", Arch::X86_64), Some(0b11));
        assert_eq!(narrow("ioctl", Arch::X32), Some(0b1111));
        assert_eq!(narrow("read", Arch::X86), Some(0b11_1111));
        assert_eq!(narrow("mmap", Arch::X86_64), Some(0));
        assert_eq!(narrow("lseek", Arch::X86_64), Some(0b101));
    }

    /// The numbers against an independent collection of them.
    #[test]
    fn numbers_agree_with_the_syscalls_crate() {
        fn agree<T>(
            arch: Arch,
            all: impl Iterator<Item = T>,
            name: fn(&T) -> &'static str,
            id: fn(&T) -> u32,
        ) {
            let mut count = 0;
            for call in all {
                let name = name(&call).trim_start_matches("r#");
                assert_eq!(number(name, arch), Some(id(&call)), "{arch:?} {name}");
                count += 1;
            }
            assert!(count > 300, "{arch:?}: {count}");
        }
        macro_rules! check {
            ($arch:expr, $module:ident) => {
                agree($arch, syscalls::$module::Sysno::iter(), |call| call.name(), |call| call.id() as u32)
            };
        }
        check!(Arch::X86_64, x86_64);
        check!(Arch::X86, x86);
        check!(Arch::Arm, arm);
        check!(Arch::Riscv64, riscv64);
        // That crate's other tables also hold names that only 32-bit kernels have. What follows the
        // kernel's generic table follows riscv64's.
        for name in ROWS.iter().map(|row| row.0) {
            let riscv = number(name, Arch::Riscv64);
            for arch in [Arch::Aarch64, Arch::Loongarch64] {
                let other = number(name, arch);
                assert!(other.is_none() || riscv.is_none() || other == riscv, "{name} {arch:?}");
            }
        }
    }
}
