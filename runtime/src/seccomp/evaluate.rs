//! Runs a classic BPF program as the kernel would, and refuses what the kernel would refuse.
//!
//! Also part of the test against libseccomp, so it knows nothing of the compiler.

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// System call number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Arguments as the registers hold them.
    pub args: [u64; 6],
}

/// `code`, `jt`, `jf`, `k`.
pub type Raw = (u16, u8, u8, u32);

/// What the kernel checks before it takes a program.
pub fn check(program: &[Raw]) -> Result<(), String> {
    if program.is_empty() || program.len() > 4096 {
        return Err(format!("{} instructions", program.len()));
    }
    for (at, &(code, jt, jf, k)) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        let fits = match code {
            0x20 => k % 4 == 0 && k < 64 && left > 0,
            0x54 => left > 0,
            0x05 => (k as usize) < left,
            0x15 | 0x25 | 0x35 | 0x45 => usize::from(jt.max(jf)) < left,
            0x06 => true,
            _ => false,
        };
        if !fits {
            return Err(format!("instruction {at}: {code:#x} {jt} {jf} {k:#x}, {left} after it"));
        }
    }
    match program.last() {
        Some((0x06, ..)) => Ok(()),
        last => Err(format!("ends with {last:x?}")),
    }
}

/// What `program` returns for `call`.
pub fn evaluate(program: &[Raw], call: &Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch,
        8 | 12 => 0,
        _ => (call.args[(offset as usize - 16) / 8] >> (8 * (offset % 8))) as u32,
    };
    let (mut at, mut a) = (0, 0);
    loop {
        let (code, jt, jf, k) = program[at];
        at += 1;
        let skip = |holds| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = word(k),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += skip(a == k),
            0x25 => at += skip(a > k),
            0x35 => at += skip(a >= k),
            0x45 => at += skip(a & k != 0),
            0x06 => return k,
            _ => unreachable!("instruction {}: {code:#x}", at - 1),
        }
    }
}
