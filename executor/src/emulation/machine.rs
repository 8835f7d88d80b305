//! Processors as ELF files name them, and the smallest program of each.

/// Offsets and sizes of the ELF format, for 32 and 64 bits.
struct Layout {
    header: u16,
    segment: u16,
}

const NARROW: Layout = Layout {
    header: 52,
    segment: 32,
};
const WIDE: Layout = Layout {
    header: 64,
    segment: 56,
};

/// Where the smallest programs are loaded.
const ADDRESS: u64 = 0x40_0000;
/// The kernel's `PT_LOAD` and `PT_INTERP`.
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;

/// One processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// As platforms name it.
    architecture: &'static str,
    /// As qemu names it.
    qemu: &'static str,
    is_wide: bool,
    is_big_endian: bool,
    /// ELF's `e_machine`.
    number: u16,
    /// ELF's `e_flags`: which calls of the kernel are meant.
    flags: u32,
    /// Ends the process with 0.
    code: &'static [u8],
}

/// Little-endian and of 64 bits, where nothing else is said.
const USUAL: Machine = Machine {
    architecture: "",
    qemu: "",
    is_wide: true,
    is_big_endian: false,
    number: 0,
    flags: 0,
    code: &[],
};

const MACHINES: [Machine; 9] = [
    Machine {
        architecture: "amd64",
        qemu: "x86_64",
        number: 62,
        // mov eax, 60; xor edi, edi; syscall
        code: &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05],
        ..USUAL
    },
    Machine {
        architecture: "386",
        qemu: "i386",
        is_wide: false,
        number: 3,
        // mov eax, 1; xor ebx, ebx; int 0x80
        code: &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80],
        ..USUAL
    },
    Machine {
        architecture: "arm64",
        qemu: "aarch64",
        number: 183,
        // mov x8, 93; mov x0, 0; svc 0
        code: &[
            0xa8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
        ],
        ..USUAL
    },
    Machine {
        architecture: "arm",
        qemu: "arm",
        is_wide: false,
        number: 40,
        flags: 0x0500_0000,
        // mov r7, 1; mov r0, 0; svc 0
        code: &[
            0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef,
        ],
        ..USUAL
    },
    Machine {
        architecture: "riscv64",
        qemu: "riscv64",
        number: 243,
        // li a7, 93; li a0, 0; ecall
        code: &[
            0x93, 0x08, 0xd0, 0x05, 0x13, 0x05, 0x00, 0x00, 0x73, 0x00, 0x00, 0x00,
        ],
        ..USUAL
    },
    Machine {
        architecture: "ppc64le",
        qemu: "ppc64le",
        number: 21,
        flags: 2,
        // li r0, 1; li r3, 0; sc
        code: &[
            0x01, 0x00, 0x00, 0x38, 0x00, 0x00, 0x60, 0x38, 0x02, 0x00, 0x00, 0x44,
        ],
        ..USUAL
    },
    Machine {
        architecture: "s390x",
        qemu: "s390x",
        is_big_endian: true,
        number: 22,
        // lghi %r2, 0; svc 1
        code: &[0xa7, 0x29, 0x00, 0x00, 0x0a, 0x01],
        ..USUAL
    },
    Machine {
        architecture: "mips64le",
        qemu: "mips64el",
        number: 8,
        flags: 0x8000_0000,
        // li v0, 5058; li a0, 0; syscall
        code: &[
            0xc2, 0x13, 0x02, 0x24, 0x00, 0x00, 0x04, 0x24, 0x0c, 0x00, 0x00, 0x00,
        ],
        ..USUAL
    },
    Machine {
        architecture: "loong64",
        qemu: "loongarch64",
        number: 258,
        flags: 0x43,
        // li.w $a7, 93; move $a0, $zero; syscall 0
        code: &[
            0x0b, 0x74, 0x81, 0x02, 0x04, 0x00, 0x15, 0x00, 0x00, 0x00, 0x2b, 0x00,
        ],
        ..USUAL
    },
];

