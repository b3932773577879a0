//! From rules to instructions.
//!
//! The program compares the architecture, then finds the range of system call numbers by binary
//! search: neighbours with the same outcome are one range, a number between two equal ranges costs one
//! comparison, and a return stands within a jump's reach of wherever it is needed.

use super::arch::{Arch, X32_BIT};
use super::bpf::{Assembler, Compare, Instruction, Label, Point};
use super::rules::{Chain, Condition, Outcome, Relation, Rules};
use super::table::{SLOTS, Slot};

/// Offset in bytes of `seccomp_data.nr`.
const NUMBER: u32 = 0;
/// Offset in bytes of `seccomp_data.arch`.
const ARCH: u32 = 4;
/// Offset in bytes of `seccomp_data.args`.
const ARGS: u32 = 16;

/// What an architecture that the profile does not list gets: libseccomp's choice, and so runc's.
pub(super) const BAD_ARCH: u32 = super::rules::KILL_THREAD;

/// What a range of numbers leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Return(u32),
    /// Conditions: index of the rules, index of the chain in them.
    Chain(usize, usize),
}

/// Numbers from the first member of an element to that of the next.
type Ranges = Vec<(u32, Leaf)>;

fn push(ranges: &mut Ranges, first: u32, leaf: Leaf) {
    if ranges.last().is_none_or(|last| last.1 != leaf) {
        ranges.push((first, leaf));
    }
}

/// The whole program for `rules`, of which the first is the native architecture's.
pub(super) fn program(rules: &[Rules]) -> Vec<Instruction> {
    let mut assembler = Assembler::new();
    let mut next = Point { label: assembler.ret(BAD_ARCH), word: Some(ARCH) };
    // Backwards: what the native architecture needs comes nearest to the beginning.
    for (index, first) in rules.iter().enumerate().rev() {
        let audit = first.arch.audit();
        if rules[..index].iter().any(|earlier| earlier.arch.audit() == audit) {
            continue;
        }
        let mut sharing: Vec<_> =
            rules.iter().enumerate().filter(|(_, rules)| rules.arch.audit() == audit).collect();
        sharing.sort_by_key(|(_, rules)| rules.arch == Arch::X32);
        let ranges = ranges(&sharing);
        let mut chains = vec![Vec::new(); rules.len()];
        for (index, rules) in &sharing {
            chains[*index] = vec![None; rules.chains.len()];
        }
        let mut section = Section { assembler: &mut assembler, rules, chains };
        let search = section.search(&ranges);
        let section = assembler.enter(Point { label: search, word: Some(NUMBER) }, Some(ARCH));
        let other = assembler.enter(next, Some(ARCH));
        next = Point { label: assembler.branch(Compare::Equal, audit, section, other), word: Some(ARCH) };
    }
    assembler.start(next);
    assembler.finish()
}

/// All numbers of the rules that share an `AUDIT_ARCH_*`; x32 stands last.
fn ranges(sharing: &[(usize, &Rules)]) -> Ranges {
    let mut ranges = Vec::with_capacity(256);
    for &(index, rules) in sharing {
        let arch = rules.arch;
        if arch == Arch::X32 && ranges.is_empty() {
            ranges.push((0, Leaf::Return(BAD_ARCH)));
        }
        let beyond = Leaf::Return(rules.beyond);
        for slot in (0..SLOTS as u16).map(Slot) {
            if slot == Slot::PRIVATE && arch == Arch::Arm {
                push(&mut ranges, u32::from(slot.0), beyond);
            }
            let leaf = match rules.outcome(slot) {
                Outcome::Action(action) => Leaf::Return(action),
                Outcome::Chain(chain) => Leaf::Chain(index, usize::from(chain)),
            };
            push(&mut ranges, slot.number(arch), leaf);
        }
        let end = Slot(SLOTS as u16).number(arch);
        push(&mut ranges, end, beyond);
        if arch == Arch::X86_64 {
            push(&mut ranges, X32_BIT, Leaf::Return(BAD_ARCH));
            if sharing.len() == 1 {
                // -1 is what a tracer writes to skip a call, not an x32 one.
                push(&mut ranges, u32::MAX, beyond);
            } else {
                ranges.retain(|range| range.0 < X32_BIT);
            }
        }
    }
    ranges
}

