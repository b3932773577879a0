//! Architectures: what a filter sees of them, and which can meet in one kernel.

use oci_spec::runtime::Arch as SpecArch;

/// An architecture whose system calls the compiler knows. All of them are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86, 64 bits.
    X86_64,
    /// x86, 32 bits.
    X86,
    /// x86, 64-bit registers and 32-bit pointers; told from [`Arch::X86_64`] by bit 30 of the number.
    X32,
    /// Arm, 64 bits.
    Aarch64,
    /// Arm, 32 bits, EABI.
    Arm,
    /// RISC-V, 64 bits.
    Riscv64,
    /// LoongArch, 64 bits.
    Loongarch64,
}

/// Set in every x32 system call number.
pub(super) const X32_BIT: u32 = 1 << 30;

/// Where arm's private system calls begin.
pub(super) const ARM_PRIVATE: u32 = 0x0f_0000;

impl Arch {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Arch; 7] =
        [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm, Arch::Riscv64, Arch::Loongarch64];

    /// The architecture that this program was built for.
    pub const fn native() -> Arch {
        const NATIVE: Arch = if cfg!(all(target_arch = "x86_64", target_pointer_width = "32")) {
            Arch::X32
        } else if cfg!(target_arch = "x86_64") {
            Arch::X86_64
        } else if cfg!(target_arch = "x86") {
            Arch::X86
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Arch::Aarch64
        } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
            Arch::Arm
        } else if cfg!(target_arch = "riscv64") {
            Arch::Riscv64
        } else if cfg!(target_arch = "loongarch64") {
            Arch::Loongarch64
        } else {
            panic!("no table of system calls for this architecture: add a column to seccomp/table/rows.rs")
        };
        NATIVE
    }

    /// Its name in the runtime specification.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Arm => "SCMP_ARCH_ARM",
            Arch::Riscv64 => "SCMP_ARCH_RISCV64",
            Arch::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
        }
    }

    /// What a profile's `architectures` element names: `None` where its system calls are not known.
    pub(super) const fn from_spec(arch: SpecArch, native: Arch) -> Option<Arch> {
        match arch {
            SpecArch::ScmpArchNative => Some(native),
            SpecArch::ScmpArchX86_64 => Some(Arch::X86_64),
            SpecArch::ScmpArchX86 => Some(Arch::X86),
            SpecArch::ScmpArchX32 => Some(Arch::X32),
            SpecArch::ScmpArchAarch64 => Some(Arch::Aarch64),
            SpecArch::ScmpArchArm => Some(Arch::Arm),
            SpecArch::ScmpArchRiscv64 => Some(Arch::Riscv64),
            SpecArch::ScmpArchLoongarch64 => Some(Arch::Loongarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`: the value of `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
            Arch::Loongarch64 => 0xc000_0102,
        }
    }

    /// Whether every argument is 32 bits wide.
    pub(super) const fn narrow(self) -> bool {
        matches!(self, Arch::X86 | Arch::Arm)
    }

    /// Whether a kernel that runs `self` may also run programs of `other`.
    pub(super) const fn meets(self, other: Arch) -> bool {
        self.family() == other.family()
    }

    const fn family(self) -> u8 {
        match self {
            Arch::X86_64 | Arch::X86 | Arch::X32 => 0,
            Arch::Aarch64 | Arch::Arm => 1,
            Arch::Riscv64 => 2,
            Arch::Loongarch64 => 3,
        }
    }
}
