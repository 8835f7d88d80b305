//! Programs for arm64, put together by hand: no compiler for it is needed.

/// Where programs are loaded.
const ADDRESS: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A static program: instructions, then the texts that they name.
pub(super) struct Program {
    code: Vec<u32>,
    texts: Vec<u8>,
    /// The instruction that wants the address of a text, the register, and where the text begins.
    addresses: Vec<(usize, u32, usize)>,
}

/// Numbers of calls to linux on arm64.
const OPENAT: u32 = 56;
const WRITE: u32 = 64;
const EXIT: u32 = 93;
const EXECVE: u32 = 221;

impl Program {
    fn new() -> Program {
        Program {
            code: Vec::new(),
            texts: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Executes what its arguments say; exits with 7 if it cannot.
    pub(super) fn exec() -> Program {
        let mut program = Program::new();
        program.code.extend([
            0xf940_0be0, // ldr x0, [sp, #16]: the first argument
            0x9100_43e1, // add x1, sp, #16: that and what follows
            0xf940_03e9, // ldr x9, [sp]: their count
            0x9100_43e2, // add x2, sp, #16
            0x8b09_0c42, // add x2, x2, x9, lsl #3: the environment
        ]);
        program.call(EXECVE);
        program.exit(7);
        program
    }

    /// Prints a text and writes it to a new file.
    pub(super) fn make(path: &str, text: &str) -> Program {
        let mut program = Program::new();
        let length = u32::try_from(text.len()).unwrap();
        program.number(0, 1);
        program.text(1, text);
        program.number(2, length);
        program.call(WRITE);
        program.code.push(0x9280_0c60); // mov x0, #-100: the working directory
        program.text(1, &format!("{path}\0"));
        program.number(2, 0o101); // for writing, made if it is not there
        program.number(3, 0o644);
        program.call(OPENAT);
        program.text(1, text);
        program.number(2, length);
        program.call(WRITE);
        program.exit(0);
        program
    }

    /// `mov xN, #value`
    fn number(&mut self, register: u32, value: u32) {
        self.code.push(0xd280_0000 | value << 5 | register);
    }

    /// `adr xN, text`
    fn text(&mut self, register: u32, text: &str) {
        self.addresses
            .push((self.code.len(), register, self.texts.len()));
        self.code.push(0);
        self.texts.extend(text.as_bytes());
    }

    /// `mov x8, #call; svc #0`
    fn call(&mut self, call: u32) {
        self.number(8, call);
        self.code.push(0xd400_0001);
    }

    fn exit(&mut self, code: u32) {
        self.number(0, code);
        self.call(EXIT);
    }

    /// The file.
    pub(super) fn bytes(mut self) -> Vec<u8> {
        let end = self.code.len() * 4;
        for (index, register, text) in &self.addresses {
            let offset = u32::try_from(end + text - index * 4).unwrap();
            self.code[*index] = 0x1000_0000 | (offset & 3) << 29 | (offset >> 2) << 5 | register;
        }
        let size = HEADERS + (end + self.texts.len()) as u64;
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(16, 0);
        for half in [2_u16, 183] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1_u32.to_le_bytes());
        for address in [ADDRESS + HEADERS, 64, 0] {
            file.extend(address.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        // One segment, readable and executable.
        for word in [1_u32, 5] {
            file.extend(word.to_le_bytes());
        }
        for value in [0, ADDRESS, ADDRESS, size, size, 0x1_0000] {
            file.extend(value.to_le_bytes());
        }
        for instruction in self.code {
            file.extend(instruction.to_le_bytes());
        }
        file.extend(self.texts);
        file
    }
}