/// The code of one value of `seccomp_data.arch`.
struct Section<'a> {
    assembler: &'a mut Assembler,
    rules: &'a [Rules],
    /// Where each chain's code is, once it has been emitted.
    chains: Vec<Vec<Option<Label>>>,
}

impl Section<'_> {
    /// Code that takes the number in the accumulator to its range's leaf.
    fn search(&mut self, ranges: &[(u32, Leaf)]) -> Label {
        match ranges {
            [] => self.assembler.ret(BAD_ARCH),
            [(_, leaf)] => self.leaf(*leaf),
            [(_, left), (one, middle), (end, right)] if left == right && *end == one + 1 => {
                let outer = self.leaf(*left);
                let inner = self.leaf(*middle);
                self.assembler.branch(Compare::Equal, *one, inner, outer)
            }
            _ => {
                let (left, right) = ranges.split_at(ranges.len() / 2);
                let start = right[0].0;
                let right = self.search(right);
                let left = self.search(left);
                self.assembler.branch(Compare::GreaterOrEqual, start, right, left)
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf) -> Label {
        match leaf {
            Leaf::Return(value) => self.assembler.ret(value),
            Leaf::Chain(rules, chain) => {
                if let Some(label) = self.chains[rules][chain] {
                    return label;
                }
                let otherwise = self.rules[rules].default;
                let label = self.chain(&self.rules[rules].chains[chain], otherwise);
                self.chains[rules][chain] = Some(label);
                label
            }
        }
    }

    /// Code that takes the first rule whose conditions all hold.
    fn chain(&mut self, chain: &Chain, otherwise: u32) -> Label {
        let mut next = Point::from(self.assembler.ret(otherwise));
        for rule in chain.rules.iter().rev() {
            let mut then = Point::from(self.assembler.ret(rule.action));
            for condition in rule.conditions.iter().rev() {
                then = self.condition(condition, then, next);
            }
            next = then;
        }
        self.assembler.enter(next, None)
    }

    fn condition(&mut self, condition: &Condition, holds: Point, fails: Point) -> Point {
        let (yes, no) = if condition.negated { (fails, holds) } else { (holds, fails) };
        let low = ARGS + 8 * u32::from(condition.argument);
        let high = low + 4;
        let (value, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
        match condition.relation {
            Relation::Masked(mask) => {
                let (mask, mask_high) = (mask as u32, (mask >> 32) as u32);
                let mut point = yes;
                if mask != 0 {
                    point = self.masked(low, mask, value, point, no);
                }
                if mask_high != 0 {
                    point = self.masked(high, mask_high, value_high, point, no);
                }
                point
            }
            Relation::Greater => {
                let point = self.compare(low, Compare::Greater, value, yes, no);
                if condition.wide { self.upper(high, value_high, point, yes, no) } else { point }
            }
            Relation::GreaterOrEqual => {
                let point = self.compare(low, Compare::GreaterOrEqual, value, yes, no);
                if condition.wide { self.upper(high, value_high, point, yes, no) } else { point }
            }
        }
    }

    /// The upper half of an order: greater decides, equal leaves it to the lower half.
    fn upper(&mut self, word: u32, value: u32, equal: Point, greater: Point, less: Point) -> Point {
        let point = self.compare(word, Compare::Equal, value, equal, less);
        if value == u32::MAX { point } else { self.compare(word, Compare::Greater, value, greater, point) }
    }

    fn compare(&mut self, word: u32, compare: Compare, k: u32, yes: Point, no: Point) -> Point {
        let yes = self.assembler.enter(yes, Some(word));
        let no = self.assembler.enter(no, Some(word));
        Point { label: self.assembler.branch(compare, k, yes, no), word: Some(word) }
    }

    /// `word & mask == value`.
    fn masked(&mut self, word: u32, mask: u32, value: u32, yes: Point, no: Point) -> Point {
        if mask == u32::MAX {
            self.compare(word, Compare::Equal, value, yes, no)
        } else if value == 0 {
            self.compare(word, Compare::AnyBit, mask, no, yes)
        } else if value == mask && mask.is_power_of_two() {
            self.compare(word, Compare::AnyBit, mask, yes, no)
        } else {
            let yes = self.assembler.enter(yes, None);
            let no = self.assembler.enter(no, None);
            let test = self.assembler.branch(Compare::Equal, value, yes, no);
            Point { label: self.assembler.and(mask, test), word: Some(word) }
        }
    }
}