impl Machine {
    /// Returns the processor of an architecture.
    pub(super) fn of(architecture: &str) -> Option<Machine> {
        MACHINES
            .into_iter()
            .find(|machine| machine.architecture == architecture)
    }

    /// Returns the architectures that are known here.
    pub(super) fn all() -> impl Iterator<Item = &'static str> {
        MACHINES.iter().map(|machine| machine.architecture)
    }

    /// Its name in letters and digits.
    pub(super) fn name(&self) -> &'static str {
        self.architecture
    }

    /// What distributions call its emulator, the static one first.
    pub(super) fn emulator(&self) -> [String; 2] {
        [
            format!("qemu-{}-static", self.qemu),
            format!("qemu-{}", self.qemu),
        ]
    }

    /// What its programs begin with, and which bits of that count: not those that tell the operating
    /// system, since linux has two, nor that between plain and position-independent programs.
    pub(super) fn magic(&self) -> (Vec<u8>, Vec<u8>) {
        let mut magic = self.identity();
        magic.extend(self.half(2));
        magic.extend(self.half(self.number));
        let mut mask = vec![0xff; 7];
        mask.push(0x00);
        mask.extend([0xff; 8]);
        mask.extend(self.half(0xfffe));
        mask.extend([0xff; 2]);
        (magic, mask)
    }

    /// The smallest program that ends with 0.
    pub(super) fn program(&self) -> Vec<u8> {
        let layout = match self.is_wide {
            true => WIDE,
            false => NARROW,
        };
        let start = u64::from(layout.header + layout.segment);
        let size = start + self.code.len() as u64;
        let mut file = self.identity();
        file.extend(self.half(2));
        file.extend(self.half(self.number));
        file.extend(self.word(1));
        file.extend(self.address(ADDRESS + start));
        file.extend(self.address(layout.header.into()));
        file.extend(self.address(0));
        file.extend(self.word(self.flags));
        for half in [layout.header, layout.segment, 1, 0, 0, 0] {
            file.extend(self.half(half));
        }
        // Readable and executable; the wide form has the flags before, the narrow one after.
        let permissions = 5;
        file.extend(self.word(LOAD));
        if self.is_wide {
            file.extend(self.word(permissions));
        }
        for address in [0, ADDRESS, ADDRESS, size, size] {
            file.extend(self.address(address));
        }
        if !self.is_wide {
            file.extend(self.word(permissions));
        }
        file.extend(self.address(0x1_0000));
        file.extend(self.code);
        file
    }

    /// The 16 bytes that begin every ELF file.
    fn identity(&self) -> Vec<u8> {
        let class = 1 + u8::from(self.is_wide);
        let order = 1 + u8::from(self.is_big_endian);
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, order, 1];
        bytes.resize(16, 0);
        bytes
    }

    fn half(&self, value: u16) -> [u8; 2] {
        match self.is_big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        }
    }

    fn word(&self, value: u32) -> [u8; 4] {
        match self.is_big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        }
    }

    fn address(&self, value: u64) -> Vec<u8> {
        match (self.is_wide, self.is_big_endian) {
            (true, true) => value.to_be_bytes().to_vec(),
            (true, false) => value.to_le_bytes().to_vec(),
            (false, _) => self.word(u32::try_from(value).unwrap_or(u32::MAX)).to_vec(),
        }
    }
}

/// Whether this is the beginning of a program of 64 bits for a little-endian processor, as every host
/// of kiln has, that needs no interpreter to be loaded.
pub(super) fn names_no_interpreter(head: &[u8]) -> bool {
    let half = |at: usize| {
        let bytes = head.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
    };
    let word = |at: usize| {
        let bytes = head.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let segments = || {
        if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
            return None;
        }
        let bytes = head.get(32..40)?;
        let table = usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()?;
        let (size, count) = (half(54)?, half(56)?);
        let mut kinds = Vec::with_capacity(count.min(256));
        for index in 0..count.min(256) {
            let at = table.checked_add(index.checked_mul(size)?)?;
            kinds.push(word(at.min(head.len()))?);
        }
        Some(kinds)
    };
    segments().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests;
